"""Chooses which items this process claims next: reads which hosts are due, their queues, and takes the best.

The items that the index shows are kept for a few seconds as candidates, so that one read serves several
claims. The conditional write of a claim decides whether its candidate can still be claimed (lease_issuer.py).
"""

from __future__ import annotations

import logging
import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from ragcrawl_dynamo._frontier.candidates import (
    Candidate,
    HostCandidates,
    choose,
    claim_order,
    distant_bound,
)
from ragcrawl_dynamo._frontier.context import RunContext
from ragcrawl_dynamo._frontier.host_updates import HostUpdate, NoteEmptyQueue
from ragcrawl_dynamo._frontier.item_store import READY_READ
from ragcrawl_dynamo._frontier.lease_issuer import IssuedLeases, LeaseIssuer, LeaseTerms
from ragcrawl_dynamo._schema.records import HostRecord, RunState
from ragcrawl_dynamo._utils.concurrency import gather
from ragcrawl_dynamo.errors import FrontierCancelledError, RagcrawlDynamoError

logger = logging.getLogger(__name__)

# How many hosts one pass considers. Their records are read in one request, with the run's control.
_HOSTS_CONSIDERED = 24

# How many queues one pass reads at least, if it has candidates of fewer hosts.
_HOSTS_LOOKED_INTO = 8

# How many shards of one host are read at the same time at most, after the first ones had too few candidates.
_SHARDS_AT_ONCE = 8

# Seconds for which candidates are kept. Those of a limited host are kept longer: the host's record names the
# process that got the latest lease, so that no other process can claim them unnoticed.
CANDIDATE_SECONDS = 5.0
LIMITED_CANDIDATE_SECONDS = 30.0

# How many passes one claim makes at most. Another pass makes up for candidates that other processes claimed
# first, or that were left to them.
_PASSES = 4


@dataclass
class ClaimResult:
    """The result of a claim.

    Attributes:
        leases: The leases that were issued, by index into the terms.
        refused: How many claims and reservations were refused because another process was faster.
        held_back: Whether candidates were left to the processes that are about to claim them.
        next_at: When an item may be claimable, as far as the last pass has seen; None if it has seen none.
    """

    leases: IssuedLeases = field(default_factory=dict)
    refused: int = 0
    held_back: bool = False
    next_at: datetime | None = None

    def expect(self, moment: datetime | None) -> None:
        """Notes that an item may be claimable at a moment."""
        if moment is not None:
            self.next_at = moment if self.next_at is None else min(self.next_at, moment)


@dataclass(frozen=True, slots=True)
class _Look:
    """What a read of a host's queue showed.

    Attributes:
        candidates: The candidates.
        is_all: Whether the queue has no more candidates.
        next_work: When the next item becomes claimable; None if the read showed none.
    """

    candidates: list[Candidate]
    is_all: bool
    next_work: datetime | None


