"""Offsets and limits, which other crawlers have where there are cursors here."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, TypeVar

_T = TypeVar("_T")


async def sliced(records: AsyncIterator[_T], first: int, count: int | None) -> AsyncGenerator[_T, None]:
    """Up to `count` of what an iterator gives, all if None, from the `first` on, counted from 0."""
    if count == 0:
        return
    passed = 0
    every: Any = records
    async with aclosing(every):
        async for record in every:
            if passed >= first:
                yield record
            passed += 1
            if count is not None and passed >= first + count:
                return
