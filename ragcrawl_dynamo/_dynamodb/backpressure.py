"""Back-pressure: a bound on the operations in flight on one table, lower while DynamoDB throttles it."""

from __future__ import annotations

import asyncio
from collections import deque

# Part of the window that is left after a cut.
_CUT = 0.5

# Over about how many requests the share of throttled ones is measured, and above which share the table is
# taken for throttled. One partition that is throttled among others does not reach it.
_MEMORY = 32
_MOST = 0.5


class PermitWindow:
    """Gives out permits for operations on one table: an operation holds one while it is in flight.

    The window has as many permits as there are connections, until DynamoDB throttles most requests. Then it
    shrinks to half of the permits that are held, with each throttled request. It grows by one permit each
    time that as many requests have succeeded as it has permits: additive increase and multiplicative
    decrease, as TCP does it. If only some requests are throttled, a partition is overloaded and not the
    table: the window stays as it is.

    Source: Chiu and Jain, "Analysis of the Increase and Decrease Algorithms for Congestion Avoidance in
    Computer Networks", 1989.

    Args:
        connections: The number of connections, which is the largest size.
    """

    def __init__(self, connections: int) -> None:
        self._max_size = connections
        self._size = float(connections)
        self._cut_at = 0.0
        # The share of throttled requests among the latest ones.
        self._throttled = 0.0
        self._held = 0
        self._waiters: deque[asyncio.Future[None]] = deque()

    @property
    def size(self) -> int:
        """The number of permits."""
        return int(self._size)

    @property
    def is_cut(self) -> bool:
        """Whether throttling has shrunk the window."""
        return self._size < self._max_size

    @property
    def is_full(self) -> bool:
        """Whether `acquire` has to wait."""
        return self._held >= self.size or bool(self._waiters)

    async def acquire(self) -> None:
        """Takes a permit; waits for one if none is free, first come, first served."""
        if not self.is_full:
            self._held += 1
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                # The permit came at the moment of the cancellation.
                self.release()
            raise

    def release(self) -> None:
        """Gives a permit back."""
        self._held -= 1
        self._grant(self.size - self._held)

    def grant_all(self) -> None:
        """Gives a permit to every waiting operation, when the window is no longer used."""
        self._grant(len(self._waiters))

    def note_throttled(self, sent: float, now: float) -> None:
        """Notes that DynamoDB has throttled a whole request; halves the window if it throttles most requests.

        Args:
            sent: When the request was sent. A request from before the last cut says nothing about the window
                since then.
            now: The current time of the same clock.
        """
        self._throttled += (1.0 - self._throttled) / _MEMORY
        if self._throttled > _MOST and sent >= self._cut_at:
            self._size = max(1.0, min(self._size, self._held) * _CUT)
            self._cut_at = now

    def note_served(self) -> None:
        """Notes that a request succeeded, or a part of it; widens a window that was cut."""
        self._throttled -= self._throttled / _MEMORY
        if self.is_cut:
            self._size = min(self._max_size, self._size + 1 / self._size)
            self._grant(self.size - self._held)

    def _grant(self, permits: int) -> None:
        while self._waiters and permits > 0:
            waiter = self._waiters.popleft()
            if not waiter.done():
                permits -= 1
                self._held += 1
                waiter.set_result(None)


class Permit:
    """The permit of one operation."""

    def __init__(self, window: PermitWindow) -> None:
        self._window = window
        self._is_held = False

    async def acquire(self) -> None:
        """Takes the permit; waits until one is free."""
        await self._window.acquire()
        self._is_held = True

    def release(self) -> None:
        """Gives the permit back, if it is held."""
        if self._is_held:
            self._is_held = False
            self._window.release()

    async def pause(self, seconds: float) -> None:
        """Waits before another attempt of the operation.

        The permit is kept while the table is throttled. So the load on a table that takes nothing is bounded
        by the window and the growing pauses, and not by the number of tasks. Otherwise others may use it
        meanwhile: operations on one partition that is throttled do not take all permits of the table.
        """
        if self._window.is_cut:
            await asyncio.sleep(seconds)
            return
        self.release()
        await asyncio.sleep(seconds)
        await self.acquire()
