"""Makes the tables that are missing, and proves that those which exist are as this version needs them."""

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

# A table that is UPDATING, a new index for one, serves requests all the while.
_SERVING = frozenset({"ACTIVE", "UPDATING"})

_FIRST_POLL = 0.05
_LONGEST_POLL = 5.0

_ADD_INDEXES = "initialize(create_missing_indexes=True) adds missing global indexes"
_NEW_PREFIX = (
    "The keys of a table can not be changed: choose another table_prefix, or move its items to a new table"
)


@dataclass(frozen=True, slots=True)
class TableInfo:
    """What DynamoDB says of a table; counts and sizes are some six hours old (AWS: DescribeTable).

    Attributes:
        name: In full.
        status: "ACTIVE", "CREATING", "UPDATING" and so on, or "MISSING".
        items: How many, those of other kinds than the table's name says included.
        size_bytes: What they take, without indexes.
        billing: "PAY_PER_REQUEST" or "PROVISIONED"; None for a missing table.
        time_to_live: Its status, "not known" without the right to look; None for a table that needs none.
    """

    name: str
    status: str
    items: int
    size_bytes: int
    billing: str | None
    time_to_live: str | None

    @property
    def is_serving(self) -> bool:
        """Whether it takes requests."""
        return self.status in _SERVING


async def ensure_tables(
    gateway: Gateway, tables: Tables, *, create_missing_indexes: bool = False
) -> set[str]:
    """Makes all tables concurrently and waits until they and their indexes are active.

    Returns:
        Full names of those that were not there, or only just being made.

    Raises:
        SchemaMismatchError: A table exists with other keys or indexes.
        DeadlineExceededError: A table is not active within `table_timeout`.
        ServiceError: DynamoDB refused a request.
    """
    every = tables.all()
    new = await gather(_ensure(gateway, table, create_missing_indexes) for table in every)
    return {table.name for table, is_new in zip(every, new, strict=True) if is_new}


async def require_tables(gateway: Gateway, tables: Tables) -> None:
    """Proves that all tables are there and as they have to be; changes nothing.

    Raises:
        TableNotFoundError: Some are missing.
        SchemaMismatchError: A table has other keys or indexes.
        ServiceError: DynamoDB refused a request.
    """
    every = tables.all()
    found = await gather(_describe(gateway, table) for table in every)
    missing = [table.name for table, description in zip(every, found, strict=True) if description is None]
    if missing:
        raise TableNotFoundError(
            f"{len(missing)} of {len(every)} tables are missing, {missing[0]} for one: initialize(), or "
            f"`init`, makes them; if they should be there, check table_prefix, region and endpoint_url",
            code="ResourceNotFoundException",
            operation="DescribeTable",
            table=missing[0],
        )
    for table, description in zip(every, found, strict=True):
        _check(table, description, create_missing_indexes=False)


async def describe_tables(gateway: Gateway, tables: Tables) -> list[TableInfo]:
    """What DynamoDB says of each of the five tables.

    Raises:
        ServiceError: A request failed.
    """
    return await gather(_info(gateway, table) for table in tables.all())


async def all_active(gateway: Gateway, tables: Tables) -> bool:
    """Whether all five tables exist and serve requests.

    Raises:
        ServiceError: A request failed.
    """
    found = await gather(_describe(gateway, table) for table in tables.all())
    return all(each is not None and each["TableStatus"] in _SERVING for each in found)


async def _info(gateway: Gateway, table: Table[Any]) -> TableInfo:
    found = await _describe(gateway, table)
    if found is None:
        return TableInfo(table.name, "MISSING", 0, 0, None, None)
    ttl = None
    if table.ttl_attribute is not None:
        try:
            response = await gateway.call("DescribeTimeToLive", {"TableName": table.name})
        except AccessDeniedError:
            ttl = "not known"
        else:
            ttl = response["TimeToLiveDescription"].get("TimeToLiveStatus", "DISABLED")
    return TableInfo(
        table.name,
        found["TableStatus"],
        found.get("ItemCount", 0),
        found.get("TableSizeBytes", 0),
        # DynamoDB leaves it out where it is PROVISIONED.
        found.get("BillingModeSummary", {}).get("BillingMode", "PROVISIONED"),
        ttl,
    )


async def _ensure(gateway: Gateway, table: Table[Any], create_missing_indexes: bool) -> bool:
    """Whether the table was not there, or only just being made."""
    timeout = gateway.config.table_timeout
    try:
        async with asyncio.timeout(timeout):
            is_new = await _until_active(gateway, table, create_missing_indexes)
    except TimeoutError as error:
        raise DeadlineExceededError(
            f"not active within table_timeout = {timeout} s: look at its status, then initialize() again",
            code="TableNotActive",
            operation="DescribeTable",
            table=table.name,
        ) from error
    if (attribute := table.expires_by(gateway.config)) is not None:
        await _enable_ttl(gateway, table, attribute)
    if gateway.config.point_in_time_recovery:
        await _enable_recovery(gateway, table)
    return is_new


