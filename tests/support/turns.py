"""Counts the turns of the event loop: how often other tasks could run while something worked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass
class Turns:
    """Counts how often a task that is always ready has run."""

    count: int = 0


@asynccontextmanager
async def counting_turns() -> AsyncIterator[Turns]:
    """Runs a task that is always ready, and counts how often it runs."""
    turns = Turns()

    async def count() -> None:
        while True:
            await asyncio.sleep(0)
            turns.count += 1

    task = asyncio.create_task(count())
    # It begins.
    await asyncio.sleep(0)
    try:
        yield turns
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
