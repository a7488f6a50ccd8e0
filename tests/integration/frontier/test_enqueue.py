"""Links that many add at once, or that fail to be added."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from ragcrawl_dynamo import (
    DynamoDBBackend,
    DynamoDBConfig,
    FrontierStats,
    HostBudgetError,
    PartialBatchError,
)
from ragcrawl_dynamo._frontier.enqueue import Enqueuer
from ragcrawl_dynamo._frontier.host_candidates import Pace
from ragcrawl_dynamo._frontier.membership import Membership
from ragcrawl_dynamo._utils.concurrency import PER_TURN
from tests.support.engines import on_dynamodb_local
from tests.support.frontiers import opened
from tests.support.queues import claim_all, items, names, requests, url, urls
from tests.support.turns import counting_turns


@on_dynamodb_local
async def test_frontier_add_of_many_links_lets_other_tasks_run_and_keeps_their_order(
    backend: DynamoDBBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two batches are encoded at the same time, each in parts."""
    added = urls(1200)
    turns_of: list[int] = []

    def item(enqueuer: Enqueuer, *arguments: Any) -> Any:
        turns_of.append(turns.count)
        return build(enqueuer, *arguments)

    build = Enqueuer._item
    monkeypatch.setattr(Enqueuer, "_item", item)
    async with counting_turns() as turns:
        await backend.frontier("site", "run").add(added)
    assert len(turns_of) == 1200
    # A part of each batch.
    assert max(Counter(turns_of).values()) <= 2 * PER_TURN
    stored = await backend.get_frontier_items("run", limit=2000)
    assert [item.url for item in sorted(stored, key=lambda item: item.discovered_at)] == added


@on_dynamodb_local
async def test_frontier_add_of_known_links_takes_few_requests(
    config: DynamoDBConfig, backend: DynamoDBBackend
) -> None:
    async with opened(config) as frontier:
        await frontier.add(urls(90))
    async with DynamoDBBackend(config) as other:
        frontier = other.frontier("site", "run")
        before = requests(other)
        results = await frontier.add(urls(100))
        assert sum(result.added for result in results) == 10
        assert requests(other) - before <= 6
        before = requests(other)
        await asyncio.sleep(1.1)
        assert not any(result.added for result in await frontier.add(urls(100)))
        # The counts of before, which are written a second later, to places that may have to be made.
        assert requests(other) - before <= 3
        before = requests(other)
        assert not any(result.added for result in await frontier.add(urls(100)))
        assert requests(other) == before
    # The cache is bounded, and its loss changes nothing.
    async with opened(config.model_copy(update={"frontier_seen_cache": 3})) as forgetful:
        for _ in range(2):
            assert not any(result.added for result in await forgetful.add(urls(100)))
    assert len(await items(backend)) == 100


@on_dynamodb_local
async def test_frontier_add_by_many_at_once_adds_links_once(
    config: DynamoDBConfig, backend: DynamoDBBackend
) -> None:
    async with opened(config) as one, opened(config) as two:
        results = await asyncio.gather(*(queue.add(urls(60)) for queue in (one, two) for _ in range(3)))
        assert sum(result.added for part in results for result in part) == 60
        # A recount does not see counts that another process has not stored yet.
        await two.stats()
        assert await one.recount() == FrontierStats(pending=60)
        assert await one.stats() == FrontierStats(pending=60)
    assert len(await items(backend)) == 60


@on_dynamodb_local
async def test_host_max_items_is_exact_over_processes_that_add_at_once(
    config: DynamoDBConfig, backend: DynamoDBBackend
) -> None:
    async with DynamoDBBackend(config) as one, DynamoDBBackend(config) as two:
        frontiers = [process.frontier("site", "run", host_max_items=50) for process in (one, two)]
        calls = [frontiers[i % 2].add(urls(20, first=20 * i)) for i in range(8)]
        results = [result for part in await asyncio.gather(*calls) for result in part]
        assert sum(result.added for result in results) == 50
        assert all(isinstance(result.error, HostBudgetError) for result in results if not result.added)
        # Once the budget is known to be used up, further links take one request, which reads stored links.
        before = requests(one)
        assert not any(result.added for result in await frontiers[0].add(urls(20, first=1000)))
        assert requests(one) - before <= 3
    assert len(await items(backend)) == 50


@on_dynamodb_local
async def test_host_max_items_counts_links_that_are_added_twice_at_once_once(
    config: DynamoDBConfig, backend: DynamoDBBackend
) -> None:
    async with DynamoDBBackend(config) as one, DynamoDBBackend(config) as two:
        frontiers = [process.frontier("site", "run", host_max_items=100) for process in (one, two)]
        await asyncio.gather(*(queue.add(urls(50)) for queue in frontiers))
        results = await frontiers[0].add(urls(60, first=50))
        assert sum(result.added for result in results) == 50
    assert len(await items(backend)) == 100


@on_dynamodb_local
async def test_frontier_add_spreads_a_large_host_over_shards(config: DynamoDBConfig) -> None:
    async with opened(config) as frontier:
        await frontier.add(urls(500))
        assert len(await frontier.claim(50)) == 50
        # As if it was claimed from so fast that one shard could not keep up.
        frontier._queue.run.view.bench.hosts["a.example"].pace = Pace(since=0.0, per_second=500.0)
        await frontier.add(urls(500, first=500))
        records = await frontier._queue.run.hosts.read(["a.example"])
        assert records["a.example"].shards == 4
        await frontier.add([frontier.link(url(5000), priority=9.0)])
        assert names(await frontier.claim(1)) == [url(5000)]
        assert len(await claim_all(frontier)) == 950


