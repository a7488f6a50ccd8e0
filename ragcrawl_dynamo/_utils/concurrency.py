"""Runs awaitables concurrently, all or a bounded number, and splits long work so that others run between."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Coroutine, Iterable, Sequence
from itertools import islice
from typing import Any, TypeVar

from ragcrawl_dynamo._utils.clock import Clock

T = TypeVar("T")
R = TypeVar("R")

# Values that are handled before other tasks run again. To check and encode a link takes some 24 µs, and a few
# tasks may do so at the same time.
PER_TURN = 50


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
    """Calls a function for each value, at most `at_once` calls at a time; returns the results in order.

    A value is taken from `values` only when its call can begin, so a generator makes no value before.
    """
    numbered = enumerate(values)
    results: dict[int, R] = {}

    async def work(number: int, value: T) -> None:
        results[number] = await call(value)
        for number, value in numbered:
            results[number] = await call(value)

    await gather([work(*first) for first in islice(numbered, at_once)])
    return [results[number] for number in range(len(results))]


async def in_turns(values: Iterable[T]) -> AsyncGenerator[Sequence[T], None]:
    """Yields values in parts, and lets other tasks run between them.

    Use it where many values are handled and nothing is awaited: meanwhile, no other task of the process runs.
    """
    remaining = iter(values)
    part = list(islice(remaining, PER_TURN))
    while part:
        yield part
        if part := list(islice(remaining, PER_TURN)):
            await asyncio.sleep(0)


async def map_in_turns(call: Callable[[T], R], values: Iterable[T]) -> list[R]:
    """Calls a function for each value, and lets other tasks run in between; returns the results in order."""
    return [call(value) async for part in in_turns(values) for value in part]


async def run_until(event: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """Returns the result of work; cancels it and returns None if an event is set before."""
    working, is_set = asyncio.ensure_future(work), asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait((working, is_set), return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        working.cancel()
        is_set.cancel()
        await asyncio.gather(working, is_set, return_exceptions=True)


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
