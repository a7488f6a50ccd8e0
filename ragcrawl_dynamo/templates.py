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
from ragcrawl_dynamo._schema.autoscaling import (
    POLICY_NAME,
    ScaledCapacity,
    policy_request,
    scaled_capacities,
    target_request,
)
from ragcrawl_dynamo._schema.tables import Tables
from ragcrawl_dynamo.config import DynamoDBConfig
from ragcrawl_dynamo.table_options import AWS_MANAGED_KEY

__all__ = ["cloudformation", "terraform"]

_TRACKING = "TargetTrackingScalingPolicyConfiguration"

# Terraform's names of the limits of a table or an index.
_LIMITS = {
    "OnDemandThroughput": (
        "on_demand_throughput",
        {"MaxReadRequestUnits": "max_read_request_units", "MaxWriteRequestUnits": "max_write_request_units"},
    ),
    "WarmThroughput": (
        "warm_throughput",
        {"ReadUnitsPerSecond": "read_units_per_second", "WriteUnitsPerSecond": "write_units_per_second"},
    ),
}


def cloudformation(config: DynamoDBConfig) -> dict[str, Any]:
    """Generates a CloudFormation template.

    Args:
        config: Has the names of the tables, their billing, tags, protection and time to live, and the other
            options of `TableOptions`.

    Returns:
        The template, ready for JSON.
    """
    resources: dict[str, Any] = {}
    for table in Tables.of(config.table_prefix).all():
        name = f"{_plain_name(table, config).title()}Table"
        resources[name] = {
            "Type": "AWS::DynamoDB::Table",
            "DeletionPolicy": "Retain",
            "UpdateReplacePolicy": "Retain",
            "Properties": _cloudformation_table(table, config),
        }
        for capacity in scaled_capacities(table, config):
            resources |= _cloudformation_scaling(capacity, name, config)
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "The tables of ragcrawl_dynamo",
        "Resources": resources,
    }


def terraform(config: DynamoDBConfig) -> dict[str, Any]:
    """Generates a Terraform configuration in JSON syntax. Save it as `*.tf.json`.

    Args:
        config: See `cloudformation`.

    Returns:
        The configuration, ready for JSON.
    """
    tables = Tables.of(config.table_prefix).all()
    resources: dict[str, Any] = {
        "aws_dynamodb_table": {
            _plain_name(table, config): _terraform_table(table, config) for table in tables
        }
    }
    if config.tables.is_autoscaled:
        capacities = {
            _scaling_name(capacity, config): (capacity, _plain_name(table, config))
            for table in tables
            for capacity in scaled_capacities(table, config)
        }
        resources["aws_appautoscaling_target"] = {
            name: _terraform_target(capacity, table) for name, (capacity, table) in capacities.items()
        }
        resources["aws_appautoscaling_policy"] = {
            name: _terraform_policy(capacity, name) for name, (capacity, _) in capacities.items()
        }
    document: dict[str, Any] = {
        "terraform": {
            "required_providers": {"aws": {"source": "hashicorp/aws", "version": _provider_version(config)}}
        },
        "resource": resources,
    }
    if _needs_key_lookup(config.tables.kms_key):
        document["data"] = {"aws_kms_key": {"tables": {"key_id": config.tables.kms_key}}}
    return document


def _cloudformation_table(table: Table[Any], config: DynamoDBConfig) -> dict[str, Any]:
    properties: dict[str, Any] = {
        **create_table_request(table, config),
        "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": config.point_in_time_recovery},
    }
    # These two have other fields here than in DynamoDB.
    if (encryption := properties.get("SSESpecification")) is not None:
        renamed = {"SSEEnabled" if name == "Enabled" else name: value for name, value in encryption.items()}
        properties["SSESpecification"] = renamed
    if (stream := properties.get("StreamSpecification")) is not None:
        properties["StreamSpecification"] = {"StreamViewType": stream["StreamViewType"]}
    if (name := table.expires_by(config)) is not None:
        properties["TimeToLiveSpecification"] = {"AttributeName": name, "Enabled": True}
    return properties


