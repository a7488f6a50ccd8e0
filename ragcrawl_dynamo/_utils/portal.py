"""Runs an event loop in its own thread, for synchronous callers."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Portal:
    """An event loop in a thread, which runs until `close` or until the process ends."""

    def __init__(self, name: str) -> None:
        self._process = os.getpid()
        self._loop = asyncio.new_event_loop()
        # A daemon: the process can end although its user forgot to close the portal.
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    @property
    def is_of_this_process(self) -> bool:
        """Whether the loop runs: a forked process inherits the object, but no thread."""
        return self._process == os.getpid()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine in the loop, and returns its result or raises its error.

        An exception in the waiting thread, such as KeyboardInterrupt, cancels the coroutine.
        """
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Stops the loop, and waits until its thread has ended."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
