"""Provides the clock by which leases and delays are judged, so that tests can replace it."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Tells the time and waits. Tests replace it by a clock of their own."""

    def now(self) -> datetime:
        """Returns the present moment, in UTC."""
        ...

    def monotonic(self) -> float:
        """Returns the seconds since an arbitrary moment. The number never decreases."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Waits for a number of seconds."""
        ...


class SystemClock:
    """The clocks of this machine."""

    def now(self) -> datetime:
        """See Clock."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """See Clock."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """See Clock."""
        await asyncio.sleep(seconds)
