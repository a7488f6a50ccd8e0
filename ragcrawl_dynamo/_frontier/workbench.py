"""Keeps the hosts of a run that one process knows, and chooses which host and which item comes next.

It sends no request. A host is served by the priority of its best item; among hosts of one priority, those in
the share of this process come first, and of these the one that was served longest ago.
"""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

from ragcrawl_dynamo._frontier.candidates import Candidate
from ragcrawl_dynamo._frontier.host_candidates import INDEX_LAG_SECONDS, HostCandidates
from ragcrawl_dynamo._frontier.left_hosts import LeftHosts
from ragcrawl_dynamo._frontier.work import Listed
from ragcrawl_dynamo._schema.queue_order import PRIORITY_LENGTH, split_order
from ragcrawl_dynamo._schema.records import HostRecord

# Heaps with more entries than this for each host are rebuilt, since most of the entries are out of date.
_ENTRIES_PER_HOST = 4


@dataclass(frozen=True, slots=True)
class Choice:
    """The candidates that a claim tries next.

    Attributes:
        candidates: The chosen candidates.
        looks: Hosts whose queues or records have to be read before more can be chosen.
    """

    candidates: list[Candidate]
    looks: list[HostCandidates]


class Workbench:
    """The hosts that one process knows.

    Attributes:
        hosts: The hosts by name.
        idle: The hosts that are listed as having work now, and have nothing that could be claimed.
        paused: The hosts that wait because DynamoDB throttles writes for them.
    """

    def __init__(self, process: str) -> None:
        """`process` is the id of this process."""
        self._process = process
        self.clear()

    def clear(self) -> None:
        """Forgets all hosts."""
        self.hosts: dict[str, HostCandidates] = {}
        self.idle: dict[str, HostCandidates] = {}
        self._left = LeftHosts()
        self.paused: dict[str, HostCandidates] = {}
        self._limits_changed_at: float | None = None
        self._turn = 0
        self._version = 0
        self._now = datetime.min.replace(tzinfo=UTC)
        # (priority, is not own, turn, rank or hash, version, host), and (moment, version, host).
        self._ready: list[tuple[str, bool, int, str, int, str]] = []
        self._later: list[tuple[datetime, int, str]] = []

    def see(self, host: str, order: str, bucket: int, monotonic: float, *, is_own: bool) -> None:
        """Notes that the list of hosts shows a host; if its entry changed, forgets its items.

        If the entry names the only item of a host in the share of this process, that is known then. An entry
        that this process has replaced itself, or has taken out of the list, is ignored.
        """
        known = self.hosts.get(host)
        if known is None:
            if self._left.is_past(host, order, monotonic):
                return
            known = self._left.take(host) or HostCandidates(host, None, bucket)
            known.is_own = is_own
            self.hosts[host] = known
        known.seen_at = monotonic
        if known.is_past(order, monotonic):
            return
        if known.order != order:
            known.forget()
            known.order = order
            changed_at = self._limits_changed_at
            # The record that was read may be newer than the entry, or older.
            known.must_check |= known.record is not None
            known.must_check |= changed_at is not None and monotonic - changed_at < INDEX_LAG_SECONDS
            known.record = None
            if is_own:
                known.expect_only_item()
            self.settle(known)

    def note_update(
        self, record: HostRecord, order_before: str | None, monotonic: float, *, is_own: bool
    ) -> None:
        """Notes that this process has read or updated the record of a host.

        Args:
            record: The record as it is now.
            order_before: The sort key of the host in the list before the update. If it is not the known one,
                another process has changed the host, and its items are forgotten.
            monotonic: The present moment in seconds of the monotonic clock.
            is_own: Whether the host is in the share of this process. Other hosts are only noted if known.
        """
        known = self.hosts.get(record.host)
        if known is None:
            if not is_own or record.order is None:
                return
            known = self._left.take(record.host) or HostCandidates(record.host, None, record.bucket)
            self.hosts[record.host] = known
            # The queue of a host that was not listed has only items that this process has added now.
            known.is_all = order_before is None
        elif known.order != order_before:
            known.forget()
        known.note_order(record.order, monotonic)
        known.record = record if record.has_limits else None
        known.must_check = False
        known.seen_at = monotonic
        self.settle(known)

    def remove(self, host: str, monotonic: float, *, has_left: bool = True) -> None:
        """Forgets a host, but remembers for a while that it was forgotten, to recognize late index entries.

        Args:
            host: The host.
            monotonic: The present moment in seconds of the monotonic clock.
            has_left: Whether the host has left the list, by its record. Otherwise the list does not show it.
        """
        self.idle.pop(host, None)
        self.paused.pop(host, None)
        if (known := self.hosts.pop(host, None)) is None:
            return
        known.forget()
        known.end_claim()
        if has_left:
            known.note_order(None, monotonic)
        known.order = None
        self._left.remember(known, monotonic)

    def settle(self, host: HostCandidates) -> None:
        """Puts a host where it belongs. It is called after each change of the host."""
        self._version += 1
        host.version = self._version
        if self.hosts.get(host.host) is not host:
            return
        host.wake(self._now)
        at: datetime | None = None
        next_moment = host.next_moment()
        moment = self._listed_for(host)
        is_idle = not host.ready and host.is_all and host.order is not None and moment is None
        if is_idle:
            self.idle[host.host] = host
        else:
            self.idle.pop(host.host, None)
            if host.ready or host.looked_at is None or moment is not None:
                # Otherwise it is only looked at again after its pause.
                host.idle_since = host.leave_at = None
        if not host.ready:
            at = next_moment
            if is_idle:
                # The list does not show items that other processes add to it.
                pause = self._now + host.pause
                at = pause if at is None else min(at, pause)
            elif host.order is None:
                if at is None:
                    return
            elif moment is None:
                at = None
            elif at is None or moment < at:
                at = moment
        if host.record is not None and (open_at := host.record.open_at) is not None:
            at = open_at if at is None else max(at, open_at)
        if host.paused_until is not None:
            at = host.paused_until if at is None else max(at, host.paused_until)
        if at is None or at <= self._now:
            self._push(host)
            # A waiting item may be better than those that can be claimed now.
            at = next_moment
        if at is not None and at > self._now:
            heapq.heappush(self._later, (at, host.version, host.host))
        self._shrink()

    def choose(self, wanted: int, now: datetime, monotonic: float) -> Choice:
        """Takes the best candidates.

        Args:
            wanted: The largest number of candidates.
            now: The present moment.
            monotonic: The present moment in seconds of the monotonic clock.

        Returns:
            The candidates, and the hosts whose queues must be read first; call `settle` for each of these
            hosts afterwards. No candidate is chosen that could come after an item that a look may show.
        """
        self._wake(now)
        chosen: list[Candidate] = []
        looks: list[HostCandidates] = []
        later: list[HostCandidates] = []
        best_look = ""
        while len(chosen) + len(looks) + len(later) < wanted and self._ready:
            priority, _, _, _, version, name = self._ready[0]
            host = self.hosts.get(name)
            if host is None or host.version != version:
                heapq.heappop(self._ready)
                continue
            if looks and priority > best_look:
                break
            heapq.heappop(self._ready)
            if host.picked and not host.has_room(now):
                # The end of another lease, or a new item, has put it here. A look would not change it.
                continue
            if host.needs_look(monotonic):
                best_look = priority
                looks.append(host)
                continue
            if looks:
                # It comes after them, but they may have nothing.
                later.append(host)
                continue
            if host.has_room(now):
                self._turn += 1
                if not host.picked:
                    host.last_turn = host.turn
                host.turn = self._turn
                host.picked += 1
                host.is_used = True
                chosen.append(host.take())
            if not host.picked or host.has_room(now):
                self.settle(host)
            # Otherwise the host comes back when its leases have been reserved.
        for host in later:
            self.settle(host)
        return Choice(chosen, looks)

    def allows(self, host: str, leases: int, now: datetime) -> bool:
        """Returns whether a host has no limits, or known ones that allow this number of leases now."""
        known = self.hosts.get(host)
        if known is None or known.lacks_record:
            return False
        return known.record is None or known.record.allowance(now, leases) >= leases

    def supply(self, enough: int, now: datetime) -> int:
        """Returns how many items can probably be claimed now, at most `enough`.

        A host whose queue was not read yet counts as one item.
        """
        self._wake(now)
        supply = 0
        for _, _, _, _, version, name in self._ready:
            host = self.hosts.get(name)
            if host is not None and host.version == version:
                supply += 1 if host.record is not None else max(1, len(host.ready))
                if supply >= enough:
                    return enough
        return supply

    def next_moment(self) -> datetime | None:
        """Returns when a known host may have something to claim next; None if no moment is known."""
        while self._later:
            at, version, name = self._later[0]
            host = self.hosts.get(name)
            if host is not None and host.version == version:
                return at
            heapq.heappop(self._later)
        return None

    def drained(self, hosts: Iterable[str]) -> dict[str, Listed]:
        """Returns which of some hosts are in the share of this process and drained."""
        known = (host for name in hosts if (host := self.hosts.get(name)) is not None)
        return {host.host: host.entry for host in known if host.is_drained and host.is_own}

    def idle_drained(self, most: int, monotonic: float) -> list[Listed]:
        """Returns hosts of the share of this process that are drained and have been idle for a second."""
        drained = (host for host in self.idle.values() if host.is_drained and host.is_own)
        leaving = (host.entry for host in drained if host.is_due_to_leave(monotonic))
        return list(islice(leaving, most))

    def doubt(self, host: str) -> None:
        """Lets the queue of a host be read again, if it is idle."""
        if (known := self.idle.get(host)) is not None:
            known.is_all = False
            self.settle(known)

    def give_back(self, candidates: Iterable[Candidate]) -> None:
        """Takes candidates back that were chosen and are not tried, at the end of a claim."""
        hosts: set[str] = set()
        for candidate in candidates:
            if (host := self.hosts.get(candidate.host)) is not None:
                if not host.is_served:
                    host.turn = host.last_turn
                host.offer(candidate)
                hosts.add(candidate.host)
        self.end_claim(hosts)

    def pause(self, host: str, until: datetime) -> None:
        """Lets a host wait, because DynamoDB throttles writes for it."""
        known = self.hosts.get(host)
        if known is not None and (known.paused_until is None or known.paused_until < until):
            known.paused_until = until
            self.paused[host] = known
            self.settle(known)

    def end_claim(self, hosts: Iterable[str]) -> None:
        """Notes that the claim that has chosen candidates of hosts has ended."""
        for name in hosts:
            if (host := self.hosts.get(name)) is not None:
                host.end_claim()
                self.settle(host)

    def set_shares(self, owned: frozenset[int]) -> None:
        """Notes which buckets are in the share of this process."""
        for host in self.hosts.values():
            is_own = host.bucket in owned
            if host.is_own != is_own:
                host.is_own = is_own
                # The distances of its candidates are those of the former shares.
                host.forget_ready()
                self.settle(host)

    def forget_full(self, most: int, now: datetime) -> list[HostCandidates]:
        """Forgets the records of hosts that have their maximum in flight, and returns these hosts.

        Another process may have ended leases of them.
        """
        full = [
            host
            for host in self.hosts.values()
            if host.record is not None and host.record.max_in_flight is not None and not host.has_room(now)
        ][:most]
        for host in full:
            host.record = None
            host.must_check = True
        return full

    def recheck_limits(self, monotonic: float) -> None:
        """Lets the limits of all hosts be read again before the next lease.

        So are those of hosts that the lists show soon after: an entry may be older than the change.
        """
        self._limits_changed_at = monotonic
        for host in self.hosts.values():
            host.record = None
            host.must_check = True
            self.settle(host)

    def _wake(self, now: datetime) -> None:
        """Moves hosts whose moment has come to those that can be served."""
        self._now = now
        for known in [host for host in self.paused.values() if (host.paused_until or now) <= now]:
            known.paused_until = None
            del self.paused[known.host]
            self.settle(known)
        while self._later and self._later[0][0] <= now:
            _, version, name = heapq.heappop(self._later)
            host = self.hosts.get(name)
            if host is None or host.version != version:
                continue
            host.wake(now)
            if not host.ready and self._listed_for(host) is None:
                # Its place in the list says that it has work from now on.
                host.is_all = False
            self.settle(host)

    def _listed_for(self, host: HostCandidates) -> datetime | None:
        """Returns the moment for which a host is listed; None if the moment has come, or there is none."""
        moment = None if host.order is None else split_order(host.order)[0]
        return None if moment is None or moment <= self._now else moment

    def _push(self, host: HostCandidates) -> None:
        rank = host.ready[0].rank if host.ready else ""
        if host.order is not None and (not rank or host.looked_at is None):
            listed = split_order(host.order)[1]
            rank = listed if not rank or (listed < rank and not host.is_all) else rank
        # Processes that help others begin with different hosts.
        tie = rank if host.is_own else f"{zlib.crc32(f'{self._process}{host.host}'.encode()):08x}"
        entry = (rank[:PRIORITY_LENGTH], not host.is_own, host.turn, tie, host.version, host.host)
        heapq.heappush(self._ready, entry)

    def _shrink(self) -> None:
        """Drops entries of the heaps that are out of date, if there are many."""
        if len(self._ready) + len(self._later) <= _ENTRIES_PER_HOST * len(self.hosts) + 1000:
            return
        versions = {name: host.version for name, host in self.hosts.items()}
        self._ready = [entry for entry in self._ready if versions.get(entry[5]) == entry[4]]
        self._later = [entry for entry in self._later if versions.get(entry[2]) == entry[1]]
        heapq.heapify(self._ready)
        heapq.heapify(self._later)
