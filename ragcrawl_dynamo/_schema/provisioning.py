"""Creates missing tables, and checks that existing ones have the keys and indexes that this version needs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.table import Index, Table
from ragcrawl_dynamo._schema.tables import Tables
from ragcrawl_dynamo._utils.concurrency import gather
from ragcrawl_dynamo.errors import (
    AccessDeniedError,
    DeadlineExceededError,
    RequestRejectedError,
    SchemaMismatchError,
    ServiceError,
    TableNotFoundError,
)

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.type_defs import TableDescriptionTypeDef

__all__ = ["TableInfo"]

logger = logging.getLogger(__name__)

# A table also serves requests while it is UPDATING, for example while an index is added.
_SERVING = frozenset({"ACTIVE", "UPDATING"})

# Seconds between two requests for the status of a table that is being created: at first, and at most.
_FIRST_POLL = 0.05
_LONGEST_POLL = 5.0

_ADD_INDEXES = "initialize(create_missing_indexes=True) adds missing global indexes"
_NEW_PREFIX = (
    "The keys of a table cannot be changed: choose another table_prefix, or move its items to a new table"
)


@dataclass(frozen=True, slots=True)
class TableInfo:
    """The description of a table. DynamoDB updates counts and sizes every six hours (AWS: DescribeTable).

    Attributes:
        name: The full name of the table.
        status: The status, such as "ACTIVE", "CREATING" or "UPDATING"; "MISSING" if there is no such table.
        items: The number of items, with those of other kinds that lie in the table.
        size_bytes: The size of the items in bytes, without indexes.
        billing: "PAY_PER_REQUEST" or "PROVISIONED"; None for a missing table.
        time_to_live: The status of the time to live, such as "ENABLED"; "not known" if the credentials do not
            allow reading it; None for a missing table and for a table that needs no time to live.
    """

    name: str
    status: str
    items: int
    size_bytes: int
    billing: str | None
    time_to_live: str | None

    @property
    def is_serving(self) -> bool:
        """Whether the table serves requests."""
        return self.status in _SERVING


async def ensure_tables(
    gateway: Gateway, tables: Tables, *, create_missing_indexes: bool = False
) -> set[str]:
    """Creates missing tables, all at the same time, and waits until all tables and indexes are active.

    Returns:
        The full names of the tables that were missing, or that another process was just creating.

    Raises:
        SchemaMismatchError: An existing table has other keys or indexes.
        DeadlineExceededError: A table did not become active within `table_timeout`.
        ServiceError: DynamoDB refused a request.
    """
    all_tables = tables.all()
    are_new = await gather(_ensure(gateway, table, create_missing_indexes) for table in all_tables)
    return {table.name for table, is_new in zip(all_tables, are_new, strict=True) if is_new}


async def require_tables(gateway: Gateway, tables: Tables) -> None:
    """Checks that all tables exist, with the keys and indexes that this version needs; changes nothing.

    Raises:
        TableNotFoundError: Tables are missing.
        SchemaMismatchError: A table has other keys or indexes.
        ServiceError: DynamoDB refused a request.
    """
    all_tables = tables.all()
    descriptions = await gather(_describe(gateway, table) for table in all_tables)
    described = list(zip(all_tables, descriptions, strict=True))
    missing = [table.name for table, description in described if description is None]
    if missing:
        raise TableNotFoundError(
            f"{len(missing)} of {len(all_tables)} tables are missing, such as {missing[0]}, at "
            f"{gateway.find_destination()}: create them with initialize() or `init`; if they should exist, "
            f"check table_prefix, region and endpoint_url",
            code="ResourceNotFoundException",
            operation="DescribeTable",
            table=missing[0],
        )
    for table, description in described:
        _check(table, description, create_missing_indexes=False)


async def describe_tables(gateway: Gateway, tables: Tables) -> list[TableInfo]:
    """Returns a description of each of the five tables.

    Raises:
        ServiceError: A request failed.
    """
    return await gather(_info(gateway, table) for table in tables.all())


async def all_active(gateway: Gateway, tables: Tables) -> bool:
    """Returns whether all five tables exist and serve requests.

    Raises:
        ServiceError: A request failed.
    """
    descriptions = await gather(_describe(gateway, table) for table in tables.all())
    return all(
        description is not None and description["TableStatus"] in _SERVING for description in descriptions
    )


async def _ensure(gateway: Gateway, table: Table[Any], create_missing_indexes: bool) -> bool:
    """Makes one table usable, with its time to live and its backups; returns whether the table is new."""
    timeout = gateway.config.table_timeout
    try:
        async with asyncio.timeout(timeout):
            is_new = await _until_active(gateway, table, create_missing_indexes)
    except TimeoutError:
        raise DeadlineExceededError(
            f"not active within table_timeout = {timeout} s: check its status, then call initialize() again",
            code="TableNotActive",
            operation="DescribeTable",
            table=table.name,
        ) from None
    if (attribute := table.expires_by(gateway.config)) is not None:
        await _enable_ttl(gateway, table, attribute)
    if gateway.config.point_in_time_recovery:
        await _enable_recovery(gateway, table)
    return is_new


async def _until_active(gateway: Gateway, table: Table[Any], create_missing_indexes: bool) -> bool:
    """Creates what is missing of a table, and waits for it; returns whether the table is new."""
    pause = _FIRST_POLL
    is_new = False
    while True:
        description = await _describe(gateway, table)
        is_new |= description is None or description["TableStatus"] == "CREATING"
        if description is None:
            await _create(gateway, table)
        elif description["TableStatus"] == "ACTIVE":
            missing = _check(table, description, create_missing_indexes)
            is_building = any(
                index["IndexStatus"] != "ACTIVE" for index in description.get("GlobalSecondaryIndexes", [])
            )
            if not missing and not is_building:
                return is_new
            if not is_building:
                await _add_index(gateway, table, missing[0], description)
        await asyncio.sleep(pause)
        pause = min(_LONGEST_POLL, pause * 1.5)


async def _describe(gateway: Gateway, table: Table[Any]) -> TableDescriptionTypeDef | None:
    try:
        return (await gateway.call("DescribeTable", {"TableName": table.name}))["Table"]
    except TableNotFoundError:
        return None


async def _create(gateway: Gateway, table: Table[Any]) -> None:
    try:
        await gateway.call("CreateTable", requests.create_table_request(table, gateway.config))
    except RequestRejectedError as error:
        # Another process was faster, or the answer to this process's first attempt was lost.
        if error.code != "ResourceInUseException":
            raise
    else:
        logger.info("created table %s", table.name)


def _check(
    table: Table[Any], description: TableDescriptionTypeDef, create_missing_indexes: bool
) -> list[Index]:
    """Checks the keys and indexes of a table; returns the global indexes that have to be added.

    Raises:
        SchemaMismatchError: The table cannot be used as it is.
    """
    existing = _names(description)
    missing = [index for index in table.indexes if index.is_global and index.name not in existing]
    differences = list(_differences(table, description))
    if differences:
        raise SchemaMismatchError(table.name, differences, _NEW_PREFIX)
    if missing and not create_missing_indexes:
        raise SchemaMismatchError(
            table.name, [f"global index {index.name} is missing" for index in missing], _ADD_INDEXES
        )
    return missing


def _names(description: TableDescriptionTypeDef) -> set[str]:
    """Returns the names of a table's global indexes."""
    return {index["IndexName"] for index in description.get("GlobalSecondaryIndexes", [])}


