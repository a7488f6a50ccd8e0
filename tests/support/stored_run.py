"""Fakes a run for what is done to its items: it builds real writes, and a test says what comes of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace
from typing import Any, cast

from ragcrawl_dynamo import DynamoDBConfig
from ragcrawl_dynamo._dynamodb.codec import to_item
from ragcrawl_dynamo._dynamodb.conditional_writes import ConditionalInsert, ConditionalUpdate
from ragcrawl_dynamo._dynamodb.expressions import Condition, Placeholders
from ragcrawl_dynamo._dynamodb.outcomes import Applied, Outcome
from ragcrawl_dynamo._dynamodb.values import Item
from ragcrawl_dynamo._dynamodb.write_token import WriteToken
from ragcrawl_dynamo._frontier.claim import Claim
from ragcrawl_dynamo._frontier.counters import Flushed
from ragcrawl_dynamo._frontier.counts import FrontierStats
from ragcrawl_dynamo._frontier.host_store import Updated
from ragcrawl_dynamo._frontier.host_updates import HostUpdate
from ragcrawl_dynamo._frontier.item_store import STATE_ATTRIBUTES, ItemStore, candidate_of
from ragcrawl_dynamo._frontier.link_rules import LinkRules
from ragcrawl_dynamo._schema.records import HostRecord, RunControl, RunState
from ragcrawl_dynamo._schema.tables import Tables
from ragcrawl_dynamo.errors import FrontierCancelledError, ThrottledError
from ragcrawl_dynamo.models import FrontierItem, FrontierStatus
from tests.support.factories import make_item
from tests.support.fake_run import FakeCounters, FakeHosts, FakeRun
from tests.support.hosts import at, known

HOST = "example.com"
BUSY = ThrottledError("busy", code="Busy", operation="UpdateItem", table=None)


class StoredItems(ItemStore):
    """Items by id, as they are stored. Writes are applied unless `outcomes` has another outcome for the id.

    Attributes:
        stored: The items. Writes leave them as they are.
        outcomes: The outcomes of writes.
        batches: The writes, by call.
        reads: The ids that were read, by call.
        pages: What a scan reads.
        scans: The statuses and the attributes of each scan.
        throttled: How long each write of a coalesced call pauses, by its index.
    """

    def __init__(self, config: DynamoDBConfig) -> None:
        gateway = cast("Any", SimpleNamespace(config=config))
        super().__init__(gateway, Tables.of("").frontier, cast("Any", None), "run")
        self.stored: dict[str, Item] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.batches: list[list[ConditionalInsert | ConditionalUpdate]] = []
        self.coalesced = 0
        self.reads: list[list[str]] = []
        self.pages: list[list[Item]] = []
        self.scans: list[tuple[tuple[FrontierStatus, ...], Sequence[str] | None]] = []
        self.throttled: dict[int, float] = {}
        self.during_run: Callable[[], object] | None = None
        self.closed = 0

    def store(self, item: FrontierItem, *, is_queued: bool = True) -> FrontierItem:
        """Stores an item, as if it was added."""
        insert = self.encode(item, 1)
        self.stored[item.item_id] = insert.item if is_queued else to_item(self._table, item)
        return item

    async def run(
        self,
        writes: Sequence[ConditionalInsert | ConditionalUpdate],
        *,
        once: bool = False,
        seconds: float | None = None,
    ) -> list[Outcome]:
        self.batches.append(list(writes))
        if self.during_run is not None:
            self.during_run()
        return [self.outcomes.get(id_of(write), self._apply(write)) for write in writes]

    async def run_coalesced(
        self,
        writes: Sequence[ConditionalUpdate],
        on_throttled: Callable[[int, float], None] | None = None,
    ) -> list[Outcome]:
        self.coalesced += 1
        for i, pause in self.throttled.items():
            assert on_throttled is not None
            on_throttled(i, pause)
        return await self.run(writes)

    async def read_stored(self, item_ids: Sequence[str]) -> dict[str, Item]:
        self.reads.append(list(item_ids))
        return {item_id: self.stored[item_id] for item_id in item_ids if item_id in self.stored}

    async def read_states(
        self, item_ids: Sequence[str], *, with_control: bool
    ) -> tuple[dict[str, Item], Item | None]:
        names = ("item_id", *STATE_ATTRIBUTES)
        items = await self.read_stored(item_ids)
        return {
            item_id: {name: item[name] for name in names if name in item} for item_id, item in items.items()
        }, None

    async def scan(
        self, *statuses: FrontierStatus, attributes: Sequence[str] | None = None
    ) -> AsyncGenerator[list[Item], None]:
        self.scans.append((statuses, attributes))
        for page in self.pages:
            yield page

    async def close(self) -> None:
        self.closed += 1

    def _apply(self, write: ConditionalInsert | ConditionalUpdate) -> Outcome:
        if isinstance(write, ConditionalInsert):
            return Applied()
        put = {path: value for path, value in write.update.put.items() if isinstance(path, str)}
        return Applied({**self.stored.get(id_of(write), {}), **put})


class FakeControl:
    """The control of the run.

    `states` are those that were set, `reopened` the controls that had a proof, and `warned` those whose run
    may have ended.
    """

    def __init__(self) -> None:
        self.control: RunControl | None = RunControl(run="run", site_id="site")
        self.reopened: list[RunControl | None] = []
        self.warned: list[RunControl] = []
        self.states: list[RunState] = []
        self.checked = 0
        self.known = 0
        self.verifying: WriteToken | None = WriteToken.new("verifying")
        self.kept: list[tuple[WriteToken, datetime]] = []
        self.is_kept = True
        self.begun: list[datetime] = []
        self.ended: list[tuple[WriteToken, Mapping[str, int] | None]] = []
        self.is_proof_kept = True

    async def read(self) -> RunControl | None:
        return self.control

    async def admit(self, control: RunControl | None) -> RunControl:
        if control is None or control.state is RunState.CANCELLED:
            raise FrontierCancelledError
        return control

    async def warn_of_end(self, control: RunControl) -> None:
        self.warned.append(control)

    async def reopen(self, control: RunControl | None) -> None:
        self.reopened.append(control)

    async def check_rules(self) -> None:
        self.checked += 1

    async def know_buckets(self) -> None:
        self.known += 1

    async def set_state(self, state: RunState) -> None:
        self.states.append(state)

    async def begin_verification(self, now: datetime) -> WriteToken | None:
        self.begun.append(now)
        return self.verifying

    async def keep_verification(self, token: WriteToken, now: datetime) -> bool:
        self.kept.append((token, now))
        return self.is_kept

    async def end_verification(self, token: WriteToken, counts: Mapping[str, int] | None) -> bool:
        self.ended.append((token, counts))
        return counts is not None and self.is_proof_kept


class FakeControlReads:
    """Reads the control of a FakeControl; `following_reads` counts those after the call."""

    def __init__(self, control: FakeControl) -> None:
        self._control = control
        self.following_reads = 0
        self.forgotten = 0

    def may_begin(self) -> bool:
        return False

    async def following(self) -> RunControl | None:
        self.following_reads += 1
        return self._control.control

    def forget(self) -> None:
        self.forgotten += 1


class CountedHosts(FakeHosts):
    """Hosts with counts, whose updates can fail.

    Attributes:
        error: The error of the next updates and announcements.
        ensured: The hosts that were stored before their counts.
        counts: What is stored of hosts, by their names.
    """

    def __init__(self, buckets: int) -> None:
        super().__init__(buckets)
        self.error: Exception | None = None
        self.ensured: list[str] = []
        self.counts: dict[str, Item] = {}

    def bucket_of(self, host: str) -> int:
        return 0

    async def ensure(self, host: str) -> None:
        self.ensured.append(host)

    async def update(self, updates: Mapping[str, HostUpdate]) -> list[Updated]:
        await super().update(updates)
        if self.error is not None:
            raise self.error
        before = {host: self.records[host] for host in updates if host in self.records}
        return [Updated(record.order, updates[host].apply(record)) for host, record in before.items()]

    async def announce(self, work: Any, counts: object) -> list[Updated]:
        if self.error is not None:
            raise self.error
        return await super().announce(work, counts)

    async def get_item(self, host: str) -> Item | None:
        return self.counts.get(host)

    async def iterate(self) -> AsyncIterator[tuple[HostRecord, Item]]:
        for host, record in self.records.items():
            yield record, self.counts[host]

    async def iterate_counts(self) -> AsyncIterator[tuple[str, Item]]:
        for host, item in self.counts.items():
            yield host, item


class StoredCounters(FakeCounters):
    """Counts of the run; `corrections` are the differences that a recount has found."""

    def __init__(self) -> None:
        super().__init__()
        self.stored = FrontierStats()
        self.corrections: list[tuple[dict[str, int], dict[str, dict[str, int]]]] = []
        self.flushes: list[Any] = []
        self.error: Exception | None = None
        self.due_checks = 0

    async def stats(self) -> FrontierStats:
        return self.stored

    def correct(self, total: Counter[str], by_host: Iterable[tuple[str, Counter[str]]]) -> None:
        hosts = {host: without_zeros(counts) for host, counts in by_host}
        self.corrections.append((without_zeros(total), hosts))

    def seconds_until_due(self, monotonic: float) -> float | None:
        self.due_checks += 1
        return None

    async def flush(self, find_drained: object, only: object, *, once: bool = False) -> Flushed:
        self.flushes.append(only)
        if self.error is not None:
            raise self.error
        return Flushed()


class StoredRun(FakeRun):
    """A run whose items a test stores, and whose writes it answers.

    Attributes:
        store: The items.
        lost: The claims whose leases were lost.
    """

    def __init__(self, processes: int = 1, **settings: Any) -> None:
        super().__init__(buckets=1, processes=processes)
        self.config = DynamoDBConfig(**settings)
        self.run_id, self.site_id = "run", "site"
        self.first_control = RunControl(run="run", site_id="site")
        self.rules = LinkRules()
        self.lost: list[Claim] = []
        self.on_lease_lost = self.lost.append
        self.items = self.store = StoredItems(self.config)
        self.stored_hosts, self.stored_counters = CountedHosts(1), StoredCounters()
        self.fake_hosts = self.stored_hosts
        self.hosts, self.counters = cast("Any", self.stored_hosts), cast("Any", self.stored_counters)
        self.controls = FakeControl()
        self.fake_reads = FakeControlReads(self.controls)
        self.control, self.control_reads = cast("Any", self.controls), cast("Any", self.fake_reads)
        self.opened = 0
        server_clock = SimpleNamespace(offset=0.0)
        self._gateway = cast("Any", SimpleNamespace(require_open=self._note_open, server_clock=server_clock))

    def _note_open(self) -> None:
        self.opened += 1

    def claim(self, item_id: str = "item", *, has_slot: bool = False, **fields: Any) -> Claim:
        """Claims an item for 30 s. It is stored, and waits on the workbench for the end of its lease."""
        defaults: dict[str, Any] = {
            "domain": HOST,
            "attempt": 1,
            "lease_token": f"token of {item_id}",
            "status": FrontierStatus.IN_PROGRESS,
            "discovered_at": at(-60),
        }
        item = self.store.store(make_item(item_id, **{**defaults, **fields}))
        host = self.view.bench.hosts.setdefault(item.domain, known(host=item.domain, order=None))
        expired = replace(candidate_of(item, None), expired_token=item.lease_token)
        host.wait(expired, at(32), is_own=True)
        self.view.bench.settle(host)
        return Claim(item, "worker", at(30), deadline=30.0, has_slot=has_slot)

    def waiting(self, host: str = HOST) -> dict[str, datetime]:
        """Returns which items of a host wait on the workbench, and until when."""
        return {item_id: waiting.until for item_id, waiting in self.view.bench.hosts[host].waiting.items()}

    def ready(self, host: str = HOST) -> list[str]:
        """Returns which items of a host can be claimed, as this process knows."""
        return [candidate.item_id for candidate in self.view.bench.hosts[host].ready]


def id_of(write: ConditionalInsert | ConditionalUpdate) -> str:
    """Returns the id of the item that a write concerns."""
    key = write.item if isinstance(write, ConditionalInsert) else write.key
    return str(key["item_id"]["S"])


def text_of(condition: Condition) -> str:
    """Returns a condition with the names and values in place of the placeholders."""
    to = Placeholders()
    text = condition.render(to)
    values = {token: repr(*value.values()) for token, value in to.values.items()}
    return re.sub(r"[#:]\d+", lambda match: (to.names | values)[match[0]], text)


def without_zeros(counts: Mapping[str, int]) -> dict[str, int]:
    """Returns the counts that are not 0."""
    return {name: count for name, count in counts.items() if count}
