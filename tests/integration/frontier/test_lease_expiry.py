"""The next claim finds expired leases, at once."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from ragcrawl_dynamo import Claim, DynamoDBConfig, Frontier
from ragcrawl_dynamo.testing import ManualClock
from tests.support.engines import on_dynamodb_local
from tests.support.frontiers import Process, opened
from tests.support.queues import QUICK, names, url, urls

pytestmark = on_dynamodb_local

LEASE_SECONDS = 10.0
SKEW = QUICK["frontier_max_clock_skew"]


async def crawl_but_one(frontier: Frontier) -> Claim:
    """Completes all items but one, which stays leased."""
    kept, *others = await frontier.claim(50, lease_seconds=LEASE_SECONDS)
    await frontier.complete(others)
    return kept


async def check_found(finder: Frontier, expected: str, clock: ManualClock) -> None:
    """The lease began just now: its item can be claimed exactly when the lease is over for sure."""
    clock.advance(LEASE_SECONDS + SKEW - 0.1)
    assert expected not in names(await finder.claim(50))
    assert not await finder.is_finished()
    clock.advance(0.1)
    assert expected in names(await finder.claim(50))


@pytest.mark.parametrize("hosts", [1, 40])
@pytest.mark.parametrize("others_left", [True, False], ids=["others left", "the last item"])
@pytest.mark.parametrize("finder", ["its holder", "one that knew the host", "one that is new"])
async def test_claim_finds_an_expired_lease(
    config: DynamoDBConfig, finder: str, others_left: bool, hosts: int
) -> None:
    clock = ManualClock()
    async with AsyncExitStack() as stack:
        holder = await stack.enter_async_context(opened(config, clock=clock))
        await holder.add(url(0, f"h{i}.example") for i in range(hosts))
        frontier = holder
        if finder == "one that knew the host":
            frontier = await stack.enter_async_context(opened(config, clock=clock))
            await frontier.release(await frontier.claim(50))
        kept = await crawl_but_one(holder)
        if others_left:
            await holder.add(urls(30, kept.item.domain, first=1))
        elif frontier is not holder:
            # It looks often enough to be sure that the host has nothing.
            assert [await frontier.claim(50) for _ in range(3)] == [[]] * 3
        if finder == "one that is new":
            frontier = await stack.enter_async_context(opened(config, clock=clock))
        await check_found(frontier, kept.item.url, clock)


@pytest.mark.parametrize("finder", ["one that knew the host", "one that is new"])
async def test_claim_finds_an_expired_lease_of_a_killed_process(config: DynamoDBConfig, finder: str) -> None:
    clock = ManualClock()
    async with opened(config, clock=clock) as other, Process(config, clock) as process:
        await other.add(url(0, f"h{i}.example") for i in range(40))
        await other.release(await other.claim(50))
        kept = await crawl_but_one(process.frontier)
        if finder == "one that knew the host":
            assert [await other.claim(50) for _ in range(3)] == [[]] * 3
        await process.kill()
        if finder == "one that knew the host":
            await check_found(other, kept.item.url, clock)
        else:
            async with opened(config, clock=clock) as new:
                await check_found(new, kept.item.url, clock)


async def test_claim_finds_an_expired_lease_that_was_renewed_by_its_holder(config: DynamoDBConfig) -> None:
    """Other processes know only the first end of the lease, which comes before the second one."""
    clock = ManualClock()
    async with opened(config, clock=clock) as holder, opened(config, clock=clock) as other:
        await holder.add([url(0)])
        (claim,) = await holder.claim(lease_seconds=LEASE_SECONDS)
        assert await other.claim() == []
        clock.advance(LEASE_SECONDS - 1)
        await holder.renew(claim, LEASE_SECONDS)
        clock.advance(1 + SKEW)
        assert await other.claim() == []
        clock.advance(LEASE_SECONDS - 1)
        assert names(await other.claim()) == [url(0)]


async def test_claim_finds_items_whose_leases_expire_again_and_again(config: DynamoDBConfig) -> None:
    """Each process is killed with all its leases; the last attempt makes dead letters."""
    clock = ManualClock()
    async with opened(config, clock=clock) as other:
        await other.add(url(0, f"h{i}.example") for i in range(40))
        for _ in range(QUICK["frontier_max_attempts"]):
            async with Process(config, clock) as process:
                assert len(await process.frontier.claim(50, lease_seconds=LEASE_SECONDS)) == 40
            assert await other.claim(50) == []
            clock.advance(LEASE_SECONDS + SKEW)
        assert await other.claim(50) == []
        assert await other.is_finished()
        assert (await other.stats()).failed == 40
