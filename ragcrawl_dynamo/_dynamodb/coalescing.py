"""Single writes and reads of many callers, sent together in few, full requests.

A call that finds nothing under way goes out at once, with those that were made in the same turn of the event
loop. What comes while a batch is under way waits for the next one, for a few milliseconds at most, and not
even that where the load is low: how many batches that are not full may go in a second is bounded, no more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.batching import (
    BATCHES_IN_FLIGHT,
    BYTES_PER_BATCH,
    READS_PER_BATCH,
    WRITES_PER_BATCH,
    key_values,
    read_batch,
    write_batch,
)
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._dynamodb.values import Item, Key
from ragcrawl_dynamo._utils.concurrency import gather, gather_bounded
from ragcrawl_dynamo._utils.tasks import Tasks
from ragcrawl_dynamo.errors import (
    AccessDeniedError,
    BackendClosedError,
    RagcrawlDynamoError,
    RequestRejectedError,
)

P = TypeVar("P")
R = TypeVar("R")

# What refuses a whole batch for one of its items, or because it is a batch: then each is tried alone.
_NOT_ALL = (AccessDeniedError, RequestRejectedError)

# Seconds after which one more batch may go that is not full, though others are under way, and how many of
# them may go at once after a while of less. A request costs about a millisecond of CPU (docs/benchmarks.md):
# this bounds what half-empty ones take of it to a twentieth, and what a call waits for company.
_SPACING = 0.02
_BURST = 8.0

# Batches under way, fewer than the pool's default size: full ones make 4,000 writes a second on a table that
# takes a fifth of a second.
_IN_FLIGHT = 32

# Calls that wait or are on their way; further ones wait before they are taken in.
_MOST = 2000


@dataclass(eq=False, slots=True)
class _Entry(Generic[P, R]):
    """A call that waits for its part of a batch."""

    key: Hashable
    payload: P
    size: int
    result: asyncio.Future[R]


Results: TypeAlias = "Mapping[Hashable, R | RagcrawlDynamoError]"


@dataclass(eq=False)
class _Coalescer(Generic[P, R]):
    """Forms batches of calls.

    Attributes:
        send: Does a batch of entries, and returns the result, or the error, of each key.
        per_batch: Entries of a batch.
        shares: Whether several calls of one key are one part of a batch, as reads are. Otherwise they are
            sent one after the other, in the order in which they were made.
    """

    send: Callable[[Sequence[_Entry[P, R]]], Awaitable[Results[R]]]
    per_batch: int
    shares: bool
    _waiting: deque[_Entry[P, R]] = field(default_factory=deque)
    _under_way: set[Hashable] = field(default_factory=set)
    _tasks: Tasks = field(default_factory=Tasks)
    _batches: int = 0
    _allowed: float = _BURST
    _allowed_at: float = 0.0
    _is_fresh: bool = True
    _next: asyncio.Handle | None = None
    _room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_MOST))
    _is_closing: bool = False

    async def submit(self, key: Hashable, payload: P, size: int = 0) -> R:
        """The result of one call. One that is cancelled before it was sent never is."""
        async with self._room:
            if self._is_closing:
                raise BackendClosedError
            loop = asyncio.get_running_loop()
            entry: _Entry[P, R] = _Entry(key, payload, size, loop.create_future())
            if not self._waiting:
                # Nobody has waited while others were under way: it need not either, if none is now.
                self._is_fresh = not self._batches
            self._waiting.append(entry)
            if self._next is None or len(self._waiting) == self.per_batch:
                # After those that run in this turn of the loop: what they call goes along.
                self._start_next(loop.call_soon(self._start))
            return await entry.result

    async def close(self) -> None:
        """Sends what waits, and refuses what comes meanwhile."""
        self._is_closing = True
        try:
            self._start()
            await self._tasks.join()
        finally:
            self._is_closing = False
            self._allowed = _BURST
            # The next event loop's.
            self._room = asyncio.Semaphore(_MOST)

    def _start(self) -> None:
        """Starts as many batches as may be under way."""
        self._start_next(None)
        while self._waiting and self._batches < _IN_FLIGHT:
            if len(self._waiting) < self.per_batch and not self._is_closing and (pause := self._pause()) > 0:
                self._start_next(asyncio.get_running_loop().call_later(pause, self._start))
                return
            batch = self._take()
            if not batch:
                # All that waits is of keys that are under way.
                return
            self._batches += 1
            self._tasks.spawn(self._run(batch))

    def _start_next(self, handle: asyncio.Handle | None) -> None:
        if self._next is not None:
            self._next.cancel()
        self._next = handle

    def _pause(self) -> float:
        """Seconds until a batch that is not full may go; none takes one from those that may."""
        if self._is_fresh and not self._batches:
            return 0.0
        now = asyncio.get_running_loop().time()
        self._allowed = min(_BURST, self._allowed + (now - self._allowed_at) / _SPACING)
        self._allowed_at = now
        if self._allowed < 1.0:
            return (1.0 - self._allowed) * _SPACING
        self._allowed -= 1.0
        return 0.0

    def _take(self) -> list[_Entry[P, R]]:
        """The next batch: what was called first, but nothing that is under way."""
        batch: list[_Entry[P, R]] = []
        keys: set[Hashable] = set()
        kept: list[_Entry[P, R]] = []
        room = BYTES_PER_BATCH
        while self._waiting:
            entry = self._waiting[0]
            if entry.result.done():
                # Cancelled.
                self._waiting.popleft()
                continue
            if entry.key in keys:
                if self.shares:
                    batch.append(self._waiting.popleft())
                else:
                    kept.append(self._waiting.popleft())
                continue
            if entry.key in self._under_way:
                kept.append(self._waiting.popleft())
                continue
            if len(keys) == self.per_batch or (batch and entry.size > room):
                break
            room -= entry.size
            keys.add(entry.key)
            batch.append(self._waiting.popleft())
        self._waiting.extendleft(reversed(kept))
        if not self.shares:
            self._under_way |= keys
        return batch

    async def _run(self, batch: list[_Entry[P, R]]) -> None:
        try:
            results = await self.send(batch)
        except RagcrawlDynamoError as error:
            results = {entry.key: error for entry in batch}
        except BaseException as error:
            # A bug, or the event loop is ended: nobody may wait for ever.
            for entry in batch:
                if not entry.result.done():
                    entry.result.set_exception(error)
            raise
        finally:
            self._batches -= 1
            self._under_way.difference_update(entry.key for entry in batch)
        for entry in batch:
            if entry.result.done():
                continue
            result = results[entry.key]
            if isinstance(result, RagcrawlDynamoError):
                entry.result.set_exception(_own(result))
            else:
                entry.result.set_result(result)
        if self._waiting:
            self._start()


class Puts:
    """Writes of single items of one table: each over whatever is there."""

    def __init__(self, gateway: Gateway, table: Table[Any]) -> None:
        self._gateway = gateway
        self._table = table
        self._calls: _Coalescer[Item, None] = _Coalescer(self._send, WRITES_PER_BATCH, shares=False)

    async def put(self, item: Item, size: int) -> None:
        """Writes an item; returns once it is durable.

        Args:
            item: What to write.
            size: Its bytes.

        Raises:
            BackendStateError: The backend is not open, or is being closed.
            ServiceError: It was not written, or that is unknown.
        """
        self._gateway.require_open()
        if not self._gateway.config.coalescing:
            return await self._put(item)
        return await self._calls.submit(key_values(self._table, item), item, size)

    async def close(self) -> None:
        """Sends what waits."""
        await self._calls.close()

    async def _put(self, item: Item) -> None:
        await self._gateway.call("PutItem", requests.put_request(self._table, item))

    async def _send(self, batch: Sequence[_Entry[Item, None]]) -> Results[None]:
        if len(batch) == 1:
            return {batch[0].key: await _outcome(self._put(batch[0].payload))}
        writes = [requests.put(entry.payload) for entry in batch]
        failed = await write_batch(self._gateway, self._table, writes)
        results: dict[Hashable, RagcrawlDynamoError | None] = {
            entry.key: failed.get(key_values(self._table, entry.payload)) for entry in batch
        }
        alone = [entry for entry in batch if isinstance(results[entry.key], _NOT_ALL)]
        again = await gather_bounded(
            lambda entry: _outcome(self._put(entry.payload)), alone, BATCHES_IN_FLIGHT
        )
        return {**results, **{entry.key: result for entry, result in zip(alone, again, strict=True)}}


class Gets:
    """Reads of single items of one table by full key, strongly consistent.

    Args:
        gateway: Where to read.
        table: The table.
        per_batch: Items of one request; fewer where they are large, since an answer has 16 MB at most.
    """

    def __init__(self, gateway: Gateway, table: Table[Any], *, per_batch: int = READS_PER_BATCH) -> None:
        self._gateway = gateway
        self._table = table
        self._calls: _Coalescer[Key, Item | None] = _Coalescer(self._send, per_batch, shares=True)

    async def get(self, key: Key) -> Item | None:
        """An item; None if there is none. Callers may share it: it is not to be changed.

        Raises:
            BackendStateError: The backend is not open, or is being closed.
            ServiceError: It could not be read.
        """
        self._gateway.require_open()
        if not self._gateway.config.coalescing:
            return await self._get(key)
        return await self._calls.submit(key_values(self._table, key), key)

    async def get_together(self, keys: Sequence[Key]) -> list[Item | None]:
        """Items of different keys, which belong together, in one request; see `get`."""
        self._gateway.require_open()
        if self._gateway.config.coalescing:
            return await gather(self.get(key) for key in keys)
        items = await read_batch(self._gateway, self._table, keys, None)
        found = {key_values(self._table, item): item for item in items}
        return [found.get(key_values(self._table, key)) for key in keys]

    async def close(self) -> None:
        """Sends what waits."""
        await self._calls.close()

    async def _get(self, key: Key) -> Item | None:
        response = await self._gateway.call("GetItem", requests.get_request(self._table, key))
        return response.get("Item")

    async def _send(self, batch: Sequence[_Entry[Key, Item | None]]) -> Results[Item | None]:
        keys = {entry.key: entry.payload for entry in batch}
        if len(keys) == 1:
            return {batch[0].key: await _outcome(self._get(batch[0].payload))}
        try:
            items = await read_batch(self._gateway, self._table, list(keys.values()), None)
        except _NOT_ALL:
            again = await gather_bounded(
                lambda key: _outcome(self._get(key)), keys.values(), BATCHES_IN_FLIGHT
            )
            return dict(zip(keys, again, strict=True))
        found = {key_values(self._table, item): item for item in items}
        return {key: found.get(key) for key in keys}  # type: ignore[call-overload] # they are the same keys


async def _outcome(call: Awaitable[R]) -> R | RagcrawlDynamoError:
    try:
        return await call
    except RagcrawlDynamoError as error:
        return error


def _own(error: RagcrawlDynamoError) -> RagcrawlDynamoError:
    """A copy of an error: raised in several tasks, one would gather the tracebacks of all."""
    own = type(error).__new__(type(error), *error.args)
    own.__dict__.update(error.__dict__)
    own.__cause__ = error.__cause__
    return own
