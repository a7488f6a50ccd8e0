"""Generates CloudFormation and Terraform code from the table definitions that `initialize()` uses.

    print(json.dumps(ragcrawl_dynamo.templates.cloudformation(config), indent=2))

Both templates keep the tables when they are removed from a stack. Call `migrate()` once after the tables are
created: it records the schema version. Tables without a recorded version count as tables of version 1, and
`initialize()` refuses them.
"""

from __future__ import annotations

from typing import Any

from ragcrawl_dynamo._dynamodb.requests import create_table_request
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._schema.tables import Tables
from ragcrawl_dynamo.config import DynamoDBConfig

__all__ = ["cloudformation", "terraform"]


def cloudformation(config: DynamoDBConfig) -> dict[str, Any]:
    """Generates a CloudFormation template.

    Args:
        config: Has the names of the tables, and their billing, tags, protection and time to live.

    Returns:
        The template, ready for JSON.
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
    """Generates a Terraform configuration in JSON syntax. Save it as `*.tf.json`.

    Args:
        config: See `cloudformation`.

    Returns:
        The configuration, ready for JSON.
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
    properties: dict[str, Any] = {
        **create_table_request(table, config),
        "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": config.point_in_time_recovery},
    }
    if (name := table.expires_by(config)) is not None:
        properties["TimeToLiveSpecification"] = {"AttributeName": name, "Enabled": True}
    return properties


def _terraform_table(table: Table[Any], config: DynamoDBConfig) -> dict[str, Any]:
    request: Any = create_table_request(table, config)
    resource = {
        "name": request["TableName"],
        "billing_mode": request["BillingMode"],
        **_keys(request),
        "attribute": [
            {"name": attribute["AttributeName"], "type": attribute["AttributeType"]}
            for attribute in request["AttributeDefinitions"]
        ],
        "deletion_protection_enabled": request["DeletionProtectionEnabled"],
        "point_in_time_recovery": [{"enabled": config.point_in_time_recovery}],
        "lifecycle": {"prevent_destroy": True},
        **_capacity(request),
    }
    if indexes := request.get("GlobalSecondaryIndexes"):
        resource["global_secondary_index"] = [
            {**_index(index), **_keys(index), **_capacity(index)} for index in indexes
        ]
    if indexes := request.get("LocalSecondaryIndexes"):
        # A local index has the partition key of its table.
        resource["local_secondary_index"] = [
            {**_index(index), "range_key": _keys(index)["range_key"]} for index in indexes
        ]
    if (name := table.expires_by(config)) is not None:
        resource["ttl"] = [{"attribute_name": name, "enabled": True}]
    if config.tags:
        resource["tags"] = config.tags
    return resource


def _plain_name(table: Table[Any], config: DynamoDBConfig) -> str:
    return table.name.removeprefix(config.table_prefix)


def _index(definition: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": definition["IndexName"],
        "projection_type": definition["Projection"]["ProjectionType"],
    }


def _keys(definition: dict[str, Any]) -> dict[str, str]:
    kinds = {"HASH": "hash_key", "RANGE": "range_key"}
    return {kinds[key["KeyType"]]: key["AttributeName"] for key in definition["KeySchema"]}


def _capacity(definition: dict[str, Any]) -> dict[str, int]:
    throughput = definition.get("ProvisionedThroughput")
    if throughput is None:
        return {}
    return {
        "read_capacity": throughput["ReadCapacityUnits"],
        "write_capacity": throughput["WriteCapacityUnits"],
    }
