"""How many items of a run are in which state, per run and per host, without reading them.

Whoever moves an item notes the move in memory; notes are added up and written now and then. A process that is
killed takes its last notes with it, and `recount` puts that right. Counts of a run lie in several items
`#{run_id}` / `count#{n}`, one of which each process adds to, so that none is written by all; those of a host
lie in its record.
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

__all__ = ["FrontierStats"]

# Items over which the counts of a run are spread.
_PLACES = 8

# Seconds for which notes are kept in memory.
FLUSH_SECONDS = 1.0

NAMES = ("pending", "delayed", "in_progress", "completed", "failed", "skipped")
ZERO_COUNTS: Item = {name: {"N": "0"} for name in NAMES}


@dataclass(frozen=True, slots=True)
class FrontierStats:
    """How many items are in which state.

    Attributes:
        pending: Claimable, as far as the limits of their hosts allow.
        delayed: Waiting for a moment, by `not_before` or after a failure. One whose moment has come counts as
            delayed until it is claimed.
        in_progress: Leased; also those whose lease expired, until they are claimed again.
        completed: Done.
        failed: Dead letters.
        skipped: Left out on purpose.
    """

    pending: int = 0
    delayed: int = 0
    in_progress: int = 0
    completed: int = 0
    failed: int = 0
    skipped: int = 0

    @classmethod
    def estimated(cls, counts: FrontierStats) -> FrontierStats:
        """Counts as they can be told: none is below 0, though a killed process's notes are missing."""
        return cls(**{name: max(0, getattr(counts, name)) for name in NAMES})

    @property
    def open(self) -> int:
        """Those that are not finished."""
        return self.pending + self.delayed + self.in_progress

    @property
    def total(self) -> int:
        """All."""
        return self.open + self.completed + self.failed + self.skipped


def stats_of(item: Mapping[str, Any]) -> FrontierStats:
    """The counts in an item, as they stand; after the death of a process some can be negative."""
    return FrontierStats(**{name: int(item[name]["N"]) for name in NAMES if name in item})


class Counters:
    """The counts of one run, as one process adds to them."""

    def __init__(
        self, gateway: Gateway, table: Table[Any], writes: ConditionalWrites, run_id: str, site_id: str
    ) -> None:
        self._gateway = gateway
        self._table = table
        self._writes = writes
        self._run_id = run_id
        self._site_id = site_id
        self._notes: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._total: Counter[str] = Counter()
        self._place = secrets.randbelow(_PLACES)
        self._kept_since: float | None = None
        self._lock = asyncio.Lock()

    def move(self, host: str, before: str | None, after: str | None) -> None:
        """Notes that an item of a host went from one state to another; None is outside."""
        if before != after:
            self.add(host, Counter({name: n for name, n in ((before, -1), (after, 1)) if name is not None}))

    def add(self, host: str, difference: Counter[str]) -> None:
        """Notes a difference."""
        self._notes[host].update(difference)
        self._total.update(difference)

    def correct(self, total: Counter[str], by_host: Mapping[str, Counter[str]]) -> None:
        """Notes differences that a recount found."""
        self._total.update(total)
        for host, difference in by_host.items():
            if any(difference.values()):
                self._notes[host].update(difference)

    def forget(self) -> None:
        """Drops all notes."""
        self._notes.clear()
        self._total.clear()

    def is_due(self, monotonic: float) -> bool:
        """Whether notes have been kept for long enough; to be asked after each move."""
        if not self._notes:
            return False
        if self._kept_since is None:
            self._kept_since = monotonic
        return monotonic - self._kept_since >= FLUSH_SECONDS

    async def flush(self) -> None:
        """Writes what was noted; what could not be written is kept for the next time."""
        # One after the other: a token covers the latest addition only.
        async with self._lock:
            if not self._notes and not any(self._total.values()):
                return
            self._kept_since = None
            notes, self._notes = self._notes, defaultdict(Counter)
            total, self._total = self._total, Counter()
            own = counter_key(self._run_id, self._place)
            changes = [self._change(host_key(self._run_id, host), each) for host, each in notes.items()]
            outcome, *outcomes = await self._writes.run([self._change(own, total), *changes])
            if isinstance(outcome, Refused):
                token = WriteToken.new("made_by")
                site: Item = {"site_id": {"S": self._site_id}, **token.attributes}
                place = ConditionalInsert({**own, **ZERO_COUNTS, **site}, token)
                _, outcome = await self._writes.run([place, self._change(own, total)])
            if isinstance(outcome, Failed):
                self._total.update(total)
            for (host, each), outcome in zip(notes.items(), outcomes, strict=True):
                if isinstance(outcome, Failed):
                    self._notes[host].update(each)

    async def stats(self) -> FrontierStats:
        """The counts of the run; strongly consistent, but for what processes have only noted."""
        only_counters = BeginsWith("item_id", {"S": COUNTER_PREFIX})
        query = Query(self._table, records_partition(self._run_id), sort=only_counters)
        response = await self._gateway.call("Query", requests.query_request(query))
        total: Counter[str] = Counter()
        for item in response["Items"]:
            total.update({name: int(item[name]["N"]) for name in NAMES})
        return FrontierStats(**total)

    def _change(self, key: Key, amounts: Counter[str]) -> ConditionalUpdate:
        token = WriteToken.new(f"flush_{self._place}")
        increment: dict[Path, Value] = {name: {"N": str(n)} for name, n in amounts.items() if n}
        update = Update(put=token.assignment, increment=increment)
        return ConditionalUpdate(key, update, token.is_absent, token)
