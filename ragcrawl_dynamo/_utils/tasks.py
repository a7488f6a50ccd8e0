"""Runs work to its end even if the caller is cancelled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

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
        # If the caller was cancelled, nobody else sees the error.
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.debug("a task failed: %r", error)
