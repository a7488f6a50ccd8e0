"""Counts a run's items by state, for the run and for each host, so that nobody has to read the items.

A process adds up in memory how its own writes move items between states, and stores the sums once a second.
If it is killed, its last sums are lost, and `recount` corrects the counts. The counts of a run are spread
over several shards `#{run_id}` / `count#{number}`; each process adds to one of them. The counts of a host lie
in the host's record.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.conditional_writes import (
    ConditionalInsert,
    ConditionalUpdate,
    ConditionalWrites,
    Failed,
    Refused,
)
from ragcrawl_dynamo._dynamodb.expressions import BeginsWith, Path, Update
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.requests import Query
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._dynamodb.values import Item, Key, Value
from ragcrawl_dynamo._dynamodb.write_token import WriteToken
from ragcrawl_dynamo._schema.keys import COUNTER_PREFIX, counter_key, host_key, records_partition
from ragcrawl_dynamo._schema.records import RunControl

__all__ = ["FrontierStats"]

# The number of shards over which the counts of a run are spread.
_SHARDS = 8

# Seconds after which the counts in memory are stored.
FLUSH_SECONDS = 1.0

NAMES = ("pending", "delayed", "in_progress", "completed", "failed", "skipped")
ZERO_COUNTS: Item = {name: {"N": "0"} for name in NAMES}


@dataclass(frozen=True, slots=True)
class FrontierStats:
    """How many items are in which state.

    Attributes:
        pending: Items that can be claimed, as far as the limits of their hosts allow.
        delayed: Items that wait for a moment: that of `not_before`, or the next attempt after a failure. An
            item whose moment has come counts as delayed until it is claimed.
        in_progress: Leased items. An item whose lease has expired counts here until it is claimed again.
        completed: Items whose work is done.
        failed: Dead letters.
        skipped: Items that were not crawled on purpose.
    """

    pending: int = 0
    delayed: int = 0
    in_progress: int = 0
    completed: int = 0
    failed: int = 0
    skipped: int = 0

    @classmethod
    def estimated(cls, counts: FrontierStats) -> FrontierStats:
        """Returns the counts with 0 for negative ones, which a killed process can leave behind."""
        return cls(**{name: max(0, getattr(counts, name)) for name in NAMES})

    @property
    def open(self) -> int:
        """The number of items that are pending, delayed or in progress."""
        return self.pending + self.delayed + self.in_progress

    @property
    def total(self) -> int:
        """The number of all items."""
        return self.open + self.completed + self.failed + self.skipped


def stats_of(item: Mapping[str, Any]) -> FrontierStats:
    """Returns the counts that an item stores. Some can be negative after a process was killed."""
    return FrontierStats(**{name: int(item[name]["N"]) for name in NAMES if name in item})


class UnwrittenCounts:
    """The amounts by which the stored counts have to be increased.

    Attributes:
        by_host: For each host, the amount for each of its counts.
        total: The amount for each count of the run.
        since: When `Counters.is_due` first saw the oldest amount, in seconds of the monotonic clock; None if
            it has not seen any.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Drops all amounts."""
        self.by_host: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.total: Counter[str] = Counter()
        self.since: float | None = None


class Counters:
    """The counts of one run, to which this process adds."""

    def __init__(
        self,
        gateway: Gateway,
        table: Table[Any],
        writes: ConditionalWrites,
        run: RunControl,
        unwritten: UnwrittenCounts,
    ) -> None:
        """`unwritten` keeps the amounts until they are stored."""
        self._gateway = gateway
        self._table = table
        self._writes = writes
        self._run_id = run.run
        self._site_id = run.site_id
        self._unwritten = unwritten
        self._shard = secrets.randbelow(_SHARDS)
        self._lock = asyncio.Lock()

    def move(self, host: str, before: str | None, after: str | None) -> None:
        """Counts that an item of a host moved from one state to another; None means outside of the queue."""
        if before == after:
            return
        moved = Counter({state: amount for state, amount in ((before, -1), (after, 1)) if state is not None})
        self._unwritten.by_host[host].update(moved)
        self._unwritten.total.update(moved)

    def correct(self, total: Counter[str], by_host: Mapping[str, Counter[str]]) -> None:
        """Adds the differences that a recount has found."""
        self._unwritten.total.update(total)
        for host, difference in by_host.items():
            if any(difference.values()):
                self._unwritten.by_host[host].update(difference)

    def is_due(self, monotonic: float) -> bool:
        """Returns whether the counts in memory should be stored. It is called after each move."""
        unwritten = self._unwritten
        if not unwritten.by_host:
            return False
        if unwritten.since is None:
            unwritten.since = monotonic
        return monotonic - unwritten.since >= FLUSH_SECONDS

    async def flush(self) -> None:
        """Stores the counts in memory. Those that could not be stored are kept for the next call."""
        unwritten = self._unwritten
        # One flush at a time: the record keeps only this process's latest write token.
        async with self._lock:
            if not unwritten.by_host and not any(unwritten.total.values()):
                return
            by_host, total = unwritten.by_host, unwritten.total
            unwritten.clear()
            shard = counter_key(self._run_id, self._shard)
            updates = [
                self._addition(host_key(self._run_id, host), counts) for host, counts in by_host.items()
            ]
            outcome, *outcomes = await self._writes.run([self._addition(shard, total), *updates])
            if isinstance(outcome, Refused):
                token = WriteToken.new("made_by")
                site: Item = {"site_id": {"S": self._site_id}, **token.attributes}
                new_shard = ConditionalInsert({**shard, **ZERO_COUNTS, **site}, token)
                _, outcome = await self._writes.run([new_shard, self._addition(shard, total)])
            if isinstance(outcome, Failed):
                unwritten.total.update(total)
            for (host, counts), outcome in zip(by_host.items(), outcomes, strict=True):
                if isinstance(outcome, Failed):
                    unwritten.by_host[host].update(counts)

    async def stats(self) -> FrontierStats:
        """Returns the stored counts of the run; strongly consistent."""
        only_counters = BeginsWith("item_id", {"S": COUNTER_PREFIX})
        query = Query(self._table, records_partition(self._run_id), sort=only_counters)
        response = await self._gateway.call("Query", requests.query_request(query))
        total: Counter[str] = Counter()
        for shard in response["Items"]:
            total.update({name: int(shard[name]["N"]) for name in NAMES})
        return FrontierStats(**total)

    def _addition(self, key: Key, amounts: Counter[str]) -> ConditionalUpdate:
        token = WriteToken.new(f"flush_{self._shard}")
        increment: dict[Path, Value] = {
            name: {"N": str(amount)} for name, amount in amounts.items() if amount
        }
        update = Update(put=token.assignment, increment=increment)
        return ConditionalUpdate(key, update, token.is_absent, token)
