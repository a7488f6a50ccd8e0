"""For how long work is tried again while DynamoDB does not serve a process; in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ragcrawl_dynamo import Claim, EndpointUnreachableError, LeaseLostError, PartialBatchError, ThrottledError
from ragcrawl_dynamo._frontier.outage import Outage, may_pass, while_leased
from ragcrawl_dynamo.errors import (
    AccessDeniedError,
    ConflictError,
    CredentialsError,
    DeadlineExceededError,
    RagcrawlDynamoError,
    ServerFaultError,
)
from ragcrawl_dynamo.testing import ManualClock
from tests.support.factories import make_item
from tests.support.hosts import at
from tests.support.stored_run import BUSY

CALL: dict[str, Any] = {"code": "Code", "operation": "UpdateItem", "table": None}
DENIED = AccessDeniedError("denied", **CALL)


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (BUSY, True),
        (ConflictError(), True),
        (DeadlineExceededError("late", **CALL), True),
        (EndpointUnreachableError("down", **CALL), True),
        (ServerFaultError("fault", **CALL), True),
        (DENIED, False),
        (LeaseLostError([Claim(make_item(), "w", at(0))]), False),
        (PartialBatchError(0, [("a", BUSY), ("b", ConflictError())]), True),
        (PartialBatchError(0, [("a", BUSY), ("b", DENIED)]), False),
    ],
)
def test_errors_that_pass_are_those_of_the_service(error: RagcrawlDynamoError, passes: bool) -> None:
    assert may_pass(error) is passes


@pytest.mark.parametrize("is_transient", [True, False])
def test_missing_credentials_pass_if_their_service_failed(is_transient: bool) -> None:
    error = CredentialsError("none", **CALL)
    error.is_transient = is_transient
    assert may_pass(error) is is_transient


# Outages.


def test_outage_ends_a_worker_when_it_has_lasted_too_long() -> None:
    clock = ManualClock()
    outage = Outage(clock, 10.0)
    clock.advance(9.999)
    # It began with the call that failed.
    outage.note(BUSY, begun=0.0)
    clock.advance(0.001)
    with pytest.raises(ThrottledError):
        outage.note(BUSY, begun=5.0)


def test_outage_is_over_when_a_call_was_served() -> None:
    clock = ManualClock()
    outage = Outage(clock, 10.0)
    outage.note(BUSY, begun=0.0)
    clock.advance(9.0)
    outage.end()
    clock.advance(9.0)
    outage.note(BUSY, begun=12.0)


def test_outage_of_a_call_that_took_too_long_alone_ends_a_worker() -> None:
    clock = ManualClock()
    clock.advance(10.0)
    with pytest.raises(ThrottledError):
        Outage(clock, 10.0).note(BUSY, begun=0.0)


def test_error_that_does_not_pass_ends_a_worker_at_once() -> None:
    with pytest.raises(AccessDeniedError):
        Outage(ManualClock(), 10.0).note(DENIED, begun=0.0)


# Work under leases.


class Work:
    """Work that fails so often with an error, in virtual time."""

    def __init__(self, failures: int, error: RagcrawlDynamoError = BUSY) -> None:
        self.clock = ManualClock()
        self.failures = failures
        self.error = error
        self.done_at: list[float] = []

    async def do(self) -> str:
        self.done_at.append(self.clock.monotonic())
        if len(self.done_at) <= self.failures:
            raise self.error
        return "done"

    async def run(self, *deadlines: float, lost: int = 0) -> str:
        claims = [Claim(make_item(), "w", at(0), deadline=deadline) for deadline in deadlines]
        for claim in claims[:lost]:
            claim.lost = True
        working = asyncio.create_task(while_leased(claims, self.clock, 2.0, self.do))
        while not working.done():
            for _ in range(5):
                await asyncio.sleep(0)
            self.clock.advance(0.5)
        return await working


async def test_finished_work_is_tried_again_every_second(caplog: pytest.LogCaptureFixture) -> None:
    work = Work(failures=2)
    assert await work.run(30.0) == "done"
    assert work.done_at == [0.0, 1.0, 2.0]
    assert "https://example.com/item could not be settled; it is tried again" in caplog.text


async def test_finished_work_is_given_up_before_the_last_lease_is_over() -> None:
    work = Work(failures=99)
    with pytest.raises(ThrottledError):
        await work.run(1.0, 6.0)
    # At 3 s, the next try would begin when the lease counts as over: 2 s before its end.
    assert work.done_at == [0.0, 1.0, 2.0, 3.0]


async def test_leases_that_were_lost_give_no_time() -> None:
    work = Work(failures=99)
    with pytest.raises(ThrottledError):
        await work.run(60.0, 5.0, lost=1)
    assert work.done_at == [0.0, 1.0, 2.0]


async def test_work_without_leases_is_done_once() -> None:
    work = Work(failures=1)
    with pytest.raises(ThrottledError):
        await work.run()
    assert work.done_at == [0.0]


async def test_work_that_fails_for_good_is_done_once() -> None:
    work = Work(failures=1, error=DENIED)
    with pytest.raises(AccessDeniedError):
        await work.run(30.0)
    assert work.done_at == [0.0]
