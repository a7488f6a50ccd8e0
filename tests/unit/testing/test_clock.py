"""The clock of tests."""

from __future__ import annotations

import asyncio

from ragcrawl_dynamo.testing import ManualClock
from tests.support.factories import START


async def test_manual_clock_moves_by_advance_only() -> None:
    clock = ManualClock(START)
    sleeping = [asyncio.create_task(clock.sleep(seconds)) for seconds in (1, 3)]
    await clock.wait_for_sleeper()
    clock.advance(2)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [task.done() for task in sleeping] == [True, False]
    assert (clock.now() - START).total_seconds() == clock.monotonic() == 2
    sleeping[1].cancel()
    await asyncio.gather(*sleeping, return_exceptions=True)
