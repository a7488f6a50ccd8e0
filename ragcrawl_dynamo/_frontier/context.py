"""Holds the objects that the parts of a run's queue share: stores, settings, clock and local view."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeVar

from ragcrawl_dynamo._dynamodb.conditional_writes import ConditionalWrites
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.retry import full_jitter
from ragcrawl_dynamo._dynamodb.values import Item
from ragcrawl_dynamo._frontier.candidates import Candidate
from ragcrawl_dynamo._frontier.claim import Claim, LeaseObserver
from ragcrawl_dynamo._frontier.control_reads import ControlReads
from ragcrawl_dynamo._frontier.control_store import ControlStore
from ragcrawl_dynamo._frontier.counters import Counters
from ragcrawl_dynamo._frontier.host_candidates import HostCandidates
from ragcrawl_dynamo._frontier.host_store import HostStore, Updated
from ragcrawl_dynamo._frontier.item_store import ItemStore
from ragcrawl_dynamo._frontier.link_rules import LinkRules
from ragcrawl_dynamo._frontier.local_view import LocalView
from ragcrawl_dynamo._frontier.membership import Membership
from ragcrawl_dynamo._frontier.outage import while_leased
from ragcrawl_dynamo._frontier.queue_index import QueueIndex
from ragcrawl_dynamo._schema.records import RunControl
from ragcrawl_dynamo._schema.tables import Tables
from ragcrawl_dynamo._utils.clock import Clock, SystemClock
from ragcrawl_dynamo._utils.concurrency import gather
from ragcrawl_dynamo._utils.tasks import Tasks
from ragcrawl_dynamo.config import DynamoDBConfig
from ragcrawl_dynamo.errors import ClockSkewError
from ragcrawl_dynamo.models import FrontierItem

T = TypeVar("T")

# How many hosts a process notes before its first claim. It may never claim, and add any number.
_HOSTS_BEFORE_CLAIMS = 1000


@dataclass(frozen=True, slots=True)
class FrontierServices:
    """The services that the queues of all runs share in one process: client, tables, clock and observer."""

    gateway: Gateway
    tables: Tables
    writes: ConditionalWrites
    clock: Clock
    on_lease_lost: LeaseObserver


class RunContext:
    """One run, as one process works on it.

    Attributes:
        first_control: The control that is stored if the run has none yet.
        rules: How the run's links are compared, and to which host each belongs.
        run_id: The run.
        site_id: The site of the run.
        config: The settings of the backend.
        clock: The clock by which leases and delays are judged.
        on_lease_lost: Called with each claim whose lease was lost.
        control: The store of the run's control.
        control_reads: The reads of the control by this process.
        hosts: The store of the run's hosts.
        items: The store of the run's items.
        queues: Which items are in the queues of hosts.
        counters: How many items are in which state.
        membership: Which processes claim from the run.
        view: The knowledge of this process about the run.
        tasks: Work that continues if its caller is cancelled.
    """

    def __init__(self, services: FrontierServices, first_control: RunControl, rules: LinkRules) -> None:
        gateway, tables, writes = services.gateway, services.tables, services.writes
        self.first_control = first_control
        self.rules = rules
        self.run_id: str = first_control.run
        self.site_id: str = first_control.site_id
        self.config: DynamoDBConfig = gateway.config
        self.clock: Clock = services.clock
        self.on_lease_lost: LeaseObserver = services.on_lease_lost
        self.tasks: Tasks = Tasks()
        self.membership: Membership = Membership(gateway, tables.frontier, self.run_id, self.site_id)
        self.view: LocalView = LocalView(gateway.config.frontier_seen_cache, self.membership.me)
        self.control: ControlStore = ControlStore(gateway, tables, first_control, rules)
        self.control_reads: ControlReads = ControlReads(self.control, self.membership, self.tasks)
        self.hosts: HostStore = HostStore(gateway, tables, writes, self.control, self.control_reads)
        self.items: ItemStore = ItemStore(gateway, tables.frontier, writes, self.run_id)
        self.queues: QueueIndex = QueueIndex(gateway, tables.frontier, self.run_id)
        self.counters: Counters = Counters(
            gateway, tables.frontier, writes, self.hosts, self.view.unwritten_counts
        )
        self._gateway = gateway

    async def read_states(self, item_ids: Sequence[str]) -> tuple[dict[str, Item], RunControl | None]:
        """Reads the state of those of the given items that are stored, and the control; strongly consistent.

        Raises:
            AmbiguousIdError: The run is one of another site.
        """
        if not self.control_reads.may_begin():
            (states, _), control = await gather(
                [self.items.read_states(item_ids, with_control=False), self.control_reads.following()]
            )
            return states, control
        states, item = await self.items.read_states(item_ids, with_control=True)
        return states, None if item is None else self.control.decode(item)

    async def while_leased(self, claims: Sequence[Claim], work: Callable[[], Awaitable[T]]) -> T:
        """Does finished work of claims, again and again while DynamoDB does not serve it.

        See `outage.while_leased`.
        """
        return await while_leased(claims, self.clock, self.config.frontier_max_clock_skew, work)

    def note_updates(self, updates: Iterable[Updated]) -> None:
        """Notes hosts that this process has read or updated.

        A process that has not claimed yet notes the first ones: the index may not show them when it does.
        """
        bench, share, monotonic = self.view.bench, self.share, self.clock.monotonic()
        for update in updates:
            is_noted = self.membership.is_active or len(bench.hosts) < _HOSTS_BEFORE_CLAIMS
            is_own = is_noted and update.record.bucket in share
            bench.note_update(update.record, update.order_before, monotonic, is_own=is_own)

    def offer(self, candidate: Candidate) -> None:
        """Offers an item that this process has added or put back to its own claims."""
        host = self.view.bench.hosts.get(candidate.host)
        if host is None:
            return
        host.ended.pop(candidate.item_id, None)
        candidate = self.placed(host, candidate)
        if candidate.moment is not None and candidate.moment > self.clock.now():
            host.wait(candidate, candidate.moment)
        elif host.is_all or host.is_before_last(candidate):
            host.offer(candidate)
        self.view.bench.settle(host)

    def note_renewed(self, item: FrontierItem, free_at: datetime) -> None:
        """Notes that a lease of this process ends later."""
        host = self.view.bench.hosts.get(item.domain)
        if host is not None and (waiting := host.waiting.get(item.item_id)) is not None:
            host.wait(waiting.candidate, free_at, is_own=True)

    def note_ended(self, item: FrontierItem) -> None:
        """Notes that this process has ended the lease of an item."""
        if (host := self.view.bench.hosts.get(item.domain)) is not None:
            host.end(item.item_id)
            self.view.bench.settle(host)

    def pause_host(self, host: str, seconds: float) -> None:
        """Lets claims leave out a host for some seconds, since DynamoDB throttles writes for it."""
        self.view.bench.pause(host, self.clock.now() + timedelta(seconds=seconds))

    def hold_up(self, host: str) -> None:
        """Lets claims leave out a host that held one up, the longer the more claims in a row it held up."""
        if (known := self.view.bench.hosts.get(host)) is not None:
            known.held_up += 1
            self.pause_host(host, full_jitter(self.config, known.held_up))

    def note_lost(self, item: FrontierItem) -> None:
        """Notes that the lease of an item was lost. The present state of the item is not known."""
        host = self.view.bench.hosts.get(item.domain)
        waiting = None if host is None else host.waiting.get(item.item_id)
        if host is None or waiting is None or waiting.candidate.expired_token != item.lease_token:
            return
        host.drop(item.item_id)
        host.is_all = False
        self.view.bench.settle(host)

    def placed(self, host: HostCandidates, candidate: Candidate) -> Candidate:
        """Returns a candidate with its distance."""
        return replace(candidate, distance=self.distance(host, candidate, is_all=host.is_all))

    def distance(self, host: HostCandidates, candidate: Candidate, *, is_all: bool) -> int:
        """Returns how late this process should try an item; 0 if the item is in its share.

        A queue that was read to its end belongs to one process, a longer one to all of them.
        """
        membership = self.membership
        is_own = host.is_own if is_all else membership.owns_part(candidate.item_id)
        return 0 if is_own or membership.count == 1 else membership.distance(candidate.item_id)

    def owns(self, host: str) -> bool:
        """Returns whether this process claims, and a host is in its share."""
        return self.membership.is_active and self.hosts.bucket_of(host) in self.share

    @property
    def share(self) -> frozenset[int]:
        """The buckets in the share of this process."""
        return self.membership.share(self.hosts.buckets)

    def clear(self) -> None:
        """Clears the local view of the run. It is called after the run's items were deleted."""
        self.view.clear()
        self.control.forget()
        self.control_reads.forget()

    def require_open(self) -> None:
        """Checks that the backend is open here. Methods that answer from memory, without a request, call it.

        Raises:
            BackendStateError: The backend is not open, or is open in another event loop or process.
        """
        self._gateway.require_open()

    def check_clock(self) -> None:
        """Checks this machine's clock against the times in DynamoDB's answers.

        Raises:
            ClockSkewError: The clock is off by more than half of `frontier_max_clock_skew`. If each of two
                clocks is off by no more, they differ by that setting at most.
        """
        bound = self.config.frontier_max_clock_skew
        offset = self._gateway.server_clock.offset
        if abs(offset) > bound / 2 and isinstance(self.clock, SystemClock):
            raise ClockSkewError(offset, bound)
