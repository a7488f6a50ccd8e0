"""Loads versions: joins heads with their bodies, a few at a time or many in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import TypeAlias

from ragcrawl_dynamo._content.bodies import BodyStore
from ragcrawl_dynamo._content.body_items import BodyId, location_of
from ragcrawl_dynamo._content.packing import THREAD_BYTES, ContentError, Manifest, unpack
from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.batching import key_values, read_all
from ragcrawl_dynamo._dynamodb.coalescing import Gets
from ragcrawl_dynamo._dynamodb.codec import from_item
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.sizes import item_size
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._dynamodb.values import Item, Key
from ragcrawl_dynamo._utils.concurrency import gather_bounded, read_ahead
from ragcrawl_dynamo.errors import CorruptContentError
from ragcrawl_dynamo.models import PageVersion

# Versions whose heads and first parts one request reads, and requests that an iteration sends ahead.
_VERSIONS_PER_READ = 20
_READS_AHEAD = 2

# Versions of the first request of an iteration, and the bytes that each further one should read. A first part
# takes 300 KB at most.
_VERSIONS_AT_FIRST = 5
_BYTES_PER_READ = 1024 * 1024

# Versions whose bodies are read at once for a listing.
_LOADS_IN_FLIGHT = 8

# A head and the first part of its body, each None if it is absent.
HeadAndPart: TypeAlias = "tuple[Item | None, Item | None]"


class ReadSize:
    """Bounds the memory of an iteration: large bodies are read fewer at a time.

    Attributes:
        versions: How many versions the next request reads.
    """

    def __init__(self) -> None:
        self.versions: int = _VERSIONS_AT_FIRST

    def note(self, versions: int, size: int) -> None:
        """Notes how many bytes some versions took, without those parts that are read later."""
        fitting = _BYTES_PER_READ * versions // max(1, size)
        self.versions = max(1, min(_VERSIONS_PER_READ, fitting))


class VersionLoader:
    """Loads versions by key, strongly consistent."""

    def __init__(self, gateway: Gateway, table: Table[PageVersion], bodies: BodyStore) -> None:
        self._gateway = gateway
        self._table = table
        self._bodies = bodies
        self._gets = Gets(gateway, table, per_batch=2 * _VERSIONS_PER_READ)

    async def close(self) -> None:
        """Sends the reads that wait to be sent."""
        await self._gets.close()

    async def get(self, key: Key) -> PageVersion | None:
        """Loads one version; None if there is none."""
        head, first = await self._gets.get_together([key, BodyId.first_of(key).part_key(0)])
        return None if head is None else await self.load(head, first)

    async def load_all(self, heads: Sequence[Item]) -> list[PageVersion]:
        """Loads the versions of heads in their order, without those that were deleted meanwhile."""
        versions = await gather_bounded(self.load, heads, _LOADS_IN_FLIGHT)
        return [version for version in versions if version is not None]

    async def iterate(self, keys: AsyncIterable[Key]) -> AsyncGenerator[PageVersion | None, None]:
        """Loads the version of each key, in their order, a few requests ahead; None if there is none."""
        async with aclosing(read_ahead(self._reads(keys, ReadSize()), _READS_AHEAD)) as chunks:
            async for chunk in chunks:
                for head, first in chunk:
                    yield None if head is None else await self.load(head, first)

    async def load(self, head: Item, first: Item | None = None) -> PageVersion | None:
        """Loads the version of a head; None if it was deleted meanwhile.

        Args:
            head: The head.
            first: The first part of its body, if that has been read.

        Raises:
            CorruptContentError: The body is incomplete, or differs from what was saved.
        """
        key: Key = {name: head[name] for name in self._table.primary_key}
        try:
            return await self._with_body(key, head, first)
        except ContentError as error:
            # The version may have been replaced or deleted since the head was read.
            response = await self._gateway.call("GetItem", requests.get_request(self._table, key))
            head_now = response.get("Item")
            if head_now is None:
                return None
            if head_now.get("body") != head.get("body"):
                return await self.load(head_now)
            version = from_item(self._table, head)
            raise CorruptContentError(
                str(error), page_id=version.page_id, version_id=version.version_id, site_id=version.site_id
            ) from None

    async def _reads(
        self, keys: AsyncIterable[Key], size: ReadSize
    ) -> AsyncGenerator[Callable[[], Awaitable[list[HeadAndPart]]], None]:
        chunk: list[Key] = []
        async for key in keys:
            chunk.append(key)
            if len(chunk) >= size.versions:
                yield partial(self._read, chunk, size)
                chunk = []
        if chunk:
            yield partial(self._read, chunk, size)

    async def _read(self, keys: Sequence[Key], size: ReadSize) -> list[HeadAndPart]:
        """Reads each head with the first part of the body that it most often has, in few requests."""
        parts = [BodyId.first_of(key).part_key(0) for key in keys]
        items = await read_all(self._gateway, self._table, [*keys, *parts], per_batch=2 * _VERSIONS_PER_READ)
        size.note(len(keys), sum(map(item_size, items)))
        by_key = {key_values(self._table, item): item for item in items}
        return [
            (by_key.get(key_values(self._table, key)), by_key.get(key_values(self._table, part)))
            for key, part in zip(keys, parts, strict=True)
        ]

    async def _with_body(self, key: Key, head: Item, first: Item | None) -> PageVersion:
        manifest = Manifest.from_attribute(head.get("body", {}))
        if not manifest.parts:
            data = head.get("content", {}).get("B", b"")
        else:
            is_first = location_of(key, manifest) == BodyId.first_of(key).location
            data = await self._bodies.read(key, manifest, first if is_first else None)
        limit = self._gateway.config.max_content_bytes
        if manifest.raw_bytes > THREAD_BYTES:
            content = await asyncio.to_thread(unpack, manifest, data, max_bytes=limit)
        else:
            content = unpack(manifest, data, max_bytes=limit)
        return from_item(self._table, head, content)
