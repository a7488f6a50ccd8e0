"""The index of a site ends with the chunks of all current versions and no others, after any history."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from ragcrawl_dynamo import (
    ConflictError,
    DynamoDBBackend,
    DynamoDBConfig,
    InvalidArgumentError,
    InvalidKeyError,
    PageVersion,
)
from ragcrawl_dynamo.integrations import Chunk, Passage, SyncReport, clear_index, reset_index, sync_index
from ragcrawl_dynamo.testing import ManualClock
from tests.support.clocked import backend, clock
from tests.support.deaths import (
    AFTER_THE_LEASE,
    Death,
    KilledError,
    MortalIndex,
    Work,
    killed_at_every_step,
    mortal,
)
from tests.support.factories import make_page, make_site
from tests.support.indexes import (
    MemoryIndex,
    ReadableIndex,
    SqliteIndex,
    chunks_of_site,
    edit,
    fill,
    paragraphs,
    remove,
    split,
    write,
)

__all__ = ["backend", "clock"]


@pytest.fixture(params=[MemoryIndex, SqliteIndex])
def index(request: pytest.FixtureRequest) -> ReadableIndex:
    made: ReadableIndex = request.param()
    return made


class SlowIndex(MemoryIndex):
    """Waits in each upsert until the test lets it resume."""

    def __init__(self) -> None:
        super().__init__()
        self.began, self.resume = asyncio.Event(), asyncio.Event()

    async def upsert(self, chunks: Sequence[Chunk]) -> None:
        self.began.set()
        await self.resume.wait()
        await super().upsert(chunks)


async def sync(
    backend: DynamoDBBackend, index: ReadableIndex | MortalIndex, site_id: str = "site", **options: Any
) -> SyncReport:
    return await sync_index(backend, site_id, "search", index, split, **{"batch_size": 4, **options})


async def test_sync_index_follows_pages_that_are_new_changed_gone_and_back(
    backend: DynamoDBBackend, index: ReadableIndex
) -> None:
    await fill(backend)
    assert await sync(backend, index) == SyncReport(indexed=6, embedded_chunks=17)
    assert index.texts() == await chunks_of_site(backend)
    await edit(backend)
    report = await sync(backend, index)
    assert report == SyncReport(indexed=3, removed=1, embedded_chunks=8, deleted_chunks=3 + 1 + 2)
    assert index.texts() == await chunks_of_site(backend)
    await write(backend, "b", paragraphs("b", 2))
    await write(backend, "a", paragraphs("a", 3))
    await sync(backend, index)
    assert len(index.texts()) == 23
    assert index.texts() == await chunks_of_site(backend)


async def test_sync_index_removes_the_chunks_of_a_page_that_is_empty_now(
    backend: DynamoDBBackend, index: ReadableIndex
) -> None:
    await write(backend, "a", paragraphs("a", 3))
    await write(backend, "b", paragraphs("b", 1))
    await sync(backend, index)
    await write(backend, "a", "")
    assert await sync(backend, index) == SyncReport(indexed=1, deleted_chunks=3)
    assert list(index.texts().values()) == [paragraphs("b", 1)]
    await write(backend, "a", paragraphs("a", 2))
    await sync(backend, index)
    assert len(index.texts()) == 3


async def test_sync_index_passes_batches_of_chunks_across_pages(backend: DynamoDBBackend) -> None:
    index = MemoryIndex()
    await fill(backend)
    await sync(backend, index)
    assert sum(index.batches) == 17
    assert max(index.batches) == 4


async def test_sync_index_reports_progress_after_each_batch(backend: DynamoDBBackend) -> None:
    index, progress = MemoryIndex(), list[SyncReport]()
    await fill(backend)
    total = await sync(backend, index, on_progress=progress.append)
    # A batch ends with a page: the first one has four chunks or more.
    assert progress == [SyncReport(indexed=2, embedded_chunks=5), SyncReport(indexed=6, embedded_chunks=17)]
    assert progress[-1] == total
    await edit(backend)
    await remove(backend, "d")
    progress.clear()
    total = await sync(backend, index, batch_size=100, on_progress=progress.append)
    assert progress == [total]
    assert (total.indexed, total.removed) == (3, 2)
    progress.clear()
    await sync(backend, index, on_progress=progress.append)
    assert progress == []


async def test_sync_index_whose_on_progress_raises_is_continued_by_the_next_one(
    backend: DynamoDBBackend,
) -> None:
    index = MemoryIndex()
    await fill(backend)

    def fail(report: SyncReport) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await sync(backend, index, on_progress=fail)
    assert 0 < index.embedded < 17
    await sync(backend, index)
    assert index.texts() == await chunks_of_site(backend)
    assert index.embedded == 17


async def test_sync_index_takes_a_plain_function_for_on_progress_only(backend: DynamoDBBackend) -> None:
    async def note(report: SyncReport) -> None: ...

    with pytest.raises(InvalidArgumentError, match="on_progress"):
        await sync(backend, MemoryIndex(), on_progress=note)


async def test_sync_index_embeds_nothing_of_unchanged_pages(backend: DynamoDBBackend) -> None:
    index = MemoryIndex()
    await fill(backend)
    await sync(backend, index)
    await write(backend, "a", paragraphs("a", 3))
    await write(backend, "c", paragraphs("c again", 2))
    index.embedded_pages.clear()
    await sync(backend, index)
    assert index.embedded_pages == ["c"]
    assert await sync(backend, index) == SyncReport()


async def test_sync_index_of_a_page_that_was_changed_back_embeds_nothing(backend: DynamoDBBackend) -> None:
    """The index already has the version of the change."""
    index = MemoryIndex()
    await write(backend, "a", paragraphs("a", 3))
    await sync(backend, index)
    await write(backend, "a", paragraphs("a again", 3))
    await write(backend, "a", paragraphs("a", 3))
    assert await sync(backend, index) == SyncReport(unchanged=1)


async def test_sync_index_deletes_chunks_that_another_splitter_has_left(backend: DynamoDBBackend) -> None:
    """The number of chunks is recorded, not computed anew."""
    index = MemoryIndex()
    await fill(backend)
    await sync(backend, index)

    def whole(version: PageVersion) -> list[str]:
        return [version.markdown]

    await write(backend, "a", paragraphs("a again", 7))
    await sync_index(backend, "site", "search", index, whole)
    assert [chunk.text for chunk in index.chunks.values() if chunk.page_id == "a"] == [
        paragraphs("a again", 7)
    ]


async def test_reset_index_for_a_splitter_that_makes_fewer_chunks_of_the_same_version(
    backend: DynamoDBBackend,
) -> None:
    index = MemoryIndex()
    await write(backend, "a", paragraphs("a", 5))
    await sync(backend, index)
    await reset_index(backend, "site", "search")
    await sync_index(backend, "site", "search", index, lambda version: [version.markdown])
    assert list(index.texts().values()) == [paragraphs("a", 5)]


async def test_sync_index_replaces_a_version_that_was_pruned_meanwhile(backend: DynamoDBBackend) -> None:
    index = MemoryIndex()
    await write(backend, "a", paragraphs("a", 3))
    await sync(backend, index)
    await write(backend, "a", paragraphs("a again", 2))
    report = await backend.prune_versions("site", keep_last=1, allow_mass_deletion=True)
    assert report.versions_removed == 1
    await sync(backend, index)
    assert index.texts() == await chunks_of_site(backend)


async def test_sync_index_of_two_consumers_goes_at_two_paces(backend: DynamoDBBackend) -> None:
    quick, slow = MemoryIndex(), MemoryIndex()
    for i in range(6):
        await write(backend, "a", paragraphs(f"a{i}", 3 + i % 2))
        await write(backend, f"p{i}", paragraphs(f"p{i}", 1))
        if i:
            await remove(backend, f"p{i - 1}")
        await sync_index(backend, "site", "quick", quick, split)
        assert quick.texts() == await chunks_of_site(backend)
        if i in (2, 5):
            await sync_index(backend, "site", "slow", slow, split)
            assert slow.texts() == quick.texts()
    assert quick.embedded > slow.embedded


async def test_sync_index_of_other_sites_keeps_apart_in_one_index(backend: DynamoDBBackend) -> None:
    index = MemoryIndex()
    for site_id in ("one", "two"):
        await fill(backend, site_id)
        await sync(backend, index, site_id)
    await edit(backend, "one")
    await sync(backend, index, "one")
    assert index.texts() == {**await chunks_of_site(backend, "one"), **await chunks_of_site(backend, "two")}


async def test_reset_index_fills_an_index_again_that_was_lost_or_kept(backend: DynamoDBBackend) -> None:
    kept, lost = MemoryIndex(), MemoryIndex()
    await fill(backend)
    await sync(backend, kept)
    await edit(backend)
    await reset_index(backend, "site", "search")
    assert (await sync(backend, kept)).embedded_chunks == 19
    assert kept.texts() == await chunks_of_site(backend)
    await reset_index(backend, "site", "search")
    await sync(backend, lost)
    assert lost.texts() == kept.texts()


async def test_reset_index_while_a_crawl_writes(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    index = MemoryIndex()
    await fill(backend)
    await sync(backend, index)
    async with DynamoDBBackend(dynamodb_config) as crawler:

        async def crawl() -> None:
            for i in range(12):
                await write(crawler, f"p{i}", paragraphs(f"p{i}", 2))
                await write(crawler, "a", paragraphs(f"a{i}", 1 + i % 3))
                if i % 3 == 2:
                    await remove(crawler, f"p{i - 1}")

        crawling = asyncio.create_task(crawl())
        await reset_index(backend, "site", "search")
        while not crawling.done():
            await sync(backend, index)
        await crawling
        await sync(backend, index)
    assert index.texts() == await chunks_of_site(backend)


async def test_clear_index_deletes_all_chunks_and_a_sync_brings_them_back(
    backend: DynamoDBBackend, index: ReadableIndex
) -> None:
    await fill(backend)
    await sync(backend, index)
    assert (await clear_index(backend, "site", "search", index)).deleted_chunks == 17
    assert index.texts() == {}
    await sync(backend, index)
    assert index.texts() == await chunks_of_site(backend)


async def test_delete_site_deletes_the_records_of_its_indexes(backend: DynamoDBBackend) -> None:
    await fill(backend)
    await sync(backend, MemoryIndex())
    await backend.delete_site("site")
    index = MemoryIndex()
    assert await sync(backend, index) == SyncReport()
    await fill(backend)
    await sync(backend, index)
    assert index.texts() == await chunks_of_site(backend)


async def test_sync_index_after_its_changes_have_expired_compares_all_pages(
    dynamodb_config: DynamoDBConfig, clock: ManualClock
) -> None:
    """A page that is gone meanwhile is in no listing. Unchanged pages are not embedded again."""
    config = dynamodb_config.model_copy(update={"change_retention_days": 2})
    index = MemoryIndex()
    async with DynamoDBBackend(config, clock=clock) as backend:
        await fill(backend)
        await sync(backend, index)
        await edit(backend)
        clock.advance(3 * 86_400)
        index.embedded_pages.clear()
        report = await sync(backend, index)
        assert (report.removed, report.unchanged) == (1, 3)
        assert set(index.embedded_pages) == {"a", "c", "new"}
        assert index.texts() == await chunks_of_site(backend)


async def test_sync_index_with_follow_indexes_changes_until_it_is_stopped(
    backend: DynamoDBBackend, clock: ManualClock
) -> None:
    index, stop = MemoryIndex(), asyncio.Event()
    await fill(backend)
    following = asyncio.create_task(
        sync_index(backend, "site", "search", index, split, follow=True, stop=stop)
    )
    for changes in (None, edit):
        if changes is not None:
            await changes(backend)
        wanted = await chunks_of_site(backend)
        while index.texts() != wanted:
            clock.advance(1)
            await asyncio.sleep(0.01)
    stop.set()
    report = await asyncio.wait_for(following, 30)
    assert (report.indexed, report.removed) == (9, 1)


async def test_sync_index_waits_for_another_process_and_finds_nothing_left_to_do(
    backend: DynamoDBBackend, clock: ManualClock
) -> None:
    index = SlowIndex()
    await fill(backend)
    first = asyncio.create_task(sync(backend, index))
    await index.began.wait()
    second = asyncio.create_task(sync(backend, index))
    # Its lease is renewed, however long it takes.
    for _ in range(20):
        await clock.wait_for_sleeper()
        clock.advance(10)
        await asyncio.sleep(0.02)
    index.resume.set()
    while not second.done():
        clock.advance(1)
        await asyncio.sleep(0.01)
    assert ((await first).embedded_chunks, (await second).embedded_chunks) == (17, 0)
    assert index.texts() == await chunks_of_site(backend)


async def test_sync_index_that_was_suspended_beyond_its_lease_stops(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, clock: ManualClock
) -> None:
    """It had read a page that has changed since. The other process has indexed the change."""
    index = MemoryIndex()
    suspended, resume = asyncio.Event(), asyncio.Event()

    def suspending(version: PageVersion) -> list[str]:
        loop.call_soon_threadsafe(suspended.set)
        asyncio.run_coroutine_threadsafe(resume.wait(), loop).result()
        return split(version)

    loop = asyncio.get_running_loop()
    await write(backend, "a", paragraphs("a", 3))
    async with DynamoDBBackend(dynamodb_config, clock=ManualClock(clock.now())) as other:
        stale = asyncio.create_task(sync_index(other, "site", "search", index, suspending))
        await suspended.wait()
        await write(backend, "a", paragraphs("a again", 2))
        clock.advance(AFTER_THE_LEASE)
        await sync(backend, index)
        resume.set()
        with pytest.raises(ConflictError, match="another process changes index 'search'"):
            await stale
    assert index.texts() == await chunks_of_site(backend)


async def test_sync_index_that_is_cancelled_waits_for_the_index(backend: DynamoDBBackend) -> None:
    """Nobody would know of chunks that an interrupted call stored later."""
    index = SlowIndex()
    await fill(backend)
    syncing = asyncio.create_task(sync(backend, index))
    await index.began.wait()
    syncing.cancel()
    await asyncio.sleep(0.05)
    assert not syncing.done()
    index.resume.set()
    with pytest.raises(asyncio.CancelledError):
        await syncing
    assert index.embedded == 4
    # It has ended its lease.
    await asyncio.wait_for(sync(backend, index), 30)
    assert index.texts() == await chunks_of_site(backend)


@pytest.mark.parametrize("failing", ["upsert", "delete", "split"])
async def test_sync_index_raises_errors_of_the_index_and_the_splitter(
    backend: DynamoDBBackend, failing: str
) -> None:
    index = MemoryIndex()
    await fill(backend)
    await sync(backend, index)
    await edit(backend)

    class FailingIndex(MemoryIndex):
        async def upsert(self, chunks: Sequence[Chunk]) -> None:
            if failing == "upsert":
                raise OSError("the index is full")
            await index.upsert(chunks)

        async def delete(self, ids: Sequence[str]) -> None:
            if failing == "delete":
                raise OSError("the index is full")
            await index.delete(ids)

    def failing_split(version: PageVersion) -> list[str]:
        if failing == "split":
            raise OSError("the index is full")
        return split(version)

    with pytest.raises(OSError, match="the index is full") as raised:
        await sync_index(backend, "site", "search", FailingIndex(), failing_split)
    assert raised.value.__notes__ == [
        {
            "upsert": "raised by FailingIndex.upsert for 8 chunks of 'a' (https://example.com/a), "
            "'c' (https://example.com/c), 'new' (https://example.com/new)",
            "delete": "raised by FailingIndex.delete for 6 chunks of 'a', 'c', 'b'",
            "split": f"raised by splitter {failing_split.__qualname__!r} for page 'a' (https://example.com/a)",
        }[failing]
    ]
    await asyncio.wait_for(sync(backend, index), 30)
    assert index.texts() == await chunks_of_site(backend)


async def resync(backend: DynamoDBBackend, index: MortalIndex, site_id: str) -> None:
    await sync(backend, index, site_id)


async def rebuild(backend: DynamoDBBackend, index: MortalIndex, site_id: str) -> None:
    await reset_index(backend, site_id, "search")
    await sync(backend, index, site_id)


async def clear(backend: DynamoDBBackend, index: MortalIndex, site_id: str) -> None:
    await clear_index(backend, site_id, "search", index, batch_size=4)


@pytest.mark.long
@pytest.mark.parametrize(
    ("dynamodb_endpoint", "work"),
    [("moto", resync), *(("dynamodb-local", work) for work in (resync, rebuild, clear))],
    indirect=["dynamodb_endpoint"],
)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_sync_index_that_is_killed_at_any_step_is_completed_by_the_next_one(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, clock: ManualClock, work: Work, after: bool
) -> None:
    steps = await killed_at_every_step(backend, dynamodb_config, clock, MemoryIndex, work, after=after)
    assert steps > 15


@pytest.mark.long
@pytest.mark.parametrize("seed", range(6))
async def test_sync_index_after_any_history_has_the_chunks_of_the_site(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, clock: ManualClock, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 # the same history every time
    index = MemoryIndex()

    async def write_one() -> None:
        name = f"p{chance.randrange(5)}"
        await write(backend, name, paragraphs(f"{name} {chance.randrange(3)}", chance.randrange(7)))

    async def remove_one() -> None:
        await remove(backend, f"p{chance.randrange(5)}")

    async def tombstone() -> None:
        await backend.tombstone_pages("site", [f"p{chance.randrange(5)}"], allow_mass_deletion=True)

    async def sync_partly() -> None:
        death = Death(chance.randrange(1, 60), after=chance.random() < 0.5)
        async with mortal(dynamodb_config, clock, death) as dying:
            try:
                await sync(dying, MortalIndex(index, death), batch_size=chance.randrange(1, 6))
            except KilledError:
                clock.advance(AFTER_THE_LEASE)

    async def reset() -> None:
        await reset_index(backend, "site", "search")

    async def prune() -> None:
        await backend.prune_versions("site", keep_last=1, allow_mass_deletion=True)

    for _ in range(40):
        steps = [write_one, remove_one, tombstone, sync_partly, reset, prune]
        await chance.choices(steps, [10, 3, 2, 8, 1, 1])[0]()
    await sync(backend, index)
    assert index.texts() == await chunks_of_site(backend)


async def test_sync_index_refuses_arguments_that_are_not_valid(backend: DynamoDBBackend) -> None:
    index = MemoryIndex()
    for batch_size in (0, 10_001):
        with pytest.raises(InvalidArgumentError, match="batch_size"):
            await sync(backend, index, batch_size=batch_size)
    with pytest.raises(InvalidArgumentError, match="poll_seconds"):
        await sync(backend, index, poll_seconds=0)
    for consumer in ("", "x" * 953):
        with pytest.raises(InvalidKeyError, match="consumer"):
            await sync_index(backend, "site", consumer, index, split)
    await sync_index(backend, "site", "x" * 952, index, split)


async def coroutine(version: PageVersion) -> list[str]:
    return [version.markdown]


@pytest.mark.parametrize(
    ("returned", "mistake"),
    [
        ("text", "a str"),
        (b"text", "a bytes"),
        (None, "None"),
        (7, "a int"),
        (Passage("text"), "a Passage"),
        (["text", None], "a list with a NoneType"),
        ([("text", 0)], "a list with a tuple"),
        ([Passage(None)], "a Passage whose text is a NoneType"),  # type: ignore[arg-type]
        ([Passage("text", "0")], "a Passage whose start is a str"),  # type: ignore[arg-type]
    ],
)
async def test_sync_index_refuses_what_a_splitter_returns_that_is_no_list_of_passages(
    backend: DynamoDBBackend, returned: Any, mistake: str
) -> None:
    index = MemoryIndex()
    await write(backend, "a", "text")

    def careless(version: PageVersion) -> Any:
        return returned

    with pytest.raises(InvalidArgumentError) as raised:
        await sync_index(backend, "site", "search", index, careless)
    name = careless.__qualname__
    assert str(raised.value) == (
        f"split: must return a list of texts or Passages, not {mistake}: splitter {name!r} did so for "
        f"page 'a' (https://example.com/a)"
    )
    assert index.texts() == {}


async def test_sync_index_refuses_a_splitter_that_returns_a_coroutine(backend: DynamoDBBackend) -> None:
    await write(backend, "a", "text")

    def careless(version: PageVersion) -> Any:
        return coroutine(version)

    with pytest.raises(InvalidArgumentError, match=r"not a coroutine: splitter '.*careless' did so"):
        await sync_index(backend, "site", "search", MemoryIndex(), careless)


async def test_sync_index_takes_a_generator_and_names_the_page_of_its_error(backend: DynamoDBBackend) -> None:
    await write(backend, "a", "text")

    def broken(version: PageVersion) -> Iterator[str]:
        yield version.markdown
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more") as raised:
        await sync_index(backend, "site", "search", MemoryIndex(), broken)
    assert "for page 'a' (https://example.com/a)" in raised.value.__notes__[0]


class WriteOnlyIndex:
    def upsert(self, chunks: Sequence[Chunk]) -> None: ...


@pytest.mark.parametrize(
    ("position", "value", "match"),
    [
        (0, "site", "^backend: must be a DynamoDBBackend, not str"),
        (1, MemoryIndex(), "^site_id: must be a str, not MemoryIndex"),
        (2, split, "^consumer: must be a str, not function"),
        (3, None, "^index: .*NoneType has no upsert"),
        (3, split, "^index: .*function has no upsert"),
        (3, MemoryIndex, "^index: must be an object, not the class MemoryIndex"),
        (3, WriteOnlyIndex(), "^index: .*WriteOnlyIndex has no delete"),
        (4, None, "^split: must be a function, not NoneType"),
        (4, MemoryIndex(), "^split: must be a function, not MemoryIndex"),
        (4, coroutine, "^split: must be a plain function"),
    ],
)
async def test_sync_index_names_an_argument_of_a_wrong_type_although_there_is_nothing_to_do(
    backend: DynamoDBBackend, position: int, value: Any, match: str
) -> None:
    arguments: list[Any] = [backend, "site", "search", MemoryIndex(), split]
    await sync_index(*arguments)
    arguments[position] = value
    with pytest.raises(InvalidArgumentError, match=match):
        await sync_index(*arguments)
    if position < 4:
        with pytest.raises(InvalidArgumentError, match=match):
            await clear_index(*arguments[:4])
    if position < 3:
        with pytest.raises(InvalidArgumentError, match=match):
            await reset_index(*arguments[:3])


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    messages = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    caplog.clear()
    return messages


def queries_of(backend: DynamoDBBackend) -> int:
    return sum(
        counted.requests for (operation, _), counted in backend.metrics().items() if operation == "Query"
    )


async def test_sync_index_of_an_unknown_site_warns_once_in_each_call(
    backend: DynamoDBBackend, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    index, stop = MemoryIndex(), asyncio.Event()
    for _ in range(2):
        await sync(backend, index, "stie")
        (warning,) = warnings_of(caplog)
        assert warning.startswith("there is no site 'stie' and no page of it")
    await reset_index(backend, "stie", "search")
    assert len(warnings_of(caplog)) == 1
    await clear_index(backend, "stie", "search", index)
    assert len(warnings_of(caplog)) == 1
    following = asyncio.create_task(sync(backend, index, "stie", follow=True, stop=stop))
    queries = queries_of(backend)
    while queries_of(backend) < queries + 10:
        clock.advance(10)
        await asyncio.sleep(0.01)
    stop.set()
    await following
    assert len(warnings_of(caplog)) == 1


async def test_sync_index_does_not_warn_of_a_site_that_is_stored_or_has_pages(
    backend: DynamoDBBackend, caplog: pytest.LogCaptureFixture
) -> None:
    index = MemoryIndex()
    await backend.save_site(make_site("new"))
    await backend.save_page(make_page("a", "old"))
    await write(backend, "a", "text", "current")
    for site_id in ("new", "old", "current"):
        await reset_index(backend, site_id, "search")
        await sync(backend, index, site_id)
        await sync(backend, index, site_id)
        await clear_index(backend, site_id, "search", index)
    assert warnings_of(caplog) == []


async def test_sync_index_logs_that_it_waits_for_a_process_that_was_killed(
    backend: DynamoDBBackend,
    dynamodb_config: DynamoDBConfig,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "ragcrawl_dynamo._indexing.lease")
    await write(backend, "a", "text")
    death = Death(12)
    async with mortal(dynamodb_config, clock, death) as dying:
        with pytest.raises(KilledError):
            await sync(dying, MortalIndex(MemoryIndex(), death))
    caplog.clear()
    waiting = asyncio.create_task(sync(backend, MemoryIndex()))
    while not waiting.done():
        clock.advance(1)
        await asyncio.sleep(0.01)
    await waiting
    waits, has = [record.getMessage() for record in caplog.records]
    assert waits.startswith("index 'search' of site 'site' waits for the lease of another process until ")
    assert has == "index 'search' of site 'site' has the lease now"
