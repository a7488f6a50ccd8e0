"""What concerns all versions of a site: what they take, retention, garbage, and their deletion."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeAlias

from ragcrawl_dynamo._content.bodies import used_place
from ragcrawl_dynamo._content.versions import VersionHead, VersionStore, manifest_of
from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.batching import delete_all, key_values, read_all
from ragcrawl_dynamo._dynamodb.expressions import BeginsWith, Compare, Condition
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.pagination import read_slice
from ragcrawl_dynamo._dynamodb.requests import Query
from ragcrawl_dynamo._dynamodb.sizes import item_size
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._dynamodb.values import Item, Key, encode_value, unescape
from ragcrawl_dynamo._records.pages import PageStore
from ragcrawl_dynamo._schema.keys import (
    BODY_PARTITIONS,
    body_entry,
    body_part_key,
    body_users_key,
    site_partition,
    version_ids,
)
from ragcrawl_dynamo._utils.concurrency import gather_bounded
from ragcrawl_dynamo._utils.validation import check_amount
from ragcrawl_dynamo.errors import InvalidArgumentError, MassDeletionError
from ragcrawl_dynamo.models import PageVersion, utc_now

__all__ = ["ContentUsage", "GarbageReport", "PruneReport"]

_CHUNK = 100
_DELETIONS_IN_FLIGHT = 8

# Garbage is nothing that a user sees, and all that a new site may have; so much of it needs no permission.
_FEW_BODIES = 100

# A body in the site's index: the version it was written for, and its place.
Entry: TypeAlias = tuple[Key, str]

# A body to delete: besides, its number of parts, and its object where it is in the content bucket.
Garbage: TypeAlias = tuple[Key, str, int, str | None]


@dataclass(frozen=True, slots=True)
class ContentUsage:
    """What a site's versions take.

    Attributes:
        versions: How many there are.
        shared: How many of them use the body of another one.
        raw_bytes: Bytes of their content before compression, each version's counted.
        stored_bytes: Bytes after, without those of shared bodies.
        write_units: Write capacity units of storing them, by DynamoDB's rule: one for each 1 KB of an item,
            and one for the entry in the site's index.
    """

    versions: int = 0
    shared: int = 0
    raw_bytes: int = 0
    stored_bytes: int = 0
    write_units: int = 0


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What `prune_versions` removed, or would remove.

    Attributes:
        versions_total: Versions that the site had.
        versions_removed: How many of them went.
        dry_run: Whether nothing was removed in fact.
    """

    versions_total: int
    versions_removed: int
    dry_run: bool


@dataclass(frozen=True, slots=True)
class GarbageReport:
    """What `collect_garbage` removed, or would remove.

    Attributes:
        bodies_total: Bodies in parts that the site had, garbage included.
        bodies_removed: How many of them went: no version used them.
        parts_removed: Items that they consisted of.
        dry_run: Whether nothing was removed in fact.
    """

    bodies_total: int
    bodies_removed: int
    parts_removed: int
    dry_run: bool


