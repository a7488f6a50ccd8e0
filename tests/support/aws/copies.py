"""Keeps late copies of tables and of global indexes, as tables of the engine.

The engine reads the copies too, so conditions, filters, limits and cursors work as in the engine.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count
from typing import Any

import orjson

from tests.support.aws.engine import Answer, Engine
from tests.support.aws.writes import Item

Clock = Callable[[], float]

# Names the entry of an index: one item can have two, its old place and its new one.
ENTRY = "~entry"

# AWS: BatchWriteItem; and a partition key's bytes.
_BATCH = 25
_MAX_KEY = 2048


@dataclass(frozen=True)
class Schema:
    """The keys of a table, as the simulation needs them.

    Attributes:
        name: Its name.
        keys: The names of its key attributes, the partition key first.
        indexes: The names of the key attributes of each global index.
        types: The types of all key attributes.
    """

    name: str
    keys: tuple[str, ...]
    indexes: dict[str, tuple[str, ...]]
    types: dict[str, str]

    @classmethod
    def of(cls, description: Item) -> Schema:
        """Reads the answer of DescribeTable."""

        def names(part: Item) -> tuple[str, ...]:
            return tuple(element["AttributeName"] for element in part["KeySchema"])

        indexes = description.get("GlobalSecondaryIndexes", [])
        projections = {index["Projection"]["ProjectionType"] for index in indexes}
        assert projections <= {"KEYS_ONLY"}, f"these projections are not simulated: {projections}"
        types = {
            attribute["AttributeName"]: attribute["AttributeType"]
            for attribute in description["AttributeDefinitions"]
        }
        by_name = {index["IndexName"]: names(index) for index in indexes}
        return cls(description["TableName"], names(description), by_name, types)


class LateWrites:
    """Writes to a table of the engine. Each write is done when it is due."""

    def __init__(self, engine: Engine, table: str, clock: Clock) -> None:
        self.engine = engine
        self.table = table
        self.clock = clock
        self._numbers = count()
        self._waiting: list[tuple[float, int, bytes, str, Item]] = []
        self._lock = asyncio.Lock()
        # When the last write of an item is due: its next one cannot overtake it.
        self._latest: dict[bytes, float] = {}

    def floor(self, of: bytes) -> float:
        """Returns the moment before which no further write of an item can be done."""
        return self._latest.get(of, 0.0)

    def add(self, of: bytes, due: float, name: str, write: Item) -> None:
        """Notes a write.

        Args:
            of: The item that was written.
            due: When the write is done.
            name: The name of the item in the copy.
            write: The write, as a part of BatchWriteItem.
        """
        self._latest[of] = max(due, self.floor(of))
        heapq.heappush(self._waiting, (due, next(self._numbers), of, name, write))

    async def catch_up(self) -> None:
        """Does the writes that are due."""
        if not self._waiting and not self._lock.locked():
            return
        async with self._lock:
            now = self.clock()
            last: dict[str, Item] = {}
            while self._waiting and self._waiting[0][0] <= now:
                due, _, of, name, write = heapq.heappop(self._waiting)
                last.pop(name, None)
                last[name] = write
                if self.floor(of) <= due:
                    self._latest.pop(of, None)
            await self.write(last.values())

    async def write(self, writes: Iterable[Item]) -> None:
        """Sends writes now."""
        left = list(writes)
        while left:
            batch = {"RequestItems": {self.table: left[:_BATCH]}}
            await self.engine.require("BatchWriteItem", batch)
            del left[:_BATCH]


class IndexCopy:
    """A global index that is late; its projection is KEYS_ONLY."""

    def __init__(self, schema: Schema, index: str, late: LateWrites) -> None:
        self.index = index
        self.keys = schema.indexes[index]
        self._schema = schema
        self._late = late
        self._attributes = tuple(dict.fromkeys((*schema.keys, *self.keys)))
        # The present entries, by item.
        self._entries: dict[bytes, str] = {}

    async def create(self) -> None:
        """Creates it with the present entries of the index."""
        await self._late.engine.require(
            "CreateTable",
            {
                "TableName": self._late.table,
                "KeySchema": [{"AttributeName": ENTRY, "KeyType": "HASH"}],
                "AttributeDefinitions": [
                    {"AttributeName": name, "AttributeType": self._schema.types.get(name, "S")}
                    for name in (ENTRY, *self.keys)
                ],
                "BillingMode": "PAY_PER_REQUEST",
                "GlobalSecondaryIndexes": [
                    {
                        "IndexName": self.index,
                        "KeySchema": _key_schema(self.keys),
                        "Projection": {"ProjectionType": "ALL"},
                    }
                ],
            },
        )
        request = {"TableName": self._schema.name, "IndexName": self.index}
        async for items in _scan(self._late.engine, request):
            for item in items:
                of = orjson.dumps(
                    {name: item[name] for name in self._schema.keys}, option=orjson.OPT_SORT_KEYS
                )
                self._entries[of] = self._entry(item)
            await self._late.write(self._put(self._entry(item)) for item in items)

    def partitions(self, of: bytes, image: Item | None) -> set[str]:
        """Returns the values of the index's partition key for an item's present entry and the next one."""
        entries = [self._entries.get(of)]
        if image is not None and self._is_listed(image):
            entries.append(self._entry(image))
        values = [next(iter(orjson.loads(entry)[self.keys[0]].values())) for entry in entries if entry]
        return set(map(str, values))

    def record(self, of: bytes, image: Item | None, lags: Callable[[], tuple[float, float]]) -> bool:
        """Notes that an item is now as `image` has it; returns whether its entry changes.

        Args:
            of: The item.
            image: The item as it is now.
            lags: Draws how many seconds later its old entry goes, and its new one comes.
        """
        old = self._entries.get(of)
        new = self._entry(image) if image is not None and self._is_listed(image) else None
        if old == new:
            return False
        now, floor = self._late.clock(), self._late.floor(of)
        goes, comes = lags()
        if old is not None:
            delete = {"DeleteRequest": {"Key": {ENTRY: {"S": old}}}}
            self._late.add(of, max(floor, now + goes), old, delete)
            del self._entries[of]
        if new is not None:
            self._late.add(of, max(floor, now + comes), new, self._put(new))
            self._entries[of] = new
        return True

    async def read(self, operation: str, request: Item) -> Answer:
        """Answers a query or a scan of the index as it is seen now."""
        await self._late.catch_up()
        request = {**request, "TableName": self._late.table}
        if start := request.get("ExclusiveStartKey"):
            of_table = {name: start[name] for name in self.keys}
            request["ExclusiveStartKey"] = {ENTRY: {"S": self._entry(start)}, **of_table}
        answer = await self._late.engine.call(operation, request)
        for item in answer.body.get("Items", []):
            item.pop(ENTRY, None)
        if last := answer.body.get("LastEvaluatedKey"):
            answer.body["LastEvaluatedKey"] = orjson.loads(last[ENTRY]["S"])
        name_table(answer, self._schema.name)
        return answer

    async def catch_up(self) -> None:
        await self._late.catch_up()

    def _is_listed(self, image: Item) -> bool:
        return all(name in image for name in self.keys)

    def _entry(self, image: Item) -> str:
        entry = orjson.dumps({name: image[name] for name in self._attributes}, option=orjson.OPT_SORT_KEYS)
        assert len(entry) <= _MAX_KEY, f"keys that are together so long are not simulated: {len(entry)} bytes"
        return entry.decode()

    @staticmethod
    def _put(entry: str) -> Item:
        return {"PutRequest": {"Item": {ENTRY: {"S": entry}, **orjson.loads(entry)}}}


class ReadCopy:
    """A table as eventually consistent reads see it, at times."""

    def __init__(self, schema: Schema, late: LateWrites) -> None:
        self.name = late.table
        self._schema = schema
        self._late = late

    async def create(self) -> None:
        """Creates it with the present items of the table."""
        await self._late.engine.require(
            "CreateTable",
            {
                "TableName": self._late.table,
                "KeySchema": _key_schema(self._schema.keys),
                "AttributeDefinitions": [
                    {"AttributeName": name, "AttributeType": self._schema.types[name]}
                    for name in self._schema.keys
                ],
                "BillingMode": "PAY_PER_REQUEST",
            },
        )
        async for items in _scan(self._late.engine, {"TableName": self._schema.name}):
            await self._late.write({"PutRequest": {"Item": item}} for item in items)

    def record(self, of: bytes, key: Item, image: Item | None, lag: float) -> None:
        """Notes that an item is now as `image` has it, and that the copy shows it after a lag."""
        write = {"DeleteRequest": {"Key": key}} if image is None else {"PutRequest": {"Item": image}}
        due = max(self._late.floor(of), self._late.clock() + lag)
        self._late.add(of, due, of.decode(), write)

    async def catch_up(self) -> None:
        await self._late.catch_up()


def name_table(answer: Answer, name: str) -> None:
    """Writes the name of the table into the capacity that an answer of a copy reports."""
    consumed = answer.body.get("ConsumedCapacity", [])
    for part in [consumed] if isinstance(consumed, dict) else consumed:
        part["TableName"] = name


def _key_schema(keys: tuple[str, ...]) -> list[dict[str, str]]:
    kinds = ("HASH", "RANGE")
    return [{"AttributeName": name, "KeyType": kind} for name, kind in zip(keys, kinds, strict=False)]


async def _scan(engine: Engine, request: Item) -> Any:
    start: Item = {}
    while True:
        page = await engine.require("Scan", {**request, **start})
        yield page["Items"]
        if "LastEvaluatedKey" not in page:
            return
        start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}
