"""Fakes a run whose tables are dictionaries, for the decisions of one process, in virtual time."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace
from typing import Any, cast

from ragcrawl_dynamo._dynamodb.outcomes import Applied, Outcome, Refused
from ragcrawl_dynamo._dynamodb.values import Item, Key
from ragcrawl_dynamo._frontier.candidates import Candidate
from ragcrawl_dynamo._frontier.context import RunContext
from ragcrawl_dynamo._frontier.host_store import Updated
from ragcrawl_dynamo._frontier.host_updates import HostUpdate
from ragcrawl_dynamo._frontier.item_store import Lease
from ragcrawl_dynamo._frontier.local_view import LocalView
from ragcrawl_dynamo._frontier.membership import Membership
from ragcrawl_dynamo._frontier.queue_index import Look
from ragcrawl_dynamo._frontier.work import Listed, Work
from ragcrawl_dynamo._schema.keys import host_key
from ragcrawl_dynamo._schema.queue_order import due_bound
from ragcrawl_dynamo._schema.records import HostRecord, RunControl
from ragcrawl_dynamo._utils.tasks import Tasks
from ragcrawl_dynamo.errors import CorruptItemError
from ragcrawl_dynamo.models import FrontierItem
from ragcrawl_dynamo.testing import ManualClock
from tests.support.factories import START, make_item
from tests.support.hosts import record


class FakeHosts:
    """The lists of hosts, each a sorted list of sort keys and names; `reads` are the reads of lists."""

    run_id, site_id = "run", "site"

    def __init__(self, buckets: int) -> None:
        self.buckets = buckets
        self.lists: dict[int, list[tuple[str, str]]] = {bucket: [] for bucket in range(buckets)}
        self.records: dict[str, HostRecord] = {}
        self.reads: list[tuple[int, int, str | None]] = []
        self.during_move: Callable[[], None] | None = None
        self.moves: list[tuple[Listed, str | None]] = []
        self.move_outcomes: dict[str, Outcome] = {}
        self.updates: list[dict[str, HostUpdate]] = []
        self.changed: set[str] = set()
        self.throttled: set[str] = set()
        self.seconds: list[float | None] = []
        self.during_update: Callable[[], None] | None = None
        self.announced: list[Mapping[str, Work]] = []

    async def read_list(
        self, bucket: int, until: datetime, limit: int, after: Listed | None = None
    ) -> tuple[list[Listed], bool]:
        self.reads.append((bucket, limit, after.host if after is not None else None))
        due = sorted(entry for entry in self.lists[bucket] if entry[0] <= due_bound(until))
        start = 0 if after is None else bisect_left(due, (after.order, after.host + "\0"))
        page = due[start : start + limit]
        return [Listed(host, order) for order, host in page], start + limit >= len(due)

    def key(self, host: str) -> Key:
        return host_key("run", host, 0)

    async def read(self, hosts: Iterable[str]) -> dict[str, HostRecord]:
        return {host: self.records[host] for host in hosts if host in self.records}

    async def move(self, moves: Sequence[tuple[Listed, str | None]]) -> list[Outcome]:
        self.moves += moves
        if self.during_move is not None:
            self.during_move()
        return [self.move_outcomes.get(listed.host, Refused()) for listed, _ in moves]

    async def try_update(
        self,
        records: Mapping[str, HostRecord],
        updates: Mapping[str, HostUpdate],
        *,
        on_held_up: Callable[[str], None],
        seconds: float | None = None,
    ) -> dict[str, HostRecord]:
        self.updates.append(dict(updates))
        self.seconds.append(seconds)
        if self.during_update is not None:
            self.during_update()
        for host in self.throttled & updates.keys():
            on_held_up(host)
        lost = self.changed | self.throttled
        return {host: update.apply(records[host]) for host, update in updates.items() if host not in lost}

    async def update(self, updates: Mapping[str, HostUpdate]) -> list[Updated]:
        if updates:
            self.updates.append(dict(updates))
        return []

    async def announce(self, work: Mapping[str, Work], counts: object) -> list[Updated]:
        self.announced.append(dict(work))
        return [Updated(None, record(host, place=host_work.place)) for host, host_work in work.items()]


class FakeQueues:
    """The queues of hosts by host and shard; `looks` are the hosts that were looked into.

    `late` has what the index shows instead, where it is late.
    """

    def __init__(self) -> None:
        self.shards: defaultdict[tuple[str, int], list[Candidate]] = defaultdict(list)
        self.late: dict[tuple[str, int], list[Candidate]] = {}
        self.leases: dict[str, tuple[str, datetime]] = {}
        self.looks: list[str] = []
        self.known: list[str] = []
        self.error: Exception | None = None
        self.due: list[Candidate] = []

    async def look(self, host: str, shard: int, wanted: int, known: Container[str], now: datetime) -> Look:
        self.looks.append(host)
        # The index shows no leases.
        stored = self.late.get((host, shard), self.shards[host, shard])
        shown = (replace(item, expired_token=None) for item in stored)
        items = sorted(shown, key=lambda item: item.order)
        unknown = [item for item in items if item.item_id not in known]
        if len(unknown) < wanted:
            return Look(items, [], is_all=True)
        end = items.index(unknown[wanted - 1]) + 1
        return Look(items[:end], self.due, is_all=False)

    async def read_known(
        self, candidates: Sequence[Candidate]
    ) -> dict[str, tuple[Candidate, datetime | None] | None]:
        if self.error is not None:
            raise self.error
        self.known += [candidate.item_id for candidate in candidates]
        stored = {item.item_id: item for items in self.shards.values() for item in items}
        return {
            candidate.item_id: (stored[candidate.item_id], self.leases.get(candidate.item_id, ("", None))[1])
            if candidate.item_id in stored
            else None
            for candidate in candidates
        }


class FakeItems:
    """The items by id; `outcomes` are those of claims and `give_up`s that are not applied."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self.claims: list[str] = []
        self.seconds: list[float | None] = []
        self.once: list[bool] = []
        self.during_run: Callable[[], None] | None = None
        self.given_up: list[str] = []

    def claim(self, candidate: Candidate, lease: Lease, max_attempts: int) -> tuple[str, Candidate, str]:
        return "claim", candidate, lease.token

    def give_up(
        self, candidate: Candidate, token: str, now: datetime, max_attempts: int
    ) -> tuple[str, Candidate, str]:
        return "give up", candidate, token

    async def run(
        self, writes: Sequence[tuple[str, Candidate, str]], *, once: bool, seconds: float | None = None
    ) -> list[Outcome]:
        self.seconds.append(seconds)
        self.once.append(once)
        if self.during_run is not None:
            self.during_run()
        outcomes: list[Outcome] = []
        for kind, candidate, token in writes:
            (self.claims if kind == "claim" else self.given_up).append(candidate.item_id)
            applied = Applied({"item_id": {"S": candidate.item_id}, "lease_token": {"S": token}})
            outcomes.append(self.outcomes.get(f"{kind} {candidate.item_id}", applied))
        return outcomes

    def decode(self, item: Item) -> FrontierItem:
        if item["item_id"]["S"] == "corrupt":
            raise CorruptItemError("corrupt")
        return make_item(item["item_id"]["S"], lease_token=item["lease_token"]["S"])


