"""Models the queue in memory: which items are claimable, how many of a host, and in which order."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import uuid4

from ragcrawl_dynamo import Claim, FrontierItem
from ragcrawl_dynamo.testing import ManualClock
from tests.support.queues import QUICK

FINAL = {"completed", "failed", "skipped"}
SKEW = timedelta(seconds=QUICK["frontier_max_clock_skew"])
MAX_ATTEMPTS = QUICK["frontier_max_attempts"]

# The only delay of a host that the model knows, besides none.
HOST_DELAY = 2.0

NEVER = -1


@dataclass
class Entry:
    """A link in the model. `free_at` is the end of its delay, or when its lease can be taken over."""

    url: str
    host: str
    priority: float
    discovered_at: datetime
    state: str = "pending"
    free_at: datetime | None = None
    token: str | None = None
    failures: int = 0

    def is_due(self, now: datetime) -> bool:
        """Whether it waits for nothing: it is ready, its delay is over, or its lease has expired."""
        if self.state == "pending":
            return True
        return self.state in ("delayed", "in_progress") and self.free_at is not None and self.free_at <= now

    def is_claimable(self, now: datetime) -> bool:
        """Whether it can be leased. If its last attempt has expired, it becomes a dead letter instead."""
        return self.is_due(now) and not self.is_last_attempt

    @property
    def is_last_attempt(self) -> bool:
        return self.state == "in_progress" and self.failures >= MAX_ATTEMPTS - 1

    @property
    def order(self) -> tuple[float, datetime]:
        return -self.priority, self.discovered_at


@dataclass
class Host:
    """The limits of a host in the model.

    If limits change while leases run, it is not certain which leases count. The most that may be claimed is
    computed from the leases that count for certain; the least that must be claimable, from all that may
    count.

    Attributes:
        spaced_lease: When the latest lease began for which a delay counts for certain.
        any_lease: When the latest lease began.
        slots: The leases in flight that count for certain, with the moment at which each is lost.
        possible_slots: All leases in flight that may count.
    """

    delay: float = 0.0
    most: int | None = None
    blocked_until: datetime | None = None
    spaced_lease: datetime | None = None
    any_lease: datetime | None = None
    slots: dict[str, datetime] = field(default_factory=dict)
    possible_slots: dict[str, datetime] = field(default_factory=dict)

    def at_most(self, now: datetime) -> int:
        """Returns how many leases may begin."""
        return self._room(now, self.spaced_lease, self.delay, self.slots)

    def at_least(self, now: datetime) -> int:
        """Returns how many leases must be possible."""
        return self._room(now, self.any_lease, HOST_DELAY, self.possible_slots)

    def _room(self, now: datetime, latest: datetime | None, delay: float, slots: dict[str, datetime]) -> int:
        if self.blocked_until is not None and self.blocked_until > now:
            return 0
        room = 1_000_000
        if self.most is not None:
            room = max(0, self.most - sum(free_at > now for free_at in slots.values()))
        if self.delay:
            is_open = latest is None or (now - latest).total_seconds() >= delay
            room = min(room, int(is_open))
        return room

    def begin(self, token: str, now: datetime, free_at: datetime) -> None:
        self.any_lease = now
        if self.delay:
            self.spaced_lease = now
        if self.most is not None:
            self.slots[token] = self.possible_slots[token] = free_at

    def extend(self, token: str, free_at: datetime) -> None:
        self.possible_slots[token] = free_at
        if self.most is not None:
            self.slots[token] = free_at

    def note_perhaps(self, token: str, now: datetime, free_at: datetime) -> None:
        """Notes a lease that only a killed process knew of, and that may never have begun."""
        self.any_lease = now
        self.possible_slots[token] = free_at

    def end(self, token: str) -> None:
        self.slots.pop(token, None)
        self.possible_slots.pop(token, None)

    def set_delay(self, delay: float) -> None:
        if not self.delay:
            self.spaced_lease = None
        self.delay = delay


@dataclass(frozen=True, slots=True)
class Turn:
    """The turn of a host in the leases of one process: not before `earliest` and not after `latest`."""

    earliest: int
    latest: int


@dataclass
class Turns:
    """The hosts that one process has served, as long as each of them has had claimable items.

    A host that had none at some moment may be forgotten meanwhile. It may be served before all others then,
    and must be served before hosts that are served after its return.
    """

    served: int = 0
    hosts: dict[str, Turn] = field(default_factory=dict)

    def see(self, hosts: Iterable[str]) -> None:
        """Notes which hosts have claimable items now."""
        self.hosts = {host: self.hosts.get(host, Turn(NEVER, self.served)) for host in hosts}

    def serve(self, host: str) -> None:
        self.served += 1
        self.hosts[host] = Turn(self.served, self.served)

    def are_reversed(self, first: str, other: str) -> bool:
        """Returns whether `first` is served although `other` was certainly served longer ago."""
        return (
            other in self.hosts
            and first in self.hosts
            and (self.hosts[other].latest < self.hosts[first].earliest)
        )


class Claimable:
    """The links that can be claimed at a moment."""

    def __init__(self, entries: Iterable[Entry], hosts: dict[str, Host], now: datetime) -> None:
        self.by_host: defaultdict[str, list[Entry]] = defaultdict(list)
        for entry in entries:
            if entry.is_claimable(now):
                self.by_host[entry.host].append(entry)
        for host_entries in self.by_host.values():
            host_entries.sort(key=lambda entry: entry.order)
        self._least = {host: hosts[host].at_least(now) for host in self.by_host}
        self._most = {host: hosts[host].at_most(now) for host in self.by_host}

    @property
    def at_least(self) -> int:
        """Returns how many items must be claimable together."""
        return sum(min(len(entries), self._least[host]) for host, entries in self.by_host.items())

    @property
    def at_most(self) -> int:
        """Returns how many items may be claimed together."""
        return sum(min(len(entries), self._most[host]) for host, entries in self.by_host.items())

    def hosts(self) -> list[str]:
        """The hosts of which an item must be claimable."""
        return [host for host, entries in self.by_host.items() if entries and self._least[host]]

    def take(self, entry: Entry) -> None:
        """Checks that an item may be claimed, and takes it out."""
        assert entry in self.by_host[entry.host], f"{entry} is not claimable"
        assert self._most[entry.host], f"the limits of its host do not allow {entry}"
        self.by_host[entry.host].remove(entry)
        self._most[entry.host] -= 1
        self._least[entry.host] = max(0, self._least[entry.host] - 1)

    def check_order(self, entry: Entry, turns: Turns, together: set[str]) -> None:
        """Checks that an item is the next one: by priority, by the turns of hosts, and by age in its host.

        The hosts that are served `together` by one call may be in any order: an item whose lease was lost by
        a process that is dead is tried twice.
        """
        own_first = self.by_host[entry.host][0]
        assert own_first.order == entry.order, f"{own_first} comes before {entry}"
        for host in self.hosts():
            other = self.by_host[host][0]
            assert other.priority <= entry.priority, f"{other} comes before {entry}"
            if other.priority == entry.priority and host not in together:
                assert not turns.are_reversed(entry.host, host), (
                    f"{host} was served longer ago than {entry.host}: {turns.hosts}"
                )


class QueueModel:
    """A run in the model."""

    def __init__(self, clock: ManualClock, hosts: Iterable[str]) -> None:
        self.clock = clock
        self.entries: dict[str, Entry] = {}
        self.hosts = {name: Host() for name in hosts}
        self.is_paused = False

    @property
    def counts(self) -> Counter[str]:
        """Returns how many items are in which state."""
        return Counter(entry.state for entry in self.entries.values())

    @property
    def is_finished(self) -> bool:
        return self.counts.keys() <= FINAL

    def claimable(self) -> Claimable:
        return Claimable(self.entries.values(), self.hosts, self.clock.now())

    def entry(self, claim: Claim) -> Entry:
        return self.entries[claim.item.url]

    def note_lease(self, entry: Entry, token: str, seconds: float) -> None:
        """Notes that a lease begins now."""
        now = self.clock.now()
        # A lease that expired is a failed attempt.
        entry.failures += entry.state == "in_progress"
        entry.state, entry.token = "in_progress", token
        entry.free_at = now + timedelta(seconds=seconds) + SKEW
        self.hosts[entry.host].begin(token, now, entry.free_at)

    def note_orphans(self, items: dict[str, FrontierItem], limit: int, seconds: float) -> None:
        """Notes the leases of a process that was killed within a claim. Nobody will settle them.

        Args:
            items: The items of the run by URL.
            limit: How many items it wanted.
            seconds: How long the leases last.
        """
        now = self.clock.now()
        claimable = self.claimable()
        for entry in self.entries.values():
            item = items[entry.url]
            token = f"{item.attempt:010}.{item.lease_token}"
            if item.status == "in_progress" and token != entry.token:
                claimable.take(entry)
                self.note_lease(entry, token, seconds)
        # It may have reserved leases that it did not get to use.
        for host in self.hosts.values():
            for _ in range(limit):
                host.note_perhaps(uuid4().hex, now, now + timedelta(seconds=seconds) + SKEW)

    def note_dead_letters(self, stored: Callable[[], dict[str, FrontierItem]]) -> None:
        """Makes items dead letters whose last lease has expired, if a process has noticed it.

        Args:
            stored: Reads the items of the run by URL.
        """
        now = self.clock.now()
        due = [entry for entry in self.entries.values() if entry.is_last_attempt and entry.is_due(now)]
        items = stored() if due else {}
        for entry in due:
            if items[entry.url].status == "failed":
                entry.state, entry.failures = "failed", MAX_ATTEMPTS

    def note_end(self, claim: Claim, verb: str, *, is_lost: bool) -> None:
        """Checks whether a call had to be refused or done, and notes its effect."""
        entry, host = self.entry(claim), self.hosts[claim.item.domain]
        now = self.clock.now()
        held = entry.state == "in_progress" and entry.token == claim.token
        if is_lost:
            assert not held
            return
        if not held:
            # The same verb again, or one that leaves the item in the same state.
            assert entry.token == claim.token
            states = {"complete": "completed", "skip": "skipped", "give_up": "failed"}
            if verb in ("release", "put_back", "to_end"):
                assert entry.state in ("pending", "delayed")
            assert entry.state == states.get(verb, entry.state)
            assert verb != "renew"
            return
        if verb == "renew":
            # A lease that lasts longer keeps its end.
            entry.free_at = max(entry.free_at or now, now + timedelta(seconds=30) + SKEW)
            if claim.has_slot:
                host.extend(claim.token, entry.free_at)
            return
        host.end(claim.token)
        if verb in ("release", "put_back", "to_end"):
            assert verb != "put_back" or claim.item.priority == 5.0
            assert verb != "to_end" or claim.item.discovered_at >= now
            entry.state, entry.priority = "pending", claim.item.priority
            entry.discovered_at = claim.item.discovered_at
        elif verb in ("complete", "skip"):
            entry.state = {"complete": "completed", "skip": "skipped"}[verb]
        else:
            entry.failures += 1
            entry.state = "failed"
            if verb == "fail" and entry.failures < MAX_ATTEMPTS:
                entry.state, entry.free_at = "delayed", now + timedelta(seconds=6)
