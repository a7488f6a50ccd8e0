"""Tests a lease keeper with a scripted queue, in virtual time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta

import pytest

from ragcrawl_dynamo import (
    Claim,
    EndpointUnreachableError,
    InvalidArgumentError,
    LeaseKeeper,
    LeaseLostError,
    PartialBatchError,
)
from ragcrawl_dynamo._frontier.lease_keeper import LeaseSettings, lease_settings
from ragcrawl_dynamo.testing import ManualClock
from tests.support.factories import make_item

LEASE = LeaseSettings(seconds=30.0, margin=2.0)


class Renewals:
    """Renews leases, except those of the items in `lost`."""

    def __init__(self, clock: ManualClock, lost: Sequence[str] = ()) -> None:
        self.clock = clock
        self.lost = set(lost)
        self.renewed: list[str] = []
        self.error: Exception | None = None

    def claims(self, count: int) -> list[Claim]:
        ends_at = self.clock.now() + timedelta(seconds=LEASE.seconds)
        deadline = self.clock.monotonic() + LEASE.seconds
        items = [make_item(f"i{i}", attempt=1, lease_token=f"t{i}") for i in range(count)]
        return [Claim(item, "w", ends_at, deadline=deadline) for item in items]

    async def renew(self, claims: Sequence[Claim], lease_seconds: float) -> None:
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        lost = [claim for claim in claims if claim.item.item_id in self.lost]
        for claim in claims:
            if claim not in lost:
                claim.deadline = self.clock.monotonic() + lease_seconds
                self.renewed.append(claim.item.item_id)
        for claim in lost:
            claim.ended = claim.lost = True
        if lost:
            raise LeaseLostError(lost)


async def pass_seconds(clock: ManualClock, seconds: int) -> None:
    for _ in range(seconds):
        for _ in range(20):
            await asyncio.sleep(0)
        clock.advance(1)


async def test_lease_keeper_continues_after_on_lost_raises(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    renewals = Renewals(clock, lost=["i0", "i1"])
    reported: list[str] = []

    def on_lost(claim: Claim, why: str) -> None:
        reported.append(claim.item.item_id)
        raise ValueError("the user's own bug")

    with caplog.at_level(logging.ERROR, "ragcrawl_dynamo"):
        async with LeaseKeeper(renewals, clock, LEASE, on_lost) as keeper:
            keeper.hold(renewals.claims(4))
            await pass_seconds(clock, 100)
            held = [claim.item.item_id for claim in keeper.held]
    # `on_lost` is called with both, though the first call raises.
    assert reported == ["i0", "i1"]
    assert held == ["i2", "i3"]
    assert renewals.renewed.count("i2") == renewals.renewed.count("i3") > 5
    assert "the user's own bug" in caplog.text


async def test_lease_keeper_continues_after_an_unexpected_error() -> None:
    clock = ManualClock()
    renewals = Renewals(clock)
    renewals.error = ZeroDivisionError("a bug of this package")
    async with LeaseKeeper(renewals, clock, LEASE, lambda claim, why: None) as keeper:
        keeper.hold(renewals.claims(1))
        await pass_seconds(clock, 40)
        assert [claim.item.item_id for claim in keeper.held] == ["i0"]
    assert renewals.renewed


async def test_lease_keeper_reports_a_lost_lease_in_time() -> None:
    """Other workers may claim the item as soon as the lease is over by all clocks."""
    clock = ManualClock()
    lost_at: list[float] = []

    class Unreachable:
        async def renew(self, claims: Sequence[Claim], lease_seconds: float) -> None:
            raise EndpointUnreachableError("down", code="down", operation="UpdateItem", table=None)

    (claim,) = Renewals(clock).claims(1)
    claim.deadline = 5.0
    lease = LeaseSettings(seconds=5.0, margin=0.1)
    async with LeaseKeeper(
        Unreachable(), clock, lease, lambda claim, why: lost_at.append(clock.monotonic())
    ) as keeper:
        keeper.hold([claim])
        while not lost_at:
            for _ in range(20):
                await asyncio.sleep(0)
            clock.advance(0.0625)
    assert 4.8 < lost_at[0] <= 4.9625


@pytest.mark.parametrize("partial", [True, False], ids=["others failed", "late answer"])
async def test_lease_keeper_reports_leases_that_turn_out_to_be_lost_after_the_renewal(partial: bool) -> None:
    """A renewal without an answer in time continues. It may find that others have leased the item."""
    clock = ManualClock()
    lost: list[str] = []

    class Late:
        async def renew(self, claims: Sequence[Claim], lease_seconds: float) -> None:
            claims[0].ended = claims[0].lost = True
            # The other one was settled meanwhile.
            claims[1].ended = True
            if partial:
                raise PartialBatchError(0, [(claims[0], LeaseLostError(claims[:1]))])
            raise TimeoutError

    async with LeaseKeeper(Late(), clock, LEASE, lambda claim, why: lost.append(why)) as keeper:
        keeper.hold(Renewals(clock).claims(2))
        await pass_seconds(clock, 20)
        assert lost == ["its lease was lost"]
        assert not keeper._held


async def test_lease_keeper_reports_why_leases_could_not_be_renewed(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()

    class Hanging:
        async def renew(self, claims: Sequence[Claim], lease_seconds: float) -> None:
            raise TimeoutError

    async with LeaseKeeper(Hanging(), clock, LEASE, lambda claim, why: None) as keeper:
        keeper.hold(Renewals(clock).claims(1))
        await pass_seconds(clock, 20)
    assert "1 leases could not be renewed: DynamoDB did not answer before they count as lost" in caplog.text


def one_throttled_host(clock: ManualClock) -> tuple[Renewals, Claim, Claim]:
    """Renewals of two claims: those of the first one's host get no answer."""
    renewals = Renewals(clock)
    hot, cold = renewals.claims(2)
    hot.item.domain, cold.item.domain = "hot", "cold"
    renew = renewals.renew

    async def throttled(claims: Sequence[Claim], lease_seconds: float) -> None:
        if claims[0] is hot:
            await asyncio.Event().wait()
        await renew(claims, lease_seconds)

    renewals.renew = throttled  # type: ignore[method-assign] # one host does not answer
    return renewals, hot, cold


