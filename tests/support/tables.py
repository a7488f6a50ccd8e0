"""Reuses tables for one test after the other: creating and deleting five takes longer than most tests.

A conftest that imports the two fixtures gives them to its folder, in place of the plugin's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio
from botocore.exceptions import ClientError

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig
from ragcrawl_dynamo._dynamodb.client import open_client
from ragcrawl_dynamo._schema.keys import schema_key
from ragcrawl_dynamo._schema.tables import Tables
from ragcrawl_dynamo.testing import drop_tables, local_config

# A table with more items is deleted: that takes fewer requests.
MOST_ITEMS = 400

# By endpoint, the prefixes of tables that exist, are empty, and are not in use.
_FREE: defaultdict[str, list[str]] = defaultdict(list)


@pytest_asyncio.fixture
async def dynamodb_config(dynamodb_endpoint: str) -> AsyncIterator[DynamoDBConfig]:
    """Returns settings of empty or missing tables that no other test uses at the same time."""
    free = _FREE[dynamodb_endpoint]
    config = local_config(dynamodb_endpoint, **({"table_prefix": free.pop()} if free else {}))
    yield config
    if await emptied(config):
        free.append(config.table_prefix)
    else:
        await drop_tables(config)


@pytest_asyncio.fixture
async def dynamodb_backend(dynamodb_config: DynamoDBConfig) -> AsyncIterator[DynamoDBBackend]:
    async with DynamoDBBackend(dynamodb_config) as backend:
        yield backend


async def emptied(config: DynamoDBConfig) -> bool:
    """Deletes all items but the schema record; returns whether the tables can be used again.

    It does not use the gateway, whose requests the tests compare with the IAM policies.
    """
    async with open_client(config) as client:
        for table in Tables.of(config.table_prefix).all():
            names = {f"#{i}": name for i, name in enumerate(table.primary_key)}
            request: Any = {
                "TableName": table.name,
                "ProjectionExpression": ", ".join(names),
                "ExpressionAttributeNames": names,
                "ConsistentRead": True,
                "Limit": MOST_ITEMS,
            }
            try:
                page = await client.scan(**request)
            except ClientError as error:
                if error.response["Error"]["Code"] == "ResourceNotFoundException":
                    return False
                raise
            if "LastEvaluatedKey" in page:
                return False
            keys = [key for key in page["Items"] if key != schema_key()]
            while keys:
                batch: Any = {table.name: [{"DeleteRequest": {"Key": key}} for key in keys[:25]]}
                answer = await client.batch_write_item(RequestItems=batch)
                unprocessed = answer.get("UnprocessedItems", {}).get(table.name, [])
                keys = keys[25:] + [write["DeleteRequest"]["Key"] for write in unprocessed]
    return True
