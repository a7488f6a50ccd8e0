"""Tables that one test after the other uses, since making five takes longer than most tests.

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

# More are not worth the requests: their tables are deleted.
MOST_ITEMS = 400

# By endpoint, the prefixes of tables that are made and empty.
_FREE: defaultdict[str, list[str]] = defaultdict(list)


@pytest_asyncio.fixture
async def dynamodb_config(dynamodb_endpoint: str) -> AsyncIterator[DynamoDBConfig]:
    """Settings of tables that are empty or not made yet, and that no other test has at the same time."""
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
    """Deletes all items but the schema's version; returns whether the tables can be used again."""
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
                found = await client.scan(**request)
            except ClientError as error:
                if error.response["Error"]["Code"] == "ResourceNotFoundException":
                    return False
                raise
            if "LastEvaluatedKey" in found:
                return False
            keys = [key for key in found["Items"] if key != schema_key()]
            while keys:
                batch: Any = {table.name: [{"DeleteRequest": {"Key": key}} for key in keys[:25]]}
                answer = await client.batch_write_item(RequestItems=batch)
                left = answer.get("UnprocessedItems", {}).get(table.name, [])
                keys = keys[25:] + [each["DeleteRequest"]["Key"] for each in left]
    return True
