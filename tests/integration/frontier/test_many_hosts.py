"""Runs of many hosts: a claim comes back empty only when nothing is claimable, and hosts take turns."""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest

from ragcrawl_dynamo import Claim, DynamoDBBackend, DynamoDBConfig, Frontier
from ragcrawl_dynamo._utils.urls import link_id
from ragcrawl_dynamo.testing import ManualClock
from tests.support.engines import on_dynamodb_local
from tests.support.frontiers import opened
from tests.support.queues import names, requests, url

pytestmark = on_dynamodb_local


def links(hosts: int, of_each: int) -> list[str]:
    """Links of many hosts, in the order in which a crawler finds them: a host's links are not together."""
    return [url(number, f"h{host}.example") for number in range(of_each) for host in range(hosts)]


async def crawl(frontier: Frontier, limit: int) -> list[Claim]:
    claims = await frontier.claim(limit)
    await frontier.complete(claims)
    return claims


async def test_claim_gets_all_wanted_items_from_hosts_with_one_link(config: DynamoDBConfig) -> None:
    async with opened(config) as frontier:
        await frontier.add(links(100, 1))
        assert [len(await frontier.claim(50)) for _ in range(3)] == [50, 50, 0]


async def test_claim_gets_all_wanted_items_from_more_hosts_than_one_read_lists(
    config: DynamoDBConfig,
) -> None:
    async with opened(config) as frontier, opened(config) as other:
        await frontier.add(links(300, 1))
        assert [len(await other.claim(100)) for _ in range(4)] == [100, 100, 100, 0]


async def test_links_of_hosts_that_have_no_other_take_no_query_each(config: DynamoDBConfig) -> None:
    queries = 0

    async def count(operation: str, request: dict[str, Any], call: Any) -> Any:
        nonlocal queries
        queries += operation == "query"
        return await call(**request)

    async with opened(config) as adding, opened(config, count) as frontier:
        await adding.add(links(200, 1))
        assert [len(await crawl(frontier, 50)) for _ in range(4)] == [50] * 4
        # The queries of the lists, which are read again after a second, and of the members.
        assert queries <= 3 * config.frontier_buckets + 5
        # A second link is not overlooked, and the queue is read for it.
        await adding.add(links(30, 3))
        assert len(await crawl(frontier, 100)) == 60
        assert await crawl(frontier, 100) == []


async def test_entry_of_a_host_names_its_item_as_long_as_there_is_no_other(config: DynamoDBConfig) -> None:
    async def named(frontier: Frontier) -> str | None:
        # No call waits for the counts. Storing the last ones takes the host out of the list.
        await frontier._queue.run.tasks.join()
        hosts = frontier._queue.run.hosts
        records = await hosts.read(["h0.example"])
        stored = await hosts.get_item("h0.example")
        record = records["h0.example"]
        assert stored is not None
        assert stored.get("queue_order") == (None if record.order is None else {"S": record.order})
        return record.only_item

    clock = ManualClock()
    async with opened(config, clock=clock) as frontier, opened(config, clock=clock) as other:
        first, second, third = links(1, 3)
        await frontier.add([first])
        assert await named(frontier) == link_id(first)
        # The link is known, and the host still has no other.
        await other.add([first])
        assert await named(frontier) == link_id(first)
        await other.add([second])
        assert await named(frontier) is None
        await frontier.complete(await frontier.claim(2))
        clock.advance(2)
        await frontier.claim(1)
        assert await named(frontier) is None
        await other.add([third])
        assert await named(frontier) == link_id(third)
        # The entry moves to the end of the delay, and does not name the item there.
        (claim,) = await other.claim(1)
        await other.fail(claim, "busy", retry_in=60)
        for _ in range(3):
            clock.advance(2)
            assert await other.claim(1) == []
        assert await named(other) is None
        clock.advance(60)
        assert names(await other.claim(1)) == [third]


