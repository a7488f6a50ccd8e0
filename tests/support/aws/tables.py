"""Keeps the keys of each table, its late copies, and the items that are being written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from secrets import token_hex

from tests.support.aws.chance import Chance
from tests.support.aws.copies import Clock, IndexCopy, LateWrites, ReadCopy, Schema
from tests.support.aws.engine import Engine
from tests.support.aws.settings import Settings
from tests.support.aws.writes import Item, ItemId


class Table:
    """One table, and its copies."""

    def __init__(self, schema: Schema, indexes: dict[str, IndexCopy], read_copy: ReadCopy | None) -> None:
        self.schema = schema
        self.indexes = indexes
        self.read_copy = read_copy

    @property
    def copies(self) -> list[IndexCopy | ReadCopy]:
        return [*self.indexes.values(), *([self.read_copy] if self.read_copy else [])]

    def record(
        self, of: bytes, key: Item, image: Item | None, settings: Settings, chance: Chance
    ) -> list[str]:
        """Notes that an item was written, for all copies; returns the indexes whose entries change."""
        changed: list[str] = []
        for name, index in self.indexes.items():
            if index.record(of, image, partial(_lags, settings, chance, f"{name}/{of.decode()}")):
                changed.append(name)
        if self.read_copy is not None and settings.read_lag is not None:
            seconds = settings.read_lag.seconds(chance.draw(f"read/{of.decode()}"))
            self.read_copy.record(of, key, image, seconds)
        return changed


def _lags(settings: Settings, chance: Chance, name: str) -> tuple[float, float]:
    """Returns after how many seconds an old entry goes, and the new one comes."""
    if settings.index_lag is None:
        return 0.0, 0.0
    goes = settings.index_lag.seconds(chance.draw(name))
    return goes, settings.index_lag.seconds(chance.draw(name)) if settings.torn_moves else goes


class Tables:
    """All tables, as far as requests have named them."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._known: dict[str, Table] = {}
        self._lock = asyncio.Lock()
        # Another simulation of the same tables has copies of its own.
        self._suffix = token_hex(4)
        self._created: set[str] = set()

    async def of(self, name: str, settings: Settings) -> Table | None:
        """Returns a table, or None if there is none of this name."""
        if (table := self._known.get(name)) is not None:
            return table
        async with self._lock:
            if name not in self._known:
                answer = await self._engine.call("DescribeTable", {"TableName": name})
                if not answer.is_done:
                    return None
                self._known[name] = await self._learn(Schema.of(answer.body["Table"]), settings)
            return self._known[name]

    async def _learn(self, schema: Schema, settings: Settings) -> Table:
        indexes: dict[str, IndexCopy] = {}
        if settings.index_lag is not None or settings.limits is not None:
            for index in schema.indexes:
                indexes[index] = IndexCopy(schema, index, self._late(f"{schema.name}.{index}"))
        read_copy = ReadCopy(schema, self._late(f"{schema.name}.read")) if settings.read_lag else None
        table = Table(schema, indexes, read_copy)
        for copy in table.copies:
            await copy.create()
        return table

    def _late(self, name: str) -> LateWrites:
        self._created.add(f"{name}.{self._suffix}")
        return LateWrites(self._engine, f"{name}.{self._suffix}", self._clock)

    async def forget(self, name: str) -> None:
        """Forgets a table that is deleted or altered, and deletes its copies."""
        async with self._lock:
            if self._known.pop(name, None) is not None:
                await self._drop(copy for copy in [*self._created] if copy.startswith(f"{name}."))

    async def close(self) -> None:
        """Deletes all copies."""
        await self._drop([*self._created])

    async def _drop(self, names: Iterable[str]) -> None:
        for name in names:
            self._created.discard(name)
            await self._engine.call("DeleteTable", {"TableName": name})

    async def catch_up(self) -> None:
        """Does the writes that are due on all copies."""
        for table in [*self._known.values()]:
            for copy in table.copies:
                await copy.catch_up()


class ItemLocks:
    """Locks of items that are being written: the engine writes one item in the order of its locks."""

    def __init__(self) -> None:
        self._held: dict[ItemId, bool] = {}
        self._waiters: dict[ItemId, list[asyncio.Future[None]]] = {}

    def is_held(self, of: ItemId, *, by_transaction: bool = False) -> bool:
        """Returns whether an item is being written; with `by_transaction`, only whether by a transaction."""
        return self._held.get(of, False) if by_transaction else of in self._held

    @asynccontextmanager
    async def hold(self, items: Iterable[ItemId], *, as_transaction: bool = False) -> AsyncIterator[None]:
        """Waits for all of some items, and locks them."""
        wanted = sorted(set(items))
        for i, item in enumerate(wanted):
            try:
                while item in self._held:
                    waiter = asyncio.get_running_loop().create_future()
                    self._waiters.setdefault(item, []).append(waiter)
                    await waiter
            except asyncio.CancelledError:
                self._release(wanted[:i])
                raise
            self._held[item] = as_transaction
        try:
            yield
        finally:
            self._release(wanted)

    def _release(self, items: Iterable[ItemId]) -> None:
        for item in items:
            del self._held[item]
            for waiter in self._waiters.pop(item, []):
                if not waiter.done():
                    waiter.set_result(None)
