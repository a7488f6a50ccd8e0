"""The change feed: what commits created, changed and deleted, for readers with cursors of their own.

A reader goes through each lane of a site (see stores/lanes.py) in the order of its numbers, and never past a
number that is still open: it waits, and after a while uses the number up itself. A commit that comes later
finds it taken, and logs its change further on. So nothing can come behind a reader.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from ragcrawl_dynamo._changes.change import (
    LATEST_HOURS,
    VOID,
    ChangeKind,
    ChangeSlice,
    Entry,
    FeedCursor,
    PageChange,
    Place,
    settled,
    show,
    tip,
)
from ragcrawl_dynamo._changes.log import Lanes
from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.batching import read_all
from ragcrawl_dynamo._dynamodb.codec import from_item
from ragcrawl_dynamo._dynamodb.expressions import Compare, Missing
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.pagination import check_limit, delete_partition
from ragcrawl_dynamo._dynamodb.requests import Query
from ragcrawl_dynamo._dynamodb.retry import full_jitter
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._dynamodb.values import Item, Key, moment_text
from ragcrawl_dynamo._records.pages import PageStore
from ragcrawl_dynamo._schema.attributes import change_order
from ragcrawl_dynamo._schema.keys import (
    change_shard_of,
    change_shard_partition,
    changes_partition,
    consumer_key,
    sequence_text,
    site_partition,
)
from ragcrawl_dynamo._utils.concurrency import gather_bounded
from ragcrawl_dynamo.errors import ChangesExpiredError, ConditionFailedError
from ragcrawl_dynamo.models import Page

# Lanes that one call reads at once, and numbers that it uses up at once.
_LANES_IN_FLIGHT = 8
_GAPS_IN_FLIGHT = 16

# Changes of a lane that one request reads at least: most of them can be of pages that changed again.
_LEAST_READ = 100

# Times that a page is read again whose transaction seems to be under way.
_READS = 6

# How much earlier than it has to a cursor counts as expired.
_MARGIN_HOURS = 1.0

# How old a consumer's cursor may grow while nothing changes.
_SAVE_HOURS = 6.0


@dataclass
class _Lane:
    """A lane as one call sees it: what of it can be read now, and where the next call goes on."""

    name: str
    number: int
    entries: list[Entry]
    is_end: bool


class ChangeStore:
    """Reads the changes of all sites, for one process."""

    def __init__(self, gateway: Gateway, table: Table[Page], pages: PageStore, lanes: Lanes) -> None:
        self._gateway = gateway
        self._table = table
        self._pages = pages
        self._lanes = lanes

    async def read(self, site_id: str, limit: int, cursor: str | None) -> ChangeSlice:
        """The next changes of a site; see StorageBackend.list_changes."""
        check_limit(limit)
        if cursor is None:
            place = replace(await self._present(site_id), listing="")
        else:
            place = self._decode(site_id, cursor)
        if place.listing is not None:
            return await self._list(site_id, limit, place)
        while True:
            changes, place, is_end = await self._read(site_id, limit, place)
            if changes or is_end:
                return ChangeSlice(changes, self._encode(site_id, place), is_end=is_end)

    async def present(self, site_id: str) -> str:
        """A cursor beyond all changes so far."""
        return self._encode(site_id, await self._present(site_id))

    async def load(self, site_id: str, consumer: str) -> str | None:
        """A consumer's cursor."""
        request = requests.get_request(self._table, consumer_key(site_id, consumer))
        item = (await self._gateway.call("GetItem", request)).get("Item")
        return None if item is None else item["cursor"]["S"]

    async def save(self, site_id: str, consumer: str, cursor: str) -> None:
        """Keeps a consumer's cursor."""
        self._decode(site_id, cursor)
        item: Item = {
            **consumer_key(site_id, consumer),
            "cursor": {"S": cursor},
            "saved_at": {"S": moment_text(self._lanes.now())},
        }
        await self._gateway.call("PutItem", requests.put_request(self._table, item))

    def is_worth_saving(self, site_id: str, before: str | None, part: ChangeSlice) -> bool:
        """Whether a consumer should save the cursor of a slice: it came further, or its old one grows old."""
        if before is None or part or not part.is_end:
            return True
        age = self._decode(site_id, part.cursor).taken_at - self._decode(site_id, before).taken_at
        return age > timedelta(hours=_SAVE_HOURS)

    async def delete_of_site(self, site_id: str) -> int:
        """Removes a site's changes, its consumers' cursors, and last its lanes."""
        self._lanes.forget(site_id)
        removed = 0
        for record in await self._lanes.records(site_id):
            lane = Query(self._table, change_shard_partition(site_id, change_shard_of(record)))
            removed += await delete_partition(self._gateway, lane)
        return removed + await delete_partition(self._gateway, Query(self._table, changes_partition(site_id)))

    async def _list(self, site_id: str, limit: int, place: FeedCursor) -> ChangeSlice:
        """The pages that there are at the beginning, as if each had just been created."""
        part = await self._pages.listing_with_content(site_id, limit, place.listing or None)
        after = replace(place, listing=part.cursor)
        changes = [PageChange(ChangeKind.CREATED, page) for page in part]
        return ChangeSlice(changes, self._encode(site_id, after), is_end=False)

    async def _read(
        self, site_id: str, limit: int, place: FeedCursor
    ) -> tuple[list[PageChange], FeedCursor, bool]:
        now = self._lanes.now()
        self._check_age(place, now)
        records = await self._lanes.records(site_id)
        gone = place.numbers.keys() - {change_shard_of(each) for each in records}
        if gone:
            raise ChangesExpiredError(
                f"the changes of site {site_id!r} were deleted since this cursor: start anew without one, "
                "and drop what is not listed then"
            )
        lanes: list[_Lane] = await gather_bounded(
            lambda record: self._read_lane(site_id, record, limit, place, now), records, _LANES_IN_FLIGHT
        )
        entries: list[Entry] = []
        ahead = [(each.entries[0].at, i, 0) for i, each in enumerate(lanes) if each.entries]
        heapq.heapify(ahead)
        # Those of different lanes by time, as far as their clocks agree.
        while ahead and len(entries) < limit:
            _, i, n = heapq.heappop(ahead)
            entries.append(lanes[i].entries[n])
            lanes[i].number = entries[-1].place.number + 1
            if n + 1 < len(lanes[i].entries):
                heapq.heappush(ahead, (lanes[i].entries[n + 1].at, i, n + 1))
        is_end = not ahead and all(each.is_end for each in lanes)
        changes = await self._changes(site_id, entries)
        return changes, FeedCursor(now, {each.name: each.number for each in lanes}), is_end

    async def _read_lane(
        self, site_id: str, record: Item, limit: int, place: FeedCursor, now: datetime
    ) -> _Lane:
        name = change_shard_of(record)
        # One that is new since the cursor was taken is read from its beginning.
        number = place.numbers.get(name, 1)
        if record.get("next") == {"N": str(number)}:
            return _Lane(name, number, [], is_end=True)
        while True:
            wanted = max(limit, _LEAST_READ)
            later = Compare("page_id", ">=", {"S": sequence_text(number)})
            query = Query(self._table, change_shard_partition(site_id, name), sort=later)
            response = await self._gateway.call("Query", requests.query_request(query, limit=wanted))
            entries = [Entry.of(name, each) for each in response["Items"]]
            found = settled(number, entries, now)
            if found.entries or not found.gap:
                is_whole = len(found.entries) == len(entries) and "LastEvaluatedKey" not in response
                # A number that is open is the end for now, whatever lies beyond it.
                is_end = is_whole or (len(found.entries) < len(entries) and not found.gap)
                return _Lane(name, number, found.entries, is_end)
            await self._use_up(site_id, name, found.gap)

    async def _use_up(self, site_id: str, lane: str, numbers: Sequence[int]) -> None:
        """Takes numbers of commits that are late, or have failed."""

        async def use_up(number: int) -> None:
            void = Entry(Place(lane, number), VOID, "", 0, self._lanes.now())
            item = void.item(site_id, self._gateway.config.change_retention_days)
            try:
                await self._gateway.call(
                    "PutItem", requests.put_request(self._table, item, Missing("page_id"))
                )
            except ConditionFailedError:
                # The commit was only late, or another reader was faster.
                return

        await gather_bounded(use_up, numbers, _GAPS_IN_FLIGHT)

    async def _changes(self, site_id: str, entries: Sequence[Entry]) -> list[PageChange]:
        """What a reader gets of entries; their pages are read after them."""
        pages = await self._read_pages(site_id, {each.page_id for each in entries if each.kind != VOID})
        for failures in range(1, _READS + 1):
            shown = show(entries, pages, anyhow=False)
            if not shown.behind:
                return shown.changes
            await asyncio.sleep(full_jitter(self._gateway.config, failures))
            pages |= await self._read_pages(site_id, shown.behind)
        return show(entries, pages, anyhow=True).changes

    async def _read_pages(self, site_id: str, ids: set[str]) -> dict[str, tuple[Page, int | None]]:
        site = site_partition(site_id)
        keys: list[Key] = [{"site_id": {"S": site}, "page_id": {"S": each}} for each in ids]
        items = await read_all(self._gateway, self._table, keys)
        return {each["page_id"]["S"]: (from_item(self._table, each), change_order(each)) for each in items}

    async def _present(self, site_id: str) -> FeedCursor:
        now = self._lanes.now()
        records = await self._lanes.records(site_id)
        numbers = await gather_bounded(
            lambda record: self._tip(site_id, record, now), records, _LANES_IN_FLIGHT
        )
        return FeedCursor(now, dict(zip(map(change_shard_of, records), numbers, strict=True)))

    async def _tip(self, site_id: str, record: Item, now: datetime) -> int:
        name = change_shard_of(record)
        query = Query(self._table, change_shard_partition(site_id, name), forward=False)
        long_ago = now - timedelta(hours=LATEST_HOURS)
        entries: list[Entry] = []
        start: Any = None
        while True:
            response = await self._gateway.call("Query", requests.query_request(query, start=start))
            entries += [Entry.of(name, each) for each in response["Items"]]
            start = response.get("LastEvaluatedKey")
            if start is None or any(each.at <= long_ago for each in entries):
                return tip(int(record["first"]["N"]), entries, now)

    def _check_age(self, place: FeedCursor, now: datetime) -> None:
        days = self._gateway.config.change_retention_days
        if days is None or now - place.taken_at <= timedelta(days=days, hours=-_MARGIN_HOURS):
            return
        raise ChangesExpiredError(
            f"the cursor is of {place.taken_at:%Y-%m-%d %H:%M} UTC, changes are kept for "
            f"change_retention_days = {days}: start anew without one, and drop what is not listed then"
        )

    def _encode(self, site_id: str, place: FeedCursor) -> str:
        return place.encode([self._table.name, "changes", site_partition(site_id)])

    def _decode(self, site_id: str, cursor: str) -> FeedCursor:
        return FeedCursor.decode(cursor, [self._table.name, "changes", site_partition(site_id)])
