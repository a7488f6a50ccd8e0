"""Runs handlers for claimed items: claims items, renews their leases meanwhile, and settles the claims."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self, TypeAlias

from ragcrawl_dynamo._frontier.claim import Claim
from ragcrawl_dynamo._frontier.handler_errors import HandlerErrors
from ragcrawl_dynamo._frontier.handling import DoNotRetry, Skip, WorkerSettings, WorkSummary
from ragcrawl_dynamo._frontier.lease_keeper import LeaseKeeper, RenewsLeases
from ragcrawl_dynamo._frontier.outage import PAUSE_SECONDS, Outage, may_pass
from ragcrawl_dynamo._utils.clock import Clock
from ragcrawl_dynamo._utils.concurrency import run_until
from ragcrawl_dynamo._utils.validation import check_callable
from ragcrawl_dynamo.errors import (
    FrontierCancelledError,
    InvalidInputError,
    LeaseLostError,
    RagcrawlDynamoError,
)
from ragcrawl_dynamo.models import FrontierStatus

__all__ = ["Worker"]

logger = logging.getLogger(__name__)

# Seconds that a claim waits for items before the worker checks whether the run is finished: at first, and at
# most.
_WAIT_SECONDS = 1.0
_LONGEST_WAIT_SECONDS = 10.0

# The exit status of a process that SIGTERM ended, by the convention of shells.
_TERMINATED = 128 + signal.SIGTERM

ErrorObserver: TypeAlias = Callable[[Claim, Exception], object]


class Queue(RenewsLeases, Protocol):
    """The part of a frontier that a worker uses."""

    async def claim(
        self,
        limit: int,
        *,
        lease_seconds: float,
        worker_id: str | None,
        wait_seconds: float,
        until_finished: bool,
    ) -> list[Claim]:
        """See Frontier."""
        ...

    async def complete(self, claims: Sequence[Claim]) -> None:
        """See Frontier."""
        ...

    async def fail(self, claim: Claim, error: str | BaseException, *, retry: bool) -> bool:
        """See Frontier."""
        ...

    async def skip(self, claim: Claim, reason: str) -> None:
        """See Frontier."""
        ...

    async def release(self, claims: Sequence[Claim]) -> None:
        """See Frontier."""
        ...

    async def is_finished(self) -> bool:
        """See Frontier."""
        ...


class Worker:
    """Runs a handler for each claimed item. Get it by `Frontier.worker`, and use it in `async with`.

    The worker renews the lease of an item while its handler runs. It completes the item when the handler
    returns, fails it when the handler raises, and releases it when the handler is cancelled. A handler that
    raises `Skip` skips its item. One that raises `DoNotRetry` or `InvalidInputError` makes it a dead letter.
    A handler may settle its claim itself by any method of the frontier. Errors of handlers are logged at
    level warning, dead letters at level error. The traceback is logged with each dead letter, and once for
    each type of error and line that raised it. If a lease is lost, or cannot be renewed until
    `frontier_max_clock_skew` seconds before its end, the worker cancels the handler.

    While DynamoDB cannot be reached, fails or throttles, the worker tries again: to claim for
    `outage_seconds`, and to settle an item as long as its lease runs.

    On SIGTERM the worker claims nothing more and waits `grace_seconds` for the handlers. It then cancels
    them, which releases their items, and `run` raises SystemExit(143), so that the process closes what it has
    open. If the process already handles the signal, as web servers do, the worker leaves that handler alone.

    Attributes:
        completed: How many items were completed.
        retried: How many items went back into the queue, to be tried again.
        failed: How many items have failed for good: dead letters.
        skipped: How many items were skipped.
        lost: How many handlers lost their lease.
    """

    def __init__(self, queue: Queue, clock: Clock, settings: WorkerSettings) -> None:
        self._queue = queue
        self._clock = clock
        self._settings = settings
        self._running: dict[asyncio.Task[None], Claim] = {}
        self._lost: set[str] = set()
        self._keeper = LeaseKeeper(queue, clock, settings.lease, self._on_lost)
        self._outage = Outage(clock, settings.outage_seconds)
        # The error that ends the worker: one of a handler that is not an Exception, or that of an outage.
        self._fatal: BaseException | None = None
        self._is_open = False
        self._stop = asyncio.Event()
        self._terminated = asyncio.Event()
        self._has_signal = False
        self._on_error: ErrorObserver | None = None
        self._errors = HandlerErrors()
        self.completed: int = 0
        self.retried: int = 0
        self.failed: int = 0
        self.skipped: int = 0
        self.lost: int = 0

    async def __aenter__(self) -> Self:
        """Starts to renew leases, and to handle SIGTERM."""
        await self._keeper.__aenter__()
        self._is_open = True
        self._take_signal()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cancels the running handlers, which releases their items."""
        if self._has_signal:
            asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
        await self._cancel_handlers()
        await self._keeper.__aexit__(kind, error, trace)

    def stop(self) -> None:
        """Stops claiming: `run` returns after the running handlers have ended."""
        self._stop.set()

    async def run(
        self, handler: Callable[[Claim], Awaitable[object]], *, on_error: ErrorObserver | None = None
    ) -> WorkSummary:
        """Runs a handler for each claim, until the run is finished or cancelled. It waits while it is paused.

        If it raises, all handlers have ended, and what could be released is released. An error of a handler
        that is no Exception, such as SystemExit or pytest.exit(), ends it too.

        Args:
            handler: Called with each claim, up to `concurrency` times at once. Its result is ignored.
            on_error: Called with the claim and the error when a handler raises, after the claim is settled.
                `claim.settled_as` is FAILED for a dead letter, PENDING if the item is tried again, None if
                the lease was lost, and as the handler has settled it, if it has. Its errors are logged.

        Returns:
            How many items the worker has handled, by their outcome.

        Raises:
            ServiceError: DynamoDB refused a request, or has not served the worker for `outage_seconds`.
            ClockSkewError: This machine's clock is off by more than half of `frontier_max_clock_skew`.
            SystemExit: The process got SIGTERM, and the handlers have ended.
        """
        if not self._is_open:
            raise RuntimeError("use the worker in 'async with'")
        check_callable("on_error", on_error)
        self._on_error = on_error
        started = self._clock.monotonic()
        try:
            await self._work(handler)
        except Exception as error:
            self._fatal = error
            await self._cancel_handlers()
            raise
        finally:
            summary = WorkSummary(
                completed=self.completed,
                retried=self.retried,
                failed=self.failed,
                skipped=self.skipped,
                lost=self.lost,
                seconds=self._clock.monotonic() - started,
            )
            logger.info("the worker has ended: %s", summary)
        return summary

    async def _work(self, handler: Callable[[Claim], Awaitable[object]]) -> None:
        """Claims items and runs the handler, until there is nothing more to do."""
        wait = _WAIT_SECONDS
        while not self._stop.is_set():
            free = self._settings.concurrency - len(self._running)
            if not free:
                await self._any_of(self._running, self._stop.wait())
                continue
            begun = self._clock.monotonic()
            try:
                claims = await run_until(self._stop, self._claim(free, wait)) or []
                is_idle = not claims and not self._running
                if is_idle and await run_until(self._stop, self._queue.is_finished()):
                    break
            except FrontierCancelledError:
                break
            except RagcrawlDynamoError as error:
                self._outage.note(error, begun)
                logger.warning("claiming failed; it is tried again: %s", error)
                await run_until(self._stop, self._clock.sleep(PAUSE_SECONDS))
                continue
            self._outage.end()
            for claim in claims:
                task = asyncio.create_task(self._handle(claim, handler))
                self._running[task] = claim
                self._keeper.hold([claim])
                task.add_done_callback(self._let_go)
            wait = _WAIT_SECONDS if claims or self._running else min(2 * wait, _LONGEST_WAIT_SECONDS)
        while self._running and self._fatal is None and not self._terminated.is_set():
            await self._any_of(self._running, self._terminated.wait())
        if self._fatal is not None:
            await self._cancel_handlers()
            raise self._fatal
        if self._terminated.is_set():
            await self._end()

    async def _end(self) -> None:
        """Waits `grace_seconds` for the handlers, cancels those that still run, and raises SystemExit."""
        grace = asyncio.ensure_future(self._clock.sleep(self._settings.grace_seconds or 0))
        try:
            while self._running and not grace.done():
                await asyncio.wait({*self._running, grace}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            grace.cancel()
        await self._cancel_handlers()
        raise SystemExit(_TERMINATED)

    async def _claim(self, limit: int, wait: float) -> list[Claim]:
        lease, worker = self._settings.lease.seconds, self._settings.worker_id
        # Otherwise claims would not wait for a handler that runs on after its claim was settled.
        return await self._queue.claim(
            limit, lease_seconds=lease, worker_id=worker, wait_seconds=wait, until_finished=not self._running
        )

    async def _any_of(self, tasks: Iterable[asyncio.Future[Any]], or_else: Coroutine[Any, Any, Any]) -> None:
        """Waits until one of the tasks or another coroutine ends. The tasks continue."""
        or_task = asyncio.ensure_future(or_else)
        try:
            await asyncio.wait({*tasks, or_task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            or_task.cancel()

    async def _cancel_handlers(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _take_signal(self) -> None:
        """Handles SIGTERM, unless the process already does or this thread cannot."""
        if self._settings.grace_seconds is None or threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            return
        # Event loops on Windows do not support signals.
        with suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._on_signal)
            self._has_signal = True

    def _on_signal(self) -> None:
        logger.warning(
            "SIGTERM: waiting for %d handlers for up to %s s, then their items are released",
            len(self._running),
            self._settings.grace_seconds,
        )
        self._terminated.set()
        self.stop()

    async def _handle(self, claim: Claim, handler: Callable[[Claim], Awaitable[object]]) -> None:
        """Runs the handler for one claim, and settles the claim by how the handler ended."""
        try:
            await handler(claim)
        except asyncio.CancelledError:
            if claim.token not in self._lost:
                await self._finish(claim, self._queue.release)
                raise
        except Skip as skip:
            await self._finish(claim, partial(self._skip, reason=str(skip) or "skipped by the handler"))
        except Exception as error:  # the handler is the caller's code and may raise anything
            await self._finish(claim, partial(self._fail, error=error))
            self._report(claim, error)
        except GeneratorExit:
            # The event loop is gone, and nothing can be awaited.
            raise
        except BaseException as error:  # such as SystemExit; raised here, it would end the event loop
            self._fatal = self._fatal or error
            self.stop()
            await self._finish(claim, self._queue.release)
        else:
            await self._finish(claim, self._queue.complete)
            if claim.settled_as is FrontierStatus.FAILED:
                logger.error("%s is given up after attempt %d", claim.item.url, claim.item.attempt)
        finally:
            self._count(claim)

    async def _skip(self, claims: Sequence[Claim], reason: str) -> None:
        await self._queue.skip(claims[0], reason)

    async def _fail(self, claims: Sequence[Claim], error: Exception) -> None:
        text = str(error) or "DoNotRetry" if isinstance(error, DoNotRetry) else error
        # Invalid input is refused at every attempt.
        is_final = isinstance(error, DoNotRetry | InvalidInputError)
        await self._queue.fail(claims[0], text, retry=not is_final)

    def _report(self, claim: Claim, error: Exception) -> None:
        """Logs the error of a handler, and calls the observer of errors."""
        self._errors.log(claim, error)
        if self._on_error is None:
            return
        try:
            self._on_error(claim, error)
        except Exception:  # the observer is the caller's code and may raise anything
            logger.exception("on_error raised an error for %s", claim.item.url)

    def _count(self, claim: Claim) -> None:
        """Counts an item by how it was settled, here or by its handler."""
        match claim.settled_as:
            case FrontierStatus.COMPLETED:
                self.completed += 1
            case FrontierStatus.SKIPPED:
                self.skipped += 1
            case FrontierStatus.FAILED:
                self.failed += 1
            case FrontierStatus.PENDING:
                self.retried += 1

    async def _finish(self, claim: Claim, end: Callable[[Sequence[Claim]], Awaitable[None]]) -> None:
        """Settles a claim, unless its handler has, or its lease is over."""
        if claim.token in self._lost:
            return
        while not claim.ended:
            try:
                await end([claim])
            except LeaseLostError as error:
                self._lost.add(claim.token)
                self.lost += 1
                logger.warning("%s", error)
                return
            except RagcrawlDynamoError as error:
                if not may_pass(error) or self._is_over(claim) or self._fatal is not None:
                    # The lease will expire, and the item will be claimed again.
                    logger.warning(
                        "%s could not be settled; its lease will expire: %s", claim.item.url, error
                    )
                    return
                logger.warning("%s could not be settled; it is tried again: %s", claim.item.url, error)
                await self._clock.sleep(PAUSE_SECONDS)
            else:
                self._outage.end()

    def _is_over(self, claim: Claim) -> bool:
        """Returns whether a claim can count as lost."""
        return claim.deadline - self._settings.lease.margin <= self._clock.monotonic()

    def _let_go(self, task: asyncio.Task[None]) -> None:
        self._keeper.let_go(self._running.pop(task))

    def _on_lost(self, claim: Claim, why: str) -> None:
        """Cancels the handler of a claim whose lease was lost."""
        for task, running in self._running.items():
            if running is claim and claim.token not in self._lost:
                logger.warning("%s: %s; its handler is cancelled", claim.item.url, why)
                self._lost.add(claim.token)
                self.lost += 1
                task.cancel()
