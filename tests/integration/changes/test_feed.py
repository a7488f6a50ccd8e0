"""The change feed where commits race its readers, on DynamoDB Local."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from multiprocessing.context import ForkServerProcess
from typing import Any

import pytest

from ragcrawl_dynamo import ChangeKind, DynamoDBBackend, DynamoDBConfig, PageChange
from ragcrawl_dynamo._changes import change as _changes
from ragcrawl_dynamo._dynamodb.requests import Query, query_request
from ragcrawl_dynamo._schema.keys import change_shard_partition, changes_partition
from tests.support import change_worker, processes
from tests.support.engines import on_dynamodb_local
from tests.support.factories import make_page, make_version
from tests.support.fakes import intercepting

pytestmark = on_dynamodb_local


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers that give up open numbers at once, if a later number is used."""
    monkeypatch.setattr(_changes, "SETTLE_SECONDS", -3600.0)


async def commit(backend: DynamoDBBackend, page_id: str, content: str = "1") -> None:
    version = make_version(content, page_id, markdown=content, content_hash=content)
    await backend.commit_page(make_page(page_id, status_code=200), version)


async def present(backend: DynamoDBBackend) -> str:
    cursor = await backend.get_change_cursor("site")
    assert cursor is not None
    return cursor


class Gate:
    """Holds back the transaction of one page; counts all."""

    def __init__(self, page_id: str) -> None:
        self.page_id = page_id
        self.reached = asyncio.Event()
        self.open = asyncio.Event()
        self.sent: Counter[str] = Counter()

    async def around(self, operation: str, request: dict[str, Any], call: Any) -> Any:
        if operation == "transact_write_items":
            page_id = request["TransactItems"][0]["Put"]["Item"]["page_id"]["S"]
            self.sent[page_id] += 1
            if page_id == self.page_id and self.sent[page_id] == 1:
                self.reached.set()
                await self.open.wait()
        return await call(**request)


async def names(backend: DynamoDBBackend, cursor: str) -> tuple[list[str], str]:
    page_ids = []
    while True:
        part = await backend.list_changes("site", limit=1, cursor=cursor)
        page_ids += [change.page.page_id for change in part]
        cursor = part.cursor
        if part.is_end:
            return page_ids, cursor


