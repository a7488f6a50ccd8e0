"""Limits of hosts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig, Frontier, InvalidArgumentError, InvalidKeyError
from ragcrawl_dynamo.testing import ManualClock
from tests.support.queues import WAYS, claim_all, names, url, urls

pytestmark = WAYS


async def test_host_delay_spaces_the_leases_of_a_host(frontier: Frontier, clock: ManualClock) -> None:
    await frontier.set_host_delay("a.example", 3)
    await frontier.add(urls(3))
    await frontier.add(urls(1, "b.example"))
    assert sorted(names(await frontier.claim(10))) == [url(0), url(0, "b.example")]
    clock.advance(2.9)
    assert await frontier.claim() == []
    clock.advance(0.2)
    assert names(await frontier.claim()) == [url(1)]
    await frontier.set_host_delay("a.example", 0)
    assert names(await frontier.claim()) == [url(2)]


async def test_host_max_in_flight_holds_until_leases_end(frontier: Frontier, clock: ManualClock) -> None:
    await frontier.set_host_max_in_flight("a.example", 2)
    await frontier.add(urls(6))
    one, _ = await frontier.claim(10, lease_seconds=10)
    assert await frontier.claim() == []
    await frontier.complete(one)
    (three,) = await frontier.claim(10, lease_seconds=10)
    await frontier.release(three)
    (three,) = await frontier.claim(10, lease_seconds=30)
    assert [host.in_flight async for host in frontier.iter_hosts()] == [2]
    # The second one's worker died: its place is free once its item may be taken over.
    clock.advance(11.5)
    assert len(await frontier.claim(10, lease_seconds=30)) == 1
    await frontier.set_host_max_in_flight("a.example", None)
    clock.advance(30)
    assert len(await claim_all(frontier)) == 4


async def test_renew_keeps_the_in_flight_slot(frontier: Frontier, clock: ManualClock) -> None:
    await frontier.set_host_max_in_flight("a.example", 1)
    await frontier.add(urls(2))
    (held,) = await frontier.claim(lease_seconds=10)
    clock.advance(9)
    await frontier.renew(held, 10)
    clock.advance(9)
    assert await frontier.claim() == []
    await frontier.complete(held)
    assert names(await frontier.claim()) == [url(1)]


async def test_block_host_gives_nothing_and_starves_no_other_host(
    frontier: Frontier, clock: ManualClock
) -> None:
    await frontier.add(urls(300, "blocked.example"), priority=100)
    await frontier.block_host("blocked.example", clock.now() + timedelta(seconds=60))
    await frontier.add(urls(2))
    assert names(await frontier.claim(10)) == urls(2)
    clock.advance(61)
    assert len(await frontier.claim(5)) == 5


async def test_host_limits_are_durable_and_seen_by_other_processes(
    backend: DynamoDBBackend, frontier: Frontier, config: DynamoDBConfig, clock: ManualClock
) -> None:
    await frontier.add(urls(6))
    async with DynamoDBBackend(config, clock=clock) as elsewhere:
        other = elsewhere.frontier("site", "run")
        assert len(await other.claim(1)) == 1
        await frontier.set_host_delay("a.example", 10)
        assert len(await other.claim(5)) == 1
        assert await frontier.claim(5) == []
        clock.advance(11)
        assert len(await frontier.claim(5)) == 1
        assert await other.claim(5) == []


async def test_host_limits_begin_with_those_of_the_run(
    backend: DynamoDBBackend, config: DynamoDBConfig, clock: ManualClock
) -> None:
    polite = backend.frontier("site", "polite", host_delay=2.0, host_max_in_flight=3)
    await polite.add(urls(3))
    async with DynamoDBBackend(config, clock=clock) as elsewhere:
        # A process that comes later gets the limits from the run.
        other = elsewhere.frontier("site", "polite")
        await other.add(urls(3, "b.example"))
        claims = await other.claim(10)
        assert sorted(claim.item.domain for claim in claims) == ["a.example", "b.example"]
        assert {(host.delay, host.max_in_flight) async for host in other.iter_hosts()} == {(2.0, 3)}


@pytest.mark.parametrize(
    "verb",
    [
        lambda frontier: frontier.set_host_delay("a", -1),
        lambda frontier: frontier.set_host_max_in_flight("a", 0),
        lambda frontier: frontier.block_host("a", "later"),
        lambda frontier: frontier.set_host_delay("h" * 513, 1),
    ],
)
async def test_host_limits_refuse_invalid_values(
    frontier: Frontier, verb: Callable[[Frontier], Awaitable[None]]
) -> None:
    with pytest.raises((InvalidArgumentError, InvalidKeyError)):
        await verb(frontier)
