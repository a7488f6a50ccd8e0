"""Runs work to its end even if the caller is cancelled, and starts work when it is due."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from ragcrawl_dynamo._utils.clock import Clock

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Tasks:
    """The background tasks of one owner. The owner awaits them all before it is closed."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    async def uninterrupted(self, work: Coroutine[Any, Any, T]) -> T:
        """Awaits work and returns its result. If the caller is cancelled, the work continues."""
        return await asyncio.shield(self.spawn(work))

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Starts work and returns its task."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    async def join(self) -> None:
        """Waits until all tasks have ended."""
        while self._running:
            await asyncio.gather(*self._running, return_exceptions=True)
            # From Python 3.12 on gather does not yield if all tasks are done, but a task leaves the set only
            # after the loop has run its callback.
            await asyncio.sleep(0)

    async def cancel(self) -> None:
        """Cancels all tasks and waits until they have ended."""
        for task in list(self._running):
            task.cancel()
        await self.join()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        # If the caller was cancelled, the error is raised nowhere else.
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.debug("a background task failed: %r", error)


class DueWork:
    """Starts work in the background when it is due, once at a time, even if nothing else is called.

    Args:
        clock: Measures the time until then.
        tasks: Runs the work.
        start_if_due: Called when the work may have become due; it calls `start_in` again.
        work: The work.
    """

    def __init__(
        self,
        clock: Clock,
        tasks: Tasks,
        start_if_due: Callable[[], object],
        work: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        self._clock = clock
        self._tasks = tasks
        self._start_if_due = start_if_due
        self._work = work
        self._waiting: asyncio.Task[None] | None = None
        self._running: asyncio.Task[None] | None = None

    def start_in(self, seconds: float, interval: float) -> None:
        """Starts the work after some seconds, or now; if it runs already, decides again after an interval."""
        if self._running is not None and not self._running.done():
            seconds = interval
        if seconds <= 0:
            self._running = self._tasks.spawn(self._work())
        elif self._waiting is None:
            self._waiting = asyncio.get_running_loop().create_task(self._wait(seconds))

    async def close(self) -> None:
        """Stops starting work. Work that is running continues."""
        if self._waiting is not None:
            self._waiting.cancel()
            with suppress(asyncio.CancelledError):
                await self._waiting

    async def _wait(self, seconds: float) -> None:
        await self._clock.sleep(seconds)
        self._waiting = None
        self._start_if_due()