async def test_lease_keeper_renews_the_leases_of_other_hosts_while_those_of_one_are_throttled() -> None:
    clock = ManualClock()
    renewals, hot, cold = one_throttled_host(clock)
    async with LeaseKeeper(renewals, clock, LEASE, lambda claim, why: None) as keeper:
        keeper.hold([hot, cold])
        await pass_seconds(clock, 12)
    assert renewals.renewed == [cold.item.item_id]


async def test_lease_keeper_renews_leases_that_age_while_those_of_one_host_are_throttled() -> None:
    """A renewal of one host may take as long as its lease. That of another host does not wait for it."""
    clock = ManualClock()
    renewals, hot, cold = one_throttled_host(clock)
    async with LeaseKeeper(renewals, clock, LEASE, lambda claim, why: None) as keeper:
        keeper.hold([hot])
        await pass_seconds(clock, 12)
        cold.deadline = clock.monotonic() + LEASE.seconds
        keeper.hold([cold])
        await pass_seconds(clock, 12)
        assert renewals.renewed == [cold.item.item_id]


async def test_lease_keeper_renews_after_an_outage_shorter_than_the_lease() -> None:
    clock = ManualClock()
    renewals = Renewals(clock)
    renew = renewals.renew
    lost: list[Claim] = []

    async def fails(claims: Sequence[Claim], lease_seconds: float) -> None:
        if clock.monotonic() < 26:
            raise EndpointUnreachableError("down", code="down", operation="UpdateItem", table=None)
        await renew(claims, lease_seconds)

    renewals.renew = fails  # type: ignore[method-assign] # an outage
    async with LeaseKeeper(renewals, clock, LEASE, lambda claim, why: lost.append(claim)) as keeper:
        keeper.hold(renewals.claims(3))
        await pass_seconds(clock, 28)
        assert len(keeper.held) == 3
    assert (len(renewals.renewed), lost) == (3, [])


