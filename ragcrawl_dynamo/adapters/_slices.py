"""Reads listings: closes them, applies offset and limit, and follows the cursors of their slices."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any, TypeVar

from ragcrawl_dynamo import Slice

T = TypeVar("T")


def closing(records: AsyncIterator[T]) -> AbstractAsyncContextManager[AsyncIterator[T]]:
    """Closes an iterator at the end of an `async with` block. The backend's iterators are generators."""
    generator: Any = records
    return aclosing(generator)


async def sliced(records: AsyncIterator[T], offset: int, limit: int | None) -> AsyncGenerator[T, None]:
    """Yields up to `limit` records, all if None, from position `offset` on. The first position is 0."""
    if limit == 0:
        return
    position = 0
    async with closing(records) as remaining:
        async for record in remaining:
            if position >= offset:
                yield record
            position += 1
            if limit is not None and position >= offset + limit:
                return


async def all_slices(read_slice: Callable[[str | None], Awaitable[Slice[T]]]) -> AsyncGenerator[T, None]:
    """Yields the records of all slices. `read_slice` reads one slice, from a cursor on."""
    cursor: str | None = None
    while True:
        records = await read_slice(cursor)
        for record in records:
            yield record
        cursor = records.cursor
        if cursor is None:
            return
