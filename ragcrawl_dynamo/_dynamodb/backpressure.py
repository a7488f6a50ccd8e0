"""Back-pressure: how many operations on one table may be under way, fewer while it throttles."""

from __future__ import annotations

import asyncio
from collections import deque

# Part of the window that is left after a throttle.
_CUT = 0.5


class Window:
    """The operations on one table that may be under way at a time.

    As many as there are connections, until DynamoDB throttles. Then it is half of what is under way, and
    grows by one each time that as many requests have succeeded as it allows: additive increase and
    multiplicative decrease, as TCP does it. An operation keeps its place while it pauses before another try,
    so that what a thousand tasks send to a table that takes nothing is bounded by the window and the growing
    pauses, not by how many they are.

    Source: Chiu and Jain, "Analysis of the Increase and Decrease Algorithms for Congestion Avoidance in
    Computer Networks", 1989.
    """

    def __init__(self, most: int) -> None:
        """`most` is the number of connections."""
        self._most = most
        self._size = float(most)
        self._cut_at = 0.0
        self._under_way = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def size(self) -> int:
        """How many may be under way."""
        return int(self._size)

    @property
    def is_cut(self) -> bool:
        """Whether that is less than the connections allow."""
        return self._size < self._most

    @property
    def is_full(self) -> bool:
        """Whether `enter` has to wait."""
        return self._under_way >= self.size or bool(self._waiting)

    async def enter(self) -> None:
        """Waits for a place, first come, first served."""
        if not self.is_full:
            self._under_way += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # Given a place at the moment at which it was cancelled.
                self.leave()
            raise

    def leave(self) -> None:
        """Gives a place back."""
        self._under_way -= 1
        self._admit(self.size - self._under_way)

    def open(self) -> None:
        """Admits all who wait, for the end of it."""
        self._admit(len(self._waiting))

    def throttled(self, sent: float, now: float) -> None:
        """Notes that DynamoDB throttled a request, or a part of it.

        Args:
            sent: When it was sent. What was sent before the last cut says nothing about the window since.
            now: The same clock now.
        """
        if sent >= self._cut_at:
            self._size = max(1.0, min(self._size, self._under_way) * _CUT)
            self._cut_at = now

    def served(self) -> None:
        """Notes that DynamoDB did a request."""
        if self.is_cut:
            self._size = min(self._most, self._size + 1 / self._size)
            self._admit(self.size - self._under_way)

    def _admit(self, places: int) -> None:
        while self._waiting and places > 0:
            turn = self._waiting.popleft()
            if not turn.done():
                places -= 1
                self._under_way += 1
                turn.set_result(None)
