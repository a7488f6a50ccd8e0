"""Indexes of chunks in memory and in SQLite, and sites to index."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from hashlib import sha256
from typing import Protocol

from ragcrawl_dynamo import DynamoDBBackend, PageVersion
from ragcrawl_dynamo.integrations import Chunk, ChunkIndex, chunks_of, text_of
from tests.support.factories import make_page, make_version


class ReadableIndex(ChunkIndex, Protocol):
    """An index whose contents tests can look at."""

    @property
    def embedded(self) -> int:
        """How many chunks it has embedded."""
        ...

    def texts(self) -> dict[str, str]:
        """By id, the text of each chunk."""
        ...


class MemoryIndex:
    """An index with async methods. To store an id twice, or to delete an unknown one, is no error."""

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
            self.connection.executemany("DELETE FROM chunks WHERE id = ?", [(chunk_id,) for chunk_id in ids])

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
    """Returns the wanted content of an index: by id, the text of each chunk of each current version."""
    return {
        chunk.id: chunk.text
        async for version in backend.iter_versions(site_id)
        for chunk in chunks_of(version, split(version))
    }


async def fill(backend: DynamoDBBackend, site_id: str = "site") -> None:
    """Six pages: `long` takes more than one batch, and `empty` has no chunk."""
    await fill_small(backend, site_id)
    await write(backend, "d", paragraphs("d", 2), site_id)
    await write(backend, "long", paragraphs("long", 9), site_id)
    await write(backend, "empty", "", site_id)


async def fill_small(backend: DynamoDBBackend, site_id: str) -> None:
    for page_id, count in (("a", 3), ("b", 2), ("c", 1)):
        await write(backend, page_id, paragraphs(page_id, count), site_id)


async def edit(backend: DynamoDBBackend, site_id: str = "site") -> None:
    """One page shrinks, one grows, one goes, one is new; two stay."""
    await write(backend, "a", paragraphs("a again", 1), site_id)
    await write(backend, "c", paragraphs("c again", 5), site_id)
    await remove(backend, "b", site_id)
    await write(backend, "new", paragraphs("new", 2), site_id)
