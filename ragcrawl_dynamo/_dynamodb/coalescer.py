"""Forms batches of single calls that are made at the same time.

A call that finds no batch in flight goes out at once, together with the calls of the same turn of the event
loop. A full batch goes out at once too. A call that comes while a batch is in flight waits a few milliseconds
for more calls, but only if many calls come (see `pacing`).

If DynamoDB throttles a call's part of a batch, that call is sent with a later batch, after a pause. The
other calls get their results at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Generic, TypeAlias, TypeVar

from ragcrawl_dynamo._dynamodb.batching import BYTES_PER_BATCH, KeyValues
from ragcrawl_dynamo._dynamodb.pacing import Pacer
from ragcrawl_dynamo._dynamodb.retry import full_jitter, is_spent
from ragcrawl_dynamo._utils.tasks import Tasks
from ragcrawl_dynamo.config import DynamoDBConfig
from ragcrawl_dynamo.errors import BackendClosedError, RagcrawlDynamoError

P = TypeVar("P")
R = TypeVar("R")

# Batches in flight, fewer than the pool's default size: full ones make 4,000 writes a second on a table that
# takes a fifth of a second.
_BATCHES_IN_FLIGHT = 32

# Calls that wait or are in flight; further ones wait before they are accepted.
_MAX_CALLS = 2000


@dataclass(eq=False, slots=True)
class PendingCall(Generic[P, R]):
    """A call that waits for its part of a batch.

    Attributes:
        key: The key of its item.
        payload: The part of the call that the batch sends.
        size: The size of the item in bytes.
        deadline: When it is given up, in the event loop's time.
        result: Is set when the batch has ended.
        on_throttled: Called with the seconds of a pause, when the call is throttled.
        throttled: How often it was throttled.
        failures: How often in a row all of its batch was throttled.
    """

    key: KeyValues
    payload: P
    size: int
    deadline: float
    result: asyncio.Future[R]
    on_throttled: Callable[[float], None] | None = None
    throttled: int = 0
    failures: int = 0


@dataclass(frozen=True, slots=True)
class Throttled:
    """The result of a call whose part of a batch DynamoDB has throttled; it can be sent again.

    Attributes:
        error: The error of the call if it is not sent again.
    """

    error: RagcrawlDynamoError


# The result or the error of each key of a batch.
Results: TypeAlias = "Mapping[KeyValues, R | RagcrawlDynamoError | Throttled]"


@dataclass(eq=False)
class Coalescer(Generic[P, R]):
    """Forms batches of calls, and gives each call its own result.

    Attributes:
        config: The settings of retries.
        send: Runs a batch, and returns the result or the error of each key.
        calls_per_batch: The size of a full batch.
        shares_keys: Whether several calls of one key are one part of a batch, as reads are. Otherwise they
            are sent one after the other, in the order in which they were made, as writes are.
    """

    config: DynamoDBConfig
    send: Callable[[Sequence[PendingCall[P, R]]], Awaitable[Results[R]]]
    calls_per_batch: int
    shares_keys: bool
    _waiting: deque[PendingCall[P, R]] = field(default_factory=deque)
    _keys_in_flight: set[KeyValues] = field(default_factory=set)
    _batches_in_flight: int = 0
    # Whether nothing was in flight when the first of the waiting calls came.
    _was_idle: bool = True
    _pacer: Pacer = field(default_factory=Pacer)
    # The next run of `_start`, if one is planned.
    _planned: asyncio.Handle | None = None
    _tasks: Tasks = field(default_factory=Tasks)
    _accepted: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_MAX_CALLS))
    _is_closing: bool = False

    async def submit(
        self,
        key: KeyValues,
        payload: P,
        size: int = 0,
        on_throttled: Callable[[float], None] | None = None,
    ) -> R:
        """Returns the result of one call. A call that is cancelled before it is sent is not sent."""
        async with self._accepted:
            if self._is_closing:
                raise BackendClosedError
            loop = asyncio.get_running_loop()
            deadline = loop.time() + self.config.call_timeout
            call: PendingCall[P, R] = PendingCall(
                key, payload, size, deadline, loop.create_future(), on_throttled
            )
            self._let_wait(call, self._waiting.append)
            return await call.result

    async def close(self) -> None:
        """Sends the calls that wait, and refuses calls that come meanwhile."""
        self._is_closing = True
        try:
            self._start()
            await self._tasks.join()
        finally:
            self._is_closing = False
            self._pacer = Pacer()
            # The next event loop needs a semaphore of its own.
            self._accepted = asyncio.Semaphore(_MAX_CALLS)

    def _let_wait(self, call: PendingCall[P, R], add: Callable[[PendingCall[P, R]], None]) -> None:
        """Adds a call to those that wait, at their end or at their beginning."""
        if not self._waiting:
            self._was_idle = not self._batches_in_flight
        add(call)
        if self._planned is None or len(self._waiting) == self.calls_per_batch:
            # Tasks that run in the same turn of the event loop add their calls before that.
            self._plan(asyncio.get_running_loop().call_soon(self._start))

    def _plan(self, handle: asyncio.Handle | None) -> None:
        if self._planned is not None:
            self._planned.cancel()
        self._planned = handle

    def _start(self) -> None:
        """Starts the batches that may go now, and plans the next start if one has to wait."""
        self._plan(None)
        while self._waiting and self._batches_in_flight < _BATCHES_IN_FLIGHT:
            if (pause := self._pause()) > 0:
                self._plan(asyncio.get_running_loop().call_later(pause, self._start))
                return
            batch = self._take_batch()
            if not batch:
                # All calls that wait are of keys that are in flight.
                return
            self._batches_in_flight += 1
            self._tasks.spawn(self._run(batch))

    def _pause(self) -> float:
        """Returns the seconds until the next batch may go."""
        is_full = len(self._waiting) >= self.calls_per_batch
        is_idle = self._was_idle and not self._batches_in_flight
        if is_full or is_idle or self._is_closing:
            return 0.0
        return self._pacer.pause(asyncio.get_running_loop().time())

    def _take_batch(self) -> list[PendingCall[P, R]]:
        """Takes the calls of the next batch, oldest first; calls whose key is in flight stay."""
        batch: list[PendingCall[P, R]] = []
        keys: set[KeyValues] = set()
        kept: list[PendingCall[P, R]] = []
        bytes_left = BYTES_PER_BATCH
        while self._waiting:
            call = self._waiting[0]
            if call.result.done():
                # Its caller was cancelled.
                self._waiting.popleft()
                continue
            if call.key in keys:
                if self.shares_keys:
                    batch.append(self._waiting.popleft())
                else:
                    kept.append(self._waiting.popleft())
                continue
            if call.key in self._keys_in_flight:
                kept.append(self._waiting.popleft())
                continue
            if len(keys) == self.calls_per_batch or (batch and call.size > bytes_left):
                break
            bytes_left -= call.size
            keys.add(call.key)
            batch.append(self._waiting.popleft())
        self._waiting.extendleft(reversed(kept))
        if not self.shares_keys:
            self._keys_in_flight |= keys
        return batch

    async def _run(self, batch: list[PendingCall[P, R]]) -> None:
        try:
            results = await self.send(batch)
        except RagcrawlDynamoError as error:
            results = {call.key: error for call in batch}
        except BaseException as error:
            # There is a bug, or the event loop ends. No caller may wait forever.
            for call in batch:
                if not call.result.done():
                    call.result.set_exception(error)
            raise
        finally:
            self._batches_in_flight -= 1
            self._keys_in_flight.difference_update(call.key for call in batch)
        has_progress = any(not isinstance(result, Throttled) for result in results.values())
        for call in batch:
            if call.result.done():
                continue
            result = results[call.key]
            if isinstance(result, Throttled):
                self._send_again(call, result.error, has_progress=has_progress)
            elif isinstance(result, RagcrawlDynamoError):
                call.result.set_exception(_copy(result))
            else:
                call.result.set_result(result)
        if self._waiting:
            self._start()

    def _send_again(self, call: PendingCall[P, R], error: RagcrawlDynamoError, *, has_progress: bool) -> None:
        """Sends a throttled call with a later batch, or fails it if it has been tried for long enough."""
        call.throttled += 1
        call.failures = 0 if has_progress else call.failures + 1
        pause = full_jitter(self.config, call.throttled)
        seconds_left = call.deadline - (asyncio.get_running_loop().time() + pause)
        if is_spent(self.config, call.failures, seconds_left):
            call.result.set_exception(_copy(error))
            return
        if call.on_throttled is not None:
            call.on_throttled(pause)
        if not self.shares_keys:
            # Later calls of the key wait for this one.
            self._keys_in_flight.add(call.key)
        self._tasks.spawn(self._pause_and_wait(call, pause))

    async def _pause_and_wait(self, call: PendingCall[P, R], pause: float) -> None:
        await asyncio.sleep(pause)
        if not self.shares_keys:
            self._keys_in_flight.discard(call.key)
        self._let_wait(call, self._waiting.appendleft)


def _copy(error: RagcrawlDynamoError) -> RagcrawlDynamoError:
    """Copies an error: if several tasks raised one object, it would collect the tracebacks of all of them."""
    copied = copy(error)
    copied.__cause__ = error.__cause__
    return copied
