"""Measures pydynox, whose core is AWS's SDK for Rust, with plain dicts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from pydynox import DynamoDBClient
from subject import as_text


def versions() -> str:
    """Names the library and its version."""
    return f"pydynox {version('pydynox')}"


class Peer:
    """Calls the methods of its client; it splits batches by itself."""

    def __init__(self, client: DynamoDBClient, table: str) -> None:
        self._client = client
        self._table = table

    prepare = staticmethod(as_text)

    async def save(self, page: dict[str, Any]) -> None:
        """Puts one item."""
        await self._client.put_item(self._table, page)

    async def get(self, key: tuple[str, str]) -> Any:
        """Gets one item."""
        return await self._client.get_item(
            self._table, {"site_id": key[0], "page_id": key[1]}, consistent_read=True
        )

    async def save_many(self, pages: list[dict[str, Any]]) -> None:
        """Saves all items in one call."""
        await self._client.batch_write(self._table, put_items=pages)

    async def get_many(self, keys: list[tuple[str, str]]) -> int:
        """Reads all items in one call."""
        wanted = [{"site_id": site_id, "page_id": page_id} for site_id, page_id in keys]
        return len(await self._client.batch_get(self._table, wanted, consistent_read=True))

    async def list_all(self) -> int:
        """Lists all items by one query."""
        result = self._client.query(
            self._table,
            "#s = :s",
            expression_attribute_names={"#s": "site_id"},
            expression_attribute_values={":s": "docs"},
        )
        return len([item async for item in result])


@asynccontextmanager
async def open_peer(endpoint: str, table: str) -> AsyncIterator[Peer]:
    """Opens a client."""
    yield Peer(
        DynamoDBClient(region="us-east-1", access_key="local", secret_key="local", endpoint_url=endpoint),
        table,
    )
