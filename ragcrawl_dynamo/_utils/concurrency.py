"""Runs awaitables concurrently: all of them, a bounded number, or a few ahead of their consumer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from typing import Any, TypeVar

from ragcrawl_dynamo._utils.clock import Clock

T = TypeVar("T")
R = TypeVar("R")


async def gather(awaitables: Iterable[Any]) -> list[Any]:
    """Awaits all awaitables concurrently. If one fails, cancels the others and raises its error."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def gather_bounded(call: Callable[[T], Awaitable[R]], values: Iterable[T], at_once: int) -> list[R]:
    """Calls a function for each value, at most `at_once` calls at a time; returns the results in order."""
    semaphore = asyncio.Semaphore(at_once)

    async def call_bounded(value: T) -> R:
        async with semaphore:
            return await call(value)

    return await gather(call_bounded(value) for value in values)


async def wait_for_event(event: asyncio.Event, clock: Clock, seconds: float) -> None:
    """Waits a number of seconds by a clock, or until an event is set."""
    sleep = asyncio.ensure_future(clock.sleep(seconds))
    is_set = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait((sleep, is_set), return_when=asyncio.FIRST_COMPLETED)
    finally:
        sleep.cancel()
        is_set.cancel()
        await asyncio.gather(sleep, is_set, return_exceptions=True)


async def read_ahead(reads: AsyncIterable[Callable[[], Awaitable[T]]], count: int) -> AsyncGenerator[T, None]:
    """Yields the results of reads in order; starts up to `count` reads ahead. Use it within `aclosing`."""
    running: deque[asyncio.Future[T]] = deque()
    try:
        async for read in reads:
            running.append(asyncio.ensure_future(read()))
            if len(running) > count:
                yield await running.popleft()
        while running:
            yield await running.popleft()
    finally:
        for future in running:
            future.cancel()
        await asyncio.gather(*running, return_exceptions=True)