@on_dynamodb_local
async def test_frontier_add_that_fails_names_the_links_and_can_be_repeated(
    config: DynamoDBConfig, backend: DynamoDBBackend
) -> None:
    broken = True

    async def fails(operation: str, request: dict[str, Any], call: Any) -> Any:
        if broken and operation == "batch_execute_statement":
            raise EndpointConnectionError(endpoint_url="down")
        return await call(**request)

    async with opened(config.model_copy(update={"retry_attempts": 2}), fails) as frontier:
        with pytest.raises(PartialBatchError) as caught:
            await frontier.add(urls(3))
        assert [item.url for item, _ in caught.value.failures] == urls(3)
        broken = False
        assert all(result.added for result in await frontier.add(urls(3)))
        assert len(await frontier.claim()) == 3


@on_dynamodb_local
async def test_frontier_add_that_fails_to_wake_the_host_loses_no_link(config: DynamoDBConfig) -> None:
    inserted = broken = False

    async def fails(operation: str, request: dict[str, Any], call: Any) -> Any:
        nonlocal inserted
        if broken and inserted:
            raise EndpointConnectionError(endpoint_url="down")
        answer = await call(**request)
        inserted = inserted or operation == "batch_execute_statement"
        return answer

    async with opened(config.model_copy(update={"retry_attempts": 2}), fails) as frontier:
        broken = True
        with pytest.raises(Exception, match="no usable answer"):
            await frontier.add([url(1)])
        broken = False
        assert names(await frontier.claim()) == [url(1)]


@on_dynamodb_local
async def test_frontier_add_again_repairs_the_link_of_a_killed_process(config: DynamoDBConfig) -> None:
    """The process was killed after it had stored its link, and before it could list the host."""
    killed = False

    async def dies(operation: str, request: dict[str, Any], call: Any) -> Any:
        nonlocal killed
        if killed:
            raise asyncio.CancelledError
        answer = await call(**request)
        killed = operation == "batch_execute_statement"
        return answer

    async with opened(config) as frontier:
        assert await frontier.is_finished()
        async with opened(config, dies) as dying:
            with pytest.raises(asyncio.CancelledError):
                await dying.add([url(1)])
            dying._queue.run.view.clear()
        assert not await frontier.is_finished()
        assert [result.added for result in await frontier.add([url(1)])] == [False]
        assert not await frontier.is_finished()
        assert names(await frontier.claim()) == [url(1)]


@on_dynamodb_local
async def test_frontier_add_takes_an_iterator_in_batches_and_reports_progress(config: DynamoDBConfig) -> None:
    progress: list[int] = []
    taken = 0

    def links() -> Iterator[str]:
        nonlocal taken
        for link in (*urls(2400), "mailto:a@b.example", *urls(99, first=2350)):
            taken += 1
            yield link

    def note(count: int) -> None:
        progress.append(count)
        # The links of an iterator may not all fit into memory.
        assert taken <= count + 4000

    async with opened(config) as frontier:
        results = await frontier.add(links(), on_progress=note)
        assert progress == [1000, 2000, 2500]
        assert [result.added for result in results] == [True] * 2400 + [False] * 51 + [True] * 49
        assert results[2400].error is not None
        assert (await frontier.stats()).pending == 2449


@on_dynamodb_local
async def test_frontier_add_continues_after_a_batch_in_which_links_failed(config: DynamoDBConfig) -> None:
    failures = 0

    async def fails(operation: str, request: dict[str, Any], call: Any) -> Any:
        nonlocal failures
        if operation == "batch_execute_statement" and url(700) in str(request) and failures < 2:
            failures += 1
            raise EndpointConnectionError(endpoint_url="down")
        return await call(**request)

    async with opened(config.model_copy(update={"retry_attempts": 2}), fails) as frontier:
        with pytest.raises(PartialBatchError) as caught:
            await frontier.add(urls(1500))
        failed = [item.url for item, _ in caught.value.failures]
        assert url(700) in failed
        assert caught.value.saved + len(failed) == 1500
        assert (await frontier.stats()).pending == caught.value.saved
        results = await frontier.add(urls(1500))
        assert [result.url for result in results if result.added] == failed


@on_dynamodb_local
async def test_frontier_counts_are_right_while_they_are_stored_and_hosts_are_announced(
    config: DynamoDBConfig,
) -> None:
    async with opened(config) as frontier:

        async def add(number: int) -> None:
            for i in range(6):
                await frontier.add([url(1, f"h{number}-{i}.example")])

        async def store() -> None:
            for _ in range(30):
                await frontier.stats()

        await asyncio.gather(*(add(number) for number in range(15)), store())
        assert (await frontier.stats()).pending == 90
        assert [host.stats.pending async for host in frontier.iter_hosts()] == [1] * 90


@on_dynamodb_local
@pytest.mark.parametrize(("processes", "most"), [(1, 80), (200, 8)])
async def test_frontier_add_reads_the_control_rarely_if_many_processes_do(
    config: DynamoDBConfig,
    backend: DynamoDBBackend,
    monkeypatch: pytest.MonkeyPatch,
    processes: int,
    most: int,
) -> None:
    reads = 0

    async def counting(operation: str, request: dict[str, Any], call: Any) -> Any:
        nonlocal reads
        if operation in ("get_item", "batch_get_item"):
            reads += str(request).count("'item_id': {'S': 'control'}")
        return await call(**request)

    async with opened(config, counting) as frontier:
        await frontier.add(urls(1))
        monkeypatch.setattr(Membership, "count", processes)
        reads = 0
        results = await asyncio.gather(*(frontier.add(urls(1, first=i)) for i in range(1, 41)))
        assert all(result.added for (result,) in results)
        assert 2 <= reads <= most
        await frontier.pause()
        assert await frontier.claim() == []
        await frontier.resume()
        assert len(await frontier.claim(50)) == 41
