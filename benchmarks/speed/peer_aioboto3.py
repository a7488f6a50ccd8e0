"""Measures aioboto3's client as its users use it: default settings, its type serializer, plain dicts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import aioboto3
from aiobotocore.config import AioConfig
from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from subject import as_text


def versions() -> str:
    """Names the library and its version."""
    return f"aioboto3 {version('aioboto3')}"


class Peer:
    """Calls the client once for each item, or for each batch."""

    def __init__(self, client: Any, table: str) -> None:
        self._client = client
        self._table = table
        self._to_wire = TypeSerializer().serialize
        self._from_wire = TypeDeserializer().deserialize

    prepare = staticmethod(as_text)

    def _item(self, page: dict[str, Any]) -> dict[str, Any]:
        return {name: self._to_wire(value) for name, value in page.items()}

    def _page(self, item: dict[str, Any]) -> dict[str, Any]:
        return {name: self._from_wire(value) for name, value in item.items()}

    async def save(self, page: dict[str, Any]) -> None:
        """Puts one item."""
        await self._client.put_item(TableName=self._table, Item=self._item(page))

    async def get(self, key: tuple[str, str]) -> dict[str, Any]:
        """Gets one item."""
        wanted = {"site_id": {"S": key[0]}, "page_id": {"S": key[1]}}
        answer = await self._client.get_item(TableName=self._table, Key=wanted, ConsistentRead=True)
        return self._page(answer["Item"])

    async def save_many(self, pages: list[dict[str, Any]]) -> None:
        """Saves batches of 25, eight at a time."""
        slots = asyncio.Semaphore(8)

        async def batch(part: list[dict[str, Any]]) -> None:
            async with slots:
                writes = [{"PutRequest": {"Item": self._item(page)}} for page in part]
                await self._client.batch_write_item(RequestItems={self._table: writes})

        await asyncio.gather(*(batch(pages[i : i + 25]) for i in range(0, len(pages), 25)))

    async def get_many(self, keys: list[tuple[str, str]]) -> int:
        """Reads batches of 100, eight at a time."""
        slots = asyncio.Semaphore(8)

        async def batch(part: list[tuple[str, str]]) -> list[dict[str, Any]]:
            wanted = [{"site_id": {"S": site_id}, "page_id": {"S": page_id}} for site_id, page_id in part]
            async with slots:
                request = {self._table: {"Keys": wanted, "ConsistentRead": True}}
                answer = await self._client.batch_get_item(RequestItems=request)
            return [self._page(item) for item in answer["Responses"][self._table]]

        batches = await asyncio.gather(*(batch(keys[i : i + 100]) for i in range(0, len(keys), 100)))
        return sum(map(len, batches))

    async def list_all(self) -> int:
        """Lists all items by the paginator."""
        pages = []
        paginator = self._client.get_paginator("query")
        async for answer in paginator.paginate(
            TableName=self._table,
            KeyConditionExpression="site_id = :s",
            ExpressionAttributeValues={":s": {"S": "docs"}},
        ):
            pages += [self._page(item) for item in answer["Items"]]
        return len(pages)


@asynccontextmanager
async def open_peer(endpoint: str, table: str) -> AsyncIterator[Peer]:
    """Opens a client with 50 connections."""
    session = aioboto3.Session(
        aws_access_key_id="local", aws_secret_access_key="local", region_name="us-east-1"
    )
    config = AioConfig(max_pool_connections=50)
    async with session.client("dynamodb", endpoint_url=endpoint, config=config) as client:
        yield Peer(client, table)
