"""Holds candidates, items that by_queue shows as claimable, and chooses the best ones of several hosts."""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from ragcrawl_dynamo._schema.queue_order import DELAYED, LEASED, PRIORITY_LENGTH, READY


@dataclass(frozen=True, slots=True)
class Candidate:
    """An item that by_queue shows as claimable.

    Attributes:
        item_id: The id of the item.
        host: The host of the item.
        order: The sort key of the item in its host's queue.
        kind: What the item waited for: READY for nothing, DELAYED or LEASED.
        rank: Sorts by priority and age, whatever the kind.
        distance: 0 if the item is in the share of this process. Otherwise, how late this process should try
            it, from 1 on.
    """

    item_id: str
    host: str
    order: str
    kind: str
    rank: str
    distance: int = 0

    @property
    def claim_order(self) -> tuple[str, int, float]:
        """The priority order: sorts by priority, then by distance, then by age.

        In the shares of other processes the youngest item comes first, so that a process that helps another
        one begins at the other end of the queue.
        """
        discovered_at = datetime.fromisoformat(self.rank[PRIORITY_LENGTH:]).timestamp()
        return self.rank[:PRIORITY_LENGTH], self.distance, -discovered_at if self.distance else discovered_at

    @property
    def state(self) -> str:
        """The state in which the item is counted until it is claimed."""
        return {READY: "pending", DELAYED: "delayed", LEASED: "in_progress"}[self.kind]


@dataclass
class HostCandidates:
    """The candidates of one host.

    Attributes:
        keep_until: When the candidates are too old to be tried.
        candidates: The candidates in priority order.
        is_all: Whether the host's queue had no more candidates.
        is_limited: Whether the host has a delay or a maximum in flight.
        open_at: When the limits of the host allow the next lease.
    """

    keep_until: datetime
    candidates: list[Candidate]
    is_all: bool
    is_limited: bool
    open_at: datetime

    def supply(self, now: datetime) -> int:
        """Returns how many candidates can probably be claimed at a moment."""
        if self.open_at > now:
            return 0
        return 1 if self.is_limited else len(self.candidates)

    def offer(self, candidate: Candidate) -> None:
        """Adds a candidate, unless unknown items of the queue may come before it."""
        if not self.candidates:
            return
        if self.is_all or candidate.claim_order < self.candidates[-1].claim_order:
            bisect.insort(self.candidates, candidate, key=claim_order)


@dataclass(frozen=True, slots=True)
class Choice:
    """The candidates that are tried next.

    Attributes:
        candidates: The candidates in priority order.
        held_back: Whether other candidates were left to the processes that are about to claim them.
    """

    candidates: list[Candidate]
    held_back: bool


def claim_order(candidate: Candidate) -> tuple[str, int, float]:
    """Returns the priority order of a candidate; a function to sort by."""
    return candidate.claim_order


def distant_bound(hosts: Iterable[HostCandidates], processes: int, attempt: int) -> int:
    """Returns how many candidates may be tried that other processes are about to claim.

    Args:
        hosts: The candidates to choose from.
        processes: How many processes claim from the run.
        attempt: The number of the pass of one claim, from 0 on. Each pass doubles the bound.
    """
    distant = sum(candidate.distance > 1 for host in hosts for candidate in host.candidates)
    return max(1, distant // processes) << attempt


def choose(
    hosts: Mapping[str, HostCandidates], allowed: Mapping[str, int], wanted: int, most_distant: int
) -> Choice:
    """Takes the best candidates of several hosts out of their lists.

    Args:
        hosts: The candidates by host.
        allowed: How many leases each host allows. Other hosts are left out.
        wanted: The largest number of candidates to take.
        most_distant: Candidates that other processes are about to claim are only taken while fewer than this
            number are chosen.
    """
    allowances = dict(allowed)
    first_of_hosts = [
        (hosts[host].candidates[0].claim_order, host)
        for host in allowed
        if host in hosts and hosts[host].candidates
    ]
    heapq.heapify(first_of_hosts)
    chosen: list[Candidate] = []
    held_back = False
    while first_of_hosts and len(chosen) < wanted:
        (_, distance, _), host = heapq.heappop(first_of_hosts)
        if distance > 1 and len(chosen) >= most_distant:
            held_back = True
            continue
        candidates = hosts[host].candidates
        chosen.append(candidates.pop(0))
        allowances[host] -= 1
        if candidates and allowances[host]:
            heapq.heappush(first_of_hosts, (candidates[0].claim_order, host))
    return Choice(chosen, held_back)
