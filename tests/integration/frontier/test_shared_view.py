"""An item that one process makes claimable is seen at once by another one that had looked before."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from ragcrawl_dynamo import Claim, DynamoDBConfig, Frontier
from ragcrawl_dynamo.testing import ManualClock
from tests.support.engines import on_dynamodb_local
from tests.support.frontiers import opened
from tests.support.queues import names, url, urls

pytestmark = on_dynamodb_local

HOST = "h7.example"
Verb = Callable[[Frontier, Claim], Awaitable[object]]

ENDS: dict[str, Verb] = {
    "release": lambda frontier, claim: frontier.release(claim),
    "put_back": lambda frontier, claim: frontier.put_back(claim),
    "put_back to the end": lambda frontier, claim: frontier.put_back(claim, priority=-1.0, to_end=True),
    "fail without a delay": lambda frontier, claim: frontier.fail(claim, "x", retry_in=0),
}


async def look(frontier: Frontier, clock: ManualClock) -> None:
    """Looks until it is sure that nothing is claimable."""
    for _ in range(4):
        assert await frontier.claim(50) == []
        clock.advance(1.1)


@pytest.mark.parametrize("hosts", [1, 40])
@pytest.mark.parametrize("verb", ENDS.values(), ids=ENDS.keys())
async def test_claim_sees_at_once_items_that_another_process_gives_back(
    config: DynamoDBConfig, verb: Verb, hosts: int
) -> None:
    clock = ManualClock()
    async with opened(config, clock=clock) as holder, opened(config, clock=clock) as other:
        await holder.add(url(0, f"h{i}.example") for i in range(hosts))
        claims = await holder.claim(50, lease_seconds=600)
        assert len(claims) == hosts
        await look(other, clock)
        for claim in claims[:3]:
            await verb(holder, claim)
            assert names(await other.claim(50, lease_seconds=600)) == [claim.item.url]


async def test_claim_sees_a_retry_of_another_process_as_soon_as_its_delay_is_over(
    config: DynamoDBConfig,
) -> None:
    clock = ManualClock()
    async with opened(config, clock=clock) as holder, opened(config, clock=clock) as other:
        await holder.add(url(0, f"h{i}.example") for i in range(40))
        claims = await holder.claim(50, lease_seconds=600)
        await look(other, clock)
        for claim in claims:
            await holder.fail(claim, "x", retry_in=30)
        assert await other.claim(50) == []
        clock.advance(29.9)
        assert await other.claim(50) == []
        clock.advance(0.1)
        assert sorted(names(await other.claim(50))) == sorted(names(claims))


async def test_claim_sees_at_once_links_that_another_process_adds(config: DynamoDBConfig) -> None:
    clock = ManualClock()
    async with opened(config, clock=clock) as adding, opened(config, clock=clock) as other:
        await adding.add(url(0, f"h{i}.example") for i in range(40))
        await other.complete(await other.claim(50))
        await look(other, clock)
        for link in (url(1, HOST), url(0, "new.example"), url(2, HOST)):
            await adding.add([link])
            claims = await other.claim(50)
            assert names(claims) == [link]
            await other.complete(claims)


async def test_claim_sees_a_delayed_link_of_another_process_as_soon_as_it_is_due(
    config: DynamoDBConfig,
) -> None:
    clock = ManualClock()
    async with opened(config, clock=clock) as adding, opened(config, clock=clock) as other:
        await adding.add([url(0)])
        await other.complete(await other.claim())
        await look(other, clock)
        await adding.add([url(1)], not_before=clock.now() + timedelta(seconds=20))
        await adding.add([url(2)], not_before=clock.now() + timedelta(seconds=10))
        assert await other.claim() == []
        clock.advance(10)
        assert names(await other.claim()) == [url(2)]
        clock.advance(10)
        assert names(await other.claim()) == [url(1)]


async def test_claim_sees_at_once_that_another_process_lifts_the_limits_of_a_host(
    config: DynamoDBConfig,
) -> None:
    clock = ManualClock()
    async with opened(config, clock=clock) as setting, opened(config, clock=clock) as other:
        await setting.add(urls(9, HOST))
        await setting.block_host(HOST, clock.now() + timedelta(days=1))
        await look(other, clock)
        await setting.block_host(HOST, clock.now() - timedelta(seconds=1))
        await setting.set_host_delay(HOST, 3600)
        assert len(await other.claim(3)) == 1
        await look(other, clock)
        await setting.set_host_delay(HOST, 0)
        await setting.set_host_max_in_flight(HOST, 2)
        first, _ = await other.claim(3)
        assert await other.claim(3) == []
        await setting.set_host_max_in_flight(HOST, 3)
        assert len(await other.claim(3)) == 1
        await setting.complete(first)
        assert len(await other.claim(3)) == 1
        assert await other.claim(3) == []
        await setting.set_host_max_in_flight(HOST, None)
        assert len(await other.claim(50)) == 4


async def test_claim_keeps_at_once_the_limits_that_another_process_sets(config: DynamoDBConfig) -> None:
    clock = ManualClock()
    async with opened(config, clock=clock) as setting, opened(config, clock=clock) as other:
        await setting.add(urls(9, HOST))
        # It holds candidates of the host.
        assert len(await other.claim(1)) == 1
        await setting.set_host_max_in_flight(HOST, 2)
        assert len(await other.claim(5)) == 2
        await setting.set_host_max_in_flight(HOST, None)
        await setting.set_host_delay(HOST, 10)
        assert len(await other.claim(5)) == 1
        assert await other.claim(5) == []
        clock.advance(10)
        await setting.block_host(HOST, clock.now() + timedelta(seconds=20))
        assert await other.claim(5) == []
        clock.advance(20)
        assert len(await other.claim(5)) == 1


@pytest.mark.parametrize("leased", [1, 2], ids=["all others ended", "another one leased"])
@pytest.mark.parametrize("is_killed", [False, True], ids=["alive", "killed"])
async def test_claim_of_a_busy_process_finds_a_link_that_another_one_has_added(
    config: DynamoDBConfig, leased: int, is_killed: bool
) -> None:
    """The link moves no host in the list, and its process may be killed right after `add`."""
    clock = ManualClock()
    async with opened(config, clock=clock) as busy, opened(config, clock=clock) as adding:
        await busy.add([*urls(leased, HOST), *urls(200, "other.example")])
        claims = await busy.claim(2 * leased)
        first = next(claim for claim in claims if claim.item.domain == HOST)
        await adding.add([url(9, HOST)])
        if is_killed:
            # The counts that the process has not stored by now are lost.
            adding._queue.run.view.clear()
        await busy.complete(first)
        claimed: list[str] = []
        for _ in range(5):
            clock.advance(1.1)
            claimed += names(await busy.claim(2))
        assert url(9, HOST) in claimed
        assert len(claimed) == 10
