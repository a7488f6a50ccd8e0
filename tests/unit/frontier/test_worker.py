"""Tests a worker with a scripted queue, in virtual time."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from typing import Any

import pytest

from ragcrawl_dynamo import Claim, FrontierStatus, LeaseLostError, Worker
from ragcrawl_dynamo._frontier.handling import WorkerSettings
from ragcrawl_dynamo._frontier.lease_keeper import LeaseSettings
from ragcrawl_dynamo.errors import (
    ConflictError,
    CredentialsError,
    DeadlineExceededError,
    EndpointUnreachableError,
    PartialBatchError,
    RagcrawlDynamoError,
    RequestRejectedError,
    ServerFaultError,
    ServiceError,
    ThrottledError,
)
from ragcrawl_dynamo.testing import ManualClock
from tests.support.scripted_queue import (
    GRACE,
    LEASE,
    MARGIN,
    OUTAGE,
    ScriptedQueue,
    run_to_end,
    settle,
    working,
)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


async def test_worker_completes_when_the_handler_returns_and_fails_when_it_raises(clock: ManualClock) -> None:
    queue = ScriptedQueue(clock, 3)

    async def handle(claim: Claim) -> None:
        if claim.item.item_id == "i1":
            raise ValueError("broken")

    async with working(queue) as worker:
        running = asyncio.create_task(worker.run(handle))
        await settle()
        clock.advance(1)
        await running
    assert sorted(queue.done) == [("i0", "completed"), ("i1", "failed: broken"), ("i2", "completed")]
    assert (worker.completed, worker.retried, worker.failed, worker.lost) == (2, 1, 0, 0)


async def test_worker_runs_no_more_handlers_than_its_concurrency(clock: ManualClock) -> None:
    queue = ScriptedQueue(clock, 7)
    now = most = 0

    async def handle(claim: Claim) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1

    async with working(queue, 3) as worker:
        running = asyncio.create_task(worker.run(handle))
        while len(queue.done) < 7:
            await settle()
        clock.advance(1)
        await running
    assert most == 3


async def test_worker_renews_leases_after_a_third_of_their_time(clock: ManualClock) -> None:
    queue = ScriptedQueue(clock, 1)
    go = asyncio.Event()
    async with working(queue) as worker:
        running = asyncio.create_task(worker.run(lambda claim: go.wait()))
        for _ in range(35):
            await settle()
            clock.advance(1)
        await settle()
        assert queue.renewals == [["i0"]] * 3
        go.set()
        await settle()
        clock.advance(20)
        await running
    assert queue.done == [("i0", "completed")]


@pytest.mark.parametrize(
    "failure",
    [EndpointUnreachableError("down", code="x", operation="x", table=None), TimeoutError()],
    ids=["fails", "times out"],
)
async def test_worker_cancels_a_handler_before_its_lease_ends(
    clock: ManualClock, failure: BaseException
) -> None:
    queue = ScriptedQueue(clock, 1)
    queue.renewal = failure
    ended: list[float] = []

    async def handle(claim: Claim) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(clock.monotonic())

    async with working(queue) as worker:
        running = asyncio.create_task(worker.run(handle))
        while not ended:
            await settle()
            clock.advance(0.5)
        assert LEASE - MARGIN <= ended[0] <= LEASE - MARGIN + 1
        await settle()
        clock.advance(20)
        await running
    # Nothing was done under the lost lease.
    assert (queue.done, worker.lost) == ([], 1)


async def test_worker_cancels_a_handler_whose_lease_was_taken_over(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    queue = ScriptedQueue(clock, 2)
    cancelled: list[str] = []
    urls: list[str] = []

    async def handle(claim: Claim) -> None:
        if claim.item.item_id == "i0":
            queue.renewal = LeaseLostError([claim])
            urls.append(claim.item.url)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(claim.item.item_id)
            raise

    async with working(queue) as worker:
        running = asyncio.create_task(worker.run(handle))
        for _ in range(12):
            await settle()
            clock.advance(1)
        await settle()
        assert cancelled == ["i0"]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert queue.done == [("i1", "released")]
    assert worker.lost == 1
    (logged,) = [text for text in caplog.messages if text.endswith("; its handler is cancelled")]
    assert logged.startswith(f"{urls[0]}: ")


async def test_worker_releases_running_claims_when_cancelled(clock: ManualClock) -> None:
    queue = ScriptedQueue(clock, 2)

    async def handle(claim: Claim) -> None:
        await asyncio.Event().wait()

    async with working(queue) as worker:
        running = asyncio.create_task(worker.run(handle))
        await settle()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert sorted(queue.done) == [("i0", "released"), ("i1", "released")]


async def test_worker_stop_lets_its_handlers_end(clock: ManualClock) -> None:
    queue = ScriptedQueue(clock, 5)
    go = asyncio.Event()
    async with working(queue) as worker:
        running = asyncio.create_task(worker.run(lambda claim: go.wait()))
        await settle()
        worker.stop()
        await settle()
        assert not running.done()
        go.set()
        await running
    assert sorted(queue.done) == [("i0", "completed"), ("i1", "completed")]
    assert len(queue.left) == 3


@pytest.mark.parametrize("concurrency", [3, 2])
async def test_worker_on_sigterm_waits_for_handlers_releases_the_others_and_exits(
    clock: ManualClock, concurrency: int
) -> None:
    """With concurrency 2 all handlers are busy; with 3 the worker also waits for items."""
    queue = ScriptedQueue(clock, 2)
    go = asyncio.Event()

    async def handle(claim: Claim) -> None:
        await (go.wait() if claim.item.item_id == "i0" else asyncio.Event().wait())

    async def watch() -> None:
        await settle()
        signal.raise_signal(signal.SIGTERM)
        await settle()
        assert queue.done == []
        clock.advance(GRACE - 1)
        go.set()
        await settle()
        assert queue.done == [("i0", "completed")]
        clock.advance(1)

    async with working(queue, concurrency) as worker:
        watching = asyncio.create_task(watch())
        with pytest.raises(SystemExit) as caught:
            await worker.run(handle)
        await watching
    assert caught.value.code == 143
    assert queue.done == [("i0", "completed"), ("i1", "released")]
    # The worker restores the default handler.
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


async def test_worker_keeps_a_sigterm_handler_of_the_program(clock: ManualClock) -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        async with working(ScriptedQueue(clock, 0)) as worker:
            signal.raise_signal(signal.SIGTERM)
            worker.stop()
            await worker.run(lambda claim: asyncio.sleep(0))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIGTERM]


async def test_worker_without_grace_does_not_handle_sigterm(clock: ManualClock) -> None:
    async with working(ScriptedQueue(clock, 0), grace=None):
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


async def test_worker_with_no_seconds_of_grace_releases_its_claims_at_once(clock: ManualClock) -> None:
    queue = ScriptedQueue(clock, 1)

    async def handle(claim: Claim) -> None:
        signal.raise_signal(signal.SIGTERM)
        await asyncio.Event().wait()

    async def watch() -> None:
        await settle()
        clock.advance(0)
        await settle()
        assert queue.done == [("i0", "released")]
        clock.advance(GRACE)

    async with working(queue, grace=0) as worker:
        watching = asyncio.create_task(watch())
        with pytest.raises(SystemExit):
            await worker.run(handle)
        await watching


async def test_worker_claims_in_its_name_for_the_time_of_its_leases(clock: ManualClock) -> None:
    queue = ScriptedQueue(clock, 1)
    async with working(queue) as worker:
        await run_to_end(worker, do_nothing, clock)
    assert queue.terms == {(LEASE, "w")}


async def test_worker_summary_has_the_seconds_since_it_was_run(clock: ManualClock) -> None:
    clock.advance(100)
    queue = ScriptedQueue(clock, 1)

    async def handle(claim: Claim) -> None:
        await clock.sleep(7)

    async with working(queue) as worker:
        summary = await run_to_end(worker, handle, clock)
    # With the wait for more items.
    assert 7 <= summary.seconds <= 10


async def test_worker_passes_the_error_of_a_handler_on_as_it_is(clock: ManualClock) -> None:
    queue = ScriptedQueue(clock, 1)
    error = ValueError("broken")

    async def handle(claim: Claim) -> None:
        raise error

    async with working(queue) as worker:
        await run_to_end(worker, handle, clock)
    assert queue.errors == [error]


async def test_worker_of_a_cancelled_run_waits_for_its_handlers(clock: ManualClock) -> None:
    queue = ScriptedQueue(clock, 1)
    go = asyncio.Event()

    async def handle(claim: Claim) -> None:
        queue.is_cancelled = True
        await go.wait()

    async with working(queue) as worker:
        running = asyncio.create_task(worker.run(handle))
        await settle()
        assert not running.done()
        go.set()
        await running
    assert queue.done == [("i0", "completed")]


async def test_worker_counts_each_lost_lease_and_cancels_no_other_handler(clock: ManualClock) -> None:
    queue = ScriptedQueue(clock, 3)
    renew = queue.renew
    cancelled: list[str] = []

    async def lose_two(claims: Sequence[Claim], lease_seconds: float) -> None:
        lost = [claim for claim in claims if claim.item.item_id in ("i0", "i1")]
        await renew([claim for claim in claims if claim not in lost], lease_seconds)
        if lost:
            raise LeaseLostError(lost)

    queue.renew = lose_two  # type: ignore[method-assign] # two leases are lost

    async def handle(claim: Claim) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(claim.item.item_id)

    async with working(queue, 3) as worker:
        running = asyncio.create_task(worker.run(handle))
        for _ in range(12):
            await settle()
            clock.advance(1)
        await settle()
        assert (sorted(cancelled), worker.lost) == (["i0", "i1"], 2)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_worker_counts_each_lease_that_turns_out_to_be_lost_when_it_is_settled(
    clock: ManualClock,
) -> None:
    queue = ScriptedQueue(clock, 2)
    lost = [queue.claim_of(item) for item in queue.left]
    queue.settlement_errors = [LeaseLostError(lost[:1]), LeaseLostError(lost[1:])]
    async with working(queue) as worker:
        summary = await run_to_end(worker, do_nothing, clock)
    assert (summary.lost, summary.completed) == (2, 0)


@pytest.mark.parametrize(("seconds_left", "is_tried_again"), [(MARGIN + 0.1, True), (MARGIN, False)])
async def test_worker_settles_again_until_the_lease_can_count_as_lost(
    clock: ManualClock, seconds_left: float, *, is_tried_again: bool
) -> None:
    queue = ScriptedQueue(clock, 1)
    queue.settlement_errors = [BUSY]

    async def handle(claim: Claim) -> None:
        claim.deadline = clock.monotonic() + seconds_left

    async with working(queue) as worker:
        await run_to_end(worker, handle, clock)
    assert bool(queue.done) is is_tried_again


async def test_worker_completed_counts_handlers_that_end_at_the_same_time(clock: ManualClock) -> None:
    queue = ScriptedQueue(clock, 100)
    complete = queue.complete

    async def slow_complete(claims: Sequence[Claim]) -> None:
        await asyncio.sleep(0)
        await complete(claims)

    queue.complete = slow_complete  # type: ignore[method-assign] # a request takes time
    async with working(queue, 16) as worker:
        running = asyncio.create_task(worker.run(lambda claim: asyncio.sleep(0)))
        while len(queue.done) < 100:
            await settle()
        clock.advance(1)
        await running
    assert worker.completed == 100


async def test_worker_ends_when_the_run_is_cancelled(clock: ManualClock) -> None:
    queue = ScriptedQueue(clock, 5)
    queue.is_cancelled = True
    async with working(queue) as worker:
        await worker.run(lambda claim: asyncio.sleep(0))
    assert queue.done == []


async def test_worker_accepts_a_handler_that_settles_its_claim(clock: ManualClock) -> None:
    queue = ScriptedQueue(clock, 1)

    async def handle(claim: Claim) -> None:
        queue.note("skipped", [claim], FrontierStatus.SKIPPED)

    async with working(queue) as worker:
        running = asyncio.create_task(worker.run(handle))
        await settle()
        clock.advance(1)
        await running
    assert queue.done == [("i0", "skipped")]


async def test_worker_waits_longer_only_while_no_handler_runs(clock: ManualClock) -> None:
    queue = ScriptedQueue(clock, 1)

    async def is_finished() -> bool:
        return len(queue.waits) == 9

    queue.is_finished = is_finished  # type: ignore[method-assign]

    async def handle(claim: Claim) -> None:
        await clock.sleep(3.5)

    async with working(queue) as worker:
        await run_to_end(worker, handle, clock)
    # The first claim gets the item. Claims of a finished run would not wait for its handler.
    beside_the_handler, afterwards = queue.waits[1:5], queue.waits[5:]
    assert beside_the_handler == [(1, False)] * 4
    assert afterwards == [(2, True), (4, True), (8, True), (10, True)]


async def test_worker_used_without_async_with_raises(clock: ManualClock) -> None:
    worker = Worker(ScriptedQueue(clock, 1), clock, WorkerSettings(1, LeaseSettings(LEASE, MARGIN)))
    with pytest.raises(RuntimeError, match="async with"):
        await worker.run(lambda claim: asyncio.sleep(0))


BUSY = ThrottledError("busy", code="Busy", operation="UpdateItem", table=None)


async def test_worker_claims_again_after_a_throttle(clock: ManualClock) -> None:
    queue = ScriptedQueue(clock, 1)
    queue.claim_errors = [BUSY, BUSY]

    async def handle(claim: Claim) -> None:
        """Does nothing."""

    async with working(queue) as worker:
        await run_to_end(worker, handle, clock)
    assert queue.done == [("i0", "completed")]


async def test_worker_is_not_ended_by_a_throttle_when_it_asks_whether_the_run_is_finished(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = ScriptedQueue(clock, 0)
    answers: list[Any] = [BUSY, True]

    async def is_finished() -> bool:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return bool(answer)

    monkeypatch.setattr(queue, "is_finished", is_finished)

    async def handle(claim: Claim) -> None:
        """Does nothing."""

    async with working(queue) as worker:
        await run_to_end(worker, handle, clock)
    assert answers == []


@pytest.mark.parametrize("error", [BUSY, PartialBatchError(0, [("i0", BUSY)])])
async def test_worker_settles_again_while_the_lease_is_renewed(clock: ManualClock, error: Exception) -> None:
    queue = ScriptedQueue(clock, 1)
    queue.settlement_errors = [error] * 60

    async def handle(claim: Claim) -> None:
        """Does nothing."""

    async with working(queue) as worker:
        await run_to_end(worker, handle, clock)
    # Two leases' time later.
    assert queue.done == [("i0", "completed")]
    assert (worker.completed, worker.lost) == (1, 0)


@pytest.mark.parametrize("is_renewed", [True, False])
async def test_worker_gives_up_a_settlement_that_cannot_succeed(clock: ManualClock, is_renewed: bool) -> None:
    queue = ScriptedQueue(clock, 1)
    refused = RequestRejectedError("refused", code="Validation", operation="UpdateItem", table=None)
    queue.settlement_errors = [refused if is_renewed else BUSY] * 100
    queue.renewal = None if is_renewed else BUSY

    async def handle(claim: Claim) -> None:
        """Does nothing."""

    async with working(queue) as worker:
        await run_to_end(worker, handle, clock)
    assert (queue.done, worker.completed) == ([], 0)


def failed(kind: type[ServiceError]) -> ServiceError:
    return kind("out of order", code="x", operation="UpdateItem", table=None)


def without_credentials(*, is_transient: bool) -> CredentialsError:
    error = CredentialsError("none", code="x", operation="UpdateItem", table=None)
    error.is_transient = is_transient
    return error


PASSING: list[RagcrawlDynamoError] = [
    failed(DeadlineExceededError),
    failed(EndpointUnreachableError),
    failed(ServerFaultError),
    without_credentials(is_transient=True),
    ConflictError("others were faster"),
    BUSY,
]


async def do_nothing(claim: Claim) -> None:
    """Fetches nothing."""


@pytest.mark.parametrize("error", PASSING, ids=lambda error: type(error).__name__)
async def test_worker_claims_again_after_an_outage(clock: ManualClock, error: RagcrawlDynamoError) -> None:
    queue = ScriptedQueue(clock, 1)
    queue.claim_errors = [error] * 30
    async with working(queue) as worker:
        await run_to_end(worker, do_nothing, clock)
    assert queue.done == [("i0", "completed")]
    assert clock.monotonic() >= 29


@pytest.mark.parametrize(
    "error",
    [
        failed(RequestRejectedError),
        without_credentials(is_transient=False),
        PartialBatchError(0, [("i", BUSY)]),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_worker_ends_at_once_with_an_error_that_does_not_pass(
    clock: ManualClock, error: RagcrawlDynamoError
) -> None:
    queue = ScriptedQueue(clock, 1)
    queue.claim_errors = [error, BUSY]
    if isinstance(error, PartialBatchError):
        error.failures = (("i", failed(RequestRejectedError)),)
    async with working(queue) as worker:
        with pytest.raises(type(error)):
            await worker.run(do_nothing)
    assert queue.claim_errors == [BUSY]


@pytest.mark.parametrize("can_release", [True, False])
async def test_worker_gives_up_after_outage_seconds_with_the_last_error_and_releases_its_claims(
    clock: ManualClock, can_release: bool
) -> None:
    queue = ScriptedQueue(clock, 1)
    last = failed(EndpointUnreachableError)

    async def handle(claim: Claim) -> None:
        queue.claim_errors = [BUSY] * int(OUTAGE) + [last] * 100
        if not can_release:
            queue.settlement_errors = [BUSY] * 1000
        await asyncio.Event().wait()

    async with working(queue) as worker:
        begun = clock.monotonic()
        with pytest.raises(EndpointUnreachableError) as caught:
            await run_to_end(worker, handle, clock)
        # The handler has ended before `run` did, though the lease is renewed all the time.
        assert not worker._running
    assert caught.value is last
    assert OUTAGE <= clock.monotonic() - begun <= OUTAGE + 5
    assert queue.done == [("i0", "released")] * can_release


async def test_worker_counts_an_outage_anew_after_it_was_served(clock: ManualClock) -> None:
    queue = ScriptedQueue(clock, 4)

    async def handle(claim: Claim) -> None:
        queue.claim_errors = [BUSY] * 30

    async with working(queue, 1) as worker:
        await run_to_end(worker, handle, clock)
    assert len(queue.done) == 4
    assert clock.monotonic() >= 4 * 30 > OUTAGE


async def test_worker_stop_ends_the_wait_for_the_end_of_an_outage(clock: ManualClock) -> None:
    queue = ScriptedQueue(clock, 1)
    queue.claim_errors = [BUSY] * 100
    async with working(queue) as worker:
        running = asyncio.create_task(worker.run(do_nothing))
        await settle()
        worker.stop()
        await running
    assert len(queue.left) == 1


class Enough(BaseException):
    """As pytest.exit raises it."""


@pytest.mark.parametrize(
    "error", [Enough(), SystemExit(3), KeyboardInterrupt()], ids=lambda error: type(error).__name__
)
async def test_worker_ends_with_an_error_of_a_handler_that_is_no_exception(
    clock: ManualClock, error: BaseException
) -> None:
    """It claims nothing more, and all items are released, that of the handler too."""
    queue = ScriptedQueue(clock, 5)

    async def handle(claim: Claim) -> None:
        if claim.item.item_id == "i0":
            await asyncio.sleep(0)
            raise error
        await asyncio.Event().wait()

    async with working(queue, 3) as worker:
        with pytest.raises(type(error)) as caught:
            await worker.run(handle)
        assert caught.value is error
        assert sorted(queue.done) == [(f"i{i}", "released") for i in range(3)]
    assert len(queue.left) == 2
