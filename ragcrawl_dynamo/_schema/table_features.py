"""Enables the features that CreateTable cannot enable: the time to live and the backups of a table."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._schema.waiting import until_free
from ragcrawl_dynamo.errors import (
    AccessDeniedError,
    RequestRejectedError,
    SchemaMismatchError,
    ServiceError,
)

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.type_defs import TimeToLiveDescriptionTypeDef

logger = logging.getLogger(__name__)

# The table is UPDATING.
_BUSY = "ResourceInUseException"


async def enable_features(gateway: Gateway, table: Table[Any]) -> None:
    """Switches on the time to live and the backups that the settings ask for; waits while the table is busy.

    Raises:
        SchemaMismatchError: The time to live is on for another attribute.
        ServiceError: DynamoDB refused a request.
    """
    if (attribute := table.expires_by(gateway.config)) is not None:
        await until_free(lambda: _enable_ttl(gateway, table, attribute), _BUSY)
    if gateway.config.point_in_time_recovery:
        await until_free(lambda: _enable_recovery(gateway, table), _BUSY)


async def read_time_to_live(gateway: Gateway, table: Table[Any]) -> TimeToLiveDescriptionTypeDef:
    """Returns what DynamoDB says of the time to live of a table."""
    response = await gateway.call("DescribeTimeToLive", {"TableName": table.name})
    return response["TimeToLiveDescription"]


async def has_recovery(gateway: Gateway, table: Table[Any]) -> bool:
    """Returns whether point-in-time recovery of a table is on."""
    response = await gateway.call("DescribeContinuousBackups", {"TableName": table.name})
    current = response["ContinuousBackupsDescription"].get("PointInTimeRecoveryDescription", {})
    return current.get("PointInTimeRecoveryStatus") == "ENABLED"


async def _enable_ttl(gateway: Gateway, table: Table[Any], attribute: str) -> None:
    """Switches the time to live of a table on, unless it is on already.

    Raises:
        SchemaMismatchError: It is on for another attribute.
    """
    try:
        current = await read_time_to_live(gateway, table)
    except AccessDeniedError as error:
        # The process that created the tables has switched it on. A worker needs no right to read it.
        logger.warning("%s: its time to live could not be read, and is left as it is: %s", table.name, error)
        return
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
        if await has_recovery(gateway, table):
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
        logger.warning("%s has no backups, because this endpoint has no point-in-time recovery", table.name)
