"""Whether a run is finished, where the index does not show all items."""

from __future__ import annotations

import asyncio
import signal
from datetime import timedelta
from typing import Any

import pytest

from ragcrawl_dynamo import DynamoDBConfig, FrontierStats
from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.expressions import Exists, Update
from ragcrawl_dynamo._frontier import context
from ragcrawl_dynamo._schema.keys import frontier_key
from ragcrawl_dynamo._utils.urls import link_id
from ragcrawl_dynamo.testing import ManualClock
from tests.support import killed_adder, processes
from tests.support.engines import on_dynamodb_local
from tests.support.frontiers import Index, is_of_index, is_whole_run, opened
from tests.support.queues import claim_all, names, url, urls


def partition(link: str) -> str:
    """The partition key of a link's item. The partitions of a run are read in their order."""
    return frontier_key("run", link_id(link))["run_id"]["S"]


@on_dynamodb_local
@pytest.mark.parametrize("state", ["pending", "delayed", "in_progress"])
async def test_is_finished_is_false_while_an_item_is_open_that_the_index_hides(
    config: DynamoDBConfig, state: str
) -> None:
    index = Index(shows="nothing")
    clock = ManualClock()
    async with opened(config, clock=clock) as frontier, opened(config, index, clock) as blind:
        later = clock.now() + timedelta(seconds=30) if state == "delayed" else None
        # The list would name the item of a host that has only one.
        await frontier.add(urls(2), not_before=later)
        claims = await frontier.claim(lease_seconds=20) if state == "in_progress" else []
        # The process looks again and again, and finds nothing.
        for _ in range(3):
            assert await blind.claim() == []
            assert not await blind.is_finished()
            clock.advance(1.1)
        for claim in claims:
            await frontier.complete(claim)
        assert await blind.is_finished() == bool(claims)


@on_dynamodb_local
async def test_is_finished_reads_the_whole_run_once_not_at_every_poll(config: DynamoDBConfig) -> None:
    scans = 0
    index = Index()

    async def count(operation: str, request: dict[str, Any], call: Any) -> Any:
        nonlocal scans
        scans += is_whole_run(operation, request)
        return await index(operation, request, call)

    clock = ManualClock()
    async with opened(config, clock=clock) as frontier, opened(config, count, clock) as poller:
        await frontier.add(urls(30))
        for _ in range(5):
            assert not await poller.is_finished()
        assert scans == 0
        index.shows = "nothing"
        for _ in range(5):
            assert not await poller.is_finished()
        # The process remembers open items, and reads only those.
        assert scans == 0
        (first, *claims) = await claim_all(frontier)
        await frontier.complete(claims)
        # None of those that it remembers is open.
        poller._queue.run.view.open_items.clear()
        for _ in range(5):
            assert not await poller.is_finished()
        assert scans == 1
        await frontier.complete(first)
        for _ in range(5):
            assert await poller.is_finished()
        assert scans == 2


@on_dynamodb_local
async def test_claim_keeps_a_host_listed_whose_items_the_index_hides(config: DynamoDBConfig) -> None:
    index = Index(shows="nothing")
    clock = ManualClock()
    async with opened(config, clock=clock) as frontier, opened(config, index, clock) as blind:
        await frontier.add(urls(2))
        for _ in range(8):
            assert await blind.claim() == []
            clock.advance(1.1)
        # Its counts say that it has items, so that it stays in the list.
        assert sorted(names(await frontier.claim())) == urls(2)


@on_dynamodb_local
async def test_claim_finds_the_only_item_of_a_host_whose_queue_the_index_hides(
    config: DynamoDBConfig,
) -> None:
    async with opened(config) as frontier, opened(config, Index(shows="nothing")) as blind:
        await frontier.add([url(1)])
        assert names(await blind.claim()) == [url(1)]


@on_dynamodb_local
async def test_process_claims_what_it_has_added_before_the_index_shows_it(config: DynamoDBConfig) -> None:
    async with opened(config, Index(shows="nothing")) as blind:
        await blind.add(urls(3))
        assert names(await blind.claim(2)) == urls(2)
        await blind.add(urls(2, "b.example"))
        assert sorted(names(await blind.claim(9))) == [url(2), *urls(2, "b.example")]


