"""A worker: claims items, renews their leases while handlers run, and ends them by what the handlers did."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self

from ragcrawl_dynamo._frontier.claim import Claim
from ragcrawl_dynamo._frontier.lease_keeper import LeaseKeeper, LeaseSettings, RenewsLeases
from ragcrawl_dynamo._utils.clock import Clock
from ragcrawl_dynamo.errors import FrontierCancelledError, LeaseLostError, RagcrawlDynamoError

__all__ = ["Worker"]

logger = logging.getLogger(__name__)

# Seconds that a claim waits before the worker asks whether the run is finished, and the most between two such
# questions.
_WAIT_SECONDS = 1.0
_LONGEST_WAIT_SECONDS = 10.0

# By convention of shells, the exit status of a process that a signal ended.
_TERMINATED = 128 + signal.SIGTERM


class Queue(RenewsLeases, Protocol):
    """What a worker needs of a frontier."""

    async def claim(
        self, limit: int, *, lease_seconds: float, worker_id: str | None, wait_seconds: float
    ) -> list[Claim]:
        """See Frontier."""
        ...

    async def complete(self, claims: Sequence[Claim]) -> None:
        """See Frontier."""
        ...

    async def fail(self, claim: Claim, error: str | BaseException) -> None:
        """See Frontier."""
        ...

    async def release(self, claims: Sequence[Claim]) -> None:
        """See Frontier."""
        ...

    async def is_finished(self) -> bool:
        """See Frontier."""
        ...


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How a worker works.

    Attributes:
        concurrency: Handlers that run at a time.
        lease: How long leases last.
        worker_id: Name of the worker, kept with the items.
        grace_seconds: How long handlers may go on after SIGTERM; None leaves the signal alone.
    """

    concurrency: int
    lease: LeaseSettings
    worker_id: str | None = None
    grace_seconds: float | None = None


