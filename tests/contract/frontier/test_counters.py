"""The counts of a run."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig, Frontier, FrontierStats
from ragcrawl_dynamo.testing import ManualClock
from tests.support.queues import WAYS, urls

pytestmark = WAYS


async def test_frontier_stats_follow_every_verb(frontier: Frontier, clock: ManualClock) -> None:
    await frontier.add(urls(6))
    await frontier.add(urls(1, "b.example"), not_before=clock.now() + timedelta(seconds=60))
    claims = await frontier.claim(5)
    await frontier.complete(claims[:2])
    await frontier.fail(claims[2], "x")
    await frontier.skip(claims[3], "x")
    expected = FrontierStats(pending=1, delayed=2, in_progress=1, completed=2, skipped=1)
    assert await frontier.stats() == expected
    assert (expected.open, expected.total) == (4, 7)
    assert await frontier.stats("b.example") == FrontierStats(delayed=1)
    assert await frontier.stats("absent.example") == FrontierStats()
    assert await frontier.recount() == expected
    hosts = {host.host: host.stats async for host in frontier.iter_hosts()}
    assert hosts["b.example"] == FrontierStats(delayed=1)
    assert hosts["a.example"].total == 6


async def test_recount_restores_counts_that_a_killed_process_lost(
    frontier: Frontier, config: DynamoDBConfig, clock: ManualClock
) -> None:
    await frontier.add(urls(5))
    await frontier.stats()
    async with DynamoDBBackend(config, clock=clock) as killed:
        other = killed.frontier("site", "run")
        await other.complete(await other.claim(2))
        # Nothing of it is written.
        other._queue.run.view.clear()
    assert await frontier.stats() == FrontierStats(pending=5)
    assert await frontier.recount() == FrontierStats(pending=3, completed=2)
    assert await frontier.stats() == FrontierStats(pending=3, completed=2)
    assert await frontier.stats("a.example") == FrontierStats(pending=3, completed=2)


async def test_counts_of_a_process_that_does_nothing_else_are_stored_a_second_later(
    frontier: Frontier, config: DynamoDBConfig, clock: ManualClock
) -> None:
    async with DynamoDBBackend(config, clock=clock) as idle:
        other = idle.frontier("site", "run")
        await other.add(urls(3))
        await other.complete(await other.claim(2))
        await clock.wait_for_sleeper()
        assert (await frontier.stats()).completed == 0
        clock.advance(1.0)
        async with asyncio.timeout(10):
            while (await frontier.stats()).completed < 2:  # noqa: ASYNC110 # it polls a database
                await asyncio.sleep(0.01)


async def test_counts_of_a_process_that_only_adds_links_are_stored_a_second_later(
    frontier: Frontier, config: DynamoDBConfig, clock: ManualClock
) -> None:
    async with DynamoDBBackend(config, clock=clock) as adding:
        await adding.frontier("site", "run").add(urls(3))
        async with asyncio.timeout(10):
            await clock.wait_for_sleeper()
            clock.advance(1.0)
            while (await frontier.stats()).pending < 3:  # noqa: ASYNC110 # it polls a database
                await asyncio.sleep(0.01)
