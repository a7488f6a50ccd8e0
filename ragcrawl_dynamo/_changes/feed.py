"""Gives readers the pages that commits created, changed and deleted; each reader has its own cursor.

A reader goes through each shard of a site's change log in the order of its sequence numbers, and reads the
page of each entry.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

from ragcrawl_dynamo._changes.change import (
    VOID,
    ChangeKind,
    ChangeSlice,
    FeedCursor,
    LatestChanges,
    LogEntry,
    PageChange,
    latest_changes,
)
from ragcrawl_dynamo._changes.contents import ChangeContents
from ragcrawl_dynamo._changes.log import ChangeLog
from ragcrawl_dynamo._changes.shard_reader import ShardPart, ShardReader
from ragcrawl_dynamo._changes.shards import ShardRecord
from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.batching import read_all
from ragcrawl_dynamo._dynamodb.codec import from_item
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.pagination import check_limit, delete_partition
from ragcrawl_dynamo._dynamodb.requests import Query
from ragcrawl_dynamo._dynamodb.retry import full_jitter
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._dynamodb.values import Item, Key, moment_text
from ragcrawl_dynamo._records.pages import PageStore
from ragcrawl_dynamo._schema.attributes import change_order
from ragcrawl_dynamo._schema.keys import (
    change_shard_partition,
    changes_partition,
    consumer_key,
    site_partition,
)
from ragcrawl_dynamo._utils.concurrency import gather_bounded, map_in_turns
from ragcrawl_dynamo.errors import ChangesExpiredError
from ragcrawl_dynamo.models import Page

# Shards that one call reads at once.
_SHARDS_IN_FLIGHT = 8

# Times that a page is read again whose transaction seems to be under way.
_READS = 6

# The margin by which a cursor counts as expired earlier than its entries.
_MARGIN_HOURS = 1.0

# The advice to a reader that has missed changes.
_START_AGAIN = "start again without a cursor, and then delete the pages that you have and that are not listed"


@dataclass(frozen=True, slots=True)
class FeedPart:
    """The result of one read of the feed.

    Attributes:
        changes: The changes, without versions.
        is_end: Whether nothing more can be read for now.
        cursor_after: Returns the cursor of a reader that has handled a number of the changes, the first ones.
    """

    changes: list[PageChange]
    is_end: bool
    cursor_after: Callable[[int], FeedCursor]

    @property
    def cursor(self) -> FeedCursor:
        """The cursor of a reader that has handled all of the changes."""
        return self.cursor_after(len(self.changes))


class ChangeFeed:
    """Reads the changes of all sites; key of a consumer's cursor `#{site_id}` / `consumer#{consumer}`."""

    def __init__(
        self,
        gateway: Gateway,
        table: Table[Page],
        pages: PageStore,
        change_log: ChangeLog,
        contents: ChangeContents,
    ) -> None:
        self._gateway = gateway
        self._table = table
        self._pages = pages
        self._log = change_log
        self._shards = ShardReader(gateway, table, change_log)
        self.contents = contents

    async def listing(
        self, site_id: str, limit: int, cursor: str | None, include_content: bool
    ) -> ChangeSlice:
        """Returns a slice of a site's changes; see StorageBackend.list_changes."""
        part = await self.read(site_id, limit, None if cursor is None else self.decode(site_id, cursor))
        changes = part.changes
        if include_content:
            changes = [change async for change in self.contents.loaded(changes)]
        return ChangeSlice(changes, self.encode(site_id, part.cursor), is_end=part.is_end)

    async def read(self, site_id: str, limit: int, position: FeedCursor | None) -> FeedPart:
        """Reads the next changes of a site. Without a position, all pages that have content come first."""
        check_limit(limit)
        if position is None:
            position = replace(await self._present(site_id), listing="")
        if position.listing is not None:
            part = await self._list_pages(site_id, limit, position)
            if part.changes or part.cursor.listing is not None:
                return part
            # No page is left to list, or the site has none.
            position = part.cursor
        while True:
            part = await self._read(site_id, limit, position)
            if part.changes or part.is_end:
                return part
            position = part.cursor

    async def cursor(self, site_id: str, consumer: str | None) -> str | None:
        """Returns a consumer's cursor, or one beyond all changes; see StorageBackend.get_change_cursor."""
        if consumer is None:
            return self.encode(site_id, await self._present(site_id))
        return await self._saved_cursor(site_id, consumer)

    async def saved_position(self, site_id: str, consumer: str) -> FeedCursor | None:
        """Returns how far a consumer has come; None if it has no cursor."""
        cursor = await self._saved_cursor(site_id, consumer)
        return None if cursor is None else self.decode(site_id, cursor)

    async def save_cursor(self, site_id: str, consumer: str, cursor: str) -> None:
        """Saves a consumer's cursor; see StorageBackend.save_change_cursor."""
        self.decode(site_id, cursor)
        item: Item = {
            **consumer_key(site_id, consumer),
            "cursor": {"S": cursor},
            "saved_at": {"S": moment_text(self._log.now())},
        }
        await self._gateway.call("PutItem", requests.put_request(self._table, item))

    async def delete_of_site(self, site_id: str) -> int:
        """Removes a site's changes, its consumers' cursors, and last its shards; returns how many items."""
        self._log.forget(site_id)
        removed = 0
        for record in await self._log.shards.records(site_id):
            entries = Query(self._table, change_shard_partition(site_id, record.shard))
            removed += await delete_partition(self._gateway, entries)
        return removed + await delete_partition(self._gateway, Query(self._table, changes_partition(site_id)))

    def encode(self, site_id: str, position: FeedCursor) -> str:
        """Returns a cursor of a site's changes as opaque text."""
        return position.encode([self._table.name, "changes", site_partition(site_id)])

    def decode(self, site_id: str, cursor: str) -> FeedCursor:
        """Returns the position that `encode` made a cursor of.

        Raises:
            InvalidCursorError: It is damaged, or of another site.
        """
        return FeedCursor.decode(cursor, [self._table.name, "changes", site_partition(site_id)])

    async def _saved_cursor(self, site_id: str, consumer: str) -> str | None:
        request = requests.get_request(self._table, consumer_key(site_id, consumer))
        item = (await self._gateway.call("GetItem", request)).get("Item")
        return None if item is None else item["cursor"]["S"]

    async def _list_pages(self, site_id: str, limit: int, position: FeedCursor) -> FeedPart:
        """Lists all pages for a reader that begins, as if they had just been created."""
        pages = await self._pages.listing_with_content(site_id, limit, position.listing or None)

        def cursor_after(count: int) -> FeedCursor:
            if count == len(pages):
                return replace(position, listing=pages.cursor)
            if count == 0:
                return position
            listing = self._pages.listing_cursor(site_id, pages[count - 1].page_id)
            return replace(position, listing=listing)

        changes = [PageChange(ChangeKind.CREATED, page) for page in pages]
        return FeedPart(changes, False, cursor_after)

    async def _read(self, site_id: str, limit: int, position: FeedCursor) -> FeedPart:
        """Reads the entries that can be read now, once; they may have no change, although more follow."""
        now = self._log.now()
        records = await self._log.shards.records(site_id)
        if position.next_numbers.keys() - {record.shard for record in records}:
            raise ChangesExpiredError(
                f"the changes of site {site_id!r} were deleted since this cursor was taken: {_START_AGAIN}"
            )
        _check_age(position, records, now)
        parts: list[ShardPart] = await gather_bounded(
            # A shard that is new since the cursor was taken is read from its beginning.
            lambda record: self._shards.read(
                site_id, record, position.next_numbers.get(record.shard, 1), limit, now
            ),
            records,
            _SHARDS_IN_FLIGHT,
        )
        entries, next_numbers = merged(parts, limit)
        is_whole = len(entries) == sum(len(part.entries) for part in parts)
        is_end = is_whole and all(part.is_end for part in parts)
        taken_at = unread_since(parts, next_numbers, position.taken_at, now)
        latest = await self._latest_changes(site_id, entries)

        def cursor_after(count: int) -> FeedCursor:
            if count == len(latest.changes):
                return FeedCursor(taken_at, next_numbers)
            return position.after(entries[: latest.entries_read[count - 1]]) if count else position

        return FeedPart(latest.changes, is_end, cursor_after)

    async def _latest_changes(self, site_id: str, entries: Sequence[LogEntry]) -> LatestChanges:
        """Returns the changes that a reader gets for some entries; the pages are read after the entries."""
        page_ids = {entry.page_id for entry in entries if entry.kind != VOID}
        pages = await self._read_pages(site_id, page_ids)
        for failures in range(1, _READS + 1):
            latest = latest_changes(entries, pages, accept_stale=False)
            if not latest.stale_pages:
                return latest
            await asyncio.sleep(full_jitter(self._gateway.config, failures))
            pages |= await self._read_pages(site_id, latest.stale_pages)
        return latest_changes(entries, pages, accept_stale=True)

    async def _read_pages(self, site_id: str, page_ids: set[str]) -> dict[str, tuple[Page, int | None]]:
        """Reads pages by their escaped ids, with the order of their latest change."""
        site = site_partition(site_id)
        keys: list[Key] = [{"site_id": {"S": site}, "page_id": {"S": page_id}} for page_id in page_ids]
        items = await read_all(self._gateway, self._table, keys)
        read = await map_in_turns(partial(from_item, self._table), items)
        return {
            item["page_id"]["S"]: (page, change_order(item)) for item, page in zip(items, read, strict=True)
        }

    async def _present(self, site_id: str) -> FeedCursor:
        now = self._log.now()
        records = await self._log.shards.records(site_id)
        numbers = await gather_bounded(
            lambda record: self._shards.present(site_id, record, now), records, _SHARDS_IN_FLIGHT
        )
        return FeedCursor(
            now, {record.shard: number for record, number in zip(records, numbers, strict=True)}
        )


