"""Proves that a run is finished and counts its items exactly, by reading the whole run."""

from __future__ import annotations

import secrets
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeAlias

from ragcrawl_dynamo._dynamodb.conditional_writes import Applied
from ragcrawl_dynamo._dynamodb.values import Item, unescape
from ragcrawl_dynamo._dynamodb.write_token import WriteToken
from ragcrawl_dynamo._frontier.cancellation import holds_no_lease
from ragcrawl_dynamo._frontier.context import RunContext
from ragcrawl_dynamo._frontier.counters import NAMES, FrontierStats, stats_of
from ragcrawl_dynamo._frontier.host_store import DUE_LIST_READ
from ragcrawl_dynamo._frontier.item_store import STATE_ATTRIBUTES, work_of
from ragcrawl_dynamo._frontier.notifier import Notifier
from ragcrawl_dynamo._frontier.work import Work, WorkByHost
from ragcrawl_dynamo._schema.queue_order import DELAYED, split_order
from ragcrawl_dynamo._schema.records import RunState
from ragcrawl_dynamo.models import FrontierStatus

# The number of items, by host and state.
Counts: TypeAlias = "defaultdict[str, Counter[str]]"

# How many open items are remembered if the run is not finished.
_OPEN_ITEMS_REMEMBERED = 100

# Seconds between two signs of life of the process that reads the whole run.
_SIGN_OF_LIFE_SECONDS = 20.0

# How many hosts are read at a time.
_HOSTS_AT_ONCE = 25


@dataclass(frozen=True, slots=True)
class _Counted:
    """The stored counts before the run is read.

    Attributes:
        total: The counts of the run.
        by_host: The counts of each host.
    """

    total: FrontierStats
    by_host: dict[str, FrontierStats]


