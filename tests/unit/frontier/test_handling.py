"""Errors of handlers, the logs and reports of the worker, and its summary, on a scripted queue."""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import Any

import pytest

from ragcrawl_dynamo import (
    Claim,
    DoNotRetry,
    FrontierStatus,
    InvalidArgumentError,
    LeaseLostError,
    Skip,
    WorkSummary,
)
from ragcrawl_dynamo.errors import RequestRejectedError
from ragcrawl_dynamo.testing import ManualClock
from tests.support.scripted_queue import GRACE, ScriptedQueue, run_to_end, settle, working

URL = "https://example.com/i0"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def raising(error: BaseException) -> Any:
    async def handle(claim: Claim) -> None:
        raise error

    return handle


def worker_logs(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    names = {f"ragcrawl_dynamo._frontier.{module}" for module in ("worker", "handler_errors")}
    return [record for record in caplog.records if record.name in names]


async def run_one(
    clock: ManualClock, error: BaseException, *, is_last_attempt: bool = False, **options: Any
) -> tuple[ScriptedQueue, WorkSummary]:
    """Runs a handler that raises for one item."""
    queue = ScriptedQueue(clock, 1)
    queue.is_last_attempt = is_last_attempt
    async with working(queue) as worker:
        summary = await run_to_end(worker, raising(error), clock, **options)
    return queue, summary


def counts(summary: WorkSummary) -> tuple[int, int, int, int, int]:
    return summary.completed, summary.retried, summary.failed, summary.skipped, summary.lost


async def test_worker_skips_the_item_of_a_handler_that_raises_skip(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Claim] = []
    queue, summary = await run_one(clock, Skip("robots.txt"), on_error=lambda claim, _: seen.append(claim))
    assert queue.done == [("i0", "skipped: robots.txt")]
    assert counts(summary) == (0, 0, 0, 1, 0)
    # It is no error.
    assert seen == []
    assert [record for record in worker_logs(caplog) if record.levelno >= logging.WARNING] == []


async def test_worker_stores_a_reason_for_a_skip_without_one(clock: ManualClock) -> None:
    queue, _ = await run_one(clock, Skip())
    assert queue.done == [("i0", "skipped: skipped by the handler")]


@pytest.mark.parametrize(
    ("error", "stored"), [(DoNotRetry("no HTML"), "no HTML"), (DoNotRetry(), "DoNotRetry")]
)
async def test_worker_gives_up_the_item_of_a_handler_that_raises_do_not_retry(
    clock: ManualClock, caplog: pytest.LogCaptureFixture, error: DoNotRetry, stored: str
) -> None:
    fates: list[Any] = []
    queue, summary = await run_one(
        clock, error, on_error=lambda claim, raised: fates.append((claim.settled_as, raised))
    )
    assert queue.done == [("i0", f"given up: {stored}")]
    assert counts(summary) == (0, 0, 1, 0, 0)
    assert fates == [(FrontierStatus.FAILED, error)]
    (record,) = [record for record in worker_logs(caplog) if record.levelno >= logging.WARNING]
    assert record.levelno == logging.ERROR


async def test_worker_gives_up_an_item_that_is_refused_at_every_attempt(clock: ManualClock) -> None:
    queue, summary = await run_one(clock, InvalidArgumentError("status_code", "418 has no meaning"))
    assert queue.done == [("i0", "given up: status_code: 418 has no meaning")]
    assert counts(summary) == (0, 0, 1, 0, 0)


async def test_worker_refuses_an_async_observer(clock: ManualClock) -> None:
    async with working(ScriptedQueue(clock, 1)) as worker:
        with pytest.raises(InvalidArgumentError, match="on_error: must be a plain function"):
            await worker.run(raising(ValueError()), on_error=asyncio.sleep)  # type: ignore[arg-type]


async def test_worker_logs_the_error_of_a_handler_with_its_url_and_traceback(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def handle(claim: Claim) -> None:
        undefined  # type: ignore[name-defined] # noqa: B018, F821 # as a bug does

    queue = ScriptedQueue(clock, 1)
    async with working(queue) as worker:
        summary = await run_to_end(worker, handle, clock)
    assert counts(summary) == (0, 1, 0, 0, 0)
    (record,) = [record for record in worker_logs(caplog) if record.levelno >= logging.WARNING]
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        f"the handler of {URL} has failed in attempt 1, it will be tried again: "
        "NameError(\"name 'undefined' is not defined\")"
    )
    assert "in handle\n" in caplog.text
    assert "NameError: name 'undefined' is not defined" in caplog.text


async def test_worker_logs_one_traceback_of_an_error_that_several_items_have(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with working(ScriptedQueue(clock, 3)) as worker:
        await run_to_end(worker, raising(OSError("refused")), clock)
    warnings = [record for record in worker_logs(caplog) if record.levelno == logging.WARNING]
    assert [record.exc_info is not None for record in warnings] == [True, False, False]


async def test_worker_logs_the_last_attempt_of_an_item_as_an_error(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    queue, summary = await run_one(clock, ValueError("broken"), is_last_attempt=True)
    assert queue.done == [("i0", "given up: broken")]
    assert counts(summary) == (0, 0, 1, 0, 0)
    (record,) = [record for record in worker_logs(caplog) if record.levelno >= logging.WARNING]
    assert record.levelno == logging.ERROR
    assert record.getMessage() == (
        f"the handler of {URL} has failed in attempt 1, it is given up: ValueError('broken')"
    )
    assert record.exc_info


async def test_worker_logs_a_dead_letter_of_a_handler_that_returns(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    queue = ScriptedQueue(clock, 1)

    async def handle(claim: Claim) -> None:
        await queue.fail(claim, "HTTP 503", retry=False)

    async with working(queue) as worker:
        summary = await run_to_end(worker, handle, clock)
    assert counts(summary) == (0, 0, 1, 0, 0)
    (record,) = [record for record in worker_logs(caplog) if record.levelno >= logging.WARNING]
    assert (record.levelno, record.getMessage()) == (logging.ERROR, f"{URL} is given up after attempt 1")


@pytest.mark.parametrize(
    ("status", "fate"),
    [(FrontierStatus.COMPLETED, "after it was completed"), (FrontierStatus.SKIPPED, "after it was skipped")],
)
async def test_worker_says_that_a_handler_had_settled_its_claim_before_it_raised(
    clock: ManualClock, caplog: pytest.LogCaptureFixture, status: FrontierStatus, fate: str
) -> None:
    queue = ScriptedQueue(clock, 1)

    async def handle(claim: Claim) -> None:
        queue.note("settled", [claim], status)
        raise ValueError("too late")

    fates: list[Any] = []
    async with working(queue) as worker:
        summary = await run_to_end(
            worker, handle, clock, on_error=lambda claim, _: fates.append(claim.settled_as)
        )
    assert queue.done == [("i0", "settled")]
    assert fates == [status]
    is_completed = status is FrontierStatus.COMPLETED
    assert counts(summary) == (is_completed, 0, 0, not is_completed, 0)
    (record,) = [record for record in worker_logs(caplog) if record.levelno >= logging.WARNING]
    assert record.levelno == logging.WARNING
    assert f"failed in attempt 1, {fate}: ValueError" in record.getMessage()


@pytest.mark.parametrize("is_lost", [True, False])
async def test_worker_reports_the_error_of_a_handler_whose_claim_cannot_be_settled(
    clock: ManualClock, caplog: pytest.LogCaptureFixture, is_lost: bool
) -> None:
    queue = ScriptedQueue(clock, 1)
    refused = RequestRejectedError("refused", code="Validation", operation="UpdateItem", table=None)
    fates: list[Any] = []

    async def handle(claim: Claim) -> None:
        queue.settlement_errors = [LeaseLostError([claim]) if is_lost else refused]
        raise ValueError("broken")

    async with working(queue) as worker:
        summary = await run_to_end(
            worker, handle, clock, on_error=lambda claim, _: fates.append(claim.settled_as)
        )
    assert (queue.done, fates) == ([], [None])
    assert counts(summary) == (0, 0, 0, 0, is_lost)
    _, record = [record for record in worker_logs(caplog) if record.levelno >= logging.WARNING]
    assert record.levelno == logging.WARNING
    assert "it will be claimed again when its lease has ended: ValueError" in record.getMessage()


async def test_worker_calls_on_error_after_the_claim_is_settled(clock: ManualClock) -> None:
    seen: list[Any] = []
    error = ValueError("broken")

    def on_error(claim: Claim, raised: Exception) -> None:
        seen.append((claim.item.url, claim.ended, claim.settled_as, raised))

    await run_one(clock, error, on_error=on_error)
    assert seen == [(URL, True, FrontierStatus.PENDING, error)]


async def test_worker_logs_an_error_of_on_error_and_continues(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    def on_error(claim: Claim, error: Exception) -> None:
        raise RuntimeError("no e-mail server")

    queue = ScriptedQueue(clock, 3)
    async with working(queue, 1) as worker:
        summary = await run_to_end(worker, raising(ValueError("broken")), clock, on_error=on_error)
    assert counts(summary) == (0, 3, 0, 0, 0)
    errors = [record for record in worker_logs(caplog) if record.levelno == logging.ERROR]
    assert [record.getMessage() for record in errors] == [
        f"on_error raised an error for https://example.com/i{i}" for i in range(3)
    ]
    assert "RuntimeError: no e-mail server" in caplog.text


async def test_worker_refuses_an_on_error_that_cannot_be_called(clock: ManualClock) -> None:
    async with working(ScriptedQueue(clock, 1)) as worker:
        with pytest.raises(InvalidArgumentError, match="on_error: must be a function"):
            await worker.run(raising(ValueError()), on_error="log it")  # type: ignore[arg-type] # on purpose


async def test_worker_returns_and_logs_a_summary_that_counts_how_each_item_was_settled(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    queue = ScriptedQueue(clock, 8)

    async def handle(claim: Claim) -> None:
        match claim.item.item_id:
            case "i0":
                await clock.sleep(10)
            case "i1":
                raise ValueError("broken")
            case "i2":
                raise DoNotRetry("never")
            case "i3":
                raise Skip("unwanted")
            case "i4":
                # As `put_back` does, or a commit of a failed fetch.
                queue.note("put back", [claim], FrontierStatus.PENDING)
            case "i5":
                queue.note("skipped", [claim], FrontierStatus.SKIPPED)
            case "i6":
                queue.note("given up", [claim], FrontierStatus.FAILED)

    async with working(queue, 8) as worker:
        summary = await run_to_end(worker, handle, clock)
    assert summary == WorkSummary(
        completed=2, retried=2, failed=2, skipped=2, lost=0, seconds=summary.seconds
    )
    assert (worker.completed, worker.retried, worker.failed, worker.skipped, worker.lost) == (2, 2, 2, 2, 0)
    assert 10 <= summary.seconds < 20
    assert summary.pages_per_second == 4 / summary.seconds
    assert [record.getMessage() for record in worker_logs(caplog) if record.levelno == logging.INFO] == [
        f"the worker has ended: {summary}"
    ]


def test_work_summary_as_text() -> None:
    summary = WorkSummary(completed=1500, retried=3, failed=2, skipped=500, lost=1, seconds=40.0)
    assert str(summary) == (
        "1,500 completed, 3 retried, 2 failed, 500 skipped, 1 lost in 40.0 s (50.0 pages/s)"
    )
    nothing = WorkSummary(completed=0, retried=0, failed=0, skipped=0, lost=0, seconds=0.0)
    assert nothing.pages_per_second == 0


async def test_worker_logs_its_summary_on_sigterm_too(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """One handler has ended, one had settled its claim when it was cancelled, one claim is released."""
    caplog.set_level(logging.INFO)
    queue = ScriptedQueue(clock, 3)

    async def handle(claim: Claim) -> None:
        if claim.item.item_id == "i0":
            return
        if claim.item.item_id == "i1":
            await queue.complete([claim])
        await asyncio.Event().wait()

    async def terminate() -> None:
        await settle()
        signal.raise_signal(signal.SIGTERM)
        await settle()
        clock.advance(GRACE)

    async with working(queue, 3) as worker:
        terminating = asyncio.create_task(terminate())
        with pytest.raises(SystemExit):
            await worker.run(handle)
        await terminating
    assert queue.done == [("i0", "completed"), ("i1", "completed"), ("i2", "released")]
    (ended,) = [record for record in worker_logs(caplog) if record.levelno == logging.INFO]
    assert ended.getMessage().startswith("the worker has ended: 2 completed, 1 retried, 0 failed, 0 skipped")
