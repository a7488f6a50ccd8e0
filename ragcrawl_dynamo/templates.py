"""The tables as infrastructure code, from the very definitions by which `initialize()` makes them.

    print(json.dumps(ragcrawl_dynamo.templates.cloudformation(config), indent=2))

Both keep the tables when they are taken out of a stack. The version of their schema is recorded by the first
`initialize()`, or by `migrate()`, which takes tables without a record for those of the first version.
"""

from __future__ import annotations

from typing import Any

from ragcrawl_dynamo._dynamodb.requests import create_table_request
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._schema.tables import Tables
from ragcrawl_dynamo.config import DynamoDBConfig

__all__ = ["cloudformation", "terraform"]


def cloudformation(config: DynamoDBConfig) -> dict[str, Any]:
    """A CloudFormation template, as JSON.

    Args:
        config: Names the tables, and says how they are billed, tagged, protected and expire.
    """
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "The tables of ragcrawl_dynamo",
        "Resources": {
            f"{_plain_name(table, config).title()}Table": {
                "Type": "AWS::DynamoDB::Table",
                "DeletionPolicy": "Retain",
                "UpdateReplacePolicy": "Retain",
                "Properties": _cloudformation_table(table, config),
            }
            for table in Tables.of(config.table_prefix).all()
        },
    }


def terraform(config: DynamoDBConfig) -> dict[str, Any]:
    """A Terraform configuration in JSON syntax, to be saved as `*.tf.json`.

    Args:
        config: See `cloudformation`.
    """
    return {
        "terraform": {"required_providers": {"aws": {"source": "hashicorp/aws", "version": ">= 5.0"}}},
        "resource": {
            "aws_dynamodb_table": {
                _plain_name(table, config): _terraform_table(table, config)
                for table in Tables.of(config.table_prefix).all()
            }
        },
    }


def _cloudformation_table(table: Table[Any], config: DynamoDBConfig) -> dict[str, Any]:
    found: dict[str, Any] = {
        **create_table_request(table, config),
        "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": config.point_in_time_recovery},
    }
    if (name := table.expires_by(config)) is not None:
        found["TimeToLiveSpecification"] = {"AttributeName": name, "Enabled": True}
    return found


def _terraform_table(table: Table[Any], config: DynamoDBConfig) -> dict[str, Any]:
    request: Any = create_table_request(table, config)
    found = {
        "name": request["TableName"],
        "billing_mode": request["BillingMode"],
        **_keys(request),
        "attribute": [
            {"name": each["AttributeName"], "type": each["AttributeType"]}
            for each in request["AttributeDefinitions"]
        ],
        "deletion_protection_enabled": request["DeletionProtectionEnabled"],
        "point_in_time_recovery": [{"enabled": config.point_in_time_recovery}],
        "lifecycle": {"prevent_destroy": True},
        **_capacity(request),
    }
    if indexes := request.get("GlobalSecondaryIndexes"):
        found["global_secondary_index"] = [
            {**_index(each), **_keys(each), **_capacity(each)} for each in indexes
        ]
    if indexes := request.get("LocalSecondaryIndexes"):
        # Its partition key is the table's.
        found["local_secondary_index"] = [
            {**_index(each), "range_key": _keys(each)["range_key"]} for each in indexes
        ]
    if (name := table.expires_by(config)) is not None:
        found["ttl"] = [{"attribute_name": name, "enabled": True}]
    if config.tags:
        found["tags"] = config.tags
    return found


def _plain_name(table: Table[Any], config: DynamoDBConfig) -> str:
    return table.name.removeprefix(config.table_prefix)


def _index(definition: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": definition["IndexName"],
        "projection_type": definition["Projection"]["ProjectionType"],
    }


def _keys(definition: dict[str, Any]) -> dict[str, str]:
    kinds = {"HASH": "hash_key", "RANGE": "range_key"}
    return {kinds[each["KeyType"]]: each["AttributeName"] for each in definition["KeySchema"]}


def _capacity(definition: dict[str, Any]) -> dict[str, int]:
    throughput = definition.get("ProvisionedThroughput")
    if throughput is None:
        return {}
    return {
        "read_capacity": throughput["ReadCapacityUnits"],
        "write_capacity": throughput["WriteCapacityUnits"],
    }
