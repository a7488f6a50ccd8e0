"""Urgent links come first, on any host and from any process."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from ragcrawl_dynamo import DynamoDBConfig
from ragcrawl_dynamo.testing import ManualClock
from tests.support.engines import on_dynamodb_local
from tests.support.frontiers import opened
from tests.support.queues import names, url, urls

pytestmark = on_dynamodb_local


@pytest.mark.parametrize(("processes", "wanted"), [(1, 95), (4, 80)], ids=["one process", "four in turns"])
async def test_claim_takes_the_urgent_links_of_a_large_host_first(
    config: DynamoDBConfig, processes: int, wanted: int
) -> None:
    urgent = 0
    async with AsyncExitStack() as stack:
        frontiers = [await stack.enter_async_context(opened(config)) for _ in range(processes)]
        await frontiers[0].add(
            frontiers[0].link(link, priority=10.0 if number % 20 == 0 else 0.0)
            for number, link in enumerate(urls(2000))
        )
        for turn in range(10):
            frontier = frontiers[turn % processes]
            claims = await frontier.claim(10)
            assert len(claims) == 10
            urgent += sum(claim.item.priority == 10.0 for claim in claims)
            await frontier.complete(claims)
    assert urgent >= wanted


async def test_claim_takes_the_urgent_links_of_many_hosts_first(config: DynamoDBConfig) -> None:
    async with opened(config) as frontier, opened(config) as other:
        await frontier.add(
            frontier.link(link, priority=10.0 if number % 10 == host % 10 else 0.0)
            for host in range(60)
            for number, link in enumerate(urls(10, f"h{host}.example"))
        )
        # The second process knows that it is not alone.
        for crawler, wanted in ((frontier, 30), (other, 24)):
            claims = [claim for _ in range(3) for claim in await crawler.claim(10)]
            assert len(claims) == 30
            assert sum(claim.item.priority == 10.0 for claim in claims) >= wanted


@pytest.mark.parametrize("host", ["new.example", "h7.example"], ids=["a new host", "a host with work"])
async def test_claim_soon_takes_an_urgent_link_that_another_process_adds(
    config: DynamoDBConfig, host: str
) -> None:
    concurrency = 10
    clock = ManualClock()
    urgent = url(99, host)
    async with opened(config, clock=clock) as crawler, opened(config, clock=clock) as other:
        await crawler.add(link for i in range(30) for link in urls(10, f"h{i}.example"))
        for _ in range(5):
            await crawler.complete(await crawler.claim(concurrency))
        await other.add([urgent], priority=10.0)
        added_at = clock.monotonic()
        claimed: list[str] = []
        while len(claimed) < 3 * concurrency or clock.monotonic() < added_at + 2:
            claims = await crawler.claim(concurrency)
            claimed += names(claims)
            await crawler.complete(claims)
            clock.advance(0.4)
        assert urgent in claimed