class FakeCounters:
    """Notes how items move between states."""

    def __init__(self) -> None:
        self.during_move: Callable[[], None] | None = None
        self.moves: list[tuple[str, str | None, str | None]] = []

    def move(self, host: str, before: str | None, after: str | None) -> None:
        self.moves.append((host, before, after))


class FakeRun(RunContext):
    """A run with a clock that stands still, and fakes for its hosts and queues."""

    def __init__(self, buckets: int = 4, processes: int = 1) -> None:
        nothing = cast("Any", None)
        self.clock: ManualClock = ManualClock(START)
        self.config = cast(
            "Any",
            SimpleNamespace(
                frontier_max_clock_skew=2.0,
                frontier_max_attempts=5,
                retry_base_delay=4.0,
                retry_max_delay=60.0,
            ),
        )
        self.tasks = Tasks()
        self.membership = Membership(nothing, nothing, "run", "site")
        self.membership._ids = [self.membership.me, *(f"other{i}" for i in range(1, processes))]
        self.view = LocalView(10, self.membership.me)
        # The workbench knows the time from the first claim on.
        self.view.bench.supply(0, START)
        self.fake_hosts, self.fake_queues = FakeHosts(buckets), FakeQueues()
        self.hosts = cast("Any", self.fake_hosts)
        self.queues = cast("Any", self.fake_queues)
        self.fake_items, self.fake_counters = FakeItems(), FakeCounters()
        self.items = cast("Any", self.fake_items)
        self.fake_control: RunControl | None = None
        self.control_reads = cast("Any", SimpleNamespace(recent=self._read_control))
        self.is_membership_changed = False
        self.membership.refresh = self._refresh_membership  # type: ignore[method-assign] # it sends requests
        self.counters = cast("Any", self.fake_counters)

    async def _read_control(self) -> RunControl | None:
        return self.fake_control

    async def _refresh_membership(self, now: datetime, monotonic: float) -> bool:
        return self.is_membership_changed

    def set_share(self, *buckets: int) -> None:
        """Sets which buckets are in the share of this process."""
        self.membership._shares[self.fake_hosts.buckets] = frozenset(buckets)

    def list_host(self, host: str, order: str, bucket: int = 0) -> None:
        """Lists a host."""
        self.fake_hosts.lists[bucket].append((order, host))
