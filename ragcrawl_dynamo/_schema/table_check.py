"""Checks an existing table: whether it serves requests, and has the keys and indexes of this version."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.table import Index, Table
from ragcrawl_dynamo.errors import SchemaMismatchError, TableUnusableError

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.type_defs import TableDescriptionTypeDef

# A table, or an index, also serves requests while it is UPDATING (AWS: TableDescription).
SERVING = frozenset({"ACTIVE", "UPDATING"})

# The statuses that do not end by themselves, and how to end them. DynamoDB archives a table whose key cannot
# be used for more than seven days, into a backup (AWS: TableDescription, ArchivalSummary).
_HOPELESS = {
    "INACCESSIBLE_ENCRYPTION_CREDENTIALS": (
        "DynamoDB cannot use its KMS key: enable the key, cancel its deletion, or let its policy allow "
        "DynamoDB to use it; after seven days DynamoDB archives the table"
    ),
    "ARCHIVING": (
        "DynamoDB archives it, since its KMS key could not be used for seven days: when it is ARCHIVED, "
        "delete it, and restore it from the backup that DynamoDB made"
    ),
    "ARCHIVED": (
        "DynamoDB has archived it, since its KMS key could not be used for seven days: delete it, and "
        "restore it from the backup that DynamoDB made"
    ),
}

_ADD_INDEXES = "initialize(create_missing_indexes=True) adds missing global indexes"
_NEW_PREFIX = (
    "The keys of a table cannot be changed: choose another table_prefix, or move its items to a new table"
)


def refuse_unusable(table: Table[Any], description: TableDescriptionTypeDef) -> None:
    """Refuses a table whose status will not let it serve requests by itself.

    Raises:
        TableUnusableError: The table is archived, or its KMS key cannot be used.
    """
    status = description["TableStatus"]
    if (reason := _HOPELESS.get(status)) is None:
        return
    if backup := description.get("ArchivalSummary", {}).get("ArchivalBackupArn"):
        reason += f", {backup}"
    raise TableUnusableError(
        f"the table has status {status}: {reason}",
        code=status,
        operation="DescribeTable",
        table=table.name,
    )


def unready_indexes(table: Table[Any], description: TableDescriptionTypeDef) -> list[str]:
    """Returns the global indexes of this package that exist but do not serve requests now.

    Other indexes on the same table do not count: the table serves requests while they are built.
    """
    needed = {index.name for index in table.indexes}
    return [
        index["IndexName"]
        for index in description.get("GlobalSecondaryIndexes", [])
        if index["IndexName"] in needed and index["IndexStatus"] not in SERVING
    ]


def is_changing(description: TableDescriptionTypeDef) -> bool:
    """Returns whether the table, or any index on it, is changing: DynamoDB then refuses other changes."""
    indexes = description.get("GlobalSecondaryIndexes", [])
    return description["TableStatus"] != "ACTIVE" or any(
        index["IndexStatus"] != "ACTIVE" for index in indexes
    )


def check_schema(
    table: Table[Any], description: TableDescriptionTypeDef, create_missing_indexes: bool
) -> list[Index]:
    """Checks the keys and indexes of a table; returns the global indexes that have to be added.

    Raises:
        SchemaMismatchError: The table cannot be used as it is.
    """
    existing = index_names(description)
    missing = [index for index in table.indexes if index.is_global and index.name not in existing]
    differences = list(schema_differences(table, description))
    if differences:
        raise SchemaMismatchError(table.name, differences, _NEW_PREFIX)
    if missing and not create_missing_indexes:
        raise SchemaMismatchError(
            table.name, [f"global index {index.name} is missing" for index in missing], _ADD_INDEXES
        )
    return missing


def index_names(description: TableDescriptionTypeDef) -> set[str]:
    """Returns the names of a table's global indexes."""
    return {index["IndexName"] for index in description.get("GlobalSecondaryIndexes", [])}


def schema_differences(table: Table[Any], description: TableDescriptionTypeDef) -> Iterator[str]:
    """Yields the differences that cannot be repaired, one sentence for each."""
    types = {
        attribute["AttributeName"]: attribute["AttributeType"]
        for attribute in description["AttributeDefinitions"]
    }
    yield from _key_differences("", requests.key_schema(table), description["KeySchema"], types)
    existing: dict[str, Any] = {
        index["IndexName"]: index
        for kind in ("GlobalSecondaryIndexes", "LocalSecondaryIndexes")
        for index in description.get(kind, [])  # type: ignore[attr-defined] # both are lists of mappings
    }
    for index in table.indexes:
        if (existing_index := existing.get(index.name)) is None:
            if not index.is_global:
                yield f"local index {index.name} is missing, and can only be created with its table"
            continue
        yield from _key_differences(
            f"index {index.name}: ", requests.key_schema(index), existing_index["KeySchema"], types
        )


def _key_differences(
    where: str, wanted: list[Any], existing: list[Any], types: Mapping[str, str]
) -> Iterator[str]:
    """Yields the differences between two key schemas; `where` begins the sentences."""
    wanted_text, existing_text = _schema_text(wanted), _schema_text(existing)
    if wanted_text != existing_text:
        yield f"{where}the key is {existing_text}, not {wanted_text}"
        return
    for attribute in wanted:
        name = attribute["AttributeName"]
        if types.get(name) != "S":
            yield f"{where}key attribute {name} has type {types.get(name)}, not S"


def _schema_text(key_schema: list[Any]) -> str:
    return ", ".join(f"{attribute['AttributeName']} ({attribute['KeyType']})" for attribute in key_schema)
