"""Generates least-privilege IAM policies for the roles of a deployment.

| role | for |
|---|---|
| admin | `initialize()`: creates the tables and their indexes, enables time to live and backups |
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

__all__ = ["Role", "policy"]

Role: TypeAlias = Literal["admin", "migrator", "worker", "reader"]

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
    makes_tables = role in ("admin", "migrator")
    if table.expires_by(config) is not None:
        actions |= {"DescribeTimeToLive"} | ({"UpdateTimeToLive"} if makes_tables else set())
    if config.point_in_time_recovery:
        actions |= {"DescribeContinuousBackups"} | ({"UpdateContinuousBackups"} if makes_tables else set())
    if makes_tables:
        actions |= {"UpdateTable"} if any(index.is_global for index in table.indexes) else set()
        actions |= {"TagResource"} if config.tags else set()
    return actions


def _statement(sid: str, names: list[str], actions: set[str], prefix: str) -> dict[str, Any]:
    return {
        "Sid": sid,
        "Effect": "Allow",
        "Action": sorted(f"dynamodb:{action}" for action in actions),
        "Resource": [prefix + name for name in names],
    }
