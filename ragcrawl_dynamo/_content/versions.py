"""Page versions: a small head each; its body in it, in parts beside it, or shared with an equal version."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from ragcrawl_dynamo._content.bodies import BodyStore, place_of, used_place
from ragcrawl_dynamo._content.packing import ContentError, Manifest, pack, unpack
from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.batching import WRITES_PER_BATCH, KeyValues, key_values, put_all, read_all
from ragcrawl_dynamo._dynamodb.coalescing import Gets, Puts
from ragcrawl_dynamo._dynamodb.codec import from_item, to_item
from ragcrawl_dynamo._dynamodb.expressions import AllOf, BeginsWith, Compare, Condition
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.pagination import Slice, read_newest, read_pages
from ragcrawl_dynamo._dynamodb.requests import Query
from ragcrawl_dynamo._dynamodb.sizes import item_size
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._dynamodb.values import Item, Key
from ragcrawl_dynamo._schema.keys import (
    body_entry,
    body_part_key,
    body_place,
    page_partition,
    site_entry,
    site_partition,
    version_ids,
    version_key,
    version_prefix,
)
from ragcrawl_dynamo._utils.concurrency import gather_bounded, read_ahead
from ragcrawl_dynamo.errors import (
    AmbiguousIdError,
    CorruptContentError,
    DeadlineExceededError,
    PartialBatchError,
    RagcrawlDynamoError,
)
from ragcrawl_dynamo.models import CONTENT_FIELDS, PageVersion

# A head of up to 4 KB costs one read unit with or without a body in it, and a body of its own one write unit
# more (docs/design.md, "Bodies").
INLINE_BYTES = 4096

# Raw sizes above which compression is left to a thread.
_THREAD_BYTES = 16 * 1024

# A head is not written later than this after its parts: a clean-up may have taken them for garbage.
_LONGEST_SAVE = 3600.0

# How many versions are packed and written at once, and how many heads are looked through for an equal body.
_SAVES_IN_FLIGHT = 8
_HEADS_COMPARED = 50

# A read of bodies for an iteration: heads and first parts of so many versions a request, so many ahead.
_READ_CHUNK = 20
_READS_AHEAD = 2

_HEAD_FIELDS = sorted(PageVersion.model_fields.keys() - CONTENT_FIELDS - {"page_id"})


@dataclass(frozen=True, slots=True)
class VersionHead:
    """What a clean-up needs to know of a version."""

    key: Key
    crawled_at: str
    manifest: Manifest | None


class VersionStore:
    """Key `{page_id}` / `{version_id}#{site_id}#`; by_site lists a site's versions by page."""

    def __init__(self, gateway: Gateway, table: Table[PageVersion], objects: Gateway | None) -> None:
        self._gateway = gateway
        self._table = table
        self.bodies = BodyStore(gateway, table, objects)
        self._puts = Puts(gateway, table)
        self._gets = Gets(gateway, table, per_batch=2 * _READ_CHUNK)

    async def close(self) -> None:
        """Sends what waits to be sent."""
        await self._puts.close()
        await self._gets.close()

    async def save(self, version: PageVersion) -> None:
        """Writes a version over whatever is there: its body first, then the head that shows it.

        The body of a version that is replaced is left to a clean-up: if an answer is lost while another
        worker saves the same version, the request that is sent again can bring the former head back.
        """
        head = await self.prepare(version)
        await self._puts.put(head, item_size(head))

    async def save_bulk(self, versions: Sequence[PageVersion]) -> int:
        """Like `save` for versions with different keys, their heads in batches; returns how many.

        Raises:
            PartialBatchError: Some were not; all others were.
        """
        failures: list[tuple[Any, RagcrawlDynamoError]] = []
        saved = 0
        for i in range(0, len(versions), WRITES_PER_BATCH):
            saved += await self._save_batch(versions[i : i + WRITES_PER_BATCH], failures)
        if failures:
            raise PartialBatchError(saved, failures) from failures[0][1]
        return saved

    async def get(self, page_id: str, version_id: str, site_id: str | None) -> PageVersion | None:
        """One version by key with its body; strongly consistent with and without its site."""
        if site_id is not None:
            return await self._get(version_key(page_id, version_id, site_id))
        prefix = BeginsWith("version_key", {"S": version_prefix(version_id)})
        query = Query(self._table, page_partition(page_id), sort=prefix)
        page = await self._gateway.call("Query", requests.query_request(query, limit=2))
        if len(page["Items"]) > 1:
            raise AmbiguousIdError(
                f"version_id {version_id!r} of page {page_id!r} is in use in several sites: pass site_id"
            )
        return await self._load(page["Items"][0]) if page["Items"] else None

    async def find(self, site_id: str, version_id: str) -> PageVersion | None:
        """A site's version by its own id; by_site is read until it shows it, eventually consistent."""
        named = BeginsWith("version_key", {"S": version_prefix(version_id)})
        query = Query(self._table, site_partition(site_id), index="by_site", filter=named)
        async with aclosing(read_pages(self._gateway, query)) as pages:
            async for _, entries in pages:
                for entry in entries:
                    key = self._key(entry)
                    head, _ = body_entry(key) or (key, "")
                    if (version := await self._get(head)) is not None:
                        return version
        return None

    async def listing(
        self, page_id: str, limit: int, cursor: str | None, include_content: bool, site_id: str | None
    ) -> Slice[PageVersion]:
        """A page's versions, newest first; strongly consistent."""
        query = self._heads_of(page_id, site_id)
        if not include_content:
            query = replace(query, attributes=(*self._table.primary_key, *_HEAD_FIELDS))
        heads = await read_newest(self._gateway, query, "crawled_at", limit=limit, cursor=cursor)
        if not include_content:
            return Slice((from_item(self._table, head) for head in heads), heads.cursor)
        loaded = await gather_bounded(self._load, heads, _SAVES_IN_FLIGHT)
        return Slice((version for version in loaded if version is not None), heads.cursor)

    async def iterate(self, keys: AsyncIterable[Key]) -> AsyncGenerator[PageVersion, None]:
        """Versions with their bodies in the order of their keys, read ahead; absent ones are left out."""

        async def reads() -> AsyncGenerator[Callable[[], Awaitable[list[tuple[Item, Item | None]]]], None]:
            chunk: list[Key] = []
            async for key in keys:
                chunk.append(key)
                if len(chunk) == _READ_CHUNK:
                    yield lambda chunk=chunk: self._read(chunk)  # type: ignore[misc] # binds the loop's value
                    chunk = []
            if chunk:
                yield lambda: self._read(chunk)

        async with aclosing(read_ahead(reads(), _READS_AHEAD)) as chunks:
            async for pairs in chunks:
                for head, first in pairs:
                    version = await self._load(head, first)
                    if version is not None:
                        yield version

    async def content_hashes(self, ids: Iterable[tuple[str, str, str]]) -> dict[tuple[str, str, str], str]:
        """The content_hash of those versions that exist, by (page_id, version_id, site_id), all different."""
        keys = [version_key(*each) for each in ids]
        heads = await read_all(self._gateway, self._table, keys, ("content_hash",))
        return {version_ids(head): head["content_hash"]["S"] for head in heads}

    async def heads(self, page_id: str, site_id: str) -> list[VersionHead]:
        """What a clean-up needs to know of all versions of a page of a site, newest first."""
        query = replace(
            self._heads_of(page_id, site_id), attributes=(*self._table.primary_key, "crawled_at", "body")
        )
        items = await read_newest(self._gateway, query, "crawled_at", limit=1_000_000)
        return [VersionHead(self._key(item), item["crawled_at"]["S"], manifest_of(item)) for item in items]

    async def used_places(self, keys: Sequence[Key]) -> dict[tuple[str, ...], str | None]:
        """Where those versions that exist have their bodies; None where in the head."""
        heads = await read_all(self._gateway, self._table, keys, ("body",))
        return {key_values(self._table, head): used_place(self._key(head), head) for head in heads}

    async def delete(self, key: Key) -> bool:
        """Removes a version, and its body unless others use it; whether it was there."""
        response = await self._gateway.call("DeleteItem", requests.delete_request(self._table, key, old=True))
        old = response.get("Attributes", {})
        manifest = manifest_of(old)
        if manifest is not None and manifest.parts:
            await self.bodies.release(key, manifest)
        return bool(old)

    async def _save_batch(
        self, versions: Sequence[PageVersion], failures: list[tuple[Any, RagcrawlDynamoError]]
    ) -> int:
        written: dict[KeyValues, tuple[PageVersion, Item]] = {}

        async def write_body(version: PageVersion) -> None:
            try:
                head = await self.prepare(version)
            except RagcrawlDynamoError as error:
                failures.append((version, error))
            else:
                written[key_values(self._table, head)] = (version, head)

        await gather_bounded(write_body, versions, _SAVES_IN_FLIGHT)
        failed = await put_all(self._gateway, self._table, [head for _, head in written.values()])
        failures += [(written[key][0], error) for key, error in failed.items()]
        return len(written) - len(failed)

    async def prepare(self, version: PageVersion) -> Item:
        """Writes a version's body; the head that will show it is the caller's to write."""
        started = time.monotonic(), time.time()
        key = self._table.keys(version)
        config = self._gateway.config
        # Refused before anything is written: the head takes no more than this.
        longest = Manifest(0, 0, bytes(32), 0, body_place(key, "x" * 12), "x" * 300)
        head = to_item(self._table, version, {"body": longest.to_attribute(), **site_entry(key)})
        size = len(version.html or "") + len(version.markdown) + len(version.plain_text or "")
        packing: Any = {"level": config.compression_level, "max_bytes": config.max_content_bytes}
        if size > _THREAD_BYTES:
            manifest, data = await asyncio.to_thread(pack, version, **packing)
        else:
            manifest, data = pack(version, **packing)
        inline: Item = {**head, "body": manifest.to_attribute(), "content": {"B": data}}
        if item_size(inline) <= INLINE_BYTES:
            return inline
        if (shared := await self._share_equal(key, version.site_id, manifest)) is not None:
            return {**head, "body": shared.to_attribute()}
        manifest = await self.bodies.write(key, manifest, data)
        if max(time.monotonic() - started[0], time.time() - started[1]) > _LONGEST_SAVE:
            raise DeadlineExceededError(
                f"the worker stood still for over {_LONGEST_SAVE:.0f} s: save the version again",
                code="SaveTooSlow",
                operation="PutItem",
                table=self._table.name,
            )
        # Listed under its site by its first part.
        del head["indexed_site"]
        return {**head, "body": manifest.to_attribute()}

    async def _share_equal(self, key: Key, site_id: str, manifest: Manifest) -> Manifest | None:
        """The manifest of an equal body of the same page and site that this version may use too."""
        equal = AllOf((_of_site(site_id), Compare(("body", "sha256"), "=", {"B": manifest.digest})))
        attributes = (*self._table.primary_key, "body")
        query = Query(self._table, key["page_id"]["S"], filter=equal, attributes=attributes)
        response = await self._gateway.call("Query", requests.query_request(query, limit=_HEADS_COMPARED))
        for item in response["Items"]:
            other = manifest_of(item)
            owner = self._key(item)
            if owner == key or other is None or not other.parts:
                continue
            if await self.bodies.share(key, owner, other):
                return replace(other, place=place_of(owner, other))
        return None

    async def _get(self, key: Key) -> PageVersion | None:
        part = body_part_key(key, body_place(key), 0)
        head, first = await self._gets.get_together([key, part])
        return None if head is None else await self._load(head, first)

    async def _read(self, keys: Sequence[Key]) -> list[tuple[Item, Item | None]]:
        """Heads with the first part of what is most often their body, in few requests."""
        parts = [body_part_key(key, body_place(key), 0) for key in keys]
        items = await read_all(self._gateway, self._table, [*keys, *parts], per_batch=2 * _READ_CHUNK)
        found = {key_values(self._table, item): item for item in items}
        return [
            (found[key_values(self._table, key)], found.get(key_values(self._table, part)))
            for key, part in zip(keys, parts, strict=True)
            if key_values(self._table, key) in found
        ]

    async def _load(self, head: Item, first: Item | None = None) -> PageVersion | None:
        """The version of a head, with its body; None where it was deleted meanwhile."""
        key = self._key(head)
        try:
            return await self._with_content(key, head, first)
        except ContentError as error:
            # Replaced or deleted since the head was read, perhaps.
            response = await self._gateway.call("GetItem", requests.get_request(self._table, key))
            again = response.get("Item")
            if again is None:
                return None
            if again.get("body") != head.get("body"):
                return await self._load(again)
            version = from_item(self._table, head)
            raise CorruptContentError(
                str(error), page_id=version.page_id, version_id=version.version_id, site_id=version.site_id
            ) from error

    async def _with_content(self, key: Key, head: Item, first: Item | None) -> PageVersion:
        manifest = Manifest.from_attribute(head.get("body", {}))
        if not manifest.parts:
            data = head.get("content", {}).get("B", b"")
        else:
            in_first_place = place_of(key, manifest) == body_place(key)
            data = await self.bodies.read(key, manifest, first if in_first_place else None)
        limit = self._gateway.config.max_content_bytes
        if manifest.raw_bytes > _THREAD_BYTES:
            content = await asyncio.to_thread(unpack, manifest, data, max_bytes=limit)
        else:
            content = unpack(manifest, data, max_bytes=limit)
        return from_item(self._table, head, content)

    def _heads_of(self, page_id: str, site_id: str | None) -> Query:
        of_site = None if site_id is None else _of_site(site_id)
        return Query(self._table, page_partition(page_id), filter=of_site)

    def _key(self, item: Item) -> Key:
        return {name: item[name] for name in self._table.primary_key}


def _of_site(site_id: str) -> Condition:
    # Refuses what can be no id of a site.
    site_partition(site_id)
    return Compare("site_id", "=", {"S": site_id})


def manifest_of(item: Item) -> Manifest | None:
    """What a stored head says of its content; None where it says nothing that can be read."""
    try:
        return Manifest.from_attribute(item.get("body", {}))
    except ContentError:
        return None
