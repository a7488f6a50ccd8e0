"""How concurrent claims of one process share one claim of the scheduler."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from ragcrawl_dynamo import Claim, ThrottledError
from ragcrawl_dynamo._frontier.claim_coalescing import ClaimCoalescer
from ragcrawl_dynamo._frontier.item_store import Lease
from ragcrawl_dynamo._frontier.lease_issuer import IssuedLease, LeaseTerms
from ragcrawl_dynamo._frontier.scheduler import ClaimResult
from tests.support.factories import make_item
from tests.support.hosts import at
from tests.support.stored_run import BUSY, StoredRun


class Claiming:
    """A scheduler that issues a lease for each of the terms; and leases that are given back.

    Attributes:
        calls: The owners and the thoroughness of each claim.
        missing: The indexes of the terms that get no lease.
        deadline: When the leases end, by the monotonic clock.
        gate: Claims wait for it.
        given_back: The ids of the items whose leases were given back.
    """

    def __init__(self) -> None:
        self.run = StoredRun(frontier_max_clock_skew=2.0)
        self.calls: list[tuple[list[str], bool]] = []
        self.missing: set[int] = set()
        self.deadline = 30.0
        self.deadlines: dict[str, float] = {}
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.given_back: list[str] = []
        self.coalescer = ClaimCoalescer(self.run, cast("Any", _Scheduler(self)), cast("Any", self))

    def give_back(self, claims: Sequence[Claim]) -> None:
        self.given_back += [claim.item.item_id for claim in claims]

    def start(self, *owners: str, is_thorough: bool = False) -> asyncio.Task[tuple[list[Claim], ClaimResult]]:
        terms = [LeaseTerms(30.0, owner) for owner in owners]
        return asyncio.create_task(self.coalescer.claim(terms, is_thorough=is_thorough))


class _Scheduler:
    def __init__(self, claiming: Claiming) -> None:
        self._claiming = claiming

    async def claim(self, terms: Sequence[LeaseTerms], *, is_thorough: bool) -> ClaimResult:
        claiming = self._claiming
        claiming.calls.append(([term.owner for term in terms], is_thorough))
        await claiming.gate.wait()
        if claiming.error is not None:
            raise claiming.error
        leases = {}
        for i, term in enumerate(terms):
            if i not in claiming.missing:
                deadline = claiming.deadlines.get(term.owner, claiming.deadline)
                lease = Lease("token", term.owner, at(0), at(30), at(32), deadline)
                leases[i] = IssuedLease(make_item(f"for {term.owner}"), lease, has_slot=True)
        return ClaimResult(leases, next_at=at(len(claiming.calls)))


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def owners(claims: list[Claim]) -> list[str]:
    return [claim.worker_id for claim in claims]


async def test_calls_that_begin_together_share_a_claim() -> None:
    claiming = Claiming()
    results = await asyncio.gather(
        claiming.start("a", "b"), claiming.start("c", is_thorough=True), claiming.start("d")
    )
    assert claiming.calls == [(["a", "b", "c", "d"], True)]
    assert [owners(claims) for claims, _ in results] == [["a", "b"], ["c"], ["d"]]
    # All learn what is known for the next try.
    assert [result.next_at for _, result in results] == [at(1)] * 3


async def test_claim_is_not_thorough_unless_a_call_is() -> None:
    claiming = Claiming()
    await asyncio.gather(claiming.start("a"), claiming.start("b"))
    assert claiming.calls == [(["a", "b"], False)]


async def test_calls_that_begin_during_a_claim_share_the_next_one() -> None:
    claiming = Claiming()
    claiming.gate.clear()
    first = claiming.start("a")
    await settle()
    others = [claiming.start("b"), claiming.start("c")]
    await settle()
    assert len(claiming.calls) == 1
    claiming.gate.set()
    await asyncio.gather(first, *others)
    assert claiming.calls == [(["a"], False), (["b", "c"], False)]


async def test_claims_begin_again_after_they_have_ended() -> None:
    claiming = Claiming()
    await claiming.start("a")
    await settle()
    await claiming.start("b")
    assert claiming.calls == [(["a"], False), (["b"], False)]


async def test_terms_without_a_lease_get_no_claim() -> None:
    claiming = Claiming()
    claiming.missing = {1, 2}
    results = await asyncio.gather(claiming.start("a", "b"), claiming.start("c"), claiming.start("d"))
    assert [owners(claims) for claims, _ in results] == [["a"], [], ["d"]]


async def test_claim_has_the_values_of_its_lease() -> None:
    claiming = Claiming()
    (claim,), _ = await claiming.start("a")
    assert claim == Claim(claim.item, "a", at(30), has_slot=True, deadline=30.0)
    assert claim.item.item_id == "for a"


async def test_error_of_a_claim_is_raised_in_all_its_calls() -> None:
    claiming = Claiming()
    claiming.error = BUSY
    tasks = [claiming.start("a"), claiming.start("b")]
    cancelled = claiming.start("c")
    claiming.gate.clear()
    await settle()
    cancelled.cancel()
    await settle()
    claiming.gate.set()
    for task in tasks:
        with pytest.raises(ThrottledError):
            await task
    # The next call is served nevertheless.
    claiming.error = None
    claims, _ = await claiming.start("d")
    assert owners(claims) == ["d"]


@pytest.mark.parametrize(("deadline", "is_late"), [(2.0, True), (1.0, True), (2.001, False)])
async def test_lease_with_no_time_left_is_given_back(deadline: float, is_late: bool) -> None:
    """The claim took long. A worker would have to stop `frontier_max_clock_skew` before the end."""
    claiming = Claiming()
    claiming.deadlines["late"] = deadline + 5.0
    claiming.run.clock.advance(5.0)
    claims, _ = await claiming.start("in time", "late")
    assert owners(claims) == (["in time"] if is_late else ["in time", "late"])
    assert claiming.given_back == (["for late"] if is_late else [])


async def test_call_that_is_cancelled_while_it_waits_takes_no_lease() -> None:
    claiming = Claiming()
    claiming.gate.clear()
    first = claiming.start("a")
    await settle()
    second = claiming.start("b")
    await settle()
    second.cancel()
    claiming.gate.set()
    await first
    await settle()
    assert (second.cancelled(), claiming.calls) == (True, [(["a"], False)])


async def test_leases_of_a_call_that_is_cancelled_during_its_claim_are_given_back() -> None:
    claiming = Claiming()
    claiming.gate.clear()
    cancelled, other = claiming.start("a", "b"), claiming.start("c")
    await settle()
    cancelled.cancel()
    await settle()
    claiming.gate.set()
    claims, _ = await other
    assert owners(claims) == ["c"]
    assert claiming.given_back == ["for a", "for b"]


@pytest.mark.parametrize(("error", "given_back"), [(None, ["for a"]), (BUSY, [])], ids=["claimed", "failed"])
async def test_call_that_is_cancelled_when_its_claim_has_ended_is_cancelled_and_keeps_no_lease(
    error: Exception | None, given_back: list[str]
) -> None:
    claiming = Claiming()
    claiming.error = error
    claiming.gate.clear()
    task = claiming.start("a")
    await settle()
    claiming.gate.set()
    # The claim ends, and the caller has not run again.
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert claiming.given_back == given_back