async def test_renewal_may_take_until_the_first_of_its_leases_counts_as_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A request that hangs must not hide that a lease is lost."""
    clock = ManualClock()
    timeouts: list[float] = []
    lost: list[tuple[str, str, float]] = []
    timeout = asyncio.timeout

    def at_once(seconds: float) -> asyncio.Timeout:
        timeouts.append(seconds)
        return timeout(0)

    class Hanging:
        async def renew(self, claims: Sequence[Claim], lease_seconds: float) -> None:
            await asyncio.Event().wait()

    def on_lost(claim: Claim, why: str) -> None:
        lost.append((claim.item.item_id, why, clock.monotonic()))

    first, second = Renewals(clock).claims(2)
    second.deadline += 9
    async with LeaseKeeper(Hanging(), clock, LEASE, on_lost) as keeper:
        keeper.hold([first, second])
        with monkeypatch.context() as patched:
            patched.setattr(asyncio, "timeout", at_once)
            await pass_seconds(clock, 29)
        assert keeper.held == [second]
    # A lease is renewed once more than a third of it is over. The last renewal has a moment too.
    assert timeouts[:18] == [*range(17, 0, -1), 0.05]
    assert lost == [("i0", "its lease could not be renewed in time", 28.0)]


@pytest.mark.parametrize(
    ("renewed_after", "left", "pause"),
    [
        # Never longer than a second, nor than half of the time after which leases are renewed.
        (10.0, None, 1.0),
        (1.0, None, 0.5),
        # The first lease counts as lost then.
        (10.0, 0.25, 0.25),
        (10.0, -1.0, 0.01),
    ],
)
def test_lease_keeper_looks_at_leases_before_the_first_one_counts_as_lost(
    renewed_after: float, left: float | None, pause: float
) -> None:
    clock = ManualClock()
    clock.advance(5)
    keeper = LeaseKeeper(Renewals(clock), clock, LEASE, lambda claim, why: None)
    if left is not None:
        claims = Renewals(clock).claims(2)
        claims[1].deadline = clock.monotonic() + LEASE.margin + left
        keeper.hold(claims)
    assert keeper._pause(renewed_after) == pause


async def test_lease_keeper_that_is_left_does_nothing_more() -> None:
    clock = ManualClock()
    async with LeaseKeeper(Renewals(clock), clock, LEASE, lambda claim, why: None) as keeper:
        task = keeper._task
    assert task is not None
    assert task.done()


def test_lease_keeper_ignores_a_claim_that_it_does_not_hold() -> None:
    clock = ManualClock()
    renewals = Renewals(clock)
    keeper = LeaseKeeper(renewals, clock, LEASE, lambda claim, why: None)
    one, other = renewals.claims(2)
    keeper.hold([one])
    keeper.let_go(other)
    assert keeper.held == [one]
    keeper.let_go(one)
    assert keeper.held == []


def test_lease_counts_as_lost_the_clock_skew_before_its_end() -> None:
    assert lease_settings(30, 2.0) == LeaseSettings(seconds=30, margin=2.0)


def test_lease_that_is_too_short_for_the_clock_skew_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="lease_seconds"):
        lease_settings(2.0, 2.0)


async def test_lease_of_a_claim_that_was_settled_while_it_was_renewed_is_not_lost() -> None:
    clock = ManualClock()
    renewals = Renewals(clock)
    settled, kept = renewals.claims(2)
    lost: list[Claim] = []

    async def settle_first(claims: Sequence[Claim], lease_seconds: float) -> None:
        if settled in claims:
            settled.ended = True
            # The other one could be renewed.
            kept.deadline += lease_seconds
            raise LeaseLostError([settled])

    renewals.renew = settle_first  # type: ignore[method-assign] # a handler is faster
    async with LeaseKeeper(renewals, clock, LEASE, lambda claim, why: lost.append(claim)) as keeper:
        keeper.hold([settled, kept])
        await pass_seconds(clock, 12)
        assert (list(keeper._held.values()), lost) == ([kept], [])
