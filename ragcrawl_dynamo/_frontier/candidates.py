"""Items that the queue's index shows as claimable, and the choice of the best ones among several hosts."""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from ragcrawl_dynamo._schema.queue_order import DELAYED, LEASED, PRIORITY_LENGTH, READY


@dataclass(frozen=True, slots=True)
class Candidate:
    """An item that the index shows as claimable.

    Attributes:
        item_id: The item.
        host: Its host.
        order: Its sort key in the host's queue.
        kind: READY, DELAYED or LEASED.
        rank: Sorts by priority and age, whatever the kind.
        distance: 0 in this process's share, more in those of others.
    """

    item_id: str
    host: str
    order: str
    kind: str
    rank: str
    distance: int = 0

    @property
    def claim_order(self) -> tuple[str, int, float]:
        """Sorts by priority; of one priority what is nearest; then by age, in the shares of others backwards.

        So a process that helps another begins at the other end of its queue.
        """
        discovered_at = datetime.fromisoformat(self.rank[PRIORITY_LENGTH:]).timestamp()
        return self.rank[:PRIORITY_LENGTH], self.distance, -discovered_at if self.distance else discovered_at

    @property
    def state(self) -> str:
        """What the item is counted as until it is claimed."""
        return {READY: "pending", DELAYED: "delayed", LEASED: "in_progress"}[self.kind]


@dataclass
class HostCandidates:
    """Candidates of one host, in the order in which they are to be claimed.

    Attributes:
        keep_until: When they are too old to be tried.
        candidates: The candidates.
        is_all: Whether the host's queue had no more.
        is_limited: Whether the host has a delay or a maximum in flight.
        open_at: When its limits allow the next lease.
    """

    keep_until: datetime
    candidates: list[Candidate]
    is_all: bool
    is_limited: bool
    open_at: datetime

    def supply(self, now: datetime) -> int:
        """How many can be claimed now, as far as is known."""
        if self.open_at > now:
            return 0
        return 1 if self.is_limited else len(self.candidates)

    def offer(self, candidate: Candidate) -> None:
        """Adds a candidate, if it comes before those that are known, or these are all that there are."""
        if not self.candidates:
            return
        if self.is_all or candidate.claim_order < self.candidates[-1].claim_order:
            bisect.insort(self.candidates, candidate, key=claim_order)


@dataclass(frozen=True, slots=True)
class Choice:
    """The candidates that are tried next.

    Attributes:
        candidates: In the order in which they are to be claimed.
        held_back: Whether there were more, which are left to other processes for now.
    """

    candidates: list[Candidate]
    held_back: bool


def claim_order(candidate: Candidate) -> tuple[str, int, float]:
    """The order of a candidate, as a function for sorting."""
    return candidate.claim_order


def distant_bound(hosts: Iterable[HostCandidates], processes: int, attempt: int) -> int:
    """How many candidates may be tried that other processes are about to claim.

    Args:
        hosts: The candidates to choose from.
        processes: How many processes claim.
        attempt: 0 for the first pass of a claim; each further one doubles the bound.
    """
    distant = sum(candidate.distance > 1 for host in hosts for candidate in host.candidates)
    return max(1, distant // processes) << attempt


def choose(
    hosts: Mapping[str, HostCandidates], allowed: Mapping[str, int], wanted: int, most_distant: int
) -> Choice:
    """Takes the best candidates of several hosts out of their lists.

    Args:
        hosts: The candidates by host.
        allowed: How many leases each host allows; others are passed over.
        wanted: How many candidates at most.
        most_distant: Candidates that other processes are about to claim are taken while fewer than that many
            are chosen.
    """
    left = dict(allowed)
    heads = [
        (hosts[host].candidates[0].claim_order, host)
        for host in allowed
        if host in hosts and hosts[host].candidates
    ]
    heapq.heapify(heads)
    chosen: list[Candidate] = []
    held_back = False
    while heads and len(chosen) < wanted:
        (_, distance, _), host = heapq.heappop(heads)
        if distance > 1 and len(chosen) >= most_distant:
            held_back = True
            continue
        candidates = hosts[host].candidates
        chosen.append(candidates.pop(0))
        left[host] -= 1
        if candidates and left[host]:
            heapq.heappush(heads, (candidates[0].claim_order, host))
    return Choice(chosen, held_back)
