"""Writes, deletes and reads many items in few requests, and sends again what DynamoDB left over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.codec import to_sized_item
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.retry import Budget
from ragcrawl_dynamo._dynamodb.sizes import item_size
from ragcrawl_dynamo._dynamodb.table import E, Table
from ragcrawl_dynamo._dynamodb.values import Item, Key
from ragcrawl_dynamo._utils.concurrency import gather_bounded, in_turns
from ragcrawl_dynamo._utils.validation import check_kind
from ragcrawl_dynamo.errors import (
    InvalidInputError,
    PartialBatchError,
    RagcrawlDynamoError,
    ThrottledError,
)

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.type_defs import WriteRequestTypeDef

T = TypeVar("T")

KeyValues: TypeAlias = tuple[str, ...]
# A write, with the bytes of its item.
SizedWrite: TypeAlias = "tuple[WriteRequestTypeDef, int]"
Failures: TypeAlias = dict[KeyValues, RagcrawlDynamoError]

# AWS: BatchWriteItem and BatchGetItem.
WRITES_PER_BATCH = 25
READS_PER_BATCH = 100

# aiohttp warns of bodies over 1 MiB, since sending one blocks the event loop; on the wire an item takes up to
# twice its size.
BYTES_PER_BATCH = 500 * 1024

# Batches of one bulk call that are in flight; measured in
# docs/decisions/0039-eight-batches-in-flight.md.
BATCHES_IN_FLIGHT = 8


async def save_all(gateway: Gateway, table: Table[E], records: Iterable[E]) -> int:
    """Writes records in batches; of several records with one key it writes the last.

    Returns:
        The number of distinct items that were written.

    Raises:
        PartialBatchError: Some cannot be stored or were not written; all others were written.
    """
    by_key: dict[KeyValues, list[E]] = {}
    failures: list[tuple[Any, RagcrawlDynamoError]] = []
    async for part in in_turns(records):
        for record in part:
            try:
                check_kind(table.model.__name__.lower(), record, table.model)
                by_key.setdefault(key_values(table, table.keys(record)), []).append(record)
            except InvalidInputError as error:
                failures.append((record, error))
    sent: dict[KeyValues, E] = {}

    def writes() -> Iterator[SizedWrite]:
        """Encodes the records of a batch when the batch can be sent, not all at once."""
        for key, of_key in by_key.items():
            write: SizedWrite | None = None
            for record in of_key:
                try:
                    item, size = to_sized_item(table, record)
                except InvalidInputError as error:
                    failures.append((record, error))
                else:
                    write, sent[key] = (requests.put(item), size), record
            if write is not None:
                yield write

    failed = await _write(gateway, table, writes())
    failures += [(sent[key], error) for key, error in failed.items()]
    saved = len(sent) - len(failed)
    if failures:
        raise PartialBatchError(saved, failures)
    return saved


async def put_all(gateway: Gateway, table: Table[Any], items: Sequence[Item]) -> Failures:
    """Writes items in batches; their keys must differ. Returns the errors of the items that failed."""
    return await _write(gateway, table, ((requests.put(item), item_size(item)) for item in items))


async def delete_all(gateway: Gateway, table: Table[Any], keys: Sequence[Key]) -> int:
    """Deletes items in batches; a key that is given twice counts once. Returns the number of distinct keys.

    Raises:
        PartialBatchError: Some were not deleted; all others were.
    """
    distinct = await _distinct(table, keys)
    failed = await _write(gateway, table, ((requests.delete(key), 0) for key in distinct.values()))
    if failed:
        failures = [(dict(zip(table.primary_key, key, strict=True)), error) for key, error in failed.items()]
        raise PartialBatchError(len(distinct) - len(failed), failures)
    return len(distinct)


async def read_all(
    gateway: Gateway,
    table: Table[Any],
    keys: Sequence[Key],
    attributes: Sequence[str] | None = None,
    *,
    per_batch: int = READS_PER_BATCH,
) -> list[Item]:
    """Reads items by full key, strongly consistent, in the order of the keys; absent ones are left out.

    DynamoDB refuses a request that has a key twice, and an index shows an item twice while the item moves.

    Args:
        gateway: The gateway.
        table: The table.
        keys: The keys. One that is given twice is read and returned once.
        attributes: The names of the attributes to return besides the key; all by default.
        per_batch: The items of one request; fewer if they are large, since an answer has 16 MB at most.

    Raises:
        ServiceError: One of the batches failed.
    """
    items: dict[KeyValues, Item] = {}

    async def read(chunk: Sequence[Key]) -> None:
        items.update(by_key(table, await read_batch(gateway, table, chunk, attributes)))

    distinct = await _distinct(table, keys)
    await gather_bounded(read, chunks(list(distinct.values()), per_batch), BATCHES_IN_FLIGHT)
    return [items[values] for values in distinct if values in items]


def key_values(table: Table[Any], attributes: Item) -> KeyValues:
    """Returns the primary key of an item, or a key, as a hashable value."""
    return tuple(attributes[name]["S"] for name in table.primary_key)


def by_key(table: Table[Any], items: Iterable[Item]) -> dict[KeyValues, Item]:
    """Returns items by their primary key."""
    return {key_values(table, item): item for item in items}


async def _distinct(table: Table[Any], keys: Iterable[Key]) -> dict[KeyValues, Key]:
    """Returns keys without repetitions, in their order."""
    distinct: dict[KeyValues, Key] = {}
    async for part in in_turns(keys):
        distinct |= by_key(table, part)
    return distinct


def chunks(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Splits values into parts of at most `size`."""
    return (values[i : i + size] for i in range(0, len(values), size))