async def test_limits_of_hosts_whose_item_is_named_are_kept(config: DynamoDBConfig) -> None:
    clock = ManualClock()
    async with opened(config, clock=clock) as adding, opened(config, clock=clock) as frontier:
        for host in range(20):
            await adding.block_host(f"h{host}.example", clock.now() + timedelta(seconds=30))
        await adding.add(links(40, 1))
        assert {int(claim.item.domain[1:-8]) for claim in await frontier.claim(50)} == set(range(20, 40))
        clock.advance(31)
        assert len(await frontier.claim(50)) == 20


async def test_claim_is_empty_only_after_the_last_link_of_many_hosts(config: DynamoDBConfig) -> None:
    crawled: list[str] = []
    async with opened(config) as frontier:
        await frontier.add(links(100, 5))
        while claims := await crawl(frontier, 10):
            crawled += names(claims)
        assert sorted(crawled) == sorted(links(100, 5))
        assert await frontier.is_finished()


async def test_claim_of_several_processes_is_empty_only_after_the_last_link(config: DynamoDBConfig) -> None:
    left = 60 * 3
    async with AsyncExitStack() as stack:
        frontiers = [await stack.enter_async_context(opened(config)) for _ in range(3)]
        await frontiers[0].add(links(60, 3))
        for turn in range(200):
            claims = await crawl(frontiers[turn % 3], 10)
            left -= len(claims)
            assert claims or not left
        assert left == 0


async def test_claim_lets_hosts_of_one_priority_take_turns(config: DynamoDBConfig) -> None:
    served: Counter[str] = Counter()
    async with opened(config) as frontier:
        await frontier.add(links(20, 50))
        for _ in range(30):
            served.update(claim.item.domain for claim in await crawl(frontier, 10))
    assert served.total() == 300
    assert len(served) == 20
    assert 13 <= min(served.values()) <= max(served.values()) <= 17


@pytest.mark.parametrize("processes", [1, 3])
async def test_claim_serves_every_host_beside_a_large_one(config: DynamoDBConfig, processes: int) -> None:
    served: Counter[str] = Counter()
    async with AsyncExitStack() as stack:
        frontiers = [await stack.enter_async_context(opened(config)) for _ in range(processes)]
        await frontiers[0].add([url(number, "large.example") for number in range(300)])
        await frontiers[0].add(links(49, 4))
        for turn in range(20):
            served.update(claim.item.domain for claim in await crawl(frontiers[turn % processes], 10))
    assert len(served) == 50


async def test_is_finished_takes_few_requests_however_many_hosts_were_drained(
    config: DynamoDBConfig,
) -> None:
    clock = ManualClock()
    async with DynamoDBBackend(config, clock=clock) as backend:
        frontier = backend.frontier("site", "run")
        await frontier.add(links(300, 1))
        claims: list[Claim] = []
        while len(claims) < 300:
            claims += await frontier.claim(100, lease_seconds=3600)
            clock.advance(1)
        # No process has read their queues since.
        await frontier.complete(claims)
        before = requests(backend)
        assert await frontier.is_finished()
        assert requests(backend) - before <= 100


async def test_worker_takes_few_requests_and_units_for_a_page_of_a_small_host(config: DynamoDBConfig) -> None:
    pages = 300
    async with opened(config) as adding, DynamoDBBackend(config) as backend:
        await adding.add(links(pages, 1))
        frontier = backend.frontier("site", "run")

        async def handle(claim: Claim) -> None:
            if frontier_worker.completed + 1 >= pages - 50:
                # The last pages and the proof of the end are not measured.
                frontier_worker.stop()

        async with frontier.worker(concurrency=50) as frontier_worker:
            await frontier_worker.run(handle)
            crawled = frontier_worker.completed
        used = list(backend.metrics().values())
        assert crawled >= pages - 51
        # 1.3 on an idle machine. The lists of hosts are read once a second, however few pages that is.
        assert sum(counters.requests for counters in used) / crawled <= 2
        assert sum(counters.write_units for counters in used) / crawled <= 9
        assert sum(counters.read_units for counters in used) / crawled <= 1
