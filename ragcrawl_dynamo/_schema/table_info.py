"""Describes the tables to operators: their status, their sizes, and where they differ from the settings."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._schema.autoscaling import Scaling
from ragcrawl_dynamo._schema.drift import FoundTable, differences
from ragcrawl_dynamo._schema.table_check import SERVING
from ragcrawl_dynamo._schema.table_features import has_recovery, read_time_to_live
from ragcrawl_dynamo._schema.tables import Tables
from ragcrawl_dynamo._utils.concurrency import gather
from ragcrawl_dynamo.errors import AccessDeniedError, ServiceError, TableNotFoundError

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.type_defs import TableDescriptionTypeDef, TimeToLiveDescriptionTypeDef

__all__ = ["TableInfo"]

T = TypeVar("T")


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
        differences: The differences between the table and the settings, one line for each, such as
            "ragcrawl_pages: billing_mode is PROVISIONED, the settings say PAY_PER_REQUEST". What the
            credentials do not allow reading is left out. Tags are not compared.
    """

    name: str
    status: str
    items: int
    size_bytes: int
    billing: str | None
    time_to_live: str | None
    differences: tuple[str, ...] = ()

    @property
    def is_serving(self) -> bool:
        """Whether the table serves requests."""
        return self.status in SERVING


async def describe_table(gateway: Gateway, table: Table[Any]) -> TableDescriptionTypeDef | None:
    """Returns DynamoDB's description of a table; None if there is no such table."""
    try:
        return (await gateway.call("DescribeTable", {"TableName": table.name}))["Table"]
    except TableNotFoundError:
        return None


async def describe_tables(gateway: Gateway, tables: Tables, scaling: Scaling | None) -> list[TableInfo]:
    """Returns a description of each of the five tables.

    Args:
        gateway: Sends the requests.
        tables: The tables.
        scaling: The capacities that are scaled; None if they are not known.

    Raises:
        ServiceError: A request failed.
    """
    return await gather(_info(gateway, table, scaling) for table in tables.all())


async def _info(gateway: Gateway, table: Table[Any], scaling: Scaling | None) -> TableInfo:
    description = await describe_table(gateway, table)
    if description is None:
        return TableInfo(table.name, "MISSING", 0, 0, None, None)
    time_to_live = recovery = None
    is_serving = description["TableStatus"] in SERVING
    if is_serving and table.ttl_attribute is not None:
        time_to_live = await _known(read_time_to_live(gateway, table))
    if is_serving:
        recovery = await _known(has_recovery(gateway, table))
    existing = FoundTable(description, time_to_live, recovery, scaling)
    return TableInfo(
        table.name,
        description["TableStatus"],
        description.get("ItemCount", 0),
        description.get("TableSizeBytes", 0),
        existing.billing_mode,
        None if table.ttl_attribute is None else _time_to_live_status(time_to_live),
        tuple(differences(table, gateway.config, existing)),
    )


def _time_to_live_status(description: TimeToLiveDescriptionTypeDef | None) -> str:
    return "not known" if description is None else description.get("TimeToLiveStatus", "DISABLED")


async def _known(reading: Awaitable[T]) -> T | None:
    """Awaits a read; returns None if the credentials do not allow it, or the endpoint does not have it."""
    try:
        return await reading
    except ServiceError as error:
        if isinstance(error, AccessDeniedError) or error.code == "UnknownOperationException":
            return None
        raise
