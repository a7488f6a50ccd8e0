"""Runs several awaitables at once: all of them, a bounded number, or a few ahead of their consumer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


async def gather(awaitables: Iterable[Any]) -> list[Any]:
    """Awaits all at once; if one fails the others are cancelled, and its error is raised."""
    tasks = [asyncio.ensure_future(each) for each in awaitables]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def gather_bounded(call: Callable[[T], Awaitable[R]], values: Iterable[T], at_once: int) -> list[R]:
    """The results of a call for each value, in their order, at most `at_once` of them in flight."""
    slots = asyncio.Semaphore(at_once)

    async def within_slot(value: T) -> R:
        async with slots:
            return await call(value)

    return await gather(within_slot(value) for value in values)


async def read_ahead(reads: AsyncIterable[Callable[[], Awaitable[T]]], count: int) -> AsyncGenerator[T, None]:
    """The results of reads in their order, up to `count` of them started ahead. Use it within `aclosing`."""
    running: deque[asyncio.Future[T]] = deque()
    try:
        async for read in reads:
            running.append(asyncio.ensure_future(read()))
            if len(running) > count:
                yield await running.popleft()
        while running:
            yield await running.popleft()
    finally:
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)
