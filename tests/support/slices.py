"""Follows the cursors of a listing."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from ragcrawl_dynamo import Slice

T = TypeVar("T")


async def all_slices(read: Callable[[str | None], Awaitable[Slice[T]]]) -> list[Slice[T]]:
    """Returns every slice of a listing, from the first to the one without a cursor."""
    slices = [await read(None)]
    while slices[-1].cursor is not None:
        slices.append(await read(slices[-1].cursor))
    return slices
