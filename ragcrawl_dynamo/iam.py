"""Generates least-privilege IAM policies for the roles of a deployment.

| role | for |
|---|---|
| admin | `initialize()`: creates tables and indexes, enables time to live, backups and auto scaling |
| migrator | `migrate()`: the same, and rewrites items of an older schema version |
| worker | everything except creating tables: crawls, commits, cleans up, deletes sites |
| reader | `get_*`, `list_*`, `iter_*`, `count_*`, `health_check()`, changes, counts and state of a frontier |

    print(json.dumps(policy(config, "worker", account="123456789012"), indent=2))

Action names are those of AWS's "Service Authorization Reference". Batches and PartiQL have actions of their
own; a transaction needs the actions of its elements. A test records the requests of each role and compares
them with its policy.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

from ragcrawl_dynamo._dynamodb.client import Access
from ragcrawl_dynamo._dynamodb.destination import partition_of
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._schema.tables import Tables
from ragcrawl_dynamo.config import DynamoDBConfig
from ragcrawl_dynamo.errors import InvalidArgumentError
from ragcrawl_dynamo.table_options import AWS_MANAGED_KEY

__all__ = ["Role", "policy"]

Role: TypeAlias = Literal["admin", "migrator", "worker", "reader"]

_TABLE_MAKERS = ("admin", "migrator")

# By role and table: actions on the table itself. `_table_statements` adds the actions that open a backend.
_ON_TABLES: dict[str, dict[str, set[str]]] = {
    "admin": {
        **{name: {"CreateTable"} for name in ("sites", "pages", "versions", "frontier")},
        # The record of the schema version is in this table.
        "runs": {"CreateTable", "GetItem", "PutItem"},
    },
    "migrator": {
        name: {"CreateTable", "Scan", "UpdateItem"}
        | ({"GetItem", "PutItem"} if name == "runs" else set())
        | ({"GetItem", "Query", "PutItem", "DeleteItem"} if name == "frontier" else set())
        for name in ("sites", "runs", "pages", "versions", "frontier")
    },
    "worker": {
        "sites": {"GetItem", "PutItem", "UpdateItem", "DeleteItem", "Scan"},
        "runs": {"GetItem", "BatchGetItem", "BatchWriteItem", "PutItem", "UpdateItem", "Query"},
        "pages": {"GetItem", "BatchGetItem", "BatchWriteItem", "PutItem", "UpdateItem", "Query"},
        "versions": {
            *("GetItem", "BatchGetItem", "BatchWriteItem", "PutItem", "UpdateItem", "DeleteItem", "Query"),
        },
        "frontier": {
            *("GetItem", "BatchGetItem", "BatchWriteItem", "PutItem", "UpdateItem", "DeleteItem", "Query"),
        },
    },
    "reader": {
        "sites": {"GetItem", "Scan"},
        "runs": {"GetItem", "BatchGetItem"},
        "pages": {"GetItem", "BatchGetItem", "Query"},
        "versions": {"GetItem", "BatchGetItem", "Query"},
        "frontier": {"GetItem", "BatchGetItem", "Query"},
    },
}

# Actions of conditional batches. Without these actions, single requests do the same.
_PARTIQL: dict[str, set[str]] = {
    "pages": {"PartiQLUpdate"},
    "versions": {"PartiQLInsert"},
    "frontier": {"PartiQLInsert", "PartiQLUpdate"},
}

# Indexes that a role reads: the migrator by Scan, the others by Query.
_ON_INDEXES: dict[str, dict[str, set[str]]] = {
    "admin": {},
    "migrator": {"frontier": {"by_queue"}},
    "worker": {
        "runs": {"by_run_id", "by_created_at"},
        "pages": {"by_url"},
        "versions": {"by_site"},
        "frontier": {"by_queue"},
    },
    "reader": {"runs": {"by_run_id", "by_created_at"}, "pages": {"by_url"}, "versions": {"by_site"}},
}

_ON_OBJECTS: dict[str, set[str]] = {
    "admin": set(),
    "migrator": set(),
    "worker": {"GetObject", "PutObject", "DeleteObject"},
    "reader": {"GetObject"},
}

# The actions that DynamoDB does with a key on behalf of a role that reads or writes a table, and of one that
# creates a table (AWS: "DynamoDB encryption at rest", authorizing use of a customer managed key).
_ON_KEY = {"Decrypt", "DescribeKey", "Encrypt", "GenerateDataKey*", "ReEncrypt*"}

# The actions that PutScalingPolicy does on behalf of its caller: each policy has alarms. And the role by
# which Application Auto Scaling changes tables: it creates the role in an account that has none (AWS:
# "Identity-based policy examples for Application Auto Scaling").
_ON_ALARMS = {"DeleteAlarms", "DescribeAlarms", "PutMetricAlarm"}
_SCALING_SERVICE = "dynamodb.application-autoscaling.amazonaws.com"
_SCALING_ROLE = "AWSServiceRoleForApplicationAutoScaling_DynamoDBTable"


def policy(
    config: DynamoDBConfig, role: Role, *, account: str = "*", partition: str | None = None
) -> dict[str, Any]:
    """Generates the least-privilege IAM policy of a role.

    Args:
        config: Has the names of the tables, the region and the content bucket, and the features that
            `initialize()` enables. Without a region, it is found as by a backend.
        role: admin, migrator, worker or reader.
        account: The AWS account of the tables; any account by default.
        partition: The AWS partition, such as "aws-us-gov"; that of the region by default.

    Returns:
        The policy document, ready for JSON.

    Raises:
        InvalidArgumentError: There is no such role.
    """
    if role not in _ON_TABLES:
        raise InvalidArgumentError("role", f"must be one of {', '.join(_ON_TABLES)}, not {role!r}")
    region = config.region or Access().find_destination(config, "DynamoDB").region
    partition = partition or partition_of(region)
    prefix = f"arn:{partition}:dynamodb:{region}:{account}:table/"
    statements = [
        _statement(
            f"{table.name.removeprefix(config.table_prefix).title()}{kind}", resources, actions, prefix
        )
        for table in Tables.of(config.table_prefix).all()
        for kind, resources, actions in _table_statements(table, config, role)
    ]
    if role == "reader":
        # A consumer stores its cursor in the pages table, and uses up the sequence numbers of commits that
        # failed. All keys of the change log begin with "#"; no key of a page does.
        log = _statement("Changes", [f"{config.table_prefix}pages"], {"PutItem"}, prefix)
        log["Condition"] = {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["#*"]}}
        statements.append(log)
    if config.content_bucket is not None:
        bucket = f"arn:{partition}:s3:::{config.content_bucket}"
        statements.append(
            {"Sid": "Bucket", "Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": [bucket]}
        )
        if actions := sorted(f"s3:{action}" for action in _ON_OBJECTS[role]):
            statements.append(
                {"Sid": "Objects", "Effect": "Allow", "Action": actions, "Resource": [f"{bucket}/*"]}
            )
    statements += _key_statements(config, role, partition, region, account)
    statements += _scaling_statements(config, role, partition, region, account)
    return {"Version": "2012-10-17", "Statement": statements}


def _table_statements(
    table: Table[Any], config: DynamoDBConfig, role: Role
) -> Iterator[tuple[str, list[str], set[str]]]:
    """Yields the statements of one table: a name, resources below `table/`, and actions."""
    name = table.name.removeprefix(config.table_prefix)
    actions = _ON_TABLES[role][name] | {"DescribeTable"} | _feature_actions(table, config, role)
    if role == "worker" and config.conditional_batches != "item":
        actions |= _PARTIQL.get(name, set())
    yield name.title(), [table.name], actions
    if indexes := _ON_INDEXES[role].get(name):
        resources = [f"{table.name}/index/{index}" for index in sorted(indexes)]
        yield f"{name.title()}Indexes", resources, {"Scan" if role == "migrator" else "Query"}


def _feature_actions(table: Table[Any], config: DynamoDBConfig, role: Role) -> set[str]:
    """Returns the actions on features that initialize() reads and, for roles that create tables, enables."""
    actions = set()
    makes_tables = role in _TABLE_MAKERS
    if table.expires_by(config) is not None:
        actions |= {"DescribeTimeToLive"} | ({"UpdateTimeToLive"} if makes_tables else set())
    if config.point_in_time_recovery:
        actions |= {"DescribeContinuousBackups"} | ({"UpdateContinuousBackups"} if makes_tables else set())
    if makes_tables:
        has_global_index = any(index.is_global for index in table.indexes)
        # Application Auto Scaling needs it from a role that registers a table.
        actions |= {"UpdateTable"} if has_global_index or config.tables.is_autoscaled else set()
        actions |= {"TagResource"} if config.tags else set()
    return actions


def _statement(sid: str, names: list[str], actions: set[str], prefix: str) -> dict[str, Any]:
    return {
        "Sid": sid,
        "Effect": "Allow",
        "Action": sorted(f"dynamodb:{action}" for action in actions),
        "Resource": [prefix + name for name in names],
    }


def _key_statements(
    config: DynamoDBConfig, role: Role, partition: str, region: str, account: str
) -> Iterator[dict[str, Any]]:
    """Yields the statement on a KMS key of the account. AWS's own keys need none."""
    key = config.tables.kms_key
    if key is None or key == AWS_MANAGED_KEY:
        return
    keys, _, name = key.rpartition(":")
    keys = keys or f"arn:{partition}:kms:{region}:{account}"
    # The key may not be used by way of other services. In China, the domain has one more part.
    condition: dict[str, Any] = {"StringLike": {"kms:ViaService": f"dynamodb.{region}.amazonaws.com*"}}
    if "alias/" in name:
        # A policy cannot name a key by its alias (AWS KMS: "Using aliases to control access").
        condition["ForAnyValue:StringEquals"] = {"kms:ResourceAliases": [name]}
        name = "key/*"
    actions = _ON_KEY | ({"CreateGrant"} if role in _TABLE_MAKERS else set())
    yield {
        "Sid": "Key",
        "Effect": "Allow",
        "Action": sorted(f"kms:{action}" for action in actions),
        "Resource": [f"{keys}:{name if name.startswith('key/') else f'key/{name}'}"],
        "Condition": condition,
    }