def merged(parts: Sequence[ShardPart], limit: int) -> tuple[list[LogEntry], dict[str, int]]:
    """Merges the entries of shards by time, as far as the clocks of their writers agree.

    Returns:
        The first `limit` entries, and by shard the sequence number that follows those.
    """
    next_numbers = {part.shard: part.first for part in parts}
    entries: list[LogEntry] = []
    # The next entry of each shard; the number of the shard decides where moments are equal.
    heap = [(part.entries[0].logged_at, i, 0) for i, part in enumerate(parts) if part.entries]
    heapq.heapify(heap)
    while heap and len(entries) < limit:
        _, i, n = heapq.heappop(heap)
        part = parts[i]
        entries.append(part.entries[n])
        next_numbers[part.shard] = part.entries[n].position.sequence_number + 1
        if n + 1 < len(part.entries):
            heapq.heappush(heap, (part.entries[n + 1].logged_at, i, n + 1))
    return entries, next_numbers


def unread_since(
    parts: Sequence[ShardPart], next_numbers: Mapping[str, int], taken_at: datetime, now: datetime
) -> datetime:
    """Returns when the oldest entry that is left to read was logged, or an earlier moment.

    Args:
        parts: The parts of the shards that were read.
        next_numbers: By shard, the sequence number that follows the entries that the reader gets.
        taken_at: The `taken_at` of the cursor before.
        now: The present moment, which is returned if no entry is left.
    """
    moments = [now]
    for part in parts:
        unread = part.entries[next_numbers[part.shard] - part.first :]
        if unread:
            moments.append(unread[0].logged_at)
        elif not part.is_end:
            # The next entry was not read yet. It is not older than the one before.
            moments.append(part.entries[-1].logged_at if part.entries else taken_at)
    return min(moments)


def _check_age(position: FeedCursor, records: Sequence[ShardRecord], now: datetime) -> None:
    """Refuses a cursor beyond which entries may have expired.

    Their retention is that of the processes that wrote them, as the records of their shards have it.

    Raises:
        ChangesExpiredError: Entries may have expired.
    """
    for record in records:
        days, first = record.retention_days, position.next_numbers.get(record.shard, 1)
        # A shard without a holder has no entries after its last one.
        if days is None or record.next == first:
            continue
        if now - position.taken_at > timedelta(days=days, hours=-_MARGIN_HOURS):
            raise ChangesExpiredError(
                f"the cursor was taken at {position.taken_at:%Y-%m-%d %H:%M} UTC, and changes were kept for "
                f"change_retention_days = {days} only: {_START_AGAIN}"
            )
