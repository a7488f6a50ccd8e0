"""Measures aiodynamo on aiohttp, with plain dicts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from aiodynamo.client import Client
from aiodynamo.credentials import Key, StaticCredentials
from aiodynamo.expressions import HashKey
from aiodynamo.http.aiohttp import AIOHTTP
from aiodynamo.models import BatchGetRequest, BatchWriteRequest
from aiohttp import ClientSession, TCPConnector
from subject import as_text
from yarl import URL


def versions() -> str:
    """Names the library and its version."""
    return f"aiodynamo {version('aiodynamo')}"


class Peer:
    """Calls it as its documentation shows; it does not split batches, so they are split here."""

    def __init__(self, client: Client, table: str) -> None:
        self._client = client
        self._table = table

    prepare = staticmethod(as_text)

    async def save(self, page: dict[str, Any]) -> None:
        """Puts one item."""
        await self._client.put_item(self._table, page)

    async def get(self, key: tuple[str, str]) -> dict[str, Any]:
        """Gets one item."""
        return await self._client.get_item(
            self._table, {"site_id": key[0], "page_id": key[1]}, consistent_read=True
        )

    async def save_many(self, pages: list[dict[str, Any]]) -> None:
        """Saves batches of 25, eight at a time."""
        slots = asyncio.Semaphore(8)

        async def batch(part: list[dict[str, Any]]) -> None:
            async with slots:
                await self._client.batch_write({self._table: BatchWriteRequest(items_to_put=part)})

        await asyncio.gather(*(batch(pages[i : i + 25]) for i in range(0, len(pages), 25)))

    async def get_many(self, keys: list[tuple[str, str]]) -> int:
        """Reads batches of 100, eight at a time."""
        slots = asyncio.Semaphore(8)

        async def batch(part: list[tuple[str, str]]) -> int:
            wanted = [{"site_id": site_id, "page_id": page_id} for site_id, page_id in part]
            async with slots:
                answer = await self._client.batch_get({self._table: BatchGetRequest(wanted, None, True)})
            return len(answer.items[self._table])

        return sum(await asyncio.gather(*(batch(keys[i : i + 100]) for i in range(0, len(keys), 100))))

    async def list_all(self) -> int:
        """Lists all items by one query."""
        return len([item async for item in self._client.query(self._table, HashKey("site_id", "docs"))])


@asynccontextmanager
async def open_peer(endpoint: str, table: str) -> AsyncIterator[Peer]:
    """Opens a client on a session of 50 connections."""
    async with ClientSession(connector=TCPConnector(limit=50)) as session:
        client = Client(
            AIOHTTP(session), StaticCredentials(Key("local", "local")), "us-east-1", endpoint=URL(endpoint)
        )
        yield Peer(client, table)
