"""Counts capacity units by partition key value: DynamoDB reports them by table and index only.

The units are computed from the sizes of items, by the rules that AWS documents:

- "DynamoDB read and write operations": a write takes a unit for each KB of the item before or after it,
  whichever is larger; a read a unit for each 4 KB, half of that if it is eventually consistent. A read that
  finds nothing takes the least. A refused conditional write takes what the stored item takes.
- "Using Global Secondary Indexes": an index entry that comes, or goes, takes a write; one whose key changes
  takes two.
- "Amazon DynamoDB Transactions: How it works": a transaction takes twice the units of the table. Its index
  entries take them once (aws/agent-toolkit-for-aws, calculate_costs.py, "verified").

Queries are the exception. Each reads one partition key value, so the units that the engine reports are its
own. The engine reports none for a query that finds nothing; the least is counted instead.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ragcrawl_dynamo import RequestEvent
from ragcrawl_dynamo._dynamodb.sizes import item_size
from ragcrawl_dynamo._dynamodb.table import Index, Table
from ragcrawl_dynamo._schema.tables import Tables

# AWS: "DynamoDB read and write operations".
WRITE_BYTES = 1024
READ_BYTES = 4096

# The bytes that AWS bills for each item and each index entry besides its size ("DynamoDB on-demand pricing").
STORED_BYTES = 100

# In a transaction, each item is written twice: to prepare, and to commit.
_TRANSACTION = 2

_STATEMENT = re.compile(r'(?:INSERT INTO|UPDATE) "((?:[^"]|"")+)"')
_NAME = re.compile(r"'((?:[^']|'')+)': \?")
_QUERIED = re.compile(r"(#\w+) = (:\w+)")

Item = Mapping[str, Any]


class Partition(NamedTuple):
    """One value of the partition key of a table or an index.

    Attributes:
        place: The table without its prefix, or "table/index".
        value: The value.
    """

    place: str
    value: str


class ItemKey(NamedTuple):
    """The primary key of an item.

    Attributes:
        place: The table without its prefix.
        value: The partition key.
        sort: The sort key; "" if the table has none.
    """

    place: str
    value: str
    sort: str


def _nothing() -> defaultdict[Any, float]:
    return defaultdict(float)


def _sum(*parts: tuple[Mapping[Any, float], float]) -> defaultdict[Any, float]:
    """Adds units by key, each part times a factor."""
    total = _nothing()
    for units, factor in parts:
        for key, amount in units.items():
            total[key] += factor * amount
    return total


@dataclass
class Spent:
    """The units of partition key values and of single items."""

    reads: defaultdict[Partition, float] = field(default_factory=_nothing)
    writes: defaultdict[Partition, float] = field(default_factory=_nothing)
    item_reads: defaultdict[ItemKey, float] = field(default_factory=_nothing)
    item_writes: defaultdict[ItemKey, float] = field(default_factory=_nothing)

    def scaled(self, share: float) -> Spent:
        """Returns a share of all units."""
        return Spent(*(_sum((units, share)) for units in self._parts))

    def __add__(self, other: Spent) -> Spent:
        """Returns the units of both."""
        pairs = zip(self._parts, other._parts, strict=True)
        return Spent(*(_sum((first, 1.0), (second, 1.0)) for first, second in pairs))

    @property
    def _parts(self) -> tuple[defaultdict[Any, float], ...]:
        return self.reads, self.writes, self.item_reads, self.item_writes


class PartitionUnits:
    """Counts the units of each partition key value. Pass `observe` as `on_request` to all backends.

    It keeps every item that these backends wrote in memory: the units of an update depend on the item before
    it, and on its index entries.

    Args:
        prefix: The prefix of the tables.
    """

    def __init__(self, prefix: str) -> None:
        names = [table.name for table in Tables.of("").all()]
        self._tables: dict[str, Table[Any]] = {table.name: table for table in Tables.of(prefix).all()}
        self._names = dict(zip(self._tables, names, strict=True))
        self.items: dict[ItemKey, Item] = {}
        self.spent = Spent()
        self._total_reads = self._total_writes = 0.0

    def take(self) -> Spent:
        """Returns the units that were spent since the last call."""
        spent, self.spent = self.spent, Spent()
        return spent

    def observe(self, event: RequestEvent) -> tuple[float, float]:
        """Counts a request; returns its read and its write units."""
        self._total_reads = self._total_writes = 0.0
        count = getattr(self, f"_count_{event.operation}", None)
        is_refusal = event.error in ("ConditionalCheckFailedException", "TransactionCanceledException")
        if count is not None and (event.error is None or is_refusal):
            count(event, is_refusal)
        return self._total_reads, self._total_writes

    def stored(self) -> Iterator[tuple[str, ItemKey, int]]:
        """Yields table or index, primary key and bytes on disk of each item and each index entry."""
        tables = {self._names[table.name]: table for table in self._tables.values()}
        for key, item in self.items.items():
            yield key.place, key, item_size(item) + STORED_BYTES
            table = tables[key.place]
            for index in table.indexes:
                if (entry := _entry(table, index, item)) is not None:
                    yield f"{key.place}/{index.name}", key, item_size(entry) + STORED_BYTES

    # Reads

    def _count_GetItem(self, event: RequestEvent, _: bool) -> None:  # noqa: N802 # the operation's name
        assert event.response is not None  # noqa: S101 # an answer came
        table = self._tables[event.table]
        item = event.response.get("Item")
        self._read(table, event.request["Key"], item, event.request.get("ConsistentRead", False))

    def _count_BatchGetItem(self, event: RequestEvent, _: bool) -> None:  # noqa: N802 # likewise
        assert event.response is not None  # noqa: S101 # an answer came
        for name, wanted in event.request["RequestItems"].items():
            table = self._tables[name]
            items = {self._key(table, item): item for item in event.response["Responses"].get(name, ())}
            left = event.response.get("UnprocessedKeys", {}).get(name, {"Keys": []})["Keys"]
            for key in wanted["Keys"]:
                if key not in left:
                    item = items.get(self._key(table, key))
                    self._read(table, key, item, wanted.get("ConsistentRead", False))

    def _count_Query(self, event: RequestEvent, _: bool) -> None:  # noqa: N802 # likewise
        request = event.request
        table = self._tables[event.table]
        index = table.index(request["IndexName"]) if "IndexName" in request else None
        # The condition on the partition key comes first.
        match = _QUERIED.search(request["KeyConditionExpression"])
        assert match is not None  # noqa: S101 # every query has one
        value = request["ExpressionAttributeValues"][match[2]]["S"]
        least = 1.0 if request.get("ConsistentRead") else 0.5
        self._spend_read(self._partition(table, index, value), max(least, event.read_units))

    def _read(self, table: Table[Any], key: Item, returned: Item | None, is_consistent: bool) -> None:
        item_key = self._key(table, key)
        # The answer may have only a part of the item.
        item = self.items.get(item_key, returned) or {}
        units = max(1, -(-item_size(item) // READ_BYTES)) * (1.0 if is_consistent else 0.5)
        self._spend_read(Partition(item_key.place, item_key.value), units)
        self.spent.item_reads[item_key] += units

    def _spend_read(self, partition: Partition, units: float) -> None:
        self._total_reads += units
        self.spent.reads[partition] += units

    # Writes

    def _count_PutItem(self, event: RequestEvent, is_refused: bool) -> None:  # noqa: N802 # likewise
        self._write(self._tables[event.table], event.request["Item"], event.request["Item"], is_refused)

    def _count_UpdateItem(self, event: RequestEvent, is_refused: bool) -> None:  # noqa: N802 # likewise
        table = self._tables[event.table]
        after = (event.response or {}).get("Attributes")
        self._update(table, event.request, after, is_refused)

    def _count_DeleteItem(self, event: RequestEvent, is_refused: bool) -> None:  # noqa: N802 # likewise
        self._write(self._tables[event.table], event.request["Key"], None, is_refused)

    def _count_BatchWriteItem(self, event: RequestEvent, _: bool) -> None:  # noqa: N802 # likewise
        assert event.response is not None  # noqa: S101 # an answer came
        for name, writes in event.request["RequestItems"].items():
            left = event.response.get("UnprocessedItems", {}).get(name, [])
            for write in writes:
                if write in left:
                    continue
                if put := write.get("PutRequest"):
                    self._write(self._tables[name], put["Item"], put["Item"], False)
                else:
                    self._write(self._tables[name], write["DeleteRequest"]["Key"], None, False)

    def _count_TransactWriteItems(self, event: RequestEvent, is_refused: bool) -> None:  # noqa: N802 # likewise
        for part in event.request["TransactItems"]:
            ((kind, request),) = part.items()
            table = self._tables[request["TableName"]]
            if kind == "Put":
                self._write(table, request["Item"], request["Item"], is_refused, _TRANSACTION)
            elif kind == "Update":
                self._update(table, request, None, is_refused, _TRANSACTION)
            else:
                self._write(table, request["Key"], None, is_refused or kind != "Delete", _TRANSACTION)

    def _count_BatchExecuteStatement(self, event: RequestEvent, _: bool) -> None:  # noqa: N802 # likewise
        assert event.response is not None  # noqa: S101 # an answer came
        for statement, answer in zip(event.request["Statements"], event.response["Responses"], strict=True):
            code = answer.get("Error", {}).get("Code")
            if code not in (None, "ConditionalCheckFailed", "DuplicateItem"):
                continue
            text, parameters = statement["Statement"], statement["Parameters"]
            match = _STATEMENT.match(text)
            assert match is not None  # noqa: S101 # the package sends no other statement
            table = self._tables[match[1]]
            if text.startswith("INSERT"):
                item = dict(zip(_NAME.findall(text), parameters, strict=True))
                self._write(table, item, item, code is not None)
            else:
                # The parameters of the key follow those of the change.
                first = text.partition(" WHERE ")[0].count("?")
                key = dict(zip(table.primary_key, parameters[first:], strict=False))
                self._write(table, key, answer.get("Item"), code is not None)

    def _update(
        self, table: Table[Any], request: Item, after: Item | None, is_refused: bool, times: int = 1
    ) -> None:
        """Counts an update; the parts of the new item that the answer lacks are taken from the request."""
        if after is None and not is_refused:
            before = self.items.get(self._key(table, request["Key"]))
            after = _updated(before or request["Key"], request)
        self._write(table, request["Key"], after, is_refused, times)

    def _write(
        self, table: Table[Any], key: Item, after: Item | None, is_refused: bool, times: int = 1
    ) -> None:
        """Counts a write that leaves the item `after`, or none."""
        item_key = self._key(table, key)
        before = self.items.get(item_key)
        if is_refused:
            # A put takes the units of the new item if none is stored.
            sizes = [item_size(before if before is not None else after or {})]
        else:
            sizes = [item_size(item) for item in (before, after) if item is not None]
        units = times * _write_units(max(sizes, default=0))
        self._spend_write(Partition(item_key.place, item_key.value), units)
        self.spent.item_writes[item_key] += units
        if is_refused:
            return
        for partition, size in self._moved_entries(table, before, after):
            self._spend_write(partition, _write_units(size))
        if after is None:
            self.items.pop(item_key, None)
        else:
            self.items[item_key] = after

    def _spend_write(self, partition: Partition, units: float) -> None:
        self._total_writes += units
        self.spent.writes[partition] += units

    def _moved_entries(
        self, table: Table[Any], before: Item | None, after: Item | None
    ) -> Iterator[tuple[Partition, int]]:
        """Yields partition and size of each index entry that a write takes out or puts in."""
        for index in table.indexes:
            old, new = (_entry(table, index, item) for item in (before, after))
            if old != new:
                for entry in (old, new):
                    if entry is not None:
                        value = entry[index.partition_key]["S"]
                        yield self._partition(table, index, value), item_size(entry)

    def _partition(self, table: Table[Any], index: Index | None, value: str) -> Partition:
        """Returns where an entry lies; a local index shares the partitions of its table."""
        place = self._names[table.name]
        return Partition(place if index is None or not index.is_global else f"{place}/{index.name}", value)

    def _key(self, table: Table[Any], item: Item) -> ItemKey:
        sort = item[table.sort_key]["S"] if table.sort_key is not None else ""
        return ItemKey(self._names[table.name], item[table.partition_key]["S"], sort)


def _entry(table: Table[Any], index: Index, item: Item | None) -> Item | None:
    """Returns what an index stores of an item; None if the item is not in it."""
    if item is None or any(name not in item for name in index.key_attributes):
        return None
    return {name: item[name] for name in (*table.primary_key, *index.key_attributes)}


def _write_units(size: int) -> int:
    return max(1, -(-size // WRITE_BYTES))


def _updated(before: Item, request: Item) -> Item:
    """Returns an item as an update expression leaves it: attributes that are set or removed as a whole.

    Sums and members of maps are left as they are; they hardly change the size.
    """
    names: Mapping[str, str] = request.get("ExpressionAttributeNames", {})
    values: Item = request.get("ExpressionAttributeValues", {})
    after = dict(before)
    for clause, parts in _clauses(request["UpdateExpression"]):
        for part in parts:
            path, _, value = part.partition(" = ")
            if clause == "REMOVE":
                after.pop(names[path], None)
            elif clause == "SET" and path in names and value in values:
                after[names[path]] = values[value]
    return after


def _clauses(expression: str) -> Iterator[tuple[str, Sequence[str]]]:
    """Splits an update expression into its clauses, and their parts."""
    words = re.split(r"\b(SET|ADD|DELETE|REMOVE) ", expression)[1:]
    for clause, text in zip(words[::2], words[1::2], strict=True):
        # A comma inside of parentheses belongs to `if_not_exists`.
        yield clause, re.split(r", (?![^(]*\))", text.strip())
