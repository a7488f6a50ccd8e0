"""Consumers of the change feed that follow it, stop, and are killed, on both engines."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from ragcrawl_dynamo import (
    ChangesExpiredError,
    DynamoDBBackend,
    DynamoDBConfig,
    InvalidArgumentError,
    PageChange,
)
from ragcrawl_dynamo.testing import ManualClock
from tests.support.clocked import backend
from tests.support.factories import make_page, make_site, make_version

__all__ = ["backend"]


class RecordingClock(ManualClock):
    """Remembers the pauses."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await super().sleep(seconds)


@pytest.fixture
def clock() -> RecordingClock:
    return RecordingClock()


async def commit(backend: DynamoDBBackend, *page_ids: str, content: str = "1") -> None:
    for page_id in page_ids:
        version = make_version(content, page_id, markdown=content, content_hash=content)
        await backend.commit_page(make_page(page_id, status_code=200), version)


async def begin(backend: DynamoDBBackend, consumer: str = "indexer") -> None:
    """Lets a consumer begin with the changes from now on, without all pages."""
    cursor = await backend.get_change_cursor("site")
    assert cursor is not None
    await backend.save_change_cursor("site", consumer, cursor)


async def read(backend: DynamoDBBackend, consumer: str = "indexer", **options: Any) -> list[str]:
    return [change.page.page_id async for change in backend.iter_changes("site", consumer, **options)]


class Follower:
    """Follows the feed in a task of its own."""

    def __init__(self, backend: DynamoDBBackend, consumer: str = "indexer", **options: Any) -> None:
        self.stop = asyncio.Event()
        self.changes: list[PageChange] = []
        self._got = asyncio.Condition()
        self._iterator = backend.iter_changes("site", consumer, follow=True, stop=self.stop, **options)
        self.task = asyncio.create_task(self._run())

    async def wait_for(self, *page_ids: str) -> None:
        """Waits for these changes, and checks that there are no others."""
        async with self._got:
            await asyncio.wait_for(self._got.wait_for(lambda: len(self.changes) >= len(page_ids)), 30)
        assert [change.page.page_id for change in self.changes] == list(page_ids)

    async def end(self) -> None:
        self.stop.set()
        await asyncio.wait_for(self.task, 30)

    async def _run(self) -> None:
        async for change in self._iterator:
            async with self._got:
                self.changes.append(change)
                self._got.notify_all()


async def test_follow_gets_a_change_that_is_made_while_it_waits(
    backend: DynamoDBBackend, clock: RecordingClock
) -> None:
    await commit(backend, "a")
    follower = Follower(backend, include_content=True)
    await clock.wait_for_sleeper()
    await follower.wait_for("a")
    await commit(backend, "b", content="2")
    clock.advance(1)
    await follower.wait_for("a", "b")
    assert [change.version and change.version.markdown for change in follower.changes] == ["1", "2"]
    await follower.end()


async def test_follow_pauses_ever_longer_while_nothing_changes(
    backend: DynamoDBBackend, clock: RecordingClock
) -> None:
    follower = Follower(backend, poll_seconds=5)
    for _ in range(5):
        await clock.wait_for_sleeper()
        clock.advance(5)
    await clock.wait_for_sleeper()
    assert clock.pauses == [1, 2, 4, 5, 5, 5]
    await commit(backend, "a")
    clock.pauses.clear()
    for _ in range(3):
        clock.advance(5)
        await clock.wait_for_sleeper()
    await follower.wait_for("a")
    assert clock.pauses == [1, 2, 4]
    await follower.end()


async def test_follow_takes_poll_seconds_below_the_first_pause(
    backend: DynamoDBBackend, clock: RecordingClock
) -> None:
    follower = Follower(backend, poll_seconds=0.25)
    for _ in range(2):
        await clock.wait_for_sleeper()
        clock.advance(0.25)
    await clock.wait_for_sleeper()
    assert clock.pauses == [0.25, 0.25, 0.25]
    await follower.end()


async def test_follow_saves_the_cursor_before_it_waits(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, clock: RecordingClock
) -> None:
    await begin(backend)
    await commit(backend, "a", "b")
    follower = Follower(backend)
    await clock.wait_for_sleeper()
    await follower.wait_for("a", "b")
    # As after a kill: another process knows only the stored cursor.
    async with DynamoDBBackend(dynamodb_config) as other:
        assert await read(other) == []
        await commit(other, "c")
        assert await read(other) == ["c"]
    await follower.end()


async def test_follow_saves_nothing_while_nothing_changes(
    backend: DynamoDBBackend, clock: RecordingClock
) -> None:
    await commit(backend, "a")
    follower = Follower(backend, poll_seconds=60)
    await clock.wait_for_sleeper()
    saved = await backend.get_change_cursor("site", "indexer")
    for _ in range(20):
        clock.advance(60)
        await clock.wait_for_sleeper()
    assert await backend.get_change_cursor("site", "indexer") == saved
    # The cursor is renewed before it grows old.
    clock.advance(6 * 3600)
    await clock.wait_for_sleeper()
    assert await backend.get_change_cursor("site", "indexer") != saved
    await follower.end()


async def test_stop_ends_the_wait_at_once(backend: DynamoDBBackend, clock: RecordingClock) -> None:
    await commit(backend, "a")
    tasks = asyncio.all_tasks()
    follower = Follower(backend)
    await clock.wait_for_sleeper()
    await follower.end()
    assert asyncio.all_tasks() == tasks
    assert await read(backend) == []


