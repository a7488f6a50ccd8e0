"""How a consumer iterates over changes: when its cursor is saved, and how long it waits; with a fake feed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ragcrawl_dynamo import ChangeKind, InvalidArgumentError
from ragcrawl_dynamo._changes.change import FeedCursor, PageChange
from ragcrawl_dynamo._changes.consumers import ChangeConsumers, Following, is_worth_saving
from ragcrawl_dynamo._changes.feed import FeedPart
from ragcrawl_dynamo.testing import ManualClock
from tests.support.factories import START, make_page, make_version

CURSOR = FeedCursor(START, {"shard": 5})


class PassingClock(ManualClock):
    """A clock that a sleep moves; `pauses` are the sleeps."""

    def __init__(self) -> None:
        super().__init__(START)
        self.pauses: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.advance(seconds)


class FakeFeed:
    """A feed whose reads get the next one of some parts, given by its pages; then it stops the reader."""

    def __init__(self, *parts: str, more: int = 0, saved: FeedCursor | None = None) -> None:
        self.stop = asyncio.Event()
        self.clock = PassingClock()
        self.calls: list[Any] = []
        self.contents = SimpleNamespace(loaded=self._loaded)
        self._parts = list(parts)
        self._more = more
        self._saved = saved
        self._next = 0

    async def saved_position(self, site_id: str, consumer: str) -> FeedCursor | None:
        assert (site_id, consumer) == ("site", "index")
        return self._saved

    async def read(self, site_id: str, limit: int, position: FeedCursor | None) -> FeedPart:
        assert (site_id, limit) == ("site", 7)
        self.calls.append(("read", number_of(position)))
        if not self._parts:
            self.stop.set()
        names = self._parts.pop(0) if self._parts else ""
        first, self._next = self._next, self._next + len(names)
        changes = [PageChange(ChangeKind.CHANGED, make_page(name)) for name in names]
        is_end = len(self._parts) < self._more or not self._more
        return FeedPart(changes, is_end, lambda count: FeedCursor(START, {"shard": 1 + first + count}))

    def encode(self, site_id: str, cursor: FeedCursor) -> str:
        return f"{site_id} {number_of(cursor)}"

    async def save_cursor(self, site_id: str, consumer: str, cursor: str) -> None:
        assert (site_id, consumer) == ("site", "index")
        self.calls.append(("save", cursor))

    async def _loaded(self, changes: Sequence[PageChange]) -> AsyncGenerator[PageChange, None]:
        for change in changes:
            yield replace(change, version=make_version(page_id=change.page.page_id))

    def iterate(
        self, *, follow: bool = False, content: bool = False, longest: float = 60
    ) -> AsyncGenerator[PageChange, None]:
        following = Following(follow, longest, self.stop)
        consumers = ChangeConsumers(cast("Any", self), self.clock)
        return consumers.iterate("site", "index", 7, content, following)

    async def handle_all(self, *, follow: bool = False, longest: float = 60) -> None:
        """Handles all changes."""
        async with aclosing(self.iterate(follow=follow, longest=longest)) as changes:
            async for change in changes:
                self.calls.append(change.page.page_id)


def number_of(cursor: FeedCursor | None) -> int | None:
    return None if cursor is None else cursor.next_numbers["shard"]


async def test_iter_changes_saves_the_cursor_once_all_changes_of_a_part_are_handled() -> None:
    feed = FakeFeed("ab")
    await feed.handle_all()
    assert feed.calls == [("read", None), "a", "b", ("save", "site 3")]


async def test_iter_changes_begins_at_the_saved_cursor() -> None:
    feed = FakeFeed("a", saved=CURSOR)
    await feed.handle_all()
    assert feed.calls[0] == ("read", 5)


async def test_iter_changes_reads_on_until_nothing_more_can_be_read() -> None:
    feed = FakeFeed("ab", "", "c", more=1)
    await feed.handle_all()
    reads = [("read", None), "a", "b", ("save", "site 3"), ("read", 3), ("read", 3), "c", ("save", "site 4")]
    assert feed.calls == reads
    assert feed.clock.pauses == []


async def test_iter_changes_does_not_save_a_cursor_that_is_saved() -> None:
    feed = FakeFeed("", saved=FeedCursor(START, {"shard": 1}))
    await feed.handle_all()
    assert feed.calls == [("read", 1)]


async def test_iter_changes_saves_nothing_of_a_part_that_its_consumer_leaves() -> None:
    feed = FakeFeed("abc")
    async with aclosing(feed.iterate()) as changes:
        assert (await anext(changes)).page.page_id == "a"
        assert (await anext(changes)).page.page_id == "b"
    assert feed.calls == [("read", None)]


async def test_iter_changes_that_follows_waits_twice_as_long_each_time_nothing_changed() -> None:
    feed = FakeFeed("a", "", "", "", "", "b", "")
    await feed.handle_all(follow=True, longest=5)
    # A change makes it look again soon; the last pause is that of the read that stops it.
    assert feed.clock.pauses == [1, 2, 4, 5, 5, 1, 2, 4]


async def test_iter_changes_that_follows_waits_no_longer_than_it_is_told_after_a_change() -> None:
    feed = FakeFeed("a", "")
    await feed.handle_all(follow=True, longest=0.5)
    assert feed.clock.pauses == [0.5, 0.5, 0.5]


async def test_iter_changes_that_follows_does_not_wait_while_there_is_more() -> None:
    feed = FakeFeed("a", "", "b", more=1)
    await feed.handle_all(follow=True)
    # That of the last part, and that of the read that stops it.
    assert feed.clock.pauses == [1, 2]


async def test_iter_changes_saves_the_cursor_before_it_waits() -> None:
    feed = FakeFeed("a")
    clock = ManualClock(START)
    feed.clock = cast("PassingClock", clock)
    iteration = asyncio.create_task(feed.handle_all(follow=True))
    await clock.wait_for_sleeper()
    assert feed.calls == [("read", None), "a", ("save", "site 2")]
    # A stop ends the pause.
    feed.stop.set()
    await iteration
    assert feed.calls[3:] == []


async def test_iter_changes_that_is_stopped_reads_nothing() -> None:
    feed = FakeFeed("a")
    feed.stop.set()
    await feed.handle_all(follow=True)
    assert feed.calls == []


async def test_iter_changes_that_is_stopped_saves_what_was_handled() -> None:
    feed = FakeFeed("abc")
    async for change in feed.iterate(follow=True):
        if change.page.page_id == "b":
            feed.stop.set()
    # "c" is still to be handled.
    assert feed.calls == [("read", None), ("save", "site 3")]


@pytest.mark.parametrize("content", [False, True])
async def test_iter_changes_loads_content_if_asked_to(content: bool) -> None:
    feed = FakeFeed("ab")
    changes = [change async for change in feed.iterate(content=content)]
    assert [change.page.page_id for change in changes] == ["a", "b"]
    assert [change.version is not None for change in changes] == [content] * 2


@pytest.mark.parametrize(
    ("cursor", "is_worth"),
    [
        (CURSOR, False),
        (replace(CURSOR, next_numbers={"shard": 6}), True),
        (replace(CURSOR, next_numbers={"shard": 5, "other": 1}), True),
        (replace(CURSOR, listing="page"), True),
        # Its changes may expire: it must not grow old.
        (replace(CURSOR, taken_at=START + timedelta(hours=6)), False),
        (replace(CURSOR, taken_at=START + timedelta(hours=6, seconds=1)), True),
        (replace(CURSOR, taken_at=START - timedelta(days=9)), False),
    ],
)
def test_a_cursor_is_saved_if_it_is_further_or_the_saved_one_is_old(
    cursor: FeedCursor, is_worth: bool
) -> None:
    assert is_worth_saving(CURSOR, cursor) is is_worth


def test_the_first_cursor_is_saved() -> None:
    assert is_worth_saving(None, CURSOR)


@pytest.mark.parametrize("seconds", [0.1, 3600])
def test_following_takes_its_arguments_as_they_are(seconds: float) -> None:
    stop = asyncio.Event()
    assert Following.checked(True, seconds, stop) == Following(True, seconds, stop)


def test_following_without_a_stop_is_never_stopped() -> None:
    following = Following.checked(False, 30, None)
    assert not following.waits
    assert not following.stop.is_set()


@pytest.mark.parametrize("seconds", [0.09, 3601, float("nan"), "30", None])
def test_following_refuses_pauses_that_are_too_short_or_too_long(seconds: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^poll_seconds: "):
        Following.checked(True, seconds, None)


def test_following_refuses_an_event_that_would_block_the_loop() -> None:
    with pytest.raises(InvalidArgumentError, match=r"^stop: must be .*, not threading\.Event$"):
        Following.checked(True, 30, cast("Any", threading.Event()))
