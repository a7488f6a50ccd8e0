"""Leases that are ended."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from ragcrawl_dynamo import (
    DynamoDBBackend,
    Frontier,
    FrontierStats,
    FrontierStatus,
    InvalidArgumentError,
    InvalidInputError,
    LeaseLostError,
)
from ragcrawl_dynamo.testing import ManualClock
from tests.support.queues import WAYS, claim_all, items, names, url, urls

pytestmark = WAYS


async def test_settlement_sets_the_status_of_each_verb(
    backend: DynamoDBBackend, frontier: Frontier, clock: ManualClock
) -> None:
    await frontier.add(urls(5))
    done, retried, given_up, skipped, released = await frontier.claim(5)
    await frontier.complete(done)
    await frontier.fail(retried, ValueError("no title"), retry_in=7)
    await frontier.fail(given_up, "gone", retry=False)
    await frontier.skip(skipped, "robots.txt")
    await frontier.release(released)
    stored = await items(backend)
    states = [(stored[url(i)].status, stored[url(i)].last_error) for i in range(5)]
    assert states == [
        ("completed", None),
        ("pending", "ValueError: no title"),
        ("failed", "gone"),
        ("skipped", "robots.txt"),
        ("pending", None),
    ]
    assert stored[url(0)].completed_at == clock.now()
    assert stored[url(1)].scheduled_at == clock.now() + timedelta(seconds=7)
    assert names(await frontier.claim()) == [url(4)]
    clock.advance(8)
    assert names(await frontier.claim()) == [url(1)]


async def test_settlement_may_be_repeated_but_not_changed(frontier: Frontier) -> None:
    await frontier.add(urls(3))
    done, released, failed = await frontier.claim(3)
    await frontier.complete(done)
    await frontier.complete(done)
    await frontier.release(released)
    await frontier.release(released)
    await frontier.fail(failed, "x", retry=False)
    with pytest.raises(LeaseLostError):
        await frontier.skip(done, "x")
    with pytest.raises(LeaseLostError):
        await frontier.complete(released)
    assert await frontier.stats() == FrontierStats(pending=1, completed=1, failed=1)


async def test_settlement_refuses_claims_of_another_run(backend: DynamoDBBackend, frontier: Frontier) -> None:
    other = backend.frontier("site", "other")
    await other.add([url(1)])
    (claim,) = await other.claim()
    odd: Any = "claim"
    for call in (frontier.complete([claim]), frontier.fail(claim, "x")):
        with pytest.raises(InvalidArgumentError, match="claims: must be claims of run 'run'"):
            await call
    with pytest.raises(InvalidArgumentError, match="claims: must be a collection, not a str"):
        await frontier.release(odd)
    with pytest.raises(InvalidArgumentError, match="claims: must be a Claim, not str"):
        await frontier.release([odd])
    await other.complete(claim)


async def test_complete_of_several_claims_completes_those_that_are_held(
    backend: DynamoDBBackend, frontier: Frontier
) -> None:
    await frontier.add(urls(4))
    claims = await frontier.claim(4)
    await frontier.release(claims[1])
    with pytest.raises(LeaseLostError) as caught:
        await frontier.complete(claims)
    assert caught.value.claims == (claims[1],)
    assert [item.status for item in (await items(backend)).values()].count(FrontierStatus.COMPLETED) == 3
    await frontier.complete([])


async def test_fail_backs_off_exponentially_up_to_a_dead_letter(
    backend: DynamoDBBackend, frontier: Frontier, clock: ManualClock
) -> None:
    await frontier.add([url(1)])
    for bound in (4.0, 8.0):
        (claim,) = await frontier.claim()
        await frontier.fail(claim, "x")
        scheduled = (await items(backend))[url(1)].scheduled_at
        assert scheduled is not None
        assert bound / 2 <= (scheduled - clock.now()).total_seconds() <= bound
        clock.advance(bound + 1)
    (claim,) = await frontier.claim()
    await frontier.fail(claim, "y" * 5000 + "\ud800")
    item = (await items(backend))[url(1)]
    assert (item.status, item.attempt, item.retry_count, item.last_error) == ("failed", 3, 3, "y" * 1000)
    clock.advance(1000)
    assert await frontier.claim() == []


async def test_requeue_failed_puts_dead_letters_back(
    backend: DynamoDBBackend, frontier: Frontier, clock: ManualClock
) -> None:
    await frontier.add(urls(70))
    claims = await claim_all(frontier)
    await frontier.complete(claims[:40])
    for claim in claims[40:]:
        await frontier.fail(claim, "x", retry=False)
    assert await frontier.is_finished()
    assert len(await backend.get_frontier_items("run", status="failed")) == 30
    assert await frontier.requeue_failed() == 30
    assert not await frontier.is_finished()
    again = await claim_all(frontier)
    assert len(again) == 30
    assert {(claim.item.attempt, claim.item.retry_count) for claim in again} == {(2, 0)}
    await frontier.complete(again)
    assert await frontier.is_finished()
    assert await frontier.requeue_failed() == 0


async def test_update_frontier_status_ends_a_lease(backend: DynamoDBBackend, frontier: Frontier) -> None:
    await frontier.add([url(1)])
    (claim,) = await frontier.claim()
    await backend.update_frontier_status("run", claim.item.item_id, "completed")
    with pytest.raises(LeaseLostError):
        await frontier.fail(claim, "x")
    assert await frontier.claim() == []
    assert await frontier.is_finished()


async def test_fail_stores_a_new_payload(backend: DynamoDBBackend, frontier: Frontier) -> None:
    await frontier.add(frontier.link(url(number), payload="old") for number in range(3))
    claims = await frontier.claim()
    assert await frontier.fail(claims[0], "x", payload="new")
    assert not await frontier.fail(claims[1], "x", retry=False, payload="new")
    assert await frontier.fail(claims[2], "x")
    stored = await items(backend)
    assert [stored[url(number)].payload for number in range(3)] == ["new", "new", "old"]
    statuses = [stored[url(number)].status for number in range(2)]
    assert statuses == [FrontierStatus.PENDING, FrontierStatus.FAILED]


async def test_fail_refuses_a_payload_that_cannot_be_stored(frontier: Frontier) -> None:
    await frontier.add([url(1)])
    (claim,) = await frontier.claim()
    for retry in (True, False):
        with pytest.raises(InvalidInputError):
            await frontier.fail(claim, "x", retry=retry, payload="x" * 500_000)
    await frontier.complete(claim)