class Scheduler:
    """Claims items of one run for this process. `issuer` issues the leases."""

    def __init__(self, run: RunContext) -> None:
        self._run = run
        self.issuer = LeaseIssuer(run)

    async def claim(self, terms: Sequence[LeaseTerms]) -> ClaimResult:
        """Claims an item for each of the terms, in their order, as long as there are claimable items.

        Raises:
            FrontierCancelledError: The run was cancelled.
            ServiceError: DynamoDB refused a request or could not be reached.
        """
        total = ClaimResult()
        for attempt in range(_PASSES):
            unserved = [i for i in range(len(terms)) if i not in total.leases]
            try:
                result = await self._pass([terms[i] for i in unserved], attempt)
            except RagcrawlDynamoError as error:
                # Items that are claimed already must reach the caller.
                if not total.leases:
                    raise
                logger.warning("a claim returns fewer items because a request failed: %s", error)
                break
            total.leases |= {unserved[i]: lease for i, lease in result.leases.items()}
            total.next_at = result.next_at
            # A claim that has got items ends if other processes try the same items.
            try_again = (
                result.held_back and not result.refused
                if total.leases
                else result.refused or result.held_back
            )
            if len(total.leases) == len(terms) or not try_again:
                break
        return total

    async def _pass(self, terms: Sequence[LeaseTerms], attempt: int) -> ClaimResult:
        """Reads the run's control, due hosts and their queues, and claims the best candidates once."""
        run, view = self._run, self._run.view
        now = run.clock.now()
        result = ClaimResult()
        names = await self._consider(len(terms), now, result)
        control, records = await run.hosts.read(names)
        if control is not None and control.state is RunState.CANCELLED:
            raise FrontierCancelledError
        if control is not None and control.state is RunState.PAUSED:
            return result
        allowed: dict[str, int] = {}
        for host in names:
            if (record := records.get(host)) is None or record.work_at is None:
                view.drop_candidates([host])
            elif record.work_at > now and host not in view.candidates:
                result.expect(record.due)
            elif allowance := record.allowance(now, len(terms)):
                allowed[host] = allowance
            else:
                result.expect(record.due)
                view.close_host(record.host, record.open_at)
        await self._look_into(records, allowed, len(terms), now, result)
        host_candidates = [view.candidates[host] for host in allowed if host in view.candidates]
        most_distant = distant_bound(host_candidates, run.membership.count, attempt)
        choice = choose(view.candidates, allowed, len(terms), most_distant)
        result.held_back = choice.held_back
        issued = await self.issuer.issue(choice.candidates, records, terms, now)
        result.leases = issued.leases
        result.refused = issued.refused
        return result

    async def _consider(self, wanted: int, now: datetime, result: ClaimResult) -> list[str]:
        """Returns the hosts of this pass: those with candidates, and those that are due."""
        view, membership = self._run.view, self._run.membership
        view.drop_expired(now)
        supply = {
            host: count
            for host, host_candidates in view.candidates.items()
            if (count := host_candidates.supply(now))
        }
        ready: list[str] = []
        oldest = now - timedelta(seconds=CANDIDATE_SECONDS)
        if sum(supply.values()) < wanted or view.due_list_read_at is None or view.due_list_read_at < oldest:
            due_list = await self._run.hosts.due_list()
            view.due_list_read_at = now
            ready = due_list.ready(now)
            result.expect(due_list.next_due(now))
        names = supply.keys() | ready
        await membership.refresh(now, self._run.clock.monotonic())
        # Each process sorts the hosts in an order of its own, so that few processes try the same hosts.
        order = sorted(
            names,
            key=lambda host: (
                host in view.avoided,
                host not in view.candidates,
                not membership.owns(host, 0),
                zlib.crc32(f"{membership.me}{host}".encode()),
            ),
        )
        return order[:_HOSTS_CONSIDERED]

    async def _look_into(
        self,
        records: dict[str, HostRecord],
        allowed: dict[str, int],
        wanted: int,
        now: datetime,
        result: ClaimResult,
    ) -> None:
        """Reads the queues of hosts that have too few candidates, until there are enough to choose from."""
        run, view = self._run, self._run.view
        supply = 0
        hosts: list[str] = []
        for host, allowance in allowed.items():
            record = records[host]
            # Other processes may have claimed the candidates, unless this one got the host's latest lease.
            if record.is_limited and record.reserver != run.membership.me:
                view.drop_candidates([host])
            host_candidates = view.candidates.get(host)
            count = len(host_candidates.candidates) if host_candidates else 0
            is_enough = count >= allowance or (host_candidates is not None and host_candidates.is_all)
            if not is_enough and (supply < 2 * wanted or len(hosts) < _HOSTS_LOOKED_INTO):
                hosts.append(host)
                # A guess: half of what one read can return.
                count = READY_READ // 2
            supply += min(allowance, count)
        looks = await gather(self._look(records[host], min(wanted, allowed[host]), now) for host in hosts)
        empty: dict[str, HostUpdate] = {}
        for host, look in zip(hosts, looks, strict=True):
            view.drop_candidates([host])
            if look.candidates:
                view.candidates[host] = _known(records[host], look, now)
            else:
                empty[host] = NoteEmptyQueue(now, look.next_work)
        for record in (await run.hosts.try_update(records, empty)).values():
            result.expect(record.due)

    async def _look(self, record: HostRecord, wanted: int, now: datetime) -> _Look:
        """Reads the shards of a host's queue, those of this process's share first, until there are enough."""
        shards = list(range(record.shards))
        random.shuffle(shards)
        shards.sort(key=lambda shard: not self._run.membership.owns(record.host, shard))
        candidates: list[Candidate] = []
        next_moments: list[datetime] = []
        is_all = True
        read = 0
        while read < len(shards) and len(candidates) < wanted:
            # One, one, two, four, ... shards: few reads if they have many items, few steps if they have few.
            group = shards[read : read + max(1, min(read, _SHARDS_AT_ONCE))]
            read += len(group)
            for look in await gather(self._look_into_shard(record.host, shard, now) for shard in group):
                candidates += look.candidates
                is_all = is_all and look.is_all
                if look.next_work is not None:
                    next_moments.append(look.next_work)
        return _Look(candidates, is_all and read == len(shards), min(next_moments, default=None))

    async def _look_into_shard(self, host: str, shard: int, now: datetime) -> _Look:
        items, membership = self._run.items, self._run.membership
        ready, timed = await gather([items.ready(host, shard), items.timed(host, shard)])
        candidates = [*(candidate for moment, candidate in timed if moment <= now), *ready]
        if not membership.owns(host, shard):
            # Processes that claim from another process's share begin with different items.
            candidates = [
                replace(candidate, distance=membership.distance(candidate.item_id))
                for candidate in candidates
            ]
        next_work = min((moment for moment, _ in timed if moment > now), default=None)
        return _Look(candidates, len(ready) < READY_READ, next_work)


def _known(record: HostRecord, look: _Look, now: datetime) -> HostCandidates:
    seconds = LIMITED_CANDIDATE_SECONDS if record.is_limited else CANDIDATE_SECONDS
    return HostCandidates(
        keep_until=now + timedelta(seconds=seconds),
        candidates=sorted(look.candidates, key=claim_order),
        is_all=look.is_all,
        is_limited=record.is_limited,
        open_at=now,
    )