async def test_list_changes_waits_for_a_commit_that_is_under_way(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    gate = Gate("late")
    cursor = await present(backend)
    async with DynamoDBBackend(dynamodb_config, client_factory=intercepting(gate.around)) as writer:
        await commit(writer, "first")
        late = asyncio.create_task(commit(writer, "late"))
        await gate.reached.wait()
        await commit(writer, "beyond")
        page_ids, cursor = await names(backend, cursor)
        assert page_ids == ["first"]
        # A reader that begins now begins before the open commit.
        newer = await present(backend)
        gate.open.set()
        await late
    assert (await names(backend, cursor))[0] == ["late", "beyond"]
    assert (await names(backend, newer))[0] == ["late", "beyond"]
    assert gate.sent["late"] == 1


@pytest.mark.usefixtures("impatient")
async def test_list_changes_returns_a_late_commit_under_a_later_number(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    gate = Gate("late")
    cursor = await present(backend)
    async with DynamoDBBackend(dynamodb_config, client_factory=intercepting(gate.around)) as writer:
        late = asyncio.create_task(commit(writer, "late"))
        await gate.reached.wait()
        await commit(writer, "beyond")
        page_ids, cursor = await names(backend, cursor)
        assert page_ids == ["beyond"]
        gate.open.set()
        await late
        page_ids, cursor = await names(backend, cursor)
        assert page_ids == ["late"]
        # The process has kept its shard.
        await commit(writer, "next")
    assert (await names(backend, cursor))[0] == ["next"]
    assert gate.sent["late"] == 2
    stored = await backend.get_page("site", "late")
    assert stored is not None
    assert stored.version_count == 1


async def test_change_log_shard_held_by_two_processes_loses_nothing(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    cursor = await present(backend)
    async with DynamoDBBackend(dynamodb_config) as one, DynamoDBBackend(dynamodb_config) as two:
        await commit(one, "a")
        held, others = one._rooms.change_log._held["site"], two._rooms.change_log._held
        await commit(two, "b")
        others["site"].name, others["site"].next_number = held.name, held.next_number
        await asyncio.gather(*(commit(process, f"{i}") for i, process in enumerate((one, two) * 8)))
    page_ids, _ = await names(backend, cursor)
    assert sorted(page_ids) == sorted(["a", "b", *(f"{i}" for i in range(16))])


async def test_list_changes_reads_a_page_again_that_was_read_inside_its_transaction(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    await commit(backend, "a")
    cursor = await present(backend)
    old: dict[str, Any] = {}
    reads = 0

    async def around(operation: str, request: dict[str, Any], call: Any) -> Any:
        nonlocal reads
        answer = await call(**request)
        if operation == "batch_get_item":
            reads += 1
            if not old:
                old.update(answer["Responses"])
            if reads <= 2:
                # As it was before.
                answer["Responses"] = old
        return answer

    config = dynamodb_config.model_copy(update={"retry_base_delay": 0.0})
    async with DynamoDBBackend(config, client_factory=intercepting(around)) as reader:
        async for change in reader.iter_changes("site", "warm up"):
            assert change.page.current_version_id == "1"
        old.clear()
        reads = 0
        page = await reader.get_pages_bulk("site", ["a"])
        assert page[0].current_version_id == "1"
        await commit(backend, "a", "2")
        part = await reader.list_changes("site", cursor=cursor)
        assert [(change.kind, change.page.current_version_id) for change in part] == [
            (ChangeKind.CHANGED, "2")
        ]
        assert reads == 3


async def test_change_log_entries_expire_and_shards_do_not(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    await commit(backend, "a")
    query = Query(backend._rooms.tables.pages, changes_partition("site"))
    (shard,) = (await backend._rooms.gateway.call("Query", query_request(query)))["Items"]
    assert "expires_at" not in shard
    assert shard["site_id"]["S"] == changes_partition("site")
    name = shard["page_id"]["S"].removeprefix("lane#")
    partition = change_shard_partition("site", name)
    response = await backend._rooms.gateway.call(
        "GetItem",
        {
            "TableName": f"{dynamodb_config.table_prefix}pages",
            "Key": {"site_id": {"S": partition}, "page_id": {"S": "000000000001"}},
        },
    )
    item = response["Item"]
    assert (item["kind"], item["changed_page"]) == ({"S": "created"}, {"S": "a"})
    assert "url_key" not in item
    stored = await backend.get_page("site", "a")
    assert stored is not None
    assert stored.last_changed is not None
    days = (int(item["expires_at"]["N"]) - stored.last_changed.timestamp()) / 86_400
    assert days == pytest.approx(30, abs=0.01)


class Reader:
    """Follows the feed, and keeps an index of the pages, as a consumer does."""

    def __init__(self, backend: DynamoDBBackend, chance: random.Random) -> None:
        self.backend = backend
        self.chance = chance
        self.index: dict[str, str | None] = {}
        self.counts: dict[str, int] = {}
        self.changes = 0

    async def read(self, cursor: str | None) -> str:
        part = await self.backend.list_changes("site", limit=self.chance.randrange(1, 9), cursor=cursor)
        for change in part:
            self.note(change)
        self.is_end = part.is_end
        return part.cursor

    def note(self, change: PageChange) -> None:
        page = change.page
        # Every content of the writers is new, so this grows with a page's commits.
        assert page.version_count >= self.counts.get(page.page_id, 0)
        self.counts[page.page_id] = page.version_count
        gone = change.kind is ChangeKind.DELETED
        self.index[page.page_id] = None if gone else page.current_version_id
        self.changes += 1

    async def follow(self, stop: asyncio.Event) -> None:
        cursor: str | None = None
        while not stop.is_set():
            cursor = await self.read(cursor)
            if self.chance.random() < 0.2:
                await asyncio.sleep(self.chance.random() * 0.3)
        self.is_end = False
        while not self.is_end:
            cursor = await self.read(cursor)


class Follower(Reader):
    """Does the same as a consumer that reads the content and is killed now and then."""

    async def follow(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            changes = self.iterate(follow=True, poll_seconds=0.2, stop=stop)
            async for change in changes:
                self.note(change)
                if self.chance.random() < 0.03:
                    break
            await changes.aclose()
        async for change in self.iterate():
            self.note(change)

    def note(self, change: PageChange) -> None:
        super().note(change)
        if change.kind is ChangeKind.DELETED:
            assert change.version is None
        else:
            assert change.version is not None
            assert change.version.version_id == change.page.current_version_id
            assert change.version.markdown == change.version.version_id

    def iterate(self, **options: Any) -> Any:
        limit, name = self.chance.randrange(1, 40), f"{id(self)}"
        return self.backend.iter_changes("site", name, limit=limit, include_content=True, **options)


async def until_pages(backend: DynamoDBBackend, count: int) -> None:
    """Waits until the writers have committed so many."""
    while await backend.count_pages("site") < count:  # noqa: ASYNC110 # others commit them
        await asyncio.sleep(0.1)


@pytest.mark.long
@pytest.mark.usefixtures("impatient")
async def test_list_changes_misses_nothing_when_writers_race_and_are_killed(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    """Readers that wait for no commit, and writers that are late, lose answers and are killed.

    In the end each reader's index equals the pages, whenever it began.
    """
    chance = random.Random(7)  # noqa: S311 # reproducible on purpose
    arguments = (str(dynamodb_config.endpoint_url), dynamodb_config.table_prefix)
    seeds = iter(range(1000))

    def start() -> ForkServerProcess:
        return processes.start(change_worker.work, *arguments, next(seeds))

    writers = [start() for _ in range(3)]
    stop = asyncio.Event()
    readers = [Reader(backend, random.Random(i)) for i in range(4)]  # noqa: S311 # reproducible on purpose
    readers += [Follower(backend, random.Random(i)) for i in range(2)]  # noqa: S311 # likewise
    following: list[asyncio.Task[None]] = []
    try:
        for i in range(4):
            for reader in readers[i::4]:
                following.append(asyncio.create_task(reader.follow(stop)))
            await until_pages(backend, 60 * (i + 1))
            await asyncio.sleep(chance.random() * 0.2)
            killed = chance.randrange(len(writers))
            assert writers[killed].is_alive()
            await processes.kill(writers[killed])
            writers[killed] = start()
    finally:
        for writer in writers:
            await processes.kill(writer)
        # By then the engine has applied all requests that it had received.
        await asyncio.sleep(1)
        stop.set()
        await asyncio.gather(*following)
    pages = [page async for page in backend.iter_pages("site", include_tombstones=True)]
    assert len(pages) > 10 * change_worker.SHARED_PAGES
    expected = {page.page_id: None if page.is_tombstone else page.current_version_id for page in pages}
    for reader in readers:
        alive = {page_id: version for page_id, version in reader.index.items() if version is not None}
        assert alive == {page_id: version for page_id, version in expected.items() if version is not None}
        assert reader.changes >= len(pages)