class Worker:
    """Runs a handler for one item after the other. Get it by `Frontier.worker`, and use it in `async with`.

    While a handler runs, its lease is renewed. When it returns, the item is completed; when it raises, the
    item fails and is tried again later; when it is cancelled, the item is released. A handler may finish its
    claim itself by any method of the frontier. One whose lease is lost, or cannot be renewed in time, is
    cancelled, in the latter case before others may take the item over.

    SIGTERM, where it would end the process anyway, first lets the handlers end, for `grace_seconds`, and then
    cancels them, which releases their items; `run` raises SystemExit(143), so that what is open is closed on
    the way out. A process that handles the signal itself, as web servers do, keeps its handler.

    Attributes:
        completed: Items that were completed.
        failed: Handlers that raised.
        lost: Handlers whose lease was lost.
    """

    def __init__(self, queue: Queue, clock: Clock, settings: WorkerSettings) -> None:
        self._queue = queue
        self._clock = clock
        self._settings = settings
        self._running: dict[asyncio.Task[None], Claim] = {}
        self._lost: set[str] = set()
        self._keeper = LeaseKeeper(queue, clock, settings.lease, self._on_lost)
        self._is_open = False
        self._stop = asyncio.Event()
        self._terminated = asyncio.Event()
        self._has_signal = False
        self.completed = 0
        self.failed = 0
        self.lost = 0

    async def __aenter__(self) -> Self:
        """Starts to renew leases."""
        await self._keeper.__aenter__()
        self._is_open = True
        self._take_signal()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cancels the handlers that run, which releases their items."""
        if self._has_signal:
            asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
        await self._cancel_handlers()
        await self._keeper.__aexit__(kind, error, trace)

    def stop(self) -> None:
        """Lets `run` end once the handlers that run have; nothing more is claimed."""
        self._stop.set()

    async def run(self, handler: Callable[[Claim], Awaitable[object]]) -> None:
        """Handles items until the run is finished or cancelled; waits while it is paused.

        Args:
            handler: Called for each claim. Its result is ignored.

        Raises:
            ServiceError: DynamoDB can not be reached, or refused, for longer than the retries last.
            SystemExit: The process got SIGTERM, and all items are finished or released.
        """
        if not self._is_open:
            raise RuntimeError("use the worker in 'async with'")
        wait = _WAIT_SECONDS
        while not self._stop.is_set():
            free = self._settings.concurrency - len(self._running)
            if not free:
                await self._any_of(self._running, self._stop.wait())
                continue
            claims = await self._claim(free, wait)
            if claims is None:
                break
            for claim in claims:
                task = asyncio.create_task(self._handle(claim, handler))
                self._running[task] = claim
                self._keeper.hold([claim])
                task.add_done_callback(self._let_go)
            if claims:
                wait = _WAIT_SECONDS
            elif not self._running and await self._queue.is_finished():
                break
            else:
                wait = min(2 * wait, _LONGEST_WAIT_SECONDS)
        while self._running and not self._terminated.is_set():
            await self._any_of(self._running, self._terminated.wait())
        if self._terminated.is_set():
            await self._end()

    async def _end(self) -> None:
        """Lets the handlers end for a while, releases the items of those that have not, and exits."""
        grace = asyncio.ensure_future(self._clock.sleep(self._settings.grace_seconds or 0))
        try:
            while self._running and not grace.done():
                await asyncio.wait({*self._running, grace}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            grace.cancel()
        await self._cancel_handlers()
        raise SystemExit(_TERMINATED)

    async def _claim(self, limit: int, wait: float) -> list[Claim] | None:
        """What there is to do; None once the worker is stopped or the run cancelled."""
        claiming = asyncio.ensure_future(
            self._queue.claim(
                limit,
                lease_seconds=self._settings.lease.seconds,
                worker_id=self._settings.worker_id,
                wait_seconds=wait,
            )
        )
        try:
            await self._any_of([claiming], self._stop.wait())
            return await claiming if claiming.done() else None
        except FrontierCancelledError:
            return None
        finally:
            claiming.cancel()
            await asyncio.gather(claiming, return_exceptions=True)

    async def _any_of(self, tasks: Iterable[asyncio.Future[Any]], or_else: Coroutine[Any, Any, Any]) -> None:
        """Waits for the first of the tasks, or something else; the tasks go on."""
        other = asyncio.ensure_future(or_else)
        try:
            await asyncio.wait({*tasks, other}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            other.cancel()

    async def _cancel_handlers(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _take_signal(self) -> None:
        """Handles SIGTERM, unless somebody does or nobody can."""
        if self._settings.grace_seconds is None or threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            return
        # Windows' loops know no signals.
        with suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._on_signal)
            self._has_signal = True

    def _on_signal(self) -> None:
        logger.warning(
            "SIGTERM: %d handlers have %s s to end, then their items are released",
            len(self._running),
            self._settings.grace_seconds,
        )
        self._terminated.set()
        self.stop()

    async def _handle(self, claim: Claim, handler: Callable[[Claim], Awaitable[object]]) -> None:
        try:
            await handler(claim)
        except asyncio.CancelledError:
            if claim.token not in self._lost:
                await self._finish(claim, self._queue.release)
                raise
        except Exception as error:  # whatever a handler raises is its item's failure
            self.failed += 1
            logger.info("item %s failed: %r", claim.item.item_id, error)
            await self._finish(claim, partial(self._fail, error=error))
        else:
            is_completed = await self._finish(claim, self._queue.complete)
            # Added after the wait: meanwhile other handlers count theirs.
            self.completed += is_completed

    async def _fail(self, claims: Sequence[Claim], error: Exception) -> None:
        await self._queue.fail(claims[0], error)

    async def _finish(self, claim: Claim, end: Callable[[Sequence[Claim]], Awaitable[None]]) -> bool:
        """Ends a claim, unless its handler has; False if that could not be done."""
        if claim.token in self._lost:
            return False
        if claim.ended:
            return True
        try:
            await end([claim])
        except LeaseLostError as error:
            self.lost += 1
            logger.warning("%s", error)
            return False
        except RagcrawlDynamoError as error:
            # Its lease will expire, and the item be handled again.
            logger.warning("item %s could not be finished: %s", claim.item.item_id, error)
            return False
        return True

    def _let_go(self, task: asyncio.Task[None]) -> None:
        self._keeper.let_go(self._running.pop(task))

    def _on_lost(self, claim: Claim, why: str) -> None:
        """Cancels the handler of a claim whose lease is lost."""
        for task, running in self._running.items():
            if running is claim:
                logger.warning("item %s: %s, its handler is cancelled", claim.item.item_id, why)
                self._lost.add(claim.token)
                self.lost += 1
                task.cancel()