class Termination:
    """Proves that one run is finished, queues items that are missing in the queue, and counts all items."""

    def __init__(self, run: RunContext, notifier: Notifier) -> None:
        self._run = run
        self._notifier = notifier

    async def is_finished(self) -> bool:
        """Returns whether every item is final.

        As long as the index or a remembered item shows open work, the answer is False without reading the
        whole run.
        """
        control = await self._run.control.read()
        if control is not None and control.finished_by:
            return True
        if control is not None and control.state is RunState.CANCELLED:
            return await holds_no_lease(self._run)
        if await self._index_shows_open() or await self._remembered_are_open():
            return False
        return await self._verify()

    async def stats(self) -> FrontierStats:
        """Returns the exact counts of a finished run, or else the stored counts."""
        control = await self._run.control.read()
        if control is not None and control.finished_by:
            return FrontierStats(**control.final_counts)
        return FrontierStats.estimated(await self._run.counters.stats())

    async def recount(self) -> FrontierStats:
        """Counts all items, and corrects the stored counts by the differences."""
        counted = await self._read_counters()
        counts: Counts = defaultdict(Counter)
        async with aclosing(self._run.items.scan(attributes=STATE_ATTRIBUTES)) as pages:
            async for items in pages:
                _count(items, counts)
        return self._correct(counts, counted)

    async def _index_shows_open(self) -> bool:
        # The host that had open items last is read first: while work is under way, this one read is enough.
        if self._run.view.open_host is not None and await self._any_shows_open([self._run.view.open_host]):
            return True
        start = None
        while True:
            due_list = await self._run.hosts.due_list(start)
            names = [host for host, _ in due_list.hosts]
            for first in range(0, len(names), _HOSTS_AT_ONCE):
                if await self._any_shows_open(names[first : first + _HOSTS_AT_ONCE]):
                    return True
            if len(names) < DUE_LIST_READ:
                return False
            start = due_list.hosts[-1]

    async def _any_shows_open(self, hosts: list[str]) -> bool:
        _, records = await self._run.hosts.read(hosts)
        for record in records.values():
            for shard in range(record.shards):
                if await self._run.items.has_open(record.host, shard):
                    self._run.view.open_host = record.host
                    return True
        self._run.view.open_host = None
        return False

    async def _remembered_are_open(self) -> bool:
        view = self._run.view
        if not view.open_items:
            return False
        items = await self._run.items.read(view.open_items)
        view.open_items = [item_id for item_id, item in items.items() if not item.status.is_final]
        return bool(view.open_items)

    async def _verify(self) -> bool:
        """Proves that the run is finished. If an item is added meanwhile, the proof loses its token."""
        run = self._run
        token = await run.control.begin_verification(run.clock.now())
        if token is None:
            return False
        counts: Counts = defaultdict(Counter)
        open_items: list[str] = []
        work = WorkByHost()
        is_proven = False
        try:
            counted = await self._read_counters()
            is_proven = await self._read_run(token, counts, open_items, work) and not open_items
        finally:
            total = {name: sum(host_counts[name] for host_counts in counts.values()) for name in NAMES}
            is_finished = await run.control.end_verification(token, total if is_proven else None)
        run.view.open_items = open_items
        if is_finished:
            self._correct(counts, counted)
        if work:
            await self._notifier.announce(work)
        return is_finished

    async def _read_run(
        self, token: WriteToken, counts: Counts, open_items: list[str], work: WorkByHost
    ) -> bool:
        """Reads all items of the run.

        Args:
            token: The token of the proof.
            counts: Gets the number of items by host and state.
            open_items: Gets the ids of the first open items.
            work: Gets the work of the open items.

        Returns:
            False if the token was removed, so that the proof has failed.
        """
        run = self._run
        last_sign_at = run.clock.monotonic()
        async with aclosing(run.items.scan(attributes=STATE_ATTRIBUTES)) as pages:
            async for items in pages:
                _count(items, counts)
                if run.clock.monotonic() - last_sign_at > _SIGN_OF_LIFE_SECONDS:
                    last_sign_at = run.clock.monotonic()
                    if not await run.control.keep_verification(token, run.clock.now()):
                        return False
                for item in items:
                    if not FrontierStatus(item["status"]["S"]).is_final:
                        await self._note_work(item, work)
                        if len(open_items) < _OPEN_ITEMS_REMEMBERED:
                            open_items.append(unescape(item["item_id"]["S"]))
        return True

    async def _note_work(self, item: Item, work: WorkByHost) -> None:
        """Adds the work of an open item to `work`; queues the item if it was saved as a plain record."""
        now = self._run.clock.now()
        item_work = work_of(item, now)
        if item_work is None and item["status"]["S"] == FrontierStatus.PENDING:
            await self._adopt(unescape(item["item_id"]["S"]))
            item_work = Work(now)
        # An item in progress that is not queued is worked on without a lease.
        if item_work is not None:
            work.note(item["domain"]["S"], item_work)

    async def _adopt(self, item_id: str) -> None:
        items = self._run.items
        for record in (await items.read([item_id])).values():
            (outcome,) = await items.run([items.adopt(record, secrets.token_hex(8))])
            if isinstance(outcome, Applied):
                self._run.counters.move(record.domain, None, "pending")

    async def _read_counters(self) -> _Counted:
        total = await self._run.counters.stats()
        return _Counted(
            total, {record.host: stats_of(item) async for record, item in self._run.hosts.iterate()}
        )

    def _correct(self, counts: Counts, counted: _Counted) -> FrontierStats:
        """Corrects the stored counts by the differences; returns the exact counts."""
        total: Counter[str] = Counter()
        for host_counts in counts.values():
            total.update(host_counts)
        self._run.counters.correct(
            _difference(total, counted.total),
            {host: _difference(counts[host], stored) for host, stored in counted.by_host.items()},
        )
        return FrontierStats(**total)


def _count(items: Iterable[Item], counts: Counts) -> None:
    for item in items:
        counts[item["domain"]["S"]][_state(item)] += 1


def _state(item: Item) -> str:
    """Returns the state in which an item is counted."""
    status = item["status"]["S"]
    if status == FrontierStatus.PENDING and "queue_order" in item:
        kind, _, _ = split_order(item["queue_order"]["S"])
        return "delayed" if kind == DELAYED else status
    return status


def _difference(exact: Counter[str], stored: FrontierStats) -> Counter[str]:
    return Counter({name: exact[name] - getattr(stored, name) for name in NAMES})
