"""The least that a role has to be allowed on AWS, as an IAM policy.

| role | for |
|---|---|
| admin | `initialize()`: makes the tables and their indexes, switches time to live and backups on |
| worker | everything but making tables: crawls, commits, cleans up, deletes sites |
| reader | `get_*`, `list_*`, `iter_*`, `count_*`, `health_check()`, changes, a frontier's counts and state |

    print(json.dumps(policy(config, "worker", account="123456789012"), indent=2))

Actions are those of AWS's "Service Authorization Reference": batches have actions of their own, a transaction
needs those of its elements, PartiQL has its own. A test records what each role sends, and compares.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._schema.tables import Tables
from ragcrawl_dynamo.config import DynamoDBConfig
from ragcrawl_dynamo.errors import InvalidArgumentError

__all__ = ["Role", "policy"]

Role: TypeAlias = Literal["admin", "migrator", "worker", "reader"]

# By role and table, actions on the table itself. What opening a backend takes is added to each.
_ON_TABLES: dict[str, dict[str, set[str]]] = {
    "admin": {
        **{name: {"CreateTable"} for name in ("sites", "pages", "versions", "frontier")},
        # The record of the schema's version.
        "runs": {"CreateTable", "GetItem", "PutItem"},
    },
    "migrator": {
        name: {"CreateTable", "Scan", "UpdateItem"} | ({"GetItem", "PutItem"} if name == "runs" else set())
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

# Conditional batches; without them single requests do the same.
_PARTIQL: dict[str, set[str]] = {"pages": {"PartiQLUpdate"}, "frontier": {"PartiQLInsert", "PartiQLUpdate"}}

# Indexes that a role queries.
_ON_INDEXES: dict[str, dict[str, set[str]]] = {
    "admin": {},
    "migrator": {},
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


def policy(
    config: DynamoDBConfig, role: Role, *, account: str = "*", partition: str = "aws"
) -> dict[str, Any]:
    """The IAM policy of a role, as JSON.

    Args:
        config: Names the tables, the region and the content bucket, and says what initialize() switches on.
        role: admin, migrator, worker or reader.
        account: AWS account of the tables; any by default.
        partition: "aws-cn" or "aws-us-gov" outside of AWS's main partition.

    Raises:
        InvalidArgumentError: There is no such role.
    """
    if role not in _ON_TABLES:
        raise InvalidArgumentError("role", f"must be one of {', '.join(_ON_TABLES)}, not {role!r}")
    prefix = f"arn:{partition}:dynamodb:{config.region}:{account}:table/"
    statements = [
        _statement(
            f"{table.name.removeprefix(config.table_prefix).title()}{kind}", resources, actions, prefix
        )
        for table in Tables.of(config.table_prefix).all()
        for kind, resources, actions in _of_table(table, config, role)
    ]
    if role == "reader":
        # A consumer keeps its cursor there, and uses up the numbers of commits that failed. All keys of the
        # log of changes begin with "#"; no page's does.
        log = _statement("Changes", [f"{config.table_prefix}pages"], {"PutItem"}, prefix)
        log["Condition"] = {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["#*"]}}
        statements.append(log)
    if config.content_bucket is not None:
        bucket = f"arn:{partition}:s3:::{config.content_bucket}"
        statements.append(
            {"Sid": "Bucket", "Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": [bucket]}
        )
        if actions := sorted(f"s3:{each}" for each in _ON_OBJECTS[role]):
            statements.append(
                {"Sid": "Objects", "Effect": "Allow", "Action": actions, "Resource": [f"{bucket}/*"]}
            )
    return {"Version": "2012-10-17", "Statement": statements}


def _of_table(
    table: Table[Any], config: DynamoDBConfig, role: Role
) -> Iterator[tuple[str, list[str], set[str]]]:
    """Statements of one table: a name, resources below `table/`, and actions."""
    name = table.name.removeprefix(config.table_prefix)
    actions = _ON_TABLES[role][name] | {"DescribeTable"} | _of_features(table, config, role)
    if role == "worker" and config.conditional_batches != "item":
        actions |= _PARTIQL.get(name, set())
    yield name.title(), [table.name], actions
    if indexes := _ON_INDEXES[role].get(name):
        yield f"{name.title()}Indexes", [f"{table.name}/index/{each}" for each in sorted(indexes)], {"Query"}


def _of_features(table: Table[Any], config: DynamoDBConfig, role: Role) -> set[str]:
    """What initialize() looks at and, for who may, switches on."""
    actions = set()
    makes_tables = role in ("admin", "migrator")
    if table.expires_by(config) is not None:
        actions |= {"DescribeTimeToLive"} | ({"UpdateTimeToLive"} if makes_tables else set())
    if config.point_in_time_recovery:
        actions |= {"DescribeContinuousBackups"} | ({"UpdateContinuousBackups"} if makes_tables else set())
    if makes_tables:
        actions |= {"UpdateTable"} if any(each.is_global for each in table.indexes) else set()
        actions |= {"TagResource"} if config.tags else set()
    return actions


def _statement(sid: str, names: list[str], actions: set[str], prefix: str) -> dict[str, Any]:
    return {
        "Sid": sid,
        "Effect": "Allow",
        "Action": sorted(f"dynamodb:{each}" for each in actions),
        "Resource": [prefix + each for each in names],
    }
