"""Processes that are killed at any of their steps while they sync an index."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig
from ragcrawl_dynamo._utils.clock import Clock
from ragcrawl_dynamo.integrations import Chunk, ChunkIndex, sync_index
from ragcrawl_dynamo.integrations.index import call
from ragcrawl_dynamo.testing import ManualClock
from tests.support.indexes import (
    ReadableIndex,
    chunks_of_site,
    edit,
    fill_small,
    paragraphs,
    remove,
    split,
    write,
)

T = TypeVar("T")

# Longer than a lease, and the difference of clocks that is allowed for.
AFTER_THE_LEASE = 120.0


class KilledError(Exception):
    """The process was killed."""


class Death:
    """Kills a process at one of its steps. Nothing that it does later reaches anyone.

    Args:
        at: The number of the step, from 1; None if it lives.
        after: Whether the step itself is still done, although the process never learns of it.
    """

    def __init__(self, at: int | None = None, *, after: bool = False) -> None:
        self.steps = 0
        self.is_dead = False
        self._at = at
        self._after = after

    async def step(self, work: Callable[[], Awaitable[T]]) -> T:
        if self.is_dead:
            raise KilledError
        self.steps += 1
        self.is_dead = self.steps == self._at
        if self.is_dead and not self._after:
            raise KilledError
        result = await work()
        if self.is_dead:
            raise KilledError
        return result


class MortalIndex:
    """Passes calls on to an index, in two steps each: half of the chunks are stored without the others."""

    def __init__(self, index: ChunkIndex, death: Death) -> None:
        self._index = index
        self._death = death

    async def upsert(self, chunks: Sequence[Chunk]) -> None:
        await self._halves(self._index.upsert, chunks)

    async def delete(self, ids: Sequence[str]) -> None:
        await self._halves(self._index.delete, ids)

    async def _halves(self, method: Callable[[Any], Any], values: Sequence[Any]) -> None:
        middle = len(values) // 2
        for half in (values[:middle], values[middle:]):
            await self._death.step(lambda half=half: call(method, half))  # type: ignore[misc] # no type for half


@asynccontextmanager
async def mortal(config: DynamoDBConfig, clock: Clock, death: Death) -> AsyncIterator[DynamoDBBackend]:
    """A backend of another process, each of whose requests is a step."""
    async with DynamoDBBackend(config, clock=clock) as backend:
        gateway: Any = backend._rooms.gateway
        send = gateway._await_client

        async def step(*args: Any) -> Any:
            return await death.step(lambda: send(*args))

        gateway._await_client = step
        try:
            yield backend
        finally:
            del gateway._await_client


Work = Callable[[DynamoDBBackend, MortalIndex, str], Awaitable[object]]


async def killed_at_every_step(
    backend: DynamoDBBackend,
    config: DynamoDBConfig,
    clock: ManualClock,
    new_index: Callable[[], ReadableIndex],
    work: Work,
    *,
    after: bool,
) -> int:
    """Kills work on an index named "search" at each step in turn; the next sync has to complete it.

    The killed process leaves its lease. Every other time, the site changes again before the next sync.

    Returns:
        The number of steps.
    """
    step, is_complete = 0, False
    while not is_complete:
        step += 1
        site_id, index, death = f"site{step}", new_index(), Death(step, after=after)
        await fill_small(backend, site_id)
        await sync_index(backend, site_id, "search", index, split)
        await edit(backend, site_id)
        async with mortal(config, clock, death) as dying:
            with suppress(KilledError):
                await work(dying, MortalIndex(index, death), site_id)
            is_complete = not death.is_dead
        clock.advance(AFTER_THE_LEASE)
        if step % 2:
            await write(backend, "a", paragraphs("a for the third time", 2), site_id)
            await write(backend, "c", paragraphs("c", 1), site_id)
            await remove(backend, "new", site_id)
            await write(backend, "b", paragraphs("b is back", 3), site_id)
        await sync_index(backend, site_id, "search", index, split)
        assert index.texts() == await chunks_of_site(backend, site_id), step
    return step
