"""Sends single writes and reads of many callers together, in few, full requests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.batching import (
    BATCHES_IN_FLIGHT,
    READS_PER_BATCH,
    WRITES_PER_BATCH,
    KeyValues,
    by_key,
    key_values,
    left_over,
    read_batch,
    read_once,
    write_batch,
)
from ragcrawl_dynamo._dynamodb.coalescer import Coalescer, PendingCall, Results, Throttled
from ragcrawl_dynamo._dynamodb.conditional_writes import (
    STATEMENTS_PER_BATCH,
    ConditionalWrites,
    Write,
    key_of,
)
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.outcomes import Outcome, is_throttled
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._dynamodb.values import Item, Key
from ragcrawl_dynamo._utils.concurrency import gather, gather_bounded
from ragcrawl_dynamo.errors import (
    AccessDeniedError,
    RagcrawlDynamoError,
    RequestRejectedError,
    ThrottledError,
)

R = TypeVar("R")

# These errors refuse a whole batch for one of its items, or because it is a batch: each call is tried alone.
_BATCH_ERRORS = (AccessDeniedError, RequestRejectedError)


class Puts:
    """Writes single items of one table; each replaces a stored item with its key."""

    def __init__(self, gateway: Gateway, table: Table[Any]) -> None:
        self._gateway = gateway
        self._table = table
        self._calls: Coalescer[Item, None] = Coalescer(
            gateway.config, self._send, WRITES_PER_BATCH, shares_keys=False
        )

    async def put(self, item: Item, size: int) -> None:
        """Writes an item; returns once it is durable.

        Args:
            item: The item.
            size: The size of the item in bytes.

        Raises:
            BackendStateError: The backend is not open, or is being closed.
            ServiceError: The item was not written, or it is unknown whether it was.
        """
        self._gateway.require_open()
        if not self._gateway.config.coalescing:
            return await self._put(item)
        return await self._calls.submit(key_values(self._table, item), item, size)

    async def close(self) -> None:
        """Sends the calls that wait."""
        await self._calls.close()

    async def _put(self, item: Item, *, once: bool = False) -> None:
        async with self._gateway.permit("PutItem", self._table.name, once=once) as budget:
            request = requests.put_request(self._table, item)
            await self._gateway.call("PutItem", request, budget=budget)

    async def _send(self, batch: Sequence[PendingCall[Item, None]]) -> Results[None]:
        if len(batch) == 1:
            return {batch[0].key: await _once(self._put(batch[0].payload, once=True))}
        writes = [requests.put(call.payload) for call in batch]
        failed = await write_batch(self._gateway, self._table, writes, once=True)
        results: dict[KeyValues, RagcrawlDynamoError | Throttled | None] = {
            call.key: _thrown_back(failed.get(key_values(self._table, call.payload))) for call in batch
        }
        alone = [call for call in batch if isinstance(results[call.key], _BATCH_ERRORS)]
        again = await gather_bounded(
            lambda call: _result_or_error(self._put(call.payload)), alone, BATCHES_IN_FLIGHT
        )
        return {**results, **{call.key: result for call, result in zip(alone, again, strict=True)}}


class Gets:
    """Reads single items of one table by full key, strongly consistent.

    Args:
        gateway: The gateway.
        table: The table.
        per_batch: The items of one request; fewer if they are large, since an answer has 16 MB at most.
    """

    def __init__(self, gateway: Gateway, table: Table[Any], *, per_batch: int = READS_PER_BATCH) -> None:
        self._gateway = gateway
        self._table = table
        self._calls: Coalescer[Key, Item | None] = Coalescer(
            gateway.config, self._send, per_batch, shares_keys=True
        )

    async def get(self, key: Key) -> Item | None:
        """Returns an item, or None if there is none. Callers may share it: do not change it.

        Raises:
            BackendStateError: The backend is not open, or is being closed.
            ServiceError: The item could not be read.
        """
        self._gateway.require_open()
        if not self._gateway.config.coalescing:
            return await self._get(key)
        return await self._calls.submit(key_values(self._table, key), key)

    async def get_together(self, keys: Sequence[Key]) -> list[Item | None]:
        """Reads items that belong together in one request; their keys must differ. See `get`."""
        self._gateway.require_open()
        if self._gateway.config.coalescing:
            return await gather(self.get(key) for key in keys)
        items = by_key(self._table, await read_batch(self._gateway, self._table, keys, None))
        return [items.get(key_values(self._table, key)) for key in keys]

    async def close(self) -> None:
        """Sends the calls that wait."""
        await self._calls.close()

    async def _get(self, key: Key, *, once: bool = False) -> Item | None:
        async with self._gateway.permit("GetItem", self._table.name, once=once) as budget:
            request = requests.get_request(self._table, key)
            return (await self._gateway.call("GetItem", request, budget=budget)).get("Item")

    async def _send(self, batch: Sequence[PendingCall[Key, Item | None]]) -> Results[Item | None]:
        keys = {call.key: call.payload for call in batch}
        if len(keys) == 1:
            return {batch[0].key: await _once(self._get(batch[0].payload, once=True))}
        try:
            items, left = await read_once(self._gateway, self._table, list(keys.values()))
        except _BATCH_ERRORS:
            again = await gather_bounded(
                lambda key: _result_or_error(self._get(key)), keys.values(), BATCHES_IN_FLIGHT
            )
            return dict(zip(keys, again, strict=True))
        except ThrottledError as error:
            return dict.fromkeys(keys, Throttled(error))
        items_by_key = by_key(self._table, items)
        results: dict[KeyValues, Item | RagcrawlDynamoError | Throttled | None] = {
            key: items_by_key.get(key) for key in keys
        }
        thrown_back = Throttled(left_over(self._table, "BatchGetItem", len(left), 1))
        return results | {key_values(self._table, key): thrown_back for key in left}


class CoalescedWrites:
    """Runs conditional writes of one table; those of concurrent callers share batches.

    Args:
        gateway: The gateway.
        table: The table.
        writes: Runs a batch.
    """

    def __init__(self, gateway: Gateway, table: Table[Any], writes: ConditionalWrites) -> None:
        self._gateway = gateway
        self._table = table
        self._writes = writes
        self._calls: Coalescer[Write, Outcome] = Coalescer(
            gateway.config, self._send, STATEMENTS_PER_BATCH, shares_keys=False
        )

    async def run(
        self, writes: Sequence[Write], on_throttled: Callable[[int, float], None] | None = None
    ) -> list[Outcome]:
        """Returns the outcome of each write; see ConditionalWrites.

        Args:
            writes: The writes.
            on_throttled: Called when a write is throttled, with its index and the seconds until it is sent
                again.
        """
        if not self._gateway.config.coalescing or len(writes) >= STATEMENTS_PER_BATCH:
            return await self._writes.run(writes)
        self._gateway.require_open()
        return await gather(
            self._calls.submit(
                key_of(self._table, write),
                write,
                on_throttled=None if on_throttled is None else partial(on_throttled, i),
            )
            for i, write in enumerate(writes)
        )

    async def close(self) -> None:
        """Sends the calls that wait."""
        await self._calls.close()

    async def _send(self, batch: Sequence[PendingCall[Write, Outcome]]) -> Results[Outcome]:
        outcomes = await self._writes.run([call.payload for call in batch], once=True)
        results: dict[KeyValues, Outcome | RagcrawlDynamoError | Throttled] = {}
        for call, outcome in zip(batch, outcomes, strict=True):
            if is_throttled(outcome):
                # An attempt before may have done it: then the next one is refused, and has to be recognized.
                call.payload = replace(call.payload, may_be_applied=outcome.may_be_applied)
                results[call.key] = Throttled(outcome.error)
            else:
                results[call.key] = outcome
        return results


async def _once(call: Awaitable[R]) -> R | RagcrawlDynamoError | Throttled:
    """Returns the result of a request that is not sent again if DynamoDB throttles it."""
    return _thrown_back(await _result_or_error(call))


def _thrown_back(result: R) -> R | Throttled:
    return Throttled(result) if isinstance(result, ThrottledError) else result


async def _result_or_error(call: Awaitable[R]) -> R | RagcrawlDynamoError:
    try:
        return await call
    except RagcrawlDynamoError as error:
        return error