def _write_chunks(writes: Iterable[SizedWrite]) -> Iterator[list[WriteRequestTypeDef]]:
    chunk: list[WriteRequestTypeDef] = []
    bytes_left = BYTES_PER_BATCH
    for write, size in writes:
        if chunk and (len(chunk) == WRITES_PER_BATCH or size > bytes_left):
            yield chunk
            chunk, bytes_left = [], BYTES_PER_BATCH
        chunk.append(write)
        bytes_left -= size
    if chunk:
        yield chunk


async def _write(gateway: Gateway, table: Table[Any], writes: Iterable[SizedWrite]) -> Failures:
    async def write(chunk: Sequence[WriteRequestTypeDef]) -> Failures:
        return await write_batch(gateway, table, chunk)

    # Otherwise each item would fail separately.
    gateway.require_open()
    batches = await gather_bounded(write, _write_chunks(writes), BATCHES_IN_FLIGHT)
    return {key: error for failed in batches for key, error in failed.items()}


async def write_batch(
    gateway: Gateway, table: Table[Any], writes: Sequence[WriteRequestTypeDef], *, once: bool = False
) -> Failures:
    """Does at most 25 writes of distinct keys; returns the errors of those that were not done.

    If it is to be done once, the writes that DynamoDB leaves over are not sent again.
    """
    left = list(writes)
    try:
        async with gateway.permit("BatchWriteItem", table.name, once=once) as budget:
            while True:
                request = requests.batch_write_request(table, left)
                response = await gateway.call("BatchWriteItem", request, budget=budget)
                sent = len(left)
                left = cast(
                    "list[WriteRequestTypeDef]", response.get("UnprocessedItems", {}).get(table.name, [])
                )
                if not left:
                    return {}
                await _pause(budget, table, "BatchWriteItem", sent, len(left))
    except RagcrawlDynamoError as error:
        return {_key_of(table, write): error for write in left}


async def read_batch(
    gateway: Gateway, table: Table[Any], keys: Sequence[Key], attributes: Sequence[str] | None
) -> list[Item]:
    """Reads at most 100 items of distinct keys, in no order; see `read_all`."""
    items: list[Item] = []
    left: Sequence[Key] = keys
    async with gateway.permit("BatchGetItem", table.name) as budget:
        while True:
            sent = len(left)
            read, left = await _read(gateway, table, left, attributes, budget)
            items += read
            if not left:
                return items
            await _pause(budget, table, "BatchGetItem", sent, len(left))


async def read_once(
    gateway: Gateway, table: Table[Any], keys: Sequence[Key]
) -> tuple[list[Item], Sequence[Key]]:
    """Reads at most 100 items of distinct keys, in no order; returns also the keys that were left over."""
    async with gateway.permit("BatchGetItem", table.name, once=True) as budget:
        return await _read(gateway, table, keys, None, budget)


async def _read(
    gateway: Gateway,
    table: Table[Any],
    keys: Sequence[Key],
    attributes: Sequence[str] | None,
    budget: Budget,
) -> tuple[list[Item], Sequence[Key]]:
    request = requests.batch_get_request(table, keys, attributes)
    response = await gateway.call("BatchGetItem", request, budget=budget)
    unprocessed = response.get("UnprocessedKeys", {}).get(table.name)
    items: list[Item] = response.get("Responses", {}).get(table.name, [])
    return items, cast("Sequence[Key]", unprocessed["Keys"]) if unprocessed else []


async def _pause(budget: Budget, table: Table[Any], operation: str, sent: int, left: int) -> None:
    """Waits before the items that DynamoDB left over are sent again.

    Raises:
        ThrottledError: All items were left over too often.
    """
    budget.count_batch(sent, left)
    pause = budget.pause()
    if budget.is_once or budget.is_spent_after(pause):
        raise left_over(table, operation, left, max(1, budget.failures))
    await budget.sleep(pause)


def left_over(table: Table[Any], operation: str, count: int, times: int) -> ThrottledError:
    """Returns the error of items that DynamoDB left over, as often as they were sent."""
    return ThrottledError(
        f"DynamoDB left {count} items unprocessed {times} times in a row, for lack of capacity: raise the "
        f"capacity, or send less at once",
        code="UnprocessedItems",
        operation=operation,
        table=table.name,
    )


def _key_of(table: Table[Any], write: WriteRequestTypeDef) -> KeyValues:
    attributes: Any = write["PutRequest"]["Item"] if "PutRequest" in write else write["DeleteRequest"]["Key"]
    return key_values(table, attributes)
