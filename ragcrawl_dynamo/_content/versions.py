"""Saves, reads and deletes page versions: a small head each, its body in it, in parts, or shared."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

from ragcrawl_dynamo._content.bodies import BodyStore
from ragcrawl_dynamo._content.body_items import StoredBody, location_of, manifest_of
from ragcrawl_dynamo._content.heads import HeadStore
from ragcrawl_dynamo._content.loader import VersionLoader
from ragcrawl_dynamo._content.packing import THREAD_BYTES, Manifest, pack
from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.batching import WRITES_PER_BATCH, KeyValues, key_values, put_all, read_all
from ragcrawl_dynamo._dynamodb.coalescing import Puts
from ragcrawl_dynamo._dynamodb.codec import from_item, to_item
from ragcrawl_dynamo._dynamodb.expressions import BeginsWith
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.pagination import Slice, read_pages
from ragcrawl_dynamo._dynamodb.requests import Query
from ragcrawl_dynamo._dynamodb.sizes import item_size
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._dynamodb.values import Item, Key
from ragcrawl_dynamo._records.pages import PageStore
from ragcrawl_dynamo._schema.keys import (
    body_entry,
    body_location,
    page_key,
    page_partition,
    site_entry,
    site_partition,
    version_ids,
    version_key,
    version_prefix,
)
from ragcrawl_dynamo._utils.clock import Clock
from ragcrawl_dynamo._utils.concurrency import gather_bounded, map_in_turns
from ragcrawl_dynamo._utils.validation import check_kind, check_several
from ragcrawl_dynamo.errors import (
    AmbiguousIdError,
    DeadlineExceededError,
    InvalidKeyError,
    PartialBatchError,
    RagcrawlDynamoError,
)
from ragcrawl_dynamo.models import PageVersion

# page_id, version_id and site_id of a version.
VersionId: TypeAlias = tuple[str, str, str]

# A head of up to 4 KB costs one read unit with or without a body in it, and a body of its own one write unit
# more (docs/decisions/0015-heads-and-bodies.md).
INLINE_BYTES = 4096

# Bytes that one write unit writes.
_WRITE_UNIT = 1024

# Seconds between the parts of a body and its head: later, a collection of garbage may have removed the parts.
_LONGEST_SAVE = 3600.0

# About the bytes that a link or a heading takes in a body.
_BYTES_PER_LINK = 64

# Versions that are packed and written at once.
_SAVES_IN_FLIGHT = 8

# The longest names that a manifest can have, to check the size of a head before its body is written.
_LONGEST_OBJECT_KEY = "x" * 300
_LONGEST_GENERATION = "x" * 12


class VersionStore:
    """Key `{page_id}` / `{version_id}#{site_id}#`; by_site lists a site's versions by page."""

    def __init__(
        self,
        gateway: Gateway,
        table: Table[PageVersion],
        objects: Gateway | None,
        pages: PageStore,
        clock: Clock,
    ) -> None:
        self._gateway = gateway
        self._table = table
        self._pages = pages
        self._clock = clock
        self.bodies = BodyStore(gateway, table, objects, clock)
        self.heads = HeadStore(gateway, table)
        self.loader = VersionLoader(gateway, table, self.bodies)
        self._puts = Puts(gateway, table)

    async def close(self) -> None:
        """Sends the requests that wait to be sent."""
        await self.bodies.close()
        await self._puts.close()
        await self.loader.close()

    async def save(self, version: PageVersion, *, keep_unchanged: bool = False) -> str:
        """Saves a version, and replaces a stored one with the same key; see StorageBackend.save_version.

        The body of a version that is replaced stays until garbage is collected: if an answer is lost while
        another worker saves the same version, the request that is sent again can bring the former head back.
        """
        check_kind("version", version, PageVersion)
        if not keep_unchanged:
            for current_id in (await self._unchanged([version])).values():
                return current_id
        head = await self.prepare(version)
        await self._puts.put(head, item_size(head))
        return version.version_id

    async def save_bulk(self, versions: Iterable[PageVersion], *, keep_unchanged: bool = False) -> int:
        """Saves versions, their heads in batches; see StorageBackend.save_versions_bulk."""
        by_id = {_id_of(version): version for version in check_several("versions", versions, PageVersion)}
        if not keep_unchanged:
            for version_id in await self._unchanged(list(by_id.values())):
                del by_id[version_id]
        distinct = list(by_id.values())
        failures: list[tuple[Any, RagcrawlDynamoError]] = []
        saved = 0
        for i in range(0, len(distinct), WRITES_PER_BATCH):
            saved += await self._save_batch(distinct[i : i + WRITES_PER_BATCH], failures)
        if failures:
            raise PartialBatchError(saved, failures)
        return saved

    async def prepare(
        self, version: PageVersion, *, in_transaction: bool = False, is_first: bool = False
    ) -> Item:
        """Writes a version's body, and returns the head that shows it. The caller writes the head.

        Args:
            version: The version.
            in_transaction: Whether a transaction writes the head. It takes twice the write units, so the body
                is in the head only if the head needs no more units with it.
            is_first: Whether the version is the first one of its page. No equal body is searched for then.

        Raises:
            InvalidInputError: The version cannot be stored. Nothing was written.
            DeadlineExceededError: The body took so long that its parts may have been removed as garbage.
        """
        started_at, started = self._clock.now(), self._clock.monotonic()
        key = self._table.keys(version)
        # Refused before anything is written: the head takes no more than this.
        longest = Manifest(0, 0, bytes(32), 0, body_location(key, _LONGEST_GENERATION), _LONGEST_OBJECT_KEY)
        head = to_item(self._table, version, {"body": longest.to_attribute(), **site_entry(key)})
        manifest, data = await self._packed(version)
        without_body: Item = {**head, "body": manifest.to_attribute()}
        inline: Item = {**without_body, "content": {"B": data}}
        paid_bytes = -(-item_size(without_body) // _WRITE_UNIT) * _WRITE_UNIT
        if item_size(inline) <= (min(paid_bytes, INLINE_BYTES) if in_transaction else INLINE_BYTES):
            return inline
        shared = None if is_first else await self._join_equal(key, version.site_id, manifest)
        if shared is not None:
            return {**head, "body": shared.to_attribute()}
        manifest = await self.bodies.write(key, manifest, data)
        # Either clock can stand still: one while the machine sleeps, the other while its time is set back.
        passed = max(self._clock.monotonic() - started, (self._clock.now() - started_at).total_seconds())
        if passed > _LONGEST_SAVE:
            raise DeadlineExceededError(
                f"saving its body took {passed:,.0f} s. After {_LONGEST_SAVE:,.0f} s its parts may be "
                "removed as garbage, so its head was not written: save the version again",
                code="SaveTooSlow",
                operation="PutItem",
                table=self._table.name,
            )
        # The first part of its body lists it under its site.
        del head["indexed_site"]
        return {**head, "body": manifest.to_attribute()}

    async def get(self, site_id: str | None, page_id: str, version_id: str) -> PageVersion | None:
        """Reads one version with its body; see StorageBackend.get_version."""
        if site_id is not None:
            return await self.loader.get(version_key(page_id, version_id, site_id))
        prefix = BeginsWith("version_key", {"S": version_prefix(version_id)})
        query = Query(self._table, page_partition(page_id), sort=prefix)
        response = await self._gateway.call("Query", requests.query_request(query, limit=2))
        heads = response["Items"]
        if len(heads) > 1:
            raise AmbiguousIdError(
                f"version_id {version_id!r} of page {page_id!r} is in use in several sites: pass site_id"
            )
        return await self.loader.load(heads[0]) if heads else None

    async def get_current(self, site_id: str, page_id: str) -> PageVersion | None:
        """Reads the version that a page names as its current one; see StorageBackend.get_current_version."""
        page = await self._pages.get(site_id, page_id)
        if page is None or page.current_version_id is None:
            return None
        return await self.get(site_id, page_id, page.current_version_id)

    async def find(self, site_id: str, version_id: str) -> PageVersion | None:
        """Finds a version by its own id; see StorageBackend.find_version."""
        check_kind("site_id", site_id, str)
        check_kind("version_id", version_id, str)
        named = BeginsWith("version_key", {"S": version_prefix(version_id)})
        query = Query(self._table, site_partition(site_id), index="by_site", filter=named)
        async with aclosing(read_pages(self._gateway, query)) as pages:
            async for _, entries in pages:
                for entry in entries:
                    key = self.heads.key(entry)
                    head, _ = body_entry(key) or (key, "")
                    if (version := await self.loader.get(head)) is not None:
                        return version
        return None

    async def listing(
        self, site_id: str | None, page_id: str, limit: int, cursor: str | None, include_content: bool
    ) -> Slice[PageVersion]:
        """Lists a page's versions, newest first; see StorageBackend.list_versions."""
        heads = await self.heads.listing(site_id, page_id, limit, cursor, with_content=include_content)
        if not include_content:
            return Slice(await map_in_turns(partial(from_item, self._table), heads), heads.cursor)
        return Slice(await self.loader.load_all(heads), heads.cursor)

    async def iterate_current(self, site_id: str) -> AsyncGenerator[PageVersion, None]:
        """Reads the current versions of all pages of a site; see StorageBackend.iter_versions."""
        async with (
            aclosing(self._pages.current_versions(site_id)) as keys,
            aclosing(self.loader.iterate(keys)) as versions,
        ):
            async for version in versions:
                if version is not None:
                    yield version

    async def content_hashes(self, ids: Iterable[VersionId]) -> dict[VersionId, str]:
        """Reads the content_hash of those versions that exist. The ids must differ."""
        keys = [version_key(*version_id) for version_id in ids]
        heads = await read_all(self._gateway, self._table, keys, ("content_hash",))
        return {version_ids(head): head["content_hash"]["S"] for head in heads}

    async def delete(self, key: Key) -> bool:
        """Removes a version, and its body unless others use it; returns whether it was there."""
        response = await self._gateway.call("DeleteItem", requests.delete_request(self._table, key, old=True))
        head = response.get("Attributes", {})
        manifest = manifest_of(head)
        if manifest is not None and manifest.parts:
            await self.bodies.release(key, StoredBody.of_head(key, manifest))
        return bool(head)

    async def _save_batch(
        self, versions: Sequence[PageVersion], failures: list[tuple[Any, RagcrawlDynamoError]]
    ) -> int:
        prepared: dict[KeyValues, tuple[PageVersion, Item]] = {}

        async def prepare(version: PageVersion) -> None:
            try:
                head = await self.prepare(version)
            except RagcrawlDynamoError as error:
                failures.append((version, error))
            else:
                prepared[key_values(self._table, head)] = (version, head)

        await gather_bounded(prepare, versions, _SAVES_IN_FLIGHT)
        failed = await put_all(self._gateway, self._table, [head for _, head in prepared.values()])
        failures += [(prepared[key][0], error) for key, error in failed.items()]
        return len(prepared) - len(failed)

    async def _packed(self, version: PageVersion) -> tuple[Manifest, bytes]:
        config = self._gateway.config
        options: Any = {"level": config.compression_level, "max_bytes": config.max_content_bytes}
        size = len(version.html or "") + len(version.markdown) + len(version.plain_text or "")
        size += _BYTES_PER_LINK * (len(version.outlinks) + len(version.headings_outline))
        if size > THREAD_BYTES:
            return await asyncio.to_thread(pack, version, **options)
        return pack(version, **options)

    async def _join_equal(self, key: Key, site_id: str, manifest: Manifest) -> Manifest | None:
        """Lets a version use an equal body of its page and site; returns that body's manifest, if any."""
        for owner, equal in await self.heads.equal_bodies(key, site_id, manifest.digest):
            if await self.bodies.join(key, StoredBody.of_head(owner, equal)):
                return replace(equal, location=location_of(owner, equal))
        return None

    async def _unchanged(self, versions: Sequence[PageVersion]) -> dict[VersionId, str]:
        """Finds versions whose content is that of their page's current version.

        Returns:
            By id of such a version, the version_id of the current one.
        """
        keys: list[Key] = []
        for ids in {(version.site_id, version.page_id) for version in versions}:
            # No page has an id that cannot be a key. Saving the version will refuse it.
            with suppress(InvalidKeyError):
                keys.append(page_key(*ids))
        pages = {(page.site_id, page.page_id): page for page in await self._pages.get_many(keys)}
        current_ids: dict[VersionId, VersionId] = {}
        for version in versions:
            page = pages.get((version.site_id, version.page_id))
            if page is None or page.current_version_id in (None, version.version_id):
                continue
            if page.content_hash == version.content_hash:
                current_id = (version.page_id, str(page.current_version_id), version.site_id)
                current_ids[_id_of(version)] = current_id
        # The page may name a version that was never saved.
        hashes = await self.content_hashes(set(current_ids.values()))
        hash_of = {_id_of(version): version.content_hash for version in versions}
        return {
            version_id: current_id[1]
            for version_id, current_id in current_ids.items()
            if hashes.get(current_id) == hash_of[version_id]
        }


def _id_of(version: PageVersion) -> VersionId:
    return version.page_id, version.version_id, version.site_id
