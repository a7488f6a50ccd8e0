"""Provides a client with its own table, for tests of the simulation's answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from botocore.exceptions import ClientError

from ragcrawl_dynamo._dynamodb.client import open_client
from ragcrawl_dynamo.testing import local_config
from tests.support.aws.proxy import SimulatedAWS, simulated_aws
from tests.support.aws.settings import Settings
from tests.support.aws.writes import Item


class RawTable:
    """A table with the key (`p`, `s`) and the index `by_place` (`place`, `rank`)."""

    def __init__(self, client: Any, name: str) -> None:
        self.client = client
        self.name = name

    async def put(self, p: str, s: str, **attributes: str) -> None:
        await self.client.put_item(TableName=self.name, Item=item(p, s, **attributes))

    async def move(self, p: str, s: str, place: str) -> None:
        """Changes the place of an item."""
        await self.client.update_item(
            TableName=self.name,
            Key=item(p, s),
            UpdateExpression="SET #place = :place",
            ExpressionAttributeNames={"#place": "place"},
            ExpressionAttributeValues={":place": {"S": place}},
        )

    async def listed(self, place: str, **options: Any) -> list[str]:
        """Returns the sort keys of the items that the index shows at a place."""
        answer = await self.query_index(place, **options)
        return [entry["s"]["S"] for entry in answer["Items"]]

    async def query_index(self, place: str, **options: Any) -> Any:
        return await self.client.query(
            TableName=self.name,
            IndexName="by_place",
            KeyConditionExpression="#p = :p",
            ExpressionAttributeNames={"#p": "place"},
            ExpressionAttributeValues={":p": {"S": place}},
            **options,
        )

    async def get(self, p: str, s: str, *, consistent: bool = True) -> Item | None:
        answer = await self.client.get_item(TableName=self.name, Key=item(p, s), ConsistentRead=consistent)
        stored: Item | None = answer.get("Item")
        return stored


def item(p: str, s: str, **attributes: str) -> Item:
    return {name: {"S": value} for name, value in {"p": p, "s": s, **attributes}.items()}


@asynccontextmanager
async def raw_table(endpoint: str) -> AsyncIterator[RawTable]:
    """Creates the table through `endpoint`, and deletes it later."""
    config = local_config(endpoint, read_timeout=5)
    name = f"raw_{uuid4().hex[:12]}"
    async with open_client(config) as client:
        await client.create_table(
            TableName=name,
            KeySchema=[
                {"AttributeName": "p", "KeyType": "HASH"},
                {"AttributeName": "s", "KeyType": "RANGE"},
            ],
            AttributeDefinitions=[
                {"AttributeName": attribute, "AttributeType": "S"}
                for attribute in ("p", "s", "place", "rank")
            ],
            BillingMode="PAY_PER_REQUEST",
            GlobalSecondaryIndexes=[
                {
                    "IndexName": "by_place",
                    "KeySchema": [
                        {"AttributeName": "place", "KeyType": "HASH"},
                        {"AttributeName": "rank", "KeyType": "RANGE"},
                    ],
                    "Projection": {"ProjectionType": "KEYS_ONLY"},
                }
            ],
        )
        try:
            yield RawTable(client, name)
        finally:
            await client.delete_table(TableName=name)


class Time:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def simulation(
    engine: str, settings: Settings, time: Time | None = None
) -> AsyncIterator[tuple[SimulatedAWS, RawTable]]:
    async with simulated_aws(engine, settings, time or Time()) as aws, raw_table(aws.url) as table:
        yield aws, table


async def code_of(call: Awaitable[Any]) -> str:
    with pytest.raises(ClientError) as raised:
        await call
    return str(raised.value.response["Error"]["Code"])
