"""The change feed, through the public methods, on both engines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from ragcrawl_dynamo import (
    ChangeKind,
    ChangesExpiredError,
    ChangeSlice,
    DynamoDBBackend,
    DynamoDBConfig,
    InvalidArgumentError,
    InvalidCursorError,
    InvalidKeyError,
)
from ragcrawl_dynamo.testing import ManualClock
from tests.support.clocked import backend, clock
from tests.support.factories import make_page, make_site, make_version

CREATED, CHANGED, DELETED = ChangeKind.CREATED, ChangeKind.CHANGED, ChangeKind.DELETED


__all__ = ["backend", "clock"]


async def commit(backend: DynamoDBBackend, page_id: str, content: str | None, site_id: str = "site") -> None:
    """Commits a page with that content; None: it is gone."""
    page = make_page(page_id, site_id, status_code=200 if content is not None else 404)
    version = None
    if content is not None:
        version = make_version(content, page_id, site_id, markdown=content, content_hash=content)
    await backend.commit_page(page, version)


async def present(backend: DynamoDBBackend, site_id: str = "site") -> str:
    cursor = await backend.get_change_cursor(site_id)
    assert cursor is not None
    return cursor


async def read(
    backend: DynamoDBBackend, cursor: str | None, limit: int = 100
) -> tuple[list[tuple[str, ChangeKind]], str]:
    """All changes up to the present, and the cursor behind them."""
    changes = []
    while True:
        part = await backend.list_changes("site", limit=limit, cursor=cursor)
        assert len(part) <= limit
        changes += [(change.page.page_id, change.kind) for change in part]
        cursor = part.cursor
        if part.is_end:
            return changes, cursor


async def test_list_changes_since_a_cursor_with_their_kinds(backend: DynamoDBBackend) -> None:
    cursor = await present(backend)
    assert await read(backend, cursor) == ([], (await backend.list_changes("site", cursor=cursor)).cursor)
    await commit(backend, "a", "1")
    await commit(backend, "b", "1")
    changes, cursor = await read(backend, cursor)
    assert changes == [("a", CREATED), ("b", CREATED)]
    await commit(backend, "a", "2")
    await commit(backend, "b", None)
    await commit(backend, "c", "1")
    changes, cursor = await read(backend, cursor)
    assert changes == [("a", CHANGED), ("b", DELETED), ("c", CREATED)]
    await commit(backend, "b", "1")
    await backend.tombstone_pages("site", ["a"])
    changes, cursor = await read(backend, cursor)
    assert changes == [("b", CREATED), ("a", DELETED)]
    assert (await read(backend, cursor))[0] == []


async def test_list_changes_leaves_out_unchanged_pages(backend: DynamoDBBackend) -> None:
    await commit(backend, "a", "1")
    await commit(backend, "gone", None)
    cursor = await present(backend)
    await commit(backend, "a", "1")
    await backend.commit_page(make_page("a", status_code=304))
    await commit(backend, "gone", None)
    await backend.mark_seen("site", ["https://example.com/a"])
    await backend.tombstone_pages("site", ["gone", "absent"], allow_mass_deletion=True)
    part = await backend.list_changes("site", cursor=cursor)
    assert (list(part), part.is_end) == ([], True)


async def test_list_changes_has_the_latest_change_of_a_page_and_the_page_as_it_is(
    backend: DynamoDBBackend,
) -> None:
    cursor = await present(backend)
    for content in ("1", "2", "3"):
        await commit(backend, "a", content)
        await commit(backend, content, "x")
    changes, _ = await read(backend, cursor, limit=2)
    assert changes == [("1", CREATED), ("2", CREATED), ("a", CHANGED), ("3", CREATED)]
    part = await backend.list_changes("site", cursor=cursor)
    assert {change.page.page_id: change.page.current_version_id for change in part}["a"] == "3"


async def test_list_changes_keeps_the_commit_order_of_a_page_across_processes(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, clock: ManualClock
) -> None:
    cursor = await present(backend)
    async with DynamoDBBackend(dynamodb_config, clock=clock) as other:
        seen = []
        for i in range(6):
            clock.advance(1)
            await commit((backend, other)[i % 2], "a", f"{i}")
            if i % 3 == 2:
                part = await backend.list_changes("site", cursor=cursor)
                seen += [change.page.current_version_id for change in part]
                cursor = part.cursor
    assert seen == ["2", "5"]


async def test_list_changes_without_a_cursor_begins_with_all_pages_that_have_content(
    backend: DynamoDBBackend,
) -> None:
    for i in range(5):
        await commit(backend, f"p{i}", "1")
    await commit(backend, "p0", None)
    await backend.save_page(make_page("recorded"))
    # These two were saved outside of a commit, so they are not in the change log.
    await backend.save_version(make_version("v1", "saved"))
    await backend.save_page(make_page("saved", current_version_id="v1"))
    first = await backend.list_changes("site", limit=2)
    assert (len(first), first.is_end) == (2, False)
    await commit(backend, "new", "1")
    await commit(backend, "p2", None)
    changes, cursor = await read(backend, first.cursor, limit=2)
    pages = [change.page.page_id for change in first] + [name for name, kind in changes if kind is CREATED]
    assert sorted(pages) == ["new", "p1", "p2", "p3", "p4", "saved"]
    assert changes[-1] == ("p2", DELETED)
    assert (await read(backend, cursor))[0] == []


async def test_iter_changes_resumes_a_consumer(backend: DynamoDBBackend) -> None:
    assert await backend.get_change_cursor("site", "indexer") is None
    for i in range(5):
        await commit(backend, f"p{i}", "1")
    seen = [change.page.page_id async for change in backend.iter_changes("site", "indexer", limit=2)]
    assert sorted(set(seen)) == [f"p{i}" for i in range(5)]
    assert [change async for change in backend.iter_changes("site", "indexer")] == []
    for i in range(5):
        await commit(backend, f"p{i}", "2")
    # The consumer is killed at the second change of its second slice, and gets that slice again.
    handled = []
    async for change in backend.iter_changes("site", "indexer", limit=2):
        handled.append(change.page.page_id)
        if len(handled) == 4:
            break
    assert handled == ["p0", "p1", "p2", "p3"]
    again = [change.page.page_id async for change in backend.iter_changes("site", "indexer", limit=2)]
    assert again == ["p2", "p3", "p4"]
    # Another one has a cursor of its own.
    assert len([change async for change in backend.iter_changes("site", "other")]) == 5


async def test_iter_changes_saves_the_cursor_only_if_it_moved(
    backend: DynamoDBBackend, clock: ManualClock
) -> None:
    await commit(backend, "a", "1")
    assert len([change async for change in backend.iter_changes("site", "indexer")]) == 1
    saved = await backend.get_change_cursor("site", "indexer")
    clock.advance(3600)
    assert [change async for change in backend.iter_changes("site", "indexer")] == []
    assert await backend.get_change_cursor("site", "indexer") == saved
    # The cursor is renewed before it grows old, even if nothing changes.
    clock.advance(6 * 3600)
    assert [change async for change in backend.iter_changes("site", "indexer")] == []
    assert await backend.get_change_cursor("site", "indexer") != saved


async def test_list_changes_refuses_an_expired_cursor(backend: DynamoDBBackend, clock: ManualClock) -> None:
    await commit(backend, "a", "1")
    cursor = await present(backend)
    clock.advance(timedelta(days=29, hours=22).total_seconds())
    assert (await backend.list_changes("site", cursor=cursor)).is_end
    clock.advance(timedelta(hours=2).total_seconds())
    with pytest.raises(
        ChangesExpiredError, match="change_retention_days = 30 only: start again without a cursor"
    ):
        await backend.list_changes("site", cursor=cursor)


async def test_list_changes_refuses_a_cursor_before_changes_that_have_expired(
    backend: DynamoDBBackend, clock: ManualClock
) -> None:
    cursor = await present(backend)
    for i in range(12):
        await commit(backend, f"p{i}", "1")
    clock.advance(timedelta(days=29).total_seconds())
    part = await backend.list_changes("site", limit=10, cursor=cursor)
    assert len(part) == 10
    # The two changes that are left are as old as the others.
    clock.advance(timedelta(hours=22).total_seconds())
    assert len(await backend.list_changes("site", limit=1, cursor=part.cursor)) == 1
    clock.advance(timedelta(hours=3).total_seconds())
    with pytest.raises(ChangesExpiredError):
        await backend.list_changes("site", limit=10, cursor=part.cursor)


async def test_iter_changes_tells_a_slow_consumer_that_changes_have_expired(
    backend: DynamoDBBackend, clock: ManualClock
) -> None:
    await backend.save_change_cursor("site", "indexer", await present(backend))
    for i in range(12):
        await commit(backend, f"p{i}", "1")
    clock.advance(timedelta(days=29).total_seconds())
    changes = backend.iter_changes("site", "indexer", limit=5)
    for _ in range(7):
        await anext(changes)
    clock.advance(timedelta(days=2).total_seconds())
    with pytest.raises(ChangesExpiredError):
        assert [change async for change in backend.iter_changes("site", "indexer")]


@asynccontextmanager
async def keeping(
    config: DynamoDBConfig, clock: ManualClock, days: int | None
) -> AsyncIterator[DynamoDBBackend]:
    """Opens a backend whose changes are kept for so many days."""
    async with DynamoDBBackend(
        config.model_copy(update={"change_retention_days": days}), clock=clock
    ) as backend:
        yield backend


@pytest.mark.parametrize("reader_days", [30, None])
async def test_list_changes_judges_a_cursor_by_the_retention_of_the_writer_not_by_a_longer_one(
    dynamodb_config: DynamoDBConfig, clock: ManualClock, reader_days: int | None
) -> None:
    async with (
        keeping(dynamodb_config, clock, 1) as writer,
        keeping(dynamodb_config, clock, reader_days) as reader,
    ):
        cursor = await present(reader)
        await commit(writer, "a", "1")
        clock.advance(timedelta(hours=22).total_seconds())
        part = await reader.list_changes("site", cursor=cursor)
        assert [change.page.page_id for change in part] == ["a"]
        await commit(writer, "b", "1")
        clock.advance(timedelta(hours=24).total_seconds())
        with pytest.raises(ChangesExpiredError, match="kept for change_retention_days = 1 only: start again"):
            await reader.list_changes("site", cursor=part.cursor)


@pytest.mark.parametrize("days", [30, None])
async def test_list_changes_judges_a_cursor_by_the_retention_of_the_writer_not_by_a_shorter_one(
    dynamodb_config: DynamoDBConfig, clock: ManualClock, days: int | None
) -> None:
    async with (
        keeping(dynamodb_config, clock, days) as writer,
        keeping(dynamodb_config, clock, 1) as reader,
    ):
        cursor = await present(reader)
        await commit(writer, "a", "1")
        clock.advance(timedelta(days=29).total_seconds())
        assert (await read(reader, cursor))[0] == [("a", CREATED)]


async def test_list_changes_judges_a_cursor_by_the_shortest_retention_of_shards_that_it_has_not_read(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, clock: ManualClock
) -> None:
    cursor = await present(backend)
    await commit(backend, "long", "1")
    async with keeping(dynamodb_config, clock, 1) as writer:
        await commit(writer, "short", "1")
    _, read_both = await read(backend, cursor)
    clock.advance(timedelta(days=2).total_seconds())
    with pytest.raises(ChangesExpiredError, match="change_retention_days = 1"):
        await backend.list_changes("site", cursor=cursor)
    # Nobody holds that shard any more, and there was nothing left to read in it.
    await commit(backend, "long", "2")
    changes, _ = await read(backend, read_both)
    assert changes == [("long", CHANGED)]


async def test_list_changes_refuses_a_cursor_of_a_deleted_site(backend: DynamoDBBackend) -> None:
    await backend.save_site(make_site())
    await commit(backend, "a", "1")
    part = await backend.list_changes("site", cursor=await present(backend))
    await backend.save_change_cursor("site", "indexer", part.cursor)
    assert await backend.delete_site("site")
    assert not await backend.delete_site("site")
    with pytest.raises(ChangesExpiredError, match="were deleted since this cursor"):
        await backend.list_changes("site", cursor=part.cursor)
    assert await backend.get_change_cursor("site", "indexer") is None
    # The process that deleted the site can commit again.
    cursor = await present(backend)
    await commit(backend, "b", "1")
    assert (await read(backend, cursor))[0] == [("b", CREATED)]


async def test_list_changes_of_one_site_only(backend: DynamoDBBackend) -> None:
    cursors = {site: await present(backend, site) for site in ("site", "a#b", "a")}
    await commit(backend, "p#1~", "1", "a#b")
    await commit(backend, "p", "1", "a")
    part = await backend.list_changes("a#b", cursor=cursors["a#b"])
    assert [(change.page.page_id, change.page.site_id) for change in part] == [("p#1~", "a#b")]
    assert [change.page.page_id for change in await backend.list_changes("a", cursor=cursors["a"])] == ["p"]
    assert await backend.list_changes("site", cursor=cursors["site"]) == ChangeSlice([], "", is_end=True)
    with pytest.raises(InvalidCursorError, match="belongs to another site"):
        await backend.list_changes("a", cursor=cursors["a#b"])
    # Log entries do not count as pages.
    assert await backend.count_pages("a#b") == 1


async def test_list_changes_refuses_wrong_arguments_by_name(backend: DynamoDBBackend) -> None:
    with pytest.raises(InvalidArgumentError, match="limit: must be at least 1"):
        await backend.list_changes("site", limit=0)
    with pytest.raises(InvalidCursorError, match="cursor: is damaged"):
        await backend.list_changes("site", cursor="nonsense")
    with pytest.raises(InvalidCursorError, match="cursor: "):
        await backend.list_changes("site", cursor=(await _listing_cursor(backend)))
    with pytest.raises(InvalidCursorError, match="cursor: is damaged"):
        await backend.save_change_cursor("site", "indexer", "nonsense")
    with pytest.raises(InvalidKeyError, match="consumer: must not be empty"):
        await backend.get_change_cursor("site", "")
    with pytest.raises(InvalidKeyError, match="consumer: takes 1,100 bytes"):
        await backend.save_change_cursor("site", "x" * 1100, await present(backend))


async def _listing_cursor(backend: DynamoDBBackend) -> str:
    await commit(backend, "a", "1")
    await commit(backend, "b", "1")
    cursor = (await backend.list_pages("site", limit=1)).cursor
    assert cursor is not None
    return cursor


async def test_list_changes_still_has_a_page_that_save_page_replaced(backend: DynamoDBBackend) -> None:
    cursor = await present(backend)
    await commit(backend, "a", "1")
    await commit(backend, "a", "2")
    page = await backend.get_page("site", "a")
    assert page is not None
    await backend.save_page(page)
    changes, cursor = await read(backend, cursor)
    assert changes == [("a", CHANGED)]
    await commit(backend, "a", "3")
    assert (await read(backend, cursor))[0] == [("a", CHANGED)]


async def test_change_feed_switched_off_logs_nothing(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    cursor = await present(backend)
    silent = dynamodb_config.model_copy(update={"change_feed": False})
    async with DynamoDBBackend(silent) as other:
        await commit(other, "a", "1")
        await commit(other, "a", "2")
        await other.tombstone_pages("site", ["a"], allow_mass_deletion=True)
    stored = await backend.get_page("site", "a")
    assert stored is not None
    assert stored.is_tombstone
    assert (await read(backend, cursor))[0] == []


async def test_change_log_shard_is_handed_to_the_next_process(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, clock: ManualClock
) -> None:
    """Many processes, one after the other, use one shard, so the cursor of a reader does not grow."""
    cursor = await present(backend)
    for i in range(4):
        async with DynamoDBBackend(dynamodb_config, clock=clock) as other:
            await commit(other, f"p{i}", "1")
    sizes = []
    for i in range(4):
        part = await backend.list_changes("site", limit=1, cursor=cursor)
        assert [change.page.page_id for change in part] == [f"p{i}"]
        cursor = part.cursor
        sizes.append(len(cursor))
    assert max(sizes) == min(sizes)


async def test_change_log_shard_of_a_killed_process_is_taken_over(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, clock: ManualClock
) -> None:
    cursor = await present(backend)
    await commit(backend, "a", "1")
    for wait, name in ((10, "b"), (3600, "c")):
        clock.advance(wait)
        async with DynamoDBBackend(dynamodb_config, clock=clock) as other:
            await commit(other, name, "1")
    changes, cursor = await read(backend, cursor)
    assert sorted(changes) == [("a", CREATED), ("b", CREATED), ("c", CREATED)]
    # The first process was not dead after all.
    await commit(backend, "d", "1")
    assert (await read(backend, cursor))[0] == [("d", CREATED)]


async def test_list_changes_of_a_site_without_pages_is_at_its_end(backend: DynamoDBBackend) -> None:
    part = await backend.list_changes("unknown")
    assert (list(part), part.is_end) == ([], True)
    assert (await backend.list_changes("unknown", cursor=part.cursor)).is_end
