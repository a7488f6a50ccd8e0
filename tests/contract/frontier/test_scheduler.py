"""Which items a claim leases."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from ragcrawl_dynamo import (
    DynamoDBBackend,
    DynamoDBConfig,
    Frontier,
    FrontierStatus,
    InvalidArgumentError,
    LeaseLostError,
)
from ragcrawl_dynamo.testing import ManualClock
from tests.support.frontiers import opened
from tests.support.queues import WAYS, items, names, url, urls

pytestmark = WAYS


async def test_claim_leases_items(backend: DynamoDBBackend, frontier: Frontier, clock: ManualClock) -> None:
    await frontier.add(urls(3))
    claims = await frontier.claim(2, lease_seconds=30, worker_id="w1")
    assert names(claims) == urls(2)
    assert {claim.expires_at for claim in claims} == {clock.now() + timedelta(seconds=30)}
    stored = await items(backend)
    for claim in claims:
        assert stored[claim.item.url] == claim.item
        assert (claim.item.status, claim.item.lease_owner) == (FrontierStatus.IN_PROGRESS, "w1")
        assert (claim.item.started_at, claim.item.lease_expires_at) == (clock.now(), claim.expires_at)
    assert names(await frontier.claim(10)) == [url(2)]
    assert await frontier.claim(10) == []


async def test_claim_takes_the_highest_priority_first_then_the_oldest(frontier: Frontier) -> None:
    await frontier.add(urls(3))
    await frontier.add([url(10)], priority=1.5)
    await frontier.add([url(11)], priority=-2)
    await frontier.add([url(12)], priority=1e100)
    await frontier.add([url(13)], priority=1.5)
    order = [12, 10, 13, 0, 1, 2, 11]
    assert [names(await frontier.claim(1)) for _ in order] == [[url(i)] for i in order]


async def test_claim_mixes_hosts_by_priority(frontier: Frontier) -> None:
    await frontier.add(urls(2, "a.example"), priority=1)
    await frontier.add(urls(2, "b.example"), priority=2)
    assert [claim.item.domain for claim in await frontier.claim(4)] == ["b.example"] * 2 + ["a.example"] * 2


async def test_claim_takes_over_an_expired_lease_and_fences_its_former_holder(
    backend: DynamoDBBackend, frontier: Frontier, clock: ManualClock
) -> None:
    await frontier.add([url(1)])
    (old,) = await frontier.claim(1, lease_seconds=10)
    clock.advance(10.9)
    assert await frontier.claim() == []
    clock.advance(0.2)
    (new,) = await frontier.claim(1, lease_seconds=10)
    assert new.token > old.token
    assert (new.item.attempt, new.item.retry_count) == (2, 1)
    assert "lease expired" in (new.item.last_error or "")
    before = await items(backend)
    stale: list[Callable[[], Awaitable[Any]]] = [
        lambda: frontier.complete(old),
        lambda: frontier.fail(old, "x"),
        lambda: frontier.skip(old, "x"),
        lambda: frontier.release(old),
        lambda: frontier.renew(old, 10),
    ]
    for verb in stale:
        with pytest.raises(LeaseLostError) as caught:
            await verb()
        assert caught.value.claims == (old,)
    assert await items(backend) == before
    await frontier.complete(new)


async def test_renew_keeps_a_lease_from_being_taken_over(frontier: Frontier, clock: ManualClock) -> None:
    await frontier.add(urls(2))
    kept, lost = await frontier.claim(2, lease_seconds=10)
    clock.advance(8)
    await frontier.renew([kept], 20)
    assert kept.expires_at == clock.now() + timedelta(seconds=20)
    clock.advance(13)
    assert names(await frontier.claim()) == [lost.item.url]
    clock.advance(8.5)
    assert names(await frontier.claim()) == [kept.item.url]


async def test_renew_never_shortens_a_lease(frontier: Frontier, clock: ManualClock) -> None:
    await frontier.add([url(1)])
    (claim,) = await frontier.claim(1, lease_seconds=60)
    ends_at = claim.expires_at
    clock.advance(5)
    await frontier.renew(claim, 10)
    assert claim.expires_at == ends_at
    assert claim.deadline - clock.monotonic() == pytest.approx(55)
    clock.advance(55.9)
    assert await frontier.claim() == []
    clock.advance(1)
    assert len(await frontier.claim()) == 1


async def test_clock_that_is_set_back_takes_no_time_from_leases(
    frontier: Frontier, clock: ManualClock, config: DynamoDBConfig
) -> None:
    class SetBack(ManualClock):
        seconds = 0.0

        def now(self) -> datetime:
            return super().now() - timedelta(seconds=self.seconds)

    set_back = SetBack(clock.now())
    async with DynamoDBBackend(config, clock=set_back) as holder:
        queue = holder.frontier("site", "run")
        await queue.add([url(1)])
        (claim,) = await queue.claim(1, lease_seconds=10)
        set_back.seconds = 8
        for _ in range(3):
            for either_clock in (clock, set_back):
                either_clock.advance(5)
            await queue.renew(claim, 10)
            assert claim.deadline - set_back.monotonic() == pytest.approx(10)
        for either_clock in (clock, set_back):
            either_clock.advance(9.9)
        assert await frontier.claim() == []
        await queue.complete(claim)


async def test_claim_makes_an_item_whose_leases_keep_expiring_a_dead_letter(
    backend: DynamoDBBackend, frontier: Frontier, clock: ManualClock
) -> None:
    await frontier.add([url(1)])
    for attempt in (1, 2, 3):
        (claim,) = await frontier.claim(1, lease_seconds=10)
        assert claim.item.attempt == attempt
        clock.advance(12)
    assert await frontier.claim() == []
    item = (await items(backend))[url(1)]
    assert (item.status, item.retry_count) == (FrontierStatus.FAILED, 3)
    assert "lease expired" in (item.last_error or "")
    assert await frontier.is_finished()


async def test_claim_waits_for_a_delayed_item(frontier: Frontier, clock: ManualClock) -> None:
    await frontier.add([url(1)], not_before=clock.now() + timedelta(seconds=3))
    waiting = asyncio.create_task(frontier.claim(5, wait_seconds=10))
    while not waiting.done():
        sleeping = asyncio.create_task(clock.wait_for_sleeper())
        await asyncio.wait((waiting, sleeping), return_when=asyncio.FIRST_COMPLETED)
        sleeping.cancel()
        clock.advance(0 if waiting.done() else 0.25)
    assert names(await waiting) == [url(1)]
    assert 3.0 <= clock.monotonic() <= 3.5


async def test_claim_that_waits_is_woken_by_add(frontier: Frontier, clock: ManualClock) -> None:
    waiting = asyncio.create_task(frontier.claim(5, wait_seconds=60))
    await clock.wait_for_sleeper()
    await frontier.add([url(1)])
    assert names(await waiting) == [url(1)]
    assert clock.monotonic() == 0


async def test_claim_until_finished_ends_when_another_process_has_found_the_end(
    config: DynamoDBConfig, frontier: Frontier, clock: ManualClock
) -> None:
    await frontier.add([url(1)])
    (claim,) = await frontier.claim()
    async with opened(config, clock=clock) as other:
        waiting = asyncio.create_task(other.claim(wait_seconds=60, until_finished=True))
        await clock.wait_for_sleeper()
        await frontier.complete(claim)
        assert await frontier.is_finished()
        clock.advance(2)
        assert await asyncio.wait_for(waiting, 10) == []
        # A run to which an item was added is not finished: the call waits for the item.
        await frontier.add([url(2)], not_before=clock.now() + timedelta(seconds=30))
        waiting = asyncio.create_task(other.claim(wait_seconds=60, until_finished=True))
        await clock.wait_for_sleeper()
        clock.advance(31)
        assert names(await asyncio.wait_for(waiting, 10)) == [url(2)]


async def test_claim_of_a_finished_run_waits_by_default(frontier: Frontier, clock: ManualClock) -> None:
    assert await frontier.is_finished()
    waiting = asyncio.create_task(frontier.claim(wait_seconds=60))
    await clock.wait_for_sleeper()
    clock.advance(2)
    await asyncio.wait_for(clock.wait_for_sleeper(), 10)
    assert not waiting.done()
    waiting.cancel()


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": True}, "limit"),
        ({"limit": 2.5}, "limit"),
        ({"lease_seconds": 2.0}, "lease_seconds"),
        ({"lease_seconds": float("nan")}, "lease_seconds"),
        ({"lease_seconds": 1e9}, "lease_seconds"),
        ({"wait_seconds": -1}, "wait_seconds"),
        ({"worker_id": "w" * 257}, "worker_id"),
        ({"worker_id": "\ud800"}, "worker_id"),
    ],
)
async def test_claim_refuses_an_argument_outside_its_limits(
    frontier: Frontier, arguments: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        await frontier.claim(**arguments)
    assert caught.value.field == field
