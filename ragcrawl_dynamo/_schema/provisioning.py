"""Creates missing tables, and waits until all tables and their indexes serve requests."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.table import Index, Table
from ragcrawl_dynamo._schema.table_check import (
    SERVING,
    check_schema,
    index_names,
    is_changing,
    refuse_unusable,
    unready_indexes,
)
from ragcrawl_dynamo._schema.table_features import enable_features
from ragcrawl_dynamo._schema.table_info import describe_table
from ragcrawl_dynamo._schema.tables import Tables
from ragcrawl_dynamo._utils.concurrency import gather
from ragcrawl_dynamo.errors import DeadlineExceededError, RequestRejectedError, TableNotFoundError

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.type_defs import TableDescriptionTypeDef

logger = logging.getLogger(__name__)

# Seconds between two requests for the status of a table that is being created: at first, and at most.
_FIRST_POLL = 0.05
_LONGEST_POLL = 5.0


async def ensure_tables(
    gateway: Gateway, tables: Tables, *, create_missing_indexes: bool = False
) -> set[str]:
    """Creates missing tables, all at the same time, and waits until all tables and indexes serve requests.

    Returns:
        The full names of the tables that were missing, or that another process was just creating.

    Raises:
        SchemaMismatchError: An existing table has other keys or indexes.
        TableUnusableError: A table is archived, or its KMS key cannot be used.
        DeadlineExceededError: A table did not become active within `table_timeout`.
        ServiceError: DynamoDB refused a request.
    """
    all_tables = tables.all()
    are_new = await gather(_ensure(gateway, table, create_missing_indexes) for table in all_tables)
    return {table.name for table, is_new in zip(all_tables, are_new, strict=True) if is_new}


async def require_tables(gateway: Gateway, tables: Tables) -> None:
    """Checks that all tables exist, with the keys and indexes that this version needs; changes nothing.

    It waits for tables and indexes that another process is just creating.

    Raises:
        TableNotFoundError: Tables are missing.
        SchemaMismatchError: A table has other keys or indexes.
        TableUnusableError: A table is archived, or its KMS key cannot be used.
        DeadlineExceededError: A table did not become active within `table_timeout`.
        ServiceError: DynamoDB refused a request.
    """
    all_tables = tables.all()
    descriptions = await gather(describe_table(gateway, table) for table in all_tables)
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
    await gather(_until_created(gateway, table, description) for table, description in described)


async def all_active(gateway: Gateway, tables: Tables) -> bool:
    """Returns whether all five tables exist and serve requests.

    Raises:
        ServiceError: A request failed.
    """
    descriptions = await gather(describe_table(gateway, table) for table in tables.all())
    return all(
        description is not None and description["TableStatus"] in SERVING for description in descriptions
    )


async def _ensure(gateway: Gateway, table: Table[Any], create_missing_indexes: bool) -> bool:
    """Makes one table usable, with its time to live and its backups; returns whether the table is new."""
    async with _table_timeout(gateway, table):
        is_new = await _until_serving(gateway, table, create_missing_indexes)
        await enable_features(gateway, table)
    return is_new


@asynccontextmanager
async def _table_timeout(gateway: Gateway, table: Table[Any]) -> AsyncIterator[None]:
    """Limits the time for work on a table to `table_timeout`.

    Raises:
        DeadlineExceededError: The time is over.
    """
    timeout = gateway.config.table_timeout
    try:
        async with asyncio.timeout(timeout):
            yield
    except TimeoutError:
        raise DeadlineExceededError(
            f"not active within table_timeout = {timeout} s: check its status, then call initialize() again",
            code="TableNotActive",
            operation="DescribeTable",
            table=table.name,
        ) from None


async def _until_created(gateway: Gateway, table: Table[Any], description: TableDescriptionTypeDef) -> None:
    """Checks a table, and waits until it and its indexes are created; changes nothing."""
    pause = _FIRST_POLL
    async with _table_timeout(gateway, table):
        while True:
            refuse_unusable(table, description)
            check_schema(table, description, create_missing_indexes=False)
            if description["TableStatus"] != "CREATING" and not unready_indexes(table, description):
                return
            await asyncio.sleep(pause)
            pause = min(_LONGEST_POLL, pause * 1.5)
            description = (await gateway.call("DescribeTable", {"TableName": table.name}))["Table"]


async def _until_serving(gateway: Gateway, table: Table[Any], create_missing_indexes: bool) -> bool:
    """Creates a table or its missing indexes, and waits until it serves; returns whether the table is new.

    It does not wait for other changes of a table that serves requests.
    """
    pause = _FIRST_POLL
    is_new = False
    while True:
        description = await describe_table(gateway, table)
        is_new |= description is None or description["TableStatus"] == "CREATING"
        if description is None:
            await _create(gateway, table)
        else:
            refuse_unusable(table, description)
            if description["TableStatus"] in SERVING:
                missing = check_schema(table, description, create_missing_indexes)
                if not missing and not unready_indexes(table, description):
                    return is_new
                if missing and not is_changing(description):
                    await _add_index(gateway, table, missing[0], description)
        await asyncio.sleep(pause)
        pause = min(_LONGEST_POLL, pause * 1.5)


async def _create(gateway: Gateway, table: Table[Any]) -> None:
    try:
        await gateway.call("CreateTable", requests.create_table_request(table, gateway.config))
    except RequestRejectedError as error:
        # Another process was faster, or the answer to this process's first attempt was lost.
        if error.code != "ResourceInUseException":
            raise
    else:
        logger.info("created table %s", table.name)


async def _add_index(
    gateway: Gateway, table: Table[Any], index: Index, description: TableDescriptionTypeDef
) -> None:
    defined = description["AttributeDefinitions"]
    try:
        await gateway.call(
            "UpdateTable", requests.create_index_request(table, index, defined, gateway.config)
        )
    except RequestRejectedError as error:
        # Another process changes the table: it adds this index, or does something else. The caller describes
        # the table again.
        if error.code == "ResourceInUseException":
            return
        # The answer to this process's first attempt was lost, so that the table has the index by now.
        if error.code != "ValidationException":
            raise
        new_description = await describe_table(gateway, table)
        if new_description is None or index.name not in index_names(new_description):
            raise
    else:
        logger.info("adding index %s to table %s", index.name, table.name)
