"""Defines the protocols of an index of chunks and of a splitter."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from inspect import isawaitable, iscoroutinefunction
from typing import Any, Protocol, TypeAlias, TypeVar

from ragcrawl_dynamo.integrations.chunks import Chunk, Passage
from ragcrawl_dynamo.models import PageVersion

__all__ = ["ChunkIndex", "Splitter"]

T = TypeVar("T")

Splitter: TypeAlias = Callable[[PageVersion], Iterable[str | Passage]]
"""Splits the text of a version, `text_of(version)`, into a list of texts or Passages.

It is a plain function, and runs in a thread."""


class ChunkIndex(Protocol):
    """Stores chunks for search, with their embeddings.

    Its methods may be async functions, or plain ones, which run in a thread of their own: one call at a
    time, but not always in the same thread. Such a call is never cancelled, and a sync that is cancelled
    waits for it. When a method returns, its changes have to be durable.
    """

    def upsert(self, chunks: Sequence[Chunk]) -> Awaitable[None] | None:
        """Embeds and stores chunks. A chunk with an id that is already there replaces the stored one."""
        ...

    def delete(self, ids: Sequence[str]) -> Awaitable[None] | None:
        """Removes chunks by their ids. An id that is not there is ignored."""
        ...


async def call(method: Callable[[Any], Any], argument: Any) -> None:
    """Calls a method of an index, in a thread unless it is an async function."""
    if iscoroutinefunction(method):
        await method(argument)
    else:
        result = await asyncio.to_thread(method, argument)
        if isawaitable(result):
            await result


def batches(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yields values in batches of at most `size`."""
    for i in range(0, len(values), size):
        yield values[i : i + size]
