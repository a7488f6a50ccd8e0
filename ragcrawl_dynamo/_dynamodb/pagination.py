"""Reads listings: slices with a cursor, and whole partitions page by page in bounded memory."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import aclosing
from dataclasses import replace
from itertools import dropwhile, pairwise
from typing import Any, Generic, TypeVar

from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.batching import delete_all, read_all
from ragcrawl_dynamo._dynamodb.cursors import pack, unpack
from ragcrawl_dynamo._dynamodb.expressions import Between, Compare, Condition
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.key_ranges import split_points
from ragcrawl_dynamo._dynamodb.requests import Query
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._dynamodb.values import Item, Key
from ragcrawl_dynamo._utils.concurrency import map_in_turns
from ragcrawl_dynamo.errors import InvalidArgumentError, InvalidCursorError

__all__ = ["Slice"]

T = TypeVar("T")

# The fewest items that one request reads if a filter drops some of them.
_MIN_FILTERED = 100

# Ranges that are read at once; each holds at most one page of 1 MB and its successor.
RANGES_IN_FLIGHT = 4


class Slice(list[T], Generic[T]):
    """A part of a listing.

    Attributes:
        cursor: Opaque text to pass to the next call; None if nothing follows.
    """

    def __init__(self, items: Iterable[T] = (), cursor: str | None = None) -> None:
        super().__init__(items)
        self.cursor = cursor

    def __repr__(self) -> str:
        return f"Slice({super().__repr__()}, cursor={self.cursor!r})"


def check_limit(limit: int) -> int:
    """Checks that a limit is a whole number of at least 1, and returns it.

    Raises:
        InvalidArgumentError: The limit is not such a number.
    """
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise InvalidArgumentError("limit", f"must be a whole number, not {type(limit).__name__}")
    if limit < 1:
        raise InvalidArgumentError("limit", f"must be at least 1, not {limit!r}")
    return limit


async def read_slice(
    gateway: Gateway,
    query: Query,
    decode: Callable[[Item], T],
    *,
    limit: int,
    cursor: str | None = None,
    more: Sequence[Query] = (),
) -> Slice[T]:
    """Reads the next `limit` items that meet the query's filter, and then those of `more` queries like it.

    Raises:
        InvalidArgumentError: The limit is below 1.
        InvalidCursorError: The cursor is damaged or of another listing.
    """
    check_limit(limit)
    scope = _scope_of(query)
    start = _decode_cursor(cursor, scope, query.key_attributes) if cursor is not None else None
    queries = deque([query, *more])
    if start is not None and more:
        partition = start[query.table.partition_key]["S"]
        queries = deque(dropwhile(lambda query: query.partition != partition, queries))
    items: list[Item] = []
    while queries and len(items) < limit:
        missing = limit - len(items)
        page = max(missing, _MIN_FILTERED) if query.filter else missing
        request = requests.query_request(queries[0], limit=page, start=start)
        response = await gateway.call("Query", request)
        items += response["Items"]
        start = response.get("LastEvaluatedKey")
        if start is None:
            queries.popleft()
    if len(items) > limit or (start is None and queries):
        del items[limit:]
        start = {name: items[-1][name] for name in query.key_attributes}
    return Slice(await map_in_turns(decode, items), _encode_cursor(start, scope) if start else None)


def cursor_after(query: Query, item: Item) -> str:
    """Returns the cursor that a slice of `read_slice` would have if an item, or a key, were its last one."""
    return _encode_cursor({name: item[name] for name in query.key_attributes}, _scope_of(query))


async def read_slice_by_index(
    gateway: Gateway,
    query: Query,
    decode: Callable[[Item], T],
    *,
    limit: int,
    cursor: str | None = None,
) -> Slice[T]:
    """Reads the next `limit` items in the order of the query's index: first their keys, then the items.

    An item that is deleted between the two reads is left out, so a slice can be shorter than its limit.
    """
    # No projection here: DynamoDB Local bills one on a local index as if it read the items themselves.
    indexed = await read_slice(gateway, query, lambda item: item, limit=limit, cursor=cursor)
    keys: list[Key] = [{name: item[name] for name in query.table.primary_key} for item in indexed]
    items = await read_all(gateway, query.table, keys)
    return Slice(await map_in_turns(decode, items), indexed.cursor)


async def read_newest(
    gateway: Gateway, query: Query, by: str, *, limit: int, cursor: str | None = None
) -> Slice[Item]:
    """Reads the next `limit` items of a partition, greatest `by` first; equal ones in no defined order.

    No index orders them: it reads the whole partition, page by page, and keeps the greatest. Use it for
    partitions with few, small items.

    Raises:
        InvalidArgumentError: The limit is below 1.
        InvalidCursorError: The cursor is damaged or of another listing.
    """
    check_limit(limit)
    names = (by, *query.table.primary_key)
    scope = [query.table.name, by, query.partition, repr(query.filter)]

    def rank(item: Item) -> tuple[str, ...]:
        return tuple(item[name]["S"] for name in names)

    before = rank(_decode_cursor(cursor, scope, frozenset(names))) if cursor is not None else None
    newest: list[Item] = []
    async with aclosing(read_pages(gateway, query)) as pages:
        async for _, items in pages:
            older = [item for item in items if before is None or rank(item) < before]
            # One more than the limit tells whether anything follows.
            newest = heapq.nlargest(limit + 1, [*newest, *older], key=rank)
    if len(newest) <= limit:
        return Slice(newest)
    del newest[limit:]
    return Slice(newest, _encode_cursor({name: newest[-1][name] for name in names}, scope))


async def read_table(
    gateway: Gateway, table: Table[Any], decode: Callable[[Item], T], *, limit: int, cursor: str | None = None
) -> Slice[T]:
    """Reads the next `limit` items of a whole table, in no particular order."""
    check_limit(limit)
    scope = [table.name, "", ""]
    start = _decode_cursor(cursor, scope, frozenset(table.primary_key)) if cursor is not None else None
    items: list[Item] = []
    while True:
        request = requests.scan_request(table, limit=limit - len(items), start=start)
        response = await gateway.call("Scan", request)
        items += response["Items"]
        start = response.get("LastEvaluatedKey")
        if start is None or len(items) == limit:
            break
    return Slice(await map_in_turns(decode, items), _encode_cursor(start, scope) if start else None)


async def iterate(read: Callable[[str | None], Awaitable[Slice[T]]]) -> AsyncIterator[T]:
    """Yields everything that a listing with cursors returns, with one slice in memory at a time."""
    cursor: str | None = None
    while True:
        part = await read(cursor)
        for value in part:
            yield value
        if (cursor := part.cursor) is None:
            return


async def read_pages(
    gateway: Gateway, query: Query, *, rest_counts: bool = False, ranges: int = RANGES_IN_FLIGHT
) -> AsyncGenerator[tuple[int, list[Item]], None]:
    """Yields a whole partition of a table, ascending, page by page as (count, items).

    The first page is read alone. If more follows and the sort keys look like hashes, the rest is read in
    ranges, a few at once but yielded in order; otherwise page after page. Use it within `aclosing`, so that
    reads ahead end with their consumer.

    Args:
        gateway: The gateway.
        query: A query of the table itself, ascending, that returns the sort key.
        rest_counts: Whether all pages but the first have a count only.
        ranges: How many ranges are read at once. Each holds two pages in memory.
    """
    response = await gateway.call("Query", requests.query_request(query))
    yield response["Count"], response["Items"]
    if (start := response.get("LastEvaluatedKey")) is None:
        return
    rest_query = replace(query, count=True) if rest_counts else query
    sort_key = query.table.primary_key[-1]
    last = start[sort_key]["S"]
    points = split_points([*(item[sort_key]["S"] for item in response["Items"]), last])
    readers = [
        _RangeReader(gateway, replace(rest_query, sort=keys)) for keys in _ranges(sort_key, last, points)
    ]
    readers[0].start = start
    running: deque[_RangeReader] = deque()
    waiting = deque(readers)
    try:
        while running or waiting:
            while waiting and len(running) < ranges:
                running.append(waiting.popleft())
                running[-1].read_ahead()
            reader = running[0]
            yield await reader.next_page()
            if reader.done:
                running.popleft()
    finally:
        await asyncio.gather(*(reader.cancel() for reader in running))


async def delete_partition(gateway: Gateway, query: Query) -> int:
    """Deletes all items of a partition that meet the query's filter, page by page; returns their number.

    Raises:
        PartialBatchError: Some were not deleted.
    """
    deleted = 0
    async with aclosing(read_pages(gateway, replace(query, attributes=query.table.primary_key))) as pages:
        async for _, keys in pages:
            deleted += await delete_all(gateway, query.table, keys)
    return deleted


class _RangeReader:
    """Reads one range of sort keys, at most one page ahead of its consumer."""

    def __init__(self, gateway: Gateway, query: Query) -> None:
        self.start: Key | None = None
        self.done = False
        self._gateway = gateway
        self._query = query
        self._ahead: asyncio.Task[Any] | None = None

    def read_ahead(self) -> None:
        request = requests.query_request(self._query, start=self.start)
        self._ahead = asyncio.ensure_future(self._gateway.call("Query", request))

    async def next_page(self) -> tuple[int, list[Item]]:
        assert self._ahead is not None  # noqa: S101 # read_ahead() comes first
        response = await self._ahead
        # The task would keep its page in memory.
        self._ahead = None
        self.start = response.get("LastEvaluatedKey")
        self.done = self.start is None
        if not self.done:
            self.read_ahead()
        return response["Count"], response.get("Items", [])

    async def cancel(self) -> None:
        if self._ahead is not None:
            self._ahead.cancel()
            await asyncio.gather(self._ahead, return_exceptions=True)


def _ranges(sort_key: str, last: str, points: Sequence[str]) -> Iterator[Condition | None]:
    """Yields conditions on sort keys: for every key from `last` on, exactly one of them holds."""
    if not points:
        yield None
        return
    yield Between(sort_key, {"S": last}, {"S": points[0]})
    # BETWEEN includes both ends: the next range begins at the successor of a point, the point with a NUL.
    for low, high in pairwise(points):
        yield Between(sort_key, {"S": low + "\0"}, {"S": high})
    yield Compare(sort_key, ">", {"S": points[-1]})


def _scope_of(query: Query) -> list[str]:
    return [query.table.name, query.index or "", query.partition]


def _encode_cursor(key: Key, scope: Sequence[str]) -> str:
    values = {name: value["S"] for name, value in key.items()}
    return pack([*scope, values])


def _decode_cursor(cursor: str, scope: Sequence[str], names: frozenset[str]) -> Key:
    try:
        *of_scope, values = unpack(cursor)
        key: Key = {name: {"S": str(value)} for name, value in values.items()}
    except (ValueError, TypeError, AttributeError):
        raise InvalidCursorError(
            "cursor", "is damaged: pass the `cursor` of the previous slice, unchanged"
        ) from None
    if of_scope != list(scope) or key.keys() != names:
        raise InvalidCursorError("cursor", "belongs to another listing: start this one without a cursor")
    return key