def _cloudformation_scaling(
    capacity: ScaledCapacity, table: str, config: DynamoDBConfig
) -> dict[str, dict[str, Any]]:
    """Returns the resources that scale a capacity of the table whose resource has the name `table`."""
    name = "".join(part.title() for part in _scaling_name(capacity, config).split("_"))
    policy = policy_request(capacity)
    return {
        f"{name}Target": {
            "Type": "AWS::ApplicationAutoScaling::ScalableTarget",
            "DependsOn": table,
            "Properties": target_request(capacity),
        },
        f"{name}Policy": {
            "Type": "AWS::ApplicationAutoScaling::ScalingPolicy",
            "Properties": {
                **{key: policy[key] for key in ("PolicyName", "PolicyType", _TRACKING)},
                "ScalingTargetId": {"Ref": f"{name}Target"},
            },
        },
    }


def _terraform_table(table: Table[Any], config: DynamoDBConfig) -> dict[str, Any]:
    request: Any = create_table_request(table, config)
    resource: dict[str, Any] = {
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
        **_throughput(request),
    }
    if indexes := request.get("GlobalSecondaryIndexes"):
        resource["global_secondary_index"] = [
            {**_index(index), **_keys(index), **_throughput(index)} for index in indexes
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
    if (encryption := request.get("SSESpecification")) is not None:
        resource["server_side_encryption"] = [{"enabled": True, **_terraform_key(encryption)}]
    if "TableClass" in request:
        resource["table_class"] = request["TableClass"]
    if (stream := request.get("StreamSpecification")) is not None:
        resource |= {"stream_enabled": True, "stream_view_type": stream["StreamViewType"]}
    if config.tables.is_autoscaled:
        # Terraform would set back what Application Auto Scaling has set.
        scaled = ["read_capacity", "write_capacity", "global_secondary_index"]
        resource["lifecycle"]["ignore_changes"] = scaled
    return resource


def _terraform_key(encryption: dict[str, Any]) -> dict[str, str]:
    key = encryption.get("KMSMasterKeyId")
    if key is None:
        return {}
    return {"kms_key_arn": "${data.aws_kms_key.tables.arn}" if _needs_key_lookup(key) else key}


def _needs_key_lookup(key: str | None) -> bool:
    """Returns whether Terraform has to look up the ARN of a key: it takes no other name of it."""
    return key is not None and key != AWS_MANAGED_KEY and ":key/" not in key


def _terraform_target(capacity: ScaledCapacity, table: str) -> dict[str, Any]:
    return {
        "service_namespace": "dynamodb",
        "resource_id": capacity.resource,
        "scalable_dimension": capacity.dimension,
        "min_capacity": capacity.smallest,
        "max_capacity": capacity.largest,
        "depends_on": [f"aws_dynamodb_table.{table}"],
    }


def _terraform_policy(capacity: ScaledCapacity, name: str) -> dict[str, Any]:
    target = f"aws_appautoscaling_target.{name}"
    return {
        "name": POLICY_NAME,
        "policy_type": "TargetTrackingScaling",
        **{
            field: f"${{{target}.{field}}}"
            for field in ("service_namespace", "resource_id", "scalable_dimension")
        },
        "target_tracking_scaling_policy_configuration": [
            {
                "target_value": capacity.target,
                "predefined_metric_specification": [{"predefined_metric_type": capacity.metric}],
            }
        ],
    }


def _provider_version(config: DynamoDBConfig) -> str:
    """Returns which versions of Terraform's provider know the options that are set."""
    options = config.tables
    limits = (
        *(options.on_demand_max_read, options.on_demand_max_write),
        *(options.warm_read, options.warm_write),
    )
    return ">= 5.0" if limits == (None,) * 4 else ">= 6.13"


def _scaling_name(capacity: ScaledCapacity, config: DynamoDBConfig) -> str:
    """Returns a name such as "pages_by_url_read" for a capacity."""
    table, _, index = capacity.resource.removeprefix(f"table/{config.table_prefix}").partition("/index/")
    way = "read" if "Read" in capacity.dimension else "write"
    return "_".join(part for part in (table, index, way) if part)


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


def _throughput(definition: dict[str, Any]) -> dict[str, Any]:
    """Returns the capacity and the limits of a table or an index."""
    block: dict[str, Any] = {}
    if (throughput := definition.get("ProvisionedThroughput")) is not None:
        block["read_capacity"] = throughput["ReadCapacityUnits"]
        block["write_capacity"] = throughput["WriteCapacityUnits"]
    for name, fields in _LIMITS.items():
        if (limits := definition.get(name)) is not None:
            block_name, names = fields
            block[block_name] = [{names[field]: value for field, value in limits.items()}]
    return block
