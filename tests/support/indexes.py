"""Indexes of chunks in memory and in SQLite, sites to index, and processes that are killed at any step."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any, Protocol, TypeVar

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig, PageVersion
from ragcrawl_dynamo._utils.clock import Clock
from ragcrawl_dynamo.integrations import Chunk, ChunkIndex, chunks_of, text_of
from ragcrawl_dynamo.integrations.index import call
from tests.support.factories import make_page, make_version

T = TypeVar("T")


class ReadableIndex(ChunkIndex, Protocol):
    """An index whose contents tests can look at."""

    embedded: int

    def texts(self) -> dict[str, str]:
        """By id, the text of each chunk."""
        ...


class MemoryIndex:
    """An index with async methods. An id that is stored twice, or deleted in vain, is no error."""

    def __init__(self) -> None:
        self.chunks: dict[str, Chunk] = {}
        self.batches: list[int] = []
        self.embedded = 0
        self.embedded_pages: list[str] = []

    async def upsert(self, chunks: Sequence[Chunk]) -> None:
        self.batches.append(len(chunks))
        self.embedded += len(chunks)
        self.embedded_pages += dict.fromkeys(chunk.page_id for chunk in chunks)
        self.chunks |= {chunk.id: chunk for chunk in chunks}

    async def delete(self, ids: Sequence[str]) -> None:
        for chunk_id in ids:
            self.chunks.pop(chunk_id, None)

    def texts(self) -> dict[str, str]:
        return {chunk.id: chunk.text for chunk in self.chunks.values()}


class SqliteIndex:
    """An index with plain methods, which run in threads."""

    def __init__(self, path: str = ":memory:") -> None:
        self.embedded = 0
        self.connection = sqlite3.connect(path, check_same_thread=False)
        self.connection.execute("CREATE TABLE chunks (id TEXT PRIMARY KEY, text TEXT, link TEXT)")

    def upsert(self, chunks: Sequence[Chunk]) -> None:
        rows = [(chunk.id, chunk.text, chunk.anchor_url) for chunk in chunks]
        with self.connection:
            self.connection.executemany("INSERT OR REPLACE INTO chunks VALUES (?, ?, ?)", rows)
        self.embedded += len(chunks)

    def delete(self, ids: Sequence[str]) -> None:
        with self.connection:
            self.connection.executemany("DELETE FROM chunks WHERE id = ?", [(each,) for each in ids])

    def texts(self) -> dict[str, str]:
        return dict(self.connection.execute("SELECT id, text FROM chunks"))


def split(version: PageVersion) -> list[str]:
    """Splits a version into its paragraphs."""
    return text_of(version).split("\n\n")


def paragraphs(name: str, count: int) -> str:
    return "\n\n".join(f"Paragraph {i} of {name}." for i in range(count))


async def write(backend: DynamoDBBackend, page_id: str, markdown: str, site_id: str = "site") -> None:
    """Commits a page with a text; a version's id is a hash of it, so that a former text has its former id."""
    digest = sha256(markdown.encode()).hexdigest()[:12]
    version = make_version(digest, page_id, site_id, markdown=markdown, content_hash=digest)
    await backend.commit_page(make_page(page_id, site_id, status_code=200), version)


async def remove(backend: DynamoDBBackend, page_id: str, site_id: str = "site") -> None:
    """Commits that a page is gone."""
    await backend.commit_page(make_page(page_id, site_id, status_code=404))


async def chunks_of_site(backend: DynamoDBBackend, site_id: str = "site") -> dict[str, str]:
    """What an index shall have: by id, the text of each chunk of each current version."""
    return {
        chunk.id: chunk.text
        async for version in backend.iter_versions(site_id)
        for chunk in chunks_of(version, split(version))
    }


class KilledError(Exception):
    """The process was killed."""


class Death:
    """Kills a process at one of its steps. Nothing that it does later reaches anyone.

    Args:
        at: The number of the step, from 1; None if it lives.
        after: Whether the step itself is still done, although the process never learns of it.
    """

    def __init__(self, at: int | None = None, *, after: bool = False) -> None:
        self.steps = 0
        self.is_dead = False
        self._at = at
        self._after = after

    async def step(self, work: Callable[[], Awaitable[T]]) -> T:
        if self.is_dead:
            raise KilledError
        self.steps += 1
        self.is_dead = self.steps == self._at
        if self.is_dead and not self._after:
            raise KilledError
        result = await work()
        if self.is_dead:
            raise KilledError
        return result


class MortalIndex:
    """Passes calls on to an index, in two steps each: half of the chunks are stored without the others."""

    def __init__(self, index: ChunkIndex, death: Death) -> None:
        self._index = index
        self._death = death

    async def upsert(self, chunks: Sequence[Chunk]) -> None:
        await self._halves(self._index.upsert, chunks)

    async def delete(self, ids: Sequence[str]) -> None:
        await self._halves(self._index.delete, ids)

    async def _halves(self, method: Callable[[Any], Any], values: Sequence[Any]) -> None:
        middle = len(values) // 2
        for half in (values[:middle], values[middle:]):
            await self._death.step(lambda half=half: call(method, half))  # type: ignore[misc] # no type for half


@asynccontextmanager
async def mortal(config: DynamoDBConfig, clock: Clock, death: Death) -> AsyncIterator[DynamoDBBackend]:
    """A backend of another process, each of whose requests is a step."""
    async with DynamoDBBackend(config, clock=clock) as backend:
        gateway: Any = backend._rooms.gateway
        send = gateway._await_client

        async def step(*args: Any) -> Any:
            return await death.step(lambda: send(*args))

        gateway._await_client = step
        try:
            yield backend
        finally:
            del gateway._await_client
