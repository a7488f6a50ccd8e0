"""Measures ragcrawl_dynamo with pydantic models."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from ragcrawl_dynamo import DynamoDBBackend, Page, PageVersion
from ragcrawl_dynamo.testing import local_config


def versions() -> str:
    """Names the library and its version."""
    return f"ragcrawl_dynamo {version('ragcrawl_dynamo')}"


class Peer:
    """Calls the public API."""

    def __init__(self, backend: DynamoDBBackend) -> None:
        self._backend = backend

    def prepare(self, page: dict[str, Any]) -> dict[str, Any]:
        """Returns the page as it is: models are built while they are measured."""
        return page

    async def save(self, page: dict[str, Any]) -> None:
        """Makes a model and saves it."""
        await self._backend.save_page(Page(**page))

    async def get(self, key: tuple[str, str]) -> Page | None:
        """Reads a model."""
        return await self._backend.get_page(*key)

    async def save_many(self, pages: list[dict[str, Any]]) -> None:
        """Makes models and saves them."""
        await self._backend.save_pages_bulk([Page(**page) for page in pages])

    async def get_many(self, keys: list[tuple[str, str]]) -> int:
        """Reads models in batches."""
        return len(await self._backend.get_pages_bulk(keys[0][0], [page_id for _, page_id in keys]))

    async def save_body(self, page: dict[str, Any]) -> None:
        """Makes a version's model and saves it, compressed and in parts."""
        await self._backend.save_version(
            PageVersion(
                version_id="v1",
                page_id=page["page_id"],
                site_id=page["site_id"],
                run_id="run",
                url=page["url"],
                status_code=200,
                content_hash=page["content_hash"],
                markdown=page["markdown"],
            )
        )

    async def get_body(self, key: tuple[str, str]) -> PageVersion | None:
        """Reads a version's model."""
        return await self._backend.get_version(key[0], key[1], "v1")

    async def list_all(self) -> int:
        """Lists all models."""
        return len([page async for page in self._backend.iter_pages("docs")])


@asynccontextmanager
async def open_peer(endpoint: str, table: str, **settings: Any) -> AsyncIterator[Peer]:
    """Opens a backend on tables that exist already."""
    config = local_config(endpoint, table_prefix=table.removesuffix("pages"), **settings)
    backend = DynamoDBBackend(config)
    # The canned endpoint has no tables to look at.
    await backend._rooms.gateway.open()
    yield Peer(backend)
    await backend.close()
