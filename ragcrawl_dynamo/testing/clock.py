"""A clock that a test moves: leases expire and delays end only when the test advances the time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

__all__ = ["ManualClock"]


class ManualClock:
    """Stands still until `advance` is called. Pass it as `DynamoDBBackend(config, clock=ManualClock())`.

    A task that sleeps by this clock, such as a waiting `claim`, sleeps until `advance` has moved the time far
    enough.
    """

    def __init__(self, start: datetime | None = None) -> None:
        """Sets the time to `start`, or to the present time."""
        self._start = start or datetime.now(UTC)
        self._passed = 0.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []
        self._begun = asyncio.Event()

    def now(self) -> datetime:
        """Returns the time of day in UTC."""
        return self._start + timedelta(seconds=self._passed)

    def monotonic(self) -> float:
        """Returns the seconds that have passed since the clock was created."""
        return self._passed

    async def sleep(self, seconds: float) -> None:
        """Waits until `advance` has moved the time by that many seconds."""
        sleeper = (self._passed + seconds, asyncio.get_running_loop().create_future())
        self._sleepers.append(sleeper)
        self._begun.set()
        try:
            await sleeper[1]
        finally:
            self._sleepers.remove(sleeper)

    def advance(self, seconds: float) -> None:
        """Moves the time forward, and wakes the tasks that have slept long enough."""
        self._passed += seconds
        for until, sleeper in self._sleepers:
            if until <= self._passed and not sleeper.done():
                sleeper.set_result(None)

    async def wait_for_sleeper(self) -> None:
        """Waits in real time until a task sleeps by this clock."""
        while all(sleeper.done() for _, sleeper in self._sleepers):
            self._begun.clear()
            await self._begun.wait()
