"""Describes the tables to operators: their status, their sizes and their features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._schema.table_check import SERVING
from ragcrawl_dynamo._schema.tables import Tables
from ragcrawl_dynamo._utils.concurrency import gather
from ragcrawl_dynamo.errors import AccessDeniedError, TableNotFoundError

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.type_defs import TableDescriptionTypeDef

__all__ = ["TableInfo"]


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
        return self.status in SERVING


async def describe_table(gateway: Gateway, table: Table[Any]) -> TableDescriptionTypeDef | None:
    """Returns DynamoDB's description of a table; None if there is no such table."""
    try:
        return (await gateway.call("DescribeTable", {"TableName": table.name}))["Table"]
    except TableNotFoundError:
        return None


async def describe_tables(gateway: Gateway, tables: Tables) -> list[TableInfo]:
    """Returns a description of each of the five tables.

    Raises:
        ServiceError: A request failed.
    """
    return await gather(_info(gateway, table) for table in tables.all())


async def _info(gateway: Gateway, table: Table[Any]) -> TableInfo:
    description = await describe_table(gateway, table)
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