async def _until_active(gateway: Gateway, table: Table[Any], create_missing_indexes: bool) -> bool:
    pause = _FIRST_POLL
    is_new = False
    while True:
        description = await _describe(gateway, table)
        is_new |= description is None or description["TableStatus"] == "CREATING"
        if description is None:
            await _create(gateway, table)
        elif description["TableStatus"] == "ACTIVE":
            missing = _check(table, description, create_missing_indexes)
            building = [
                each
                for each in description.get("GlobalSecondaryIndexes", [])
                if each["IndexStatus"] != "ACTIVE"
            ]
            if not missing and not building:
                return is_new
            if not building:
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
        # Another process was faster, or the answer to our own first attempt was lost.
        if error.code != "ResourceInUseException":
            raise
    else:
        logger.info("created table %s", table.name)


async def _add_index(
    gateway: Gateway, table: Table[Any], index: Index, found: TableDescriptionTypeDef
) -> None:
    defined = found["AttributeDefinitions"]
    try:
        await gateway.call(
            "UpdateTable", requests.create_index_request(table, index, defined, gateway.config)
        )
    except RequestRejectedError as error:
        # Another process adds it, or the answer to our own first attempt was lost; the next poll tells.
        if error.code not in ("ResourceInUseException", "ValidationException"):
            raise
        description = await _describe(gateway, table)
        if description is None or index.name not in _names(description, "GlobalSecondaryIndexes"):
            raise
    else:
        logger.info("adding index %s to table %s", index.name, table.name)


def _check(table: Table[Any], found: TableDescriptionTypeDef, create_missing_indexes: bool) -> list[Index]:
    """The global indexes to add.

    Raises:
        SchemaMismatchError: The table can not be used as it is.
    """
    missing = [
        each
        for each in table.indexes
        if each.is_global and each.name not in _names(found, "GlobalSecondaryIndexes")
    ]
    differences = list(_differences(table, found))
    if differences:
        raise SchemaMismatchError(table.name, differences, _NEW_PREFIX)
    if missing and not create_missing_indexes:
        raise SchemaMismatchError(
            table.name, [f"global index {each.name} is missing" for each in missing], _ADD_INDEXES
        )
    return missing


def _differences(table: Table[Any], found: TableDescriptionTypeDef) -> Iterator[str]:
    types = {each["AttributeName"]: each["AttributeType"] for each in found["AttributeDefinitions"]}
    yield from _key_differences("", requests.key_schema(table), found["KeySchema"], types)
    present: dict[str, Any] = {
        each["IndexName"]: each
        for kind in ("GlobalSecondaryIndexes", "LocalSecondaryIndexes")
        for each in found.get(kind, [])  # type: ignore[attr-defined] # both are lists of mappings
    }
    for index in table.indexes:
        if (other := present.get(index.name)) is None:
            if not index.is_global:
                yield f"local index {index.name} is missing, and can only be made with its table"
            continue
        yield from _key_differences(
            f"index {index.name}: ", requests.key_schema(index), other["KeySchema"], types
        )


def _key_differences(
    where: str, wanted: list[Any], found: list[Any], types: Mapping[str, str]
) -> Iterator[str]:
    def shown(schema: list[Any]) -> str:
        return ", ".join(f"{each['AttributeName']} ({each['KeyType']})" for each in schema)

    if shown(wanted) != shown(found):
        yield f"{where}the key is {shown(found)}, not {shown(wanted)}"
        return
    for each in wanted:
        kind = types.get(each["AttributeName"])
        if kind != "S":
            yield f"{where}key attribute {each['AttributeName']} has type {kind}, not S"


def _names(description: TableDescriptionTypeDef, kind: str) -> set[str]:
    return {each["IndexName"] for each in description.get(kind, [])}  # type: ignore[attr-defined] # as above


async def _enable_ttl(gateway: Gateway, table: Table[Any], attribute: str) -> None:
    try:
        response = await gateway.call("DescribeTimeToLive", {"TableName": table.name})
    except AccessDeniedError as error:
        # Whoever made the tables has switched it on; a worker need not be able to look.
        logger.warning("%s: whether old items expire is not known: %s", table.name, error)
        return
    found = response["TimeToLiveDescription"]
    if found.get("TimeToLiveStatus") in ("ENABLED", "ENABLING"):
        if found.get("AttributeName") != attribute:
            raise SchemaMismatchError(
                table.name,
                [f"time to live is on attribute {found.get('AttributeName')}, not {attribute}"],
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
        # Another process switched it on since; a second switch within the hour is refused too.
        if error.code != "ValidationException" or "already enabled" not in str(error):
            raise


async def _enable_recovery(gateway: Gateway, table: Table[Any]) -> None:
    try:
        response = await gateway.call("DescribeContinuousBackups", {"TableName": table.name})
        found = response["ContinuousBackupsDescription"].get("PointInTimeRecoveryDescription", {})
        if found.get("PointInTimeRecoveryStatus") == "ENABLED":
            return
        await gateway.call(
            "UpdateContinuousBackups",
            {
                "TableName": table.name,
                "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True},
            },
        )
    except ServiceError as error:
        # DynamoDB Local has no backups; what is configured for AWS must still run against it.
        if error.code != "UnknownOperationException":
            raise
        logger.warning("%s: this endpoint has no point-in-time recovery", table.name)
