"""Readers of the change feed: the changes that they get, and where they continue; with fakes of stores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ragcrawl_dynamo import ChangeKind, ChangesExpiredError, InvalidArgumentError, InvalidCursorError, Page
from ragcrawl_dynamo._changes.change import VOID, FeedCursor, LogEntry, LogPosition, PageChange
from ragcrawl_dynamo._changes.feed import ChangeFeed
from ragcrawl_dynamo._changes.shard_reader import ShardPart
from ragcrawl_dynamo._changes.shards import ShardRecord
from ragcrawl_dynamo._dynamodb.codec import to_item
from ragcrawl_dynamo._dynamodb.pagination import Slice
from ragcrawl_dynamo._dynamodb.values import moment_text
from ragcrawl_dynamo._schema.tables import Tables
from tests.support.factories import START, make_page, make_version
from tests.support.fakes import open_gateway

PAGES = Tables.of("t_").pages


class FakeSite:
    """A site with shards of changes and with pages, as a feed reads them.

    Attributes:
        shards: The shards, each with its entries. A read gets `per_read` of them at most.
        orders: The pages by escaped id, each with the orders of its latest change, as reads find it.
        listed: The pages with content, as they are listed.
        cursors: The stored cursors of consumers.
    """

    def __init__(self, **shards: list[LogEntry]) -> None:
        self.shards = shards
        self.per_read = 99
        self.next: dict[str, int] = {}
        self.retention_days: int | None = 30
        self.now_is = START
        self.orders: dict[str, list[int | None]] = {}
        self.listed: list[Page] = []
        self.listings: list[tuple[str, int, str | None]] = []
        self.cursors: dict[str, Any] = {}
        self.reads: list[tuple[str, int, int]] = []
        self.requests: list[tuple[str, Any]] = []
        self.forgotten: list[str] = []
        self.feed: ChangeFeed = cast("Any", None)

    def now(self) -> datetime:
        return self.now_is

    def forget(self, site_id: str) -> None:
        self.forgotten.append(site_id)

    async def records(self, site_id: str) -> list[ShardRecord]:
        assert site_id == "site"
        held_since = moment_text(START)
        return [
            ShardRecord(name, "holder", 1, self.next.get(name), held_since, self.retention_days)
            for name in self.shards
        ]

    async def read(
        self, site_id: str, record: ShardRecord, first: int, limit: int, now: datetime
    ) -> ShardPart:
        assert (site_id, now) == ("site", self.now_is)
        self.reads.append((record.shard, first, limit))
        left = [entry for entry in self.shards[record.shard] if entry.position.sequence_number >= first]
        return ShardPart(record.shard, first, left[: self.per_read], is_end=len(left) <= self.per_read)

    async def present(self, site_id: str, record: ShardRecord, now: datetime) -> int:
        assert (site_id, now) == ("site", self.now_is)
        return 1 + len(self.shards[record.shard])

    async def listing_with_content(self, site_id: str, limit: int, cursor: str | None) -> Slice[Page]:
        self.listings.append((site_id, limit, cursor))
        start = int(cursor or 0)
        end = start + limit
        return Slice(self.listed[start:end], str(end) if end < len(self.listed) else None)

    def listing_cursor(self, site_id: str, page_id: str) -> str:
        assert site_id == "site"
        return f"after {page_id}"

    async def loaded(self, changes: Sequence[PageChange]) -> AsyncIterator[PageChange]:
        for change in changes:
            yield replace(change, version=make_version())

    def answer(self, operation: str, request: Any) -> Any:
        self.requests.append((operation, request))
        match operation:
            case "get_item":
                item = self.cursors.get(request["Key"]["page_id"]["S"])
                return {} if item is None else {"Item": item}
            case "put_item":
                self.cursors[request["Item"]["page_id"]["S"]] = request["Item"]
                return {}
            case "batch_get_item":
                keys = request["RequestItems"]["t_pages"]["Keys"]
                assert {key["site_id"]["S"] for key in keys} == {"site"}
                return {"Responses": {"t_pages": [item for key in keys for item in self._stored(key)]}}
            case "query":
                return {"Items": [], "Count": 0}
        raise AssertionError(operation)

    def _stored(self, key: Any) -> list[Any]:
        page_id = key["page_id"]["S"]
        orders = self.orders.get(page_id, [])
        if not orders:
            return []
        order = orders.pop(0) if len(orders) > 1 else orders[0]
        extra: Any = {} if order is None else {"change_order": {"N": str(order)}}
        return [dict(to_item(PAGES, make_page(page_id.replace("~1", "#")), extra))]

    def read_again(self) -> list[list[str]]:
        """The pages that each request read."""
        reads = [request for operation, request in self.requests if operation == "batch_get_item"]
        keys = [request["RequestItems"]["t_pages"]["Keys"] for request in reads]
        return [sorted(key["page_id"]["S"] for key in page) for page in keys]


def entry(
    shard: str, number: int, page_id: str, order: int = 1, *, at: float = 0, kind: str = "changed"
) -> LogEntry:
    return LogEntry(LogPosition(shard, number), kind, page_id, order, START + timedelta(seconds=at))


@asynccontextmanager
async def opened(site: FakeSite) -> AsyncIterator[ChangeFeed]:
    log = SimpleNamespace(now=site.now, shards=site, forget=site.forget)
    async with open_gateway(site.answer) as (gateway, _):
        stores: list[Any] = [PAGES, site, log, site]
        feed = ChangeFeed(gateway, *stores)
        feed._shards = cast("Any", site)
        yield feed


def cursor_of(position: FeedCursor) -> str:
    """A cursor as users get it."""
    return position.encode(["t_pages", "changes", "site"])


def position_of(cursor: str) -> FeedCursor:
    """The position of a cursor that users got."""
    return FeedCursor.decode(cursor, ["t_pages", "changes", "site"])


def shown(changes: Sequence[PageChange]) -> list[str]:
    return [change.page.page_id for change in changes]


# Where a reader begins.


async def test_list_changes_begins_with_all_pages_that_have_content() -> None:
    site = FakeSite(a=[entry("a", 1, "p0")], b=[])
    site.listed = [make_page(f"p{i}") for i in range(3)]
    async with opened(site) as feed:
        first = await feed.listing("site", 2, None, include_content=False)
        second = await feed.listing("site", 2, first.cursor, include_content=False)
    assert [(change.kind, change.version) for change in first] == [(ChangeKind.CREATED, None)] * 2
    assert (shown(first), shown(second)) == (["p0", "p1"], ["p2"])
    assert site.listings == [("site", 2, None), ("site", 2, "2")]
    # The changes since the reader has begun follow, even after the last page.
    assert not first.is_end
    assert not second.is_end
    assert position_of(second.cursor) == FeedCursor(START, {"a": 2, "b": 1}, None)
    assert site.reads == []


async def test_list_changes_that_stops_in_the_listing_continues_there() -> None:
    site = FakeSite(a=[])
    site.listed = [make_page(f"p{i}") for i in range(3)]
    async with opened(site) as feed:
        part = await feed.read("site", 2, None)
    begin = FeedCursor(START, {"a": 1}, "")
    assert [part.cursor_after(count).listing for count in range(3)] == ["", "after p0", "2"]
    assert part.cursor_after(0) == begin
    assert part.cursor == replace(begin, listing="2")


async def test_get_change_cursor_without_a_consumer_is_beyond_all_changes() -> None:
    site = FakeSite(a=[entry("a", 1, "p"), entry("a", 2, "p")], b=[])
    async with opened(site) as feed:
        cursor = await feed.cursor("site", None)
    assert cursor is not None
    assert position_of(cursor) == FeedCursor(START, {"a": 3, "b": 1}, None)


# What follows.


async def test_list_changes_merges_the_shards_by_time() -> None:
    site = FakeSite(
        a=[entry("a", 1, "p1", at=-9), entry("a", 2, "p3", at=-7)], b=[entry("b", 1, "p2", at=-8)]
    )
    site.orders = {"p1": [1], "p2": [1], "p3": [1]}
    async with opened(site) as feed:
        # A shard that is new since the cursor was taken is read from its beginning.
        part = await feed.listing("site", 7, cursor_of(FeedCursor(START, {"a": 1})), include_content=False)
    assert shown(part) == ["p1", "p2", "p3"]
    assert site.reads == [("a", 1, 7), ("b", 1, 7)]
    assert part.is_end
    assert position_of(part.cursor) == FeedCursor(START, {"a": 3, "b": 2})


async def test_list_changes_is_not_at_the_end_if_the_limit_leaves_some() -> None:
    site = FakeSite(a=[entry("a", 1, "p1", at=-9), entry("a", 2, "p2", at=-7)])
    site.orders = {"p1": [1], "p2": [1]}
    async with opened(site) as feed:
        part = await feed.listing("site", 1, cursor_of(FeedCursor(START, {"a": 1})), include_content=False)
    assert (shown(part), part.is_end) == (["p1"], False)
    # The oldest change that is left.
    assert position_of(part.cursor) == FeedCursor(START - timedelta(seconds=7), {"a": 2})


async def test_list_changes_is_not_at_the_end_if_a_shard_is_not() -> None:
    site = FakeSite(a=[entry("a", 1, "p1"), entry("a", 2, "p2")], b=[])
    site.per_read = 1
    site.orders = {"p1": [1], "p2": [1]}
    async with opened(site) as feed:
        part = await feed.listing("site", 9, cursor_of(FeedCursor(START, {"a": 1})), include_content=False)
    assert (shown(part), part.is_end) == (["p1"], False)


async def test_list_changes_reads_on_if_all_entries_are_of_pages_that_changed_again() -> None:
    site = FakeSite(a=[entry("a", 1, "p1", 1), entry("a", 2, "", kind=VOID), entry("a", 3, "p1", 3)])
    site.per_read = 1
    site.orders = {"p1": [3]}
    async with opened(site) as feed:
        part = await feed.listing("site", 9, cursor_of(FeedCursor(START, {"a": 1})), include_content=False)
    assert (shown(part), part.is_end) == (["p1"], True)
    assert [first for _, first, _ in site.reads] == [1, 2, 3]
    # A number that was given up has no page.
    assert site.read_again() == [["p1"], ["p1"]]


async def test_list_changes_without_changes_is_empty_and_at_the_end() -> None:
    site = FakeSite(a=[entry("a", 1, "p1")])
    async with opened(site) as feed:
        part = await feed.listing("site", 9, cursor_of(FeedCursor(START, {"a": 2})), include_content=False)
    assert (list(part), part.is_end) == ([], True)


async def test_list_changes_loads_versions_if_asked_to() -> None:
    site = FakeSite(a=[entry("a", 1, "p1")])
    site.orders = {"p1": [1]}
    async with opened(site) as feed:
        part = await feed.listing("site", 9, cursor_of(FeedCursor(START, {"a": 1})), include_content=True)
    assert [change.version is not None for change in part] == [True]


async def test_list_changes_that_stops_in_a_part_continues_behind_the_last_change() -> None:
    site = FakeSite(a=[entry("a", 1, "p1", 1), entry("a", 2, "p2"), entry("a", 3, "p1", 2)])
    site.orders = {"p1": [2], "p2": [1]}
    before = FeedCursor(START - timedelta(seconds=60), {"a": 1})
    async with opened(site) as feed:
        part = await feed.read("site", 9, before)
    assert shown(part.changes) == ["p2", "p1"]
    assert part.cursor_after(0) == before
    # Its moment still holds: entries that are left may be that old.
    assert part.cursor_after(1) == replace(before, next_numbers={"a": 3})
    assert part.cursor_after(2) == part.cursor == FeedCursor(START, {"a": 4})


# Pages that are read in the middle of their transactions.


async def test_list_changes_reads_a_page_again_that_is_older_than_its_entry() -> None:
    site = FakeSite(a=[entry("a", 1, "p1", 5), entry("a", 2, "p2")])
    site.orders = {"p1": [4, 5], "p2": [1]}
    async with opened(site) as feed:
        part = await feed.read("site", 9, FeedCursor(START, {"a": 1}))
    assert shown(part.changes) == ["p1", "p2"]
    assert site.read_again() == [["p1", "p2"], ["p1"]]


async def test_list_changes_returns_a_page_that_stays_older_than_its_entry() -> None:
    """After six more reads: somebody has restored it, for example."""
    site = FakeSite(a=[entry("a", 1, "p1", 5)])
    site.orders = {"p1": [4]}
    async with opened(site) as feed:
        part = await feed.read("site", 9, FeedCursor(START, {"a": 1}))
    assert shown(part.changes) == ["p1"]
    assert site.read_again() == [["p1"]] * 7


async def test_list_changes_finds_a_page_by_its_escaped_id() -> None:
    site = FakeSite(a=[entry("a", 1, "p~11")])
    site.orders = {"p~11": [1]}
    async with opened(site) as feed:
        part = await feed.read("site", 9, FeedCursor(START, {"a": 1}))
    assert shown(part.changes) == ["p#1"]


# Cursors that are too old.


async def test_list_changes_after_a_deletion_of_the_changes_raises() -> None:
    site = FakeSite(a=[])
    async with opened(site) as feed:
        with pytest.raises(ChangesExpiredError, match=r"^the changes of site 'site' were deleted since"):
            await feed.read("site", 9, FeedCursor(START, {"a": 1, "deleted": 1}))


@pytest.mark.parametrize(("hours", "is_refused"), [(30 * 24 - 1, False), (30 * 24 - 0.999, True)])
async def test_list_changes_with_a_cursor_beyond_which_changes_may_have_expired_raises(
    hours: float, is_refused: bool
) -> None:
    """An hour before they do."""
    site = FakeSite(a=[])
    site.now_is = START + timedelta(hours=hours)
    position = FeedCursor(START, {"a": 1})
    async with opened(site) as feed:
        if not is_refused:
            assert (await feed.read("site", 9, position)).is_end
            return
        with pytest.raises(ChangesExpiredError, match=r"at 2026-01-01 00:00 UTC.*days = 30 only: start"):
            await feed.read("site", 9, position)


async def test_list_changes_with_an_old_cursor_reads_changes_that_never_expire() -> None:
    site = FakeSite(a=[])
    site.retention_days = None
    site.now_is = START + timedelta(days=999)
    async with opened(site) as feed:
        assert (await feed.read("site", 9, FeedCursor(START, {"a": 1}))).is_end


@pytest.mark.parametrize(("number", "is_refused"), [(5, False), (4, True), (None, True)])
async def test_list_changes_with_an_old_cursor_behind_the_end_of_a_shard_has_missed_nothing(
    number: int | None, is_refused: bool
) -> None:
    site = FakeSite(a=[], b=[])
    site.next = {"a": 5, "b": 1}
    site.now_is = START + timedelta(days=99)
    # It does not know the other shard, in which nothing was logged.
    position = FeedCursor(START, {} if number is None else {"a": number})
    async with opened(site) as feed:
        if is_refused:
            with pytest.raises(ChangesExpiredError):
                await feed.read("site", 9, position)
        else:
            assert (await feed.read("site", 9, position)).is_end


async def test_list_changes_of_every_shard_is_checked() -> None:
    site = FakeSite(a=[], b=[])
    site.next = {"a": 5}
    site.now_is = START + timedelta(days=99)
    async with opened(site) as feed:
        with pytest.raises(ChangesExpiredError):
            await feed.read("site", 9, FeedCursor(START, {"a": 5}))


# Consumers.


async def test_save_change_cursor_stores_it_for_its_consumer() -> None:
    site = FakeSite(a=[])
    position = FeedCursor(START, {"a": 7})
    async with opened(site) as feed:
        await feed.save_cursor("site", "index", cursor_of(position))
        assert await feed.cursor("site", "index") == cursor_of(position)
        assert await feed.saved_position("site", "index") == position
        assert await feed.saved_position("site", "other") is None
        assert await feed.cursor("site", "other") is None
    (item,) = site.cursors.values()
    assert (item["site_id"], item["page_id"]) == ({"S": "#site"}, {"S": "consumer#index"})
    assert (item["cursor"], item["saved_at"]) == ({"S": cursor_of(position)}, {"S": moment_text(START)})


@pytest.mark.parametrize(
    "scope", [["t_pages", "changes", "other"], ["t_pages", "site"], ["t2_pages", "changes", "site"]]
)
async def test_change_cursors_are_of_one_site(scope: list[str]) -> None:
    cursor = FeedCursor(START, {"a": 1}).encode(scope)
    site = FakeSite(a=[])
    async with opened(site) as feed:
        with pytest.raises(InvalidCursorError, match="belongs to another site"):
            await feed.save_cursor("site", "index", cursor)
        with pytest.raises(InvalidCursorError, match="belongs to another site"):
            await feed.listing("site", 9, cursor, include_content=False)
    assert site.requests == []


@pytest.mark.parametrize("limit", [0, -1, "9"])
async def test_list_changes_refuses_a_limit_that_is_none(limit: Any) -> None:
    site = FakeSite(a=[])
    async with opened(site) as feed:
        with pytest.raises(InvalidArgumentError, match=r"^limit: "):
            await feed.listing("site", limit, None, include_content=False)
    assert site.listings == []


# Deletions.


async def test_delete_site_removes_the_entries_before_the_shards() -> None:
    """Otherwise an interrupted deletion would leave entries that nobody finds."""
    site = FakeSite(a=[], b=[])
    items = {"#site#a": 3, "#site#b": 2, "#site": 4}
    queried: list[str] = []

    def answer(operation: str, request: Any) -> Any:
        if operation == "batch_write_item":
            return {}
        (partition,) = [value["S"] for value in request["ExpressionAttributeValues"].values()]
        queried.append(partition)
        count = items[partition]
        keys = [{"site_id": {"S": partition}, "page_id": {"S": str(i)}} for i in range(count)]
        return {"Items": keys, "Count": count}

    site.answer = answer  # type: ignore[method-assign] # other answers
    async with opened(site) as feed:
        assert await feed.delete_of_site("site") == 9
    assert queried == ["#site#a", "#site#b", "#site"]
    assert site.forgotten == ["site"]