@pytest.mark.parametrize("include_content", [False, True])
async def test_stop_within_a_slice_saves_how_far_the_consumer_has_come(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, clock: RecordingClock, include_content: bool
) -> None:
    """Stopped after each change, a consumer gets every change once; first of the pages, then of the log."""
    names = [f"p{i}" for i in range(6)]
    await commit(backend, *names)

    async def read_one_by_one() -> list[str]:
        page_ids: list[str] = []
        while True:
            stop, count = asyncio.Event(), len(page_ids)
            async for change in backend.iter_changes(
                "site", "indexer", include_content=include_content, stop=stop
            ):
                page_ids.append(change.page.page_id)
                stop.set()
            if len(page_ids) == count:
                return page_ids

    assert await read_one_by_one() == names
    # In two shards, some pages twice.
    async with DynamoDBBackend(dynamodb_config, clock=clock) as other:
        for i, content in enumerate(("2", "3")):
            for name in names[i:] + names[:3]:
                clock.advance(1)
                await commit((backend, other)[i], name, content=content)
    assert sorted(await read_one_by_one()) == names


async def test_stop_that_is_set_before_gets_nothing_and_saves_nothing(backend: DynamoDBBackend) -> None:
    await commit(backend, "a")
    stop = asyncio.Event()
    stop.set()
    assert await read(backend, stop=stop) == await read(backend, follow=True, stop=stop) == []
    assert await backend.get_change_cursor("site", "indexer") is None
    assert await read(backend) == ["a"]


async def test_stop_while_the_consumer_handles_the_last_change_saves_it(backend: DynamoDBBackend) -> None:
    await commit(backend, "a", "b")
    stop = asyncio.Event()
    page_ids = []
    async for change in backend.iter_changes("site", "indexer", follow=True, stop=stop):
        page_ids.append(change.page.page_id)
        if len(page_ids) == 2:
            stop.set()
    assert page_ids == ["a", "b"]
    assert await read(backend) == []


async def test_cancelled_wait_ends_cleanly(backend: DynamoDBBackend, clock: RecordingClock) -> None:
    await commit(backend, "a")
    tasks = asyncio.all_tasks()
    follower = Follower(backend)
    await clock.wait_for_sleeper()
    saved = await backend.get_change_cursor("site", "indexer")
    await commit(backend, "b")
    follower.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await follower.task
    assert asyncio.all_tasks() == tasks
    assert await backend.get_change_cursor("site", "indexer") == saved
    assert await read(backend) == ["b"]


@pytest.mark.parametrize("end", ["cancel", "close"])
async def test_consumer_that_ends_within_a_slice_gets_the_slice_again(
    backend: DynamoDBBackend, end: str
) -> None:
    await begin(backend)
    await commit(backend, "a", "b", "c")
    tasks = asyncio.all_tasks()
    handling = asyncio.Event()
    iterator: Any = backend.iter_changes("site", "indexer", include_content=True, follow=True)

    async def handle_two() -> None:
        assert [(await anext(iterator)).page.page_id for _ in range(2)] == ["a", "b"]
        if end == "close":
            await iterator.aclose()
            return
        handling.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(handle_two())
    if end == "cancel":
        await handling.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await iterator.aclose()
    await asyncio.gather(task, return_exceptions=True)
    assert asyncio.all_tasks() == tasks
    assert await read(backend) == ["a", "b", "c"]


async def test_consumers_follow_at_paces_of_their_own(
    backend: DynamoDBBackend, clock: RecordingClock
) -> None:
    names = [f"p{i}" for i in range(7)]
    for consumer in ("fast", "slow"):
        await begin(backend, consumer)
    await commit(backend, *names[:3])
    fast = Follower(backend, "fast", poll_seconds=1)
    slow = backend.iter_changes("site", "slow", limit=2, include_content=True, follow=True)
    slow_names = [(await anext(slow)).page.page_id]
    for i in range(3, 7):
        await commit(backend, names[i])
        await clock.wait_for_sleeper()
        clock.advance(1)
        await fast.wait_for(*names[: i + 1])
    await fast.end()
    while len(slow_names) < 7:
        slow_names.append((await anext(slow)).page.page_id)
    assert slow_names == names
    await slow.aclose()  # type: ignore[attr-defined] # an async generator
    assert await read(backend, "fast") == []
    # Of the slow one, the last slice was not acknowledged.
    assert await read(backend, "slow") == names[6:]


async def test_follow_of_a_site_that_is_deleted_meanwhile_raises(
    backend: DynamoDBBackend, clock: RecordingClock
) -> None:
    await backend.save_site(make_site())
    await commit(backend, "a")
    follower = Follower(backend)
    await clock.wait_for_sleeper()
    await backend.delete_site("site")
    clock.advance(1)
    with pytest.raises(ChangesExpiredError, match="were deleted since this cursor"):
        await asyncio.wait_for(follower.task, 30)


async def test_iter_changes_refuses_wrong_arguments_by_name(backend: DynamoDBBackend) -> None:
    with pytest.raises(InvalidArgumentError, match="limit: must be at least 1"):
        await read(backend, limit=0)
    for seconds in (0, -1, 0.05, 3601, "1", True):
        with pytest.raises(
            InvalidArgumentError, match=r"poll_seconds: must be a number of seconds from 0\.1"
        ):
            await read(backend, poll_seconds=seconds)
    with pytest.raises(
        InvalidArgumentError, match=r"stop: must be an asyncio\.Event or None, not threading\.Event"
    ):
        await read(backend, stop=threading.Event())
