"""Whether a run is finished, and how many items it has in which state: what only reading all of it tells."""

from __future__ import annotations

import secrets
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import aclosing
from typing import TypeAlias

from ragcrawl_dynamo._dynamodb.conditional_writes import Applied
from ragcrawl_dynamo._dynamodb.values import Item, unescape
from ragcrawl_dynamo._frontier.counters import NAMES, Counters, FrontierStats, stats_of
from ragcrawl_dynamo._frontier.host_store import TURNS_READ, HostStore
from ragcrawl_dynamo._frontier.item_store import STANDING, QueueStore, open_since
from ragcrawl_dynamo._frontier.notifier import Waker, Work, note_work
from ragcrawl_dynamo._schema.queue_order import DELAYED, split_order
from ragcrawl_dynamo._utils.clock import Clock
from ragcrawl_dynamo.models import FrontierStatus

# Items by host and state.
Counts: TypeAlias = "defaultdict[str, Counter[str]]"

# Open items that are remembered when a run turns out not to be finished.
_WITNESSES = 100

# Seconds between two signs of life of whoever reads a whole run.
_SIGN_OF_LIFE_SECONDS = 20.0

# Hosts whose queues one step looks into.
_HOSTS_AT_ONCE = 25


class Completion:
    """Proves a run finished, finds what was forgotten, counts."""

    def __init__(
        self, hosts: HostStore, queue: QueueStore, counters: Counters, waker: Waker, clock: Clock
    ) -> None:
        self._hosts = hosts
        self._queue = queue
        self._counters = counters
        self._waker = waker
        self._clock = clock
        self._witnesses: list[str] = []
        self._open_host: str | None = None

    def forget(self) -> None:
        """Drops what is remembered of open items."""
        self._witnesses = []
        self._open_host = None

    async def is_finished(self) -> bool:
        """Whether every item is final: by hints while they say no, by reading the whole run otherwise."""
        control, _ = await self._hosts.read()
        if control is not None and control.finished_by:
            return True
        if await self._index_shows_open() or await self._witnesses_are_open():
            return False
        return await self._verify()

    async def stats(self) -> FrontierStats:
        """The counts of the finished run, or what the counters say."""
        control, _ = await self._hosts.read()
        if control is not None and control.finished_by:
            return FrontierStats(**control.final_counts)
        return FrontierStats.estimated(await self._counters.stats())

    async def recount(self) -> FrontierStats:
        """Counts all items, and notes what the counters differ by."""
        counted = await self._counters.stats()
        by_host = {record.host: stats_of(item) async for record, item in self._hosts.iterate()}
        found: Counts = defaultdict(Counter)
        async with aclosing(self._queue.scan(attributes=STANDING)) as pages:
            async for items in pages:
                _count(items, found)
        return self._correct(found, counted, by_host)

    async def _index_shows_open(self) -> bool:
        # First where something was open the last time: while work goes on, one look says no.
        if self._open_host is not None and await self._any_shows_open([self._open_host]):
            return True
        start = None
        while True:
            turns = await self._hosts.turns(start)
            names = [host for host, _ in turns.hosts]
            for i in range(0, len(names), _HOSTS_AT_ONCE):
                if await self._any_shows_open(names[i : i + _HOSTS_AT_ONCE]):
                    return True
            if len(names) < TURNS_READ:
                return False
            start = turns.hosts[-1]

    async def _any_shows_open(self, hosts: list[str]) -> bool:
        _, records = await self._hosts.read(hosts)
        for record in records.values():
            for shard in range(record.shards):
                if await self._queue.has_open(record.host, shard):
                    self._open_host = record.host
                    return True
        self._open_host = None
        return False

    async def _witnesses_are_open(self) -> bool:
        if not self._witnesses:
            return False
        items = await self._queue.read(self._witnesses)
        self._witnesses = [each for each, item in items.items() if not item.status.is_final]
        return bool(self._witnesses)

    async def _verify(self) -> bool:
        """Reads the whole run; whoever adds an item meanwhile takes the token away, and the proof fails."""
        token = await self._hosts.begin_verification(self._clock.now())
        if token is None:
            return False
        found: Counts = defaultdict(Counter)
        open_items: dict[str, Item] = {}
        work: Work = {}
        proven = False
        said_at = self._clock.monotonic()
        try:
            counted = await self._counters.stats()
            by_host = {record.host: stats_of(item) async for record, item in self._hosts.iterate()}
            async with aclosing(self._queue.scan(attributes=STANDING)) as pages:
                async for items in pages:
                    _count(items, found)
                    if self._clock.monotonic() - said_at > _SIGN_OF_LIFE_SECONDS:
                        said_at = self._clock.monotonic()
                        if not await self._hosts.keep_verification(token, self._clock.now()):
                            return False
                    for item in items:
                        if not FrontierStatus(item["status"]["S"]).is_final:
                            await self._note_work(item, work)
                            if len(open_items) < _WITNESSES:
                                open_items[unescape(item["item_id"]["S"])] = item
            proven = not open_items
        finally:
            counts = {name: sum(each[name] for each in found.values()) for name in NAMES}
            finished = await self._hosts.end_verification(token, counts if proven else None)
        self._witnesses = list(open_items)
        if finished:
            self._correct(found, counted, by_host)
        if work:
            await self._waker.wake(work)
        return finished

    async def _note_work(self, item: Item, work: Work) -> None:
        """Notes when an open item can be claimed; puts it into the queue if it was saved as a record only."""
        now = self._clock.now()
        found = open_since(item, now)
        if found is None and item["status"]["S"] == FrontierStatus.PENDING:
            await self._adopt(unescape(item["item_id"]["S"]))
            found = now, 1
        # Otherwise somebody works on it without a lease.
        if found is not None:
            note_work(work, item["domain"]["S"], *found)

    async def _adopt(self, item_id: str) -> None:
        for record in (await self._queue.read([item_id])).values():
            (outcome,) = await self._queue.run([self._queue.adopt(record, secrets.token_hex(8))])
            if isinstance(outcome, Applied):
                self._counters.move(record.domain, None, "pending")

    def _correct(
        self, found: Counts, counted: FrontierStats, by_host: dict[str, FrontierStats]
    ) -> FrontierStats:
        """Notes by how much the counters are off."""
        total: Counter[str] = Counter()
        for each in found.values():
            total.update(each)
        self._counters.correct(
            _difference(total, counted),
            {host: _difference(found[host], before) for host, before in by_host.items()},
        )
        return FrontierStats(**total)


def _count(items: Iterable[Item], found: Counts) -> None:
    for item in items:
        found[item["domain"]["S"]][_state(item)] += 1


def _state(item: Item) -> str:
    """What an item is counted as."""
    status = item["status"]["S"]
    if status == FrontierStatus.PENDING and "queue_order" in item:
        kind, _, _ = split_order(item["queue_order"]["S"])
        return "delayed" if kind == DELAYED else status
    return status


def _difference(exact: Counter[str], counted: FrontierStats) -> Counter[str]:
    return Counter({name: exact[name] - getattr(counted, name) for name in NAMES})