@on_dynamodb_local
async def test_process_that_does_not_claim_notes_few_hosts(
    config: DynamoDBConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "_HOSTS_BEFORE_CLAIMS", 5)
    async with opened(config) as frontier:
        await frontier.add(url(1, f"h{i}.example") for i in range(20))
        assert len(frontier._queue.run.view.bench.hosts) == 5
        assert len(await frontier.claim(50)) == 20


@on_dynamodb_local
async def test_is_finished_wakes_a_host_that_has_left_the_list_too_early(config: DynamoDBConfig) -> None:
    clock = ManualClock()
    async with opened(config, clock=clock) as adding, opened(config, clock=clock) as frontier:
        await adding.add([url(1)])
        hosts = frontier._queue.run.hosts
        (listed,), _ = await hosts.read_list(hosts.bucket_of("a.example"), clock.now(), 10)
        table, key = frontier._queue.run.hosts._table, hosts.key("a.example")
        unlisting = requests.update_request(
            table, key, Update(remove=["place", "queue", "queue_order"]), Exists("run_id")
        )
        await hosts._gateway.call("UpdateItem", unlisting)
        assert listed.host == "a.example"
        assert await frontier.claim() == []
        assert not await frontier.is_finished()
        assert names(await frontier.claim()) == [url(1)]


@on_dynamodb_local
@pytest.mark.parametrize("by_holder", [True, False], ids=["by the last holder", "by somebody else"])
async def test_is_finished_is_false_if_links_are_added_while_the_run_is_read(
    config: DynamoDBConfig, by_holder: bool
) -> None:
    """The hard case: an item behind the reader's place adds one before it, and is completed then."""
    clock = ManualClock()
    added: list[str] = []
    before, behind = sorted(urls(2), key=partition)
    assert partition(before) < partition(behind)
    async with opened(config, clock=clock) as frontier:
        await frontier.add([behind])
        (held,) = await frontier.claim()

        async def interleave(operation: str, request: dict[str, Any], call: Any) -> Any:
            if not is_whole_run(operation, request, partition(behind)) or added:
                return await call(**request)
            # The reader sees nothing open: what it has read by now is the state from before the addition ...
            await frontier.complete(held) if not by_holder else None
            answer = await call(**request)
            added.append(before)
            await frontier.add(added)
            if by_holder:
                await frontier.complete(held)
                # ... and what it reads later that from after the completion.
                return {**answer, "Items": [], "Count": 0}
            return answer

        # Blind, so that the base table is read at once.
        index = Index(shows="nothing")

        async def around(operation: str, request: dict[str, Any], call: Any) -> Any:
            if is_of_index(operation, request):
                return await index(operation, request, call)
            return await interleave(operation, request, call)

        async with opened(config, around, clock) as reader:
            assert not await reader.is_finished()
            assert added
            assert not await reader.is_finished()
        assert not await frontier.is_finished()
        assert names(await frontier.claim()) == [before]


@on_dynamodb_local
async def test_is_finished_of_two_processes_at_once_agrees(config: DynamoDBConfig) -> None:
    async with opened(config) as one, opened(config) as two:
        await one.add(urls(5))
        await one.complete(await one.claim(5))
        for _ in range(20):
            answers = await asyncio.gather(*(queue.is_finished() for queue in (one, two) for _ in range(3)))
            if all(answers):
                break
        assert all(answers)
        await two.add([url(9)])
        assert not await one.is_finished()


@on_dynamodb_local
async def test_recount_of_a_finished_run_queues_the_link_of_a_process_that_was_killed_within_add(
    config: DynamoDBConfig,
) -> None:
    async with opened(config) as frontier:
        await frontier.add([url(1)])
        await frontier.complete(await frontier.claim())
        adder = processes.start(killed_adder.add, config, url(2, "b.example"))
        assert await processes.ended(adder) == -signal.SIGKILL
        # No process knows the link, since `add` has not returned.
        assert await frontier.is_finished()
        assert await frontier.claim() == []
        assert (await frontier.recount()).pending == 1
        assert not await frontier.is_finished()
        claims = await frontier.claim()
        assert names(claims) == [url(2, "b.example")]
        await frontier.complete(claims)
        assert await frontier.is_finished()
        # Nothing is open: the run stays finished.
        assert await frontier.recount() == FrontierStats(completed=2)
        assert await frontier.is_finished()