class Maintenance:
    """Finds through by_site (eventually consistent), decides by full keys (strongly consistent)."""

    def __init__(
        self, gateway: Gateway, table: Table[PageVersion], versions: VersionStore, pages: PageStore
    ) -> None:
        self._gateway = gateway
        self._table = table
        self._versions = versions
        self._pages = pages

    async def usage(self, site_id: str) -> ContentUsage:
        """What a site's versions take, read from their heads."""
        usage = ContentUsage()
        async with aclosing(self._entries(site_id)) as chunks:
            async for heads, bodies in chunks:
                owners = {key_values(self._table, head): head for head, _ in bodies}
                listed = {key_values(self._table, head): head for head in heads}
                items = await read_all(self._gateway, self._table, list((owners | listed).values()))
                found = {key_values(self._table, item): item for item in items}
                # A head is listed once itself, or by the one body that it uses.
                uses = {(key, used_place(_key(item), item)) for key, item in found.items()}
                own = [
                    key for head, place in bodies if ((key := key_values(self._table, head)), place) in uses
                ]
                for key in [*(listed.keys() & found.keys()), *own]:
                    usage = self._with_head(usage, found[key])
        return usage

    async def tombstone(self, site_id: str, page_ids: Iterable[str], *, allow_mass_deletion: bool) -> int:
        """Marks pages as gone; returns how many of them exist."""
        distinct = list(dict.fromkeys(page_ids))
        total = await self._pages.count(site_id, include_tombstones=False)
        self._guard("pages", len(distinct), total, allow_mass_deletion)

        async def tombstone(page_id: str) -> bool:
            return await self._pages.tombstone(site_id, page_id)

        return sum(await gather_bounded(tombstone, distinct, _DELETIONS_IN_FLIGHT))

    async def prune(
        self,
        site_id: str,
        *,
        keep_last: int | None,
        max_age_days: float | None,
        dry_run: bool,
        allow_mass_deletion: bool,
    ) -> PruneReport:
        """Removes what is neither among the last of its page nor young, and never a current version."""
        oldest = _oldest(keep_last, max_age_days)
        total = removable = 0
        async with aclosing(self._prunable(site_id, keep_last, oldest)) as pages:
            async for count, heads in pages:
                total += count
                removable += len(heads)
        self._guard("versions", removable, total, allow_mass_deletion or dry_run)
        removed = 0
        if removable and not dry_run:
            async with aclosing(self._prunable(site_id, keep_last, oldest)) as pages:
                async for _, heads in pages:
                    removed += sum(await gather_bounded(self._delete, heads, _DELETIONS_IN_FLIGHT))
        return PruneReport(total, removable if dry_run else removed, dry_run)

    async def collect_garbage(
        self, site_id: str, *, grace_hours: float, dry_run: bool, allow_mass_deletion: bool
    ) -> GarbageReport:
        """Removes bodies that no version uses, if they are older than a grace time."""
        if not grace_hours >= 0:
            raise InvalidArgumentError("grace_hours", f"must be at least 0, not {grace_hours!r}")
        before = utc_now().timestamp() - grace_hours * 3600
        total = 0
        found: list[Garbage] = []
        async with aclosing(self._entries(site_id)) as chunks:
            async for _, bodies in chunks:
                total += len(bodies)
                found += await self._garbage(bodies, before)
        few = len(found) <= _FEW_BODIES
        self._guard("bodies", len(found), total, allow_mass_deletion or dry_run or few)
        if dry_run:
            return GarbageReport(total, len(found), sum(parts for *_, parts, _ in found), dry_run)
        removed = parts_removed = 0
        for head, place, parts, object_key in found:
            dead = await self._dead_users(head, place, before)
            if dead is None:
                continue
            if await self._versions.bodies.reclaim(head, place, parts, object_key, dead):
                removed += 1
                parts_removed += parts
        return GarbageReport(total, removed, parts_removed, dry_run)

    async def delete_versions(self, site_id: str) -> int:
        """Removes all versions and bodies of a site that by_site shows; heads first."""
        removed = 0
        async with aclosing(self._entries(site_id)) as chunks:
            async for heads, bodies in chunks:
                owners = {key_values(self._table, head): head for head, _ in bodies}
                listed = {key_values(self._table, head): head for head in heads}
                removed += await delete_all(self._gateway, self._table, list((owners | listed).values()))
                await self._delete_bodies(bodies)
        return removed

    async def _delete(self, head: VersionHead) -> bool:
        return await self._versions.delete(head.key)

    async def _prunable(
        self, site_id: str, keep_last: int | None, oldest: str | None
    ) -> AsyncGenerator[tuple[int, list[VersionHead]], None]:
        """For each page of the site: how many versions it has, and which may go."""
        async with aclosing(self._versions_by_page(site_id)) as pages:
            async for page_id, count in pages:
                if keep_last is not None and oldest is None and count <= keep_last:
                    yield count, []
                    continue
                heads = await self._versions.heads(page_id, site_id)
                page = await self._pages.get(site_id, page_id)
                current = page.current_version_id if page is not None else None
                yield (
                    len(heads),
                    [
                        head
                        for rank, head in enumerate(heads)
                        if not (
                            (keep_last is not None and rank < keep_last)
                            or (oldest is not None and head.crawled_at >= oldest)
                            or version_ids(head.key)[1] == current
                        )
                    ],
                )

    async def _versions_by_page(self, site_id: str) -> AsyncGenerator[tuple[str, int], None]:
        """Page ids with the number of their versions, from two listings that are both in page order."""
        low, high = BODY_PARTITIONS
        listings = [
            self._listed(site_id, Compare("page_id", "<", {"S": low})),
            self._listed(site_id, Compare("page_id", ">=", {"S": high})),
        ]
        heads = _chained(listings)
        bodies = self._listed(site_id, BeginsWith("page_id", {"S": low}))
        async with aclosing(_merged_counts(heads, bodies)) as counts:
            async for partition, count in counts:
                yield unescape(partition), count

    async def _listed(self, site_id: str, pages: Condition) -> AsyncGenerator[str, None]:
        """The page of each entry of by_site in one range of pages, in order."""
        query = Query(self._table, site_partition(site_id), index="by_site", sort=pages)
        cursor: str | None = None
        while True:
            entries = await read_slice(self._gateway, query, _key, limit=1000, cursor=cursor)
            for key in entries:
                entry = body_entry(key)
                yield (entry[0] if entry else key)["page_id"]["S"]
            if (cursor := entries.cursor) is None:
                return

    async def _entries(self, site_id: str) -> AsyncGenerator[tuple[list[Key], list[Entry]], None]:
        """Everything that by_site lists of a site, in chunks: heads, and first parts of bodies."""
        query = Query(self._table, site_partition(site_id), index="by_site")
        cursor: str | None = None
        while True:
            keys = await read_slice(self._gateway, query, _key, limit=_CHUNK, cursor=cursor)
            bodies = [entry for key in keys if (entry := body_entry(key)) is not None]
            yield [key for key in keys if body_entry(key) is None], bodies
            if (cursor := keys.cursor) is None:
                return

    async def _garbage(self, bodies: Sequence[Entry], before: float) -> list[Garbage]:
        """Those bodies that no head uses and that were written before a moment; each with its parts."""
        owners = {key_values(self._table, head): head for head, _ in bodies}
        used = await self._versions.used_places(list(owners.values()))
        unused = [entry for entry in bodies if used.get(key_values(self._table, entry[0])) != entry[1]]
        found = []
        for (head, place), part in await self._first_parts(unused):
            if int(part["written_at"]["N"]) > before:
                continue
            if await self._dead_users(head, place, before) is not None:
                found.append((head, place, int(part["parts"]["N"]), _object_key(part)))
        return found

    async def _dead_users(self, head: Key, place: str, before: float) -> list[str] | None:
        """The users of a body whose heads do not use it; None if one does, or joined lately."""
        users = requests.get_request(self._table, body_users_key(head, place))
        item = (await self._gateway.call("GetItem", users)).get("Item", {})
        names = list(item.get("users", {}).get("SS", []))
        if not names:
            return []
        if int(item.get("joined_at", {}).get("N", "0")) > before:
            return None
        keys: list[Key] = [{"page_id": head["page_id"], "version_key": {"S": name}} for name in names]
        return names if place not in (await self._versions.used_places(keys)).values() else None

    async def _delete_bodies(self, bodies: Sequence[Entry]) -> None:
        async def delete(found: tuple[Entry, Item]) -> None:
            (head, place), part = found
            parts = int(part["parts"]["N"])
            await self._versions.bodies.delete(head, place, parts, _object_key(part))

        await gather_bounded(delete, await self._first_parts(bodies), _DELETIONS_IN_FLIGHT)

    async def _first_parts(self, bodies: Sequence[Entry]) -> list[tuple[Entry, Item]]:
        """Bodies that are still there with their first part, its data left out."""
        by_key = {key_values(self._table, body_part_key(*entry, 0)): entry for entry in bodies}
        keys = [body_part_key(*entry, 0) for entry in bodies]
        items = await read_all(self._gateway, self._table, keys, ("parts", "written_at", "object_key"))
        return [(by_key[key_values(self._table, item)], item) for item in items]

    def _with_head(self, usage: ContentUsage, head: Item) -> ContentUsage:
        manifest = manifest_of(head)
        if manifest is None:
            return replace(usage, versions=usage.versions + 1)
        shared = manifest.parts > 0 and "indexed_site" in head
        units = -(-item_size(head) // 1024) + 1
        if manifest.parts and not shared:
            units += self._versions.bodies.write_units(_key(head), manifest)
        return ContentUsage(
            versions=usage.versions + 1,
            shared=usage.shared + shared,
            raw_bytes=usage.raw_bytes + manifest.raw_bytes,
            stored_bytes=usage.stored_bytes + (0 if shared else manifest.stored_bytes),
            write_units=usage.write_units + units,
        )

    def _guard(self, what: str, removed: int, total: int, allowed: bool) -> None:
        share = self._gateway.config.max_deleted_share
        if not allowed and removed > share * total:
            raise MassDeletionError(what, removed, total, share)


def _object_key(part: Item) -> str | None:
    return part.get("object_key", {}).get("S")


def _key(entry: Item) -> Key:
    return {name: entry[name] for name in ("page_id", "version_key")}


async def _chained(listings: Sequence[AsyncGenerator[str, None]]) -> AsyncGenerator[str, None]:
    for listing in listings:
        async with aclosing(listing):
            async for each in listing:
                yield each


async def _merged_counts(
    *listings: AsyncGenerator[str, None],
) -> AsyncGenerator[tuple[str, int], None]:
    """Each text of ordered listings with the number of times that it is in them, in order."""
    try:
        ahead = [(await anext(listing, None), listing) for listing in listings]
        while pending := [text.encode() for text, _ in ahead if text is not None]:
            least, count = min(pending).decode(), 0
            for i, (text, listing) in enumerate(ahead):
                while text == least:
                    count += 1
                    text = await anext(listing, None)
                ahead[i] = (text, listing)
            yield least, count
    finally:
        for listing in listings:
            await listing.aclose()


def _oldest(keep_last: int | None, max_age_days: float | None) -> str | None:
    """The `crawled_at` from which on versions are young enough, as it stands in an item."""
    if keep_last is None and max_age_days is None:
        raise InvalidArgumentError("keep_last", "or max_age_days must be given: else nothing may go")
    check_amount("keep_last", keep_last)
    check_amount("max_age_days", max_age_days)
    if max_age_days is None:
        return None
    try:
        moment: datetime = utc_now() - timedelta(days=max_age_days)
    except OverflowError:
        return ""
    return encode_value(moment, model="PageVersion", field="crawled_at")["S"]
