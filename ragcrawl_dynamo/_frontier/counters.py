"""Counts a run's items by state, for the run and for each host, so that no call has to read the items.

A process adds up in memory how its own writes move items between states, and stores the sums once a second.
If it is killed, its last sums are lost, and `recount` corrects the counts. The counts of a run are spread
over several shards `#{run_id}` / `count#{number}`; each process adds to one of them. The counts of a host lie
in the host's record. The write that stores the last counts of a host also takes the host out of the list.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.conditional_writes import (
    ConditionalInsert,
    ConditionalUpdate,
    ConditionalWrites,
)
from ragcrawl_dynamo._dynamodb.expressions import AllOf, BeginsWith, Compare, Condition, Path, Update
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.outcomes import Applied, Failed, Outcome, Refused
from ragcrawl_dynamo._dynamodb.requests import Query
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._dynamodb.values import Item, Key, Value
from ragcrawl_dynamo._dynamodb.write_token import WriteToken
from ragcrawl_dynamo._frontier.counts import NAMES, OPEN_STATES, FrontierStats, UnwrittenCounts, stats_of
from ragcrawl_dynamo._frontier.host_store import NOT_LISTED, HostStore
from ragcrawl_dynamo._frontier.work import Listed
from ragcrawl_dynamo._schema.keys import COUNTER_PREFIX, counter_key, records_partition

# The number of shards over which the counts of a run are spread.
_SHARDS = 8

# Seconds after which the counts in memory are stored.
FLUSH_SECONDS = 1.0


@dataclass
class Flushed:
    """The result of storing counts.

    Attributes:
        asleep: The hosts that were taken out of the list.
        to_wake: The hosts that are not listed, although they have open items by their counts.
        open: The hosts that are listed and have open items by their counts, but had none as far as this
            process knew.
        new_hosts: How many hosts have got their first completed item.
    """

    asleep: list[str] = field(default_factory=list)
    to_wake: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    new_hosts: int = 0


class Counters:
    """The counts of one run, to which this process adds."""

    def __init__(
        self,
        gateway: Gateway,
        table: Table[Any],
        writes: ConditionalWrites,
        hosts: HostStore,
        unwritten: UnwrittenCounts,
    ) -> None:
        """`unwritten` keeps the amounts until they are stored."""
        self._gateway = gateway
        self._table = table
        self._writes = writes
        self._hosts = hosts
        self._unwritten = unwritten
        self._shard = secrets.randbelow(_SHARDS)
        self._lock = asyncio.Lock()
        self._new_hosts = 0

    def take_new_hosts(self) -> int:
        """Returns how many hosts have got their first completed item since the last call.

        Of all processes, the one whose write raises the stored count from 0 counts the host.
        """
        new_hosts, self._new_hosts = self._new_hosts, 0
        return new_hosts

    def move(self, host: str, before: str | None, after: str | None) -> None:
        """Counts that an item of a host moved from one state to another; None means outside of the queue."""
        if before == after:
            return
        moved = Counter({state: amount for state, amount in ((before, -1), (after, 1)) if state is not None})
        self._unwritten.by_host[host].update(moved)
        self._unwritten.total.update(moved)

    def correct(self, total: Counter[str], by_host: Iterable[tuple[str, Counter[str]]]) -> None:
        """Adds differences that a recount has found."""
        self._unwritten.put_back(dict(by_host), total)

    def seconds_until_due(self, monotonic: float) -> float | None:
        """Returns after how many seconds the counts in memory are to be stored; None if there are none.

        It is called after each move.
        """
        unwritten = self._unwritten
        if unwritten.is_empty:
            return None
        if unwritten.since is None:
            unwritten.since = monotonic
        return unwritten.since + FLUSH_SECONDS - monotonic

    async def flush(
        self,
        find_drained: Callable[[Iterable[str]], Mapping[str, Listed]],
        only: Container[str] | None = None,
        *,
        once: bool = False,
    ) -> Flushed:
        """Stores the counts in memory. Those that could not be stored are kept for the next call.

        Args:
            find_drained: Returns which of some hosts have no open item, as far as this process knows. Those
                whose counts say so too are taken out of the list.
            only: The hosts whose counts are stored; None for all, with those of the run.
            once: Whether counts that DynamoDB throttles are kept for the next call at once.
        """
        unwritten, flushed = self._unwritten, Flushed()
        # One flush at a time: the record keeps only this process's latest write token.
        async with self._lock:
            by_host, total = unwritten.take(only)
            if not by_host and not any(total.values()):
                return flushed
            drained = find_drained(by_host)
            try:
                updates = self._additions(by_host, drained)
                if only is None:
                    updates.insert(0, self._addition(self._own_shard, total))
                outcomes = await self._writes.run(updates, once=once)
                if only is None and isinstance(outcome := outcomes.pop(0), Applied | Refused):
                    total = await self._make_shard(total) if isinstance(outcome, Refused) else Counter()
                by_host = _note_outcomes(by_host, outcomes, drained, flushed)
                if by_host:
                    # The host was not as it was seen, or others have not counted yet what they add or end.
                    outcomes = await self._writes.run(self._additions(by_host, {}), once=once)
                    by_host = _note_outcomes(by_host, outcomes, {}, flushed)
                flushed.open = [host for host in flushed.open if host in drained]
            finally:
                unwritten.put_back(by_host, total)
                self._new_hosts += flushed.new_hosts
        return flushed

    @property
    def _own_shard(self) -> Key:
        return counter_key(self._hosts.run_id, self._shard)

    async def _make_shard(self, total: Counter[str]) -> Counter[str]:
        """Stores the shard of this process and adds to it; returns the amounts that were not added."""
        token = WriteToken.new("made_by")
        zeros: Item = {name: {"N": "0"} for name in NAMES}
        site: Item = {"site_id": {"S": self._hosts.site_id}, **token.attributes}
        new_shard = ConditionalInsert({**self._own_shard, **zeros, **site}, token)
        _, outcome = await self._writes.run([new_shard, self._addition(self._own_shard, total)])
        return total if isinstance(outcome, Failed) else Counter()

    def _additions(
        self, by_host: Mapping[str, Counter[str]], drained: Mapping[str, Listed]
    ) -> list[ConditionalUpdate]:
        return [
            self._addition(self._hosts.key(host), counts, drained.get(host))
            for host, counts in by_host.items()
        ]

    async def stats(self) -> FrontierStats:
        """Returns the stored counts of the run; strongly consistent."""
        only_counters = BeginsWith("item_id", {"S": COUNTER_PREFIX})
        query = Query(self._table, records_partition(self._hosts.run_id), sort=only_counters)
        response = await self._gateway.call("Query", requests.query_request(query))
        total: Counter[str] = Counter()
        for shard in response["Items"]:
            total.update({name: int(shard[name]["N"]) for name in NAMES})
        return FrontierStats(**total)

    def _addition(self, key: Key, amounts: Counter[str], drained: Listed | None = None) -> ConditionalUpdate:
        """Builds the write that adds amounts; with a drained host, only if no open item is left then."""
        token = WriteToken.new(f"flush_{self._shard}")
        increment: dict[Path, Value] = {
            name: {"N": str(amount)} for name, amount in amounts.items() if amount
        }
        if drained is None:
            update = Update(put=token.assignment, increment=increment)
            return ConditionalUpdate(key, update, token.is_absent, token)
        conditions: list[Condition] = [
            token.is_absent,
            Compare("queue_order", "=", {"S": drained.order}),
            *(Compare(name, "=", {"N": str(-amounts[name])}) for name in OPEN_STATES),
        ]
        revision = WriteToken.new("revision")
        update = Update(
            put={**token.assignment, **revision.assignment},
            increment=increment,
            remove=NOT_LISTED,
        )
        return ConditionalUpdate(key, update, AllOf(conditions), token)


def _note_outcomes(
    by_host: Mapping[str, Counter[str]],
    outcomes: Sequence[Outcome],
    drained: Mapping[str, Listed],
    flushed: Flushed,
) -> dict[str, Counter[str]]:
    """Notes which hosts have left the list, or have to be listed; returns the counts that were not stored."""
    left: dict[str, Counter[str]] = {}
    for (host, counts), outcome in zip(by_host.items(), outcomes, strict=True):
        if isinstance(outcome, Applied) and outcome.item is not None and counts["completed"] > 0:
            flushed.new_hosts += stats_of(outcome.item).completed == counts["completed"]
        if not isinstance(outcome, Applied):
            # A host that refuses plain counts is about to be stored.
            left[host] = counts
        elif host in drained:
            flushed.asleep.append(host)
        elif outcome.item is not None and stats_of(outcome.item).open > 0:
            (flushed.open if "queue" in outcome.item else flushed.to_wake).append(host)
    return left