def _scaling_statements(
    config: DynamoDBConfig, role: Role, partition: str, region: str, account: str
) -> Iterator[dict[str, Any]]:
    """Yields the statements on Application Auto Scaling, if the settings scale a capacity."""
    if not config.tables.is_autoscaled:
        return
    yield {
        "Sid": "ScalingRead",
        "Effect": "Allow",
        "Action": [
            "application-autoscaling:DescribeScalableTargets",
            "application-autoscaling:DescribeScalingPolicies",
        ],
        # These actions know no resources.
        "Resource": ["*"],
    }
    if role not in _TABLE_MAKERS:
        return
    where = f"{region}:{account}"
    yield {
        "Sid": "Scaling",
        "Effect": "Allow",
        "Action": [
            "application-autoscaling:PutScalingPolicy",
            "application-autoscaling:RegisterScalableTarget",
        ],
        "Resource": [f"arn:{partition}:application-autoscaling:{where}:scalable-target/*"],
        "Condition": {"StringEquals": {"application-autoscaling:service-namespace": "dynamodb"}},
    }
    yield {
        "Sid": "ScalingAlarms",
        "Effect": "Allow",
        "Action": sorted(f"cloudwatch:{action}" for action in _ON_ALARMS),
        "Resource": [f"arn:{partition}:cloudwatch:{where}:alarm:TargetTracking-table/{config.table_prefix}*"],
    }
    yield {
        "Sid": "ScalingRole",
        "Effect": "Allow",
        "Action": ["iam:CreateServiceLinkedRole"],
        "Resource": [
            f"arn:{partition}:iam::{account}:role/aws-service-role/{_SCALING_SERVICE}/{_SCALING_ROLE}"
        ],
        "Condition": {"StringEquals": {"iam:AWSServiceName": _SCALING_SERVICE}},
    }