def _differences(table: Table[Any], description: TableDescriptionTypeDef) -> Iterator[str]:
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


async def _add_index(
    gateway: Gateway, table: Table[Any], index: Index, description: TableDescriptionTypeDef
) -> None:
    defined = description["AttributeDefinitions"]
    try:
        await gateway.call(
            "UpdateTable", requests.create_index_request(table, index, defined, gateway.config)
        )
    except RequestRejectedError as error:
        # Another process adds the index, or the answer to this process's first attempt was lost. In both
        # cases the table has the index by now.
        if error.code not in ("ResourceInUseException", "ValidationException"):
            raise
        new_description = await _describe(gateway, table)
        if new_description is None or index.name not in _names(new_description):
            raise
    else:
        logger.info("adding index %s to table %s", index.name, table.name)


async def _enable_ttl(gateway: Gateway, table: Table[Any], attribute: str) -> None:
    """Switches the time to live of a table on, unless it is on already.

    Raises:
        SchemaMismatchError: It is on for another attribute.
    """
    try:
        response = await gateway.call("DescribeTimeToLive", {"TableName": table.name})
    except AccessDeniedError as error:
        # The process that created the tables has switched it on. A worker needs no right to read it.
        logger.warning("%s: it is not known whether old items expire: %s", table.name, error)
        return
    current = response["TimeToLiveDescription"]
    if current.get("TimeToLiveStatus") in ("ENABLED", "ENABLING"):
        if current.get("AttributeName") != attribute:
            raise SchemaMismatchError(
                table.name,
                [f"time to live is on attribute {current.get('AttributeName')}, not {attribute}"],
                f"Switch it off there, or set {table.ttl_setting} to None",
            )
        return
    try:
        await gateway.call(
            "UpdateTimeToLive",
            {
                "TableName": table.name,
                "TimeToLiveSpecification": {"Enabled": True, "AttributeName": attribute},
            },
        )
    except RequestRejectedError as error:
        # Another process has switched it on since. DynamoDB also refuses a second update within an hour.
        if error.code != "ValidationException" or "already enabled" not in str(error):
            raise


async def _enable_recovery(gateway: Gateway, table: Table[Any]) -> None:
    """Switches point-in-time recovery of a table on, unless it is on already."""
    try:
        response = await gateway.call("DescribeContinuousBackups", {"TableName": table.name})
        current = response["ContinuousBackupsDescription"].get("PointInTimeRecoveryDescription", {})
        if current.get("PointInTimeRecoveryStatus") == "ENABLED":
            return
        await gateway.call(
            "UpdateContinuousBackups",
            {
                "TableName": table.name,
                "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True},
            },
        )
    except ServiceError as error:
        # DynamoDB Local has no backups. A configuration for AWS must work with it all the same.
        if error.code != "UnknownOperationException":
            raise
        logger.warning("%s: this endpoint has no point-in-time recovery", table.name)


async def _info(gateway: Gateway, table: Table[Any]) -> TableInfo:
    description = await _describe(gateway, table)
    if description is None:
        return TableInfo(table.name, "MISSING", 0, 0, None, None)
    time_to_live = None
    if table.ttl_attribute is not None:
        try:
            response = await gateway.call("DescribeTimeToLive", {"TableName": table.name})
        except AccessDeniedError:
            time_to_live = "not known"
        else:
            time_to_live = response["TimeToLiveDescription"].get("TimeToLiveStatus", "DISABLED")
    return TableInfo(
        table.name,
        description["TableStatus"],
        description.get("ItemCount", 0),
        description.get("TableSizeBytes", 0),
        # DynamoDB gives no billing mode for a table that is PROVISIONED.
        description.get("BillingModeSummary", {}).get("BillingMode", "PROVISIONED"),
        time_to_live,
    )
