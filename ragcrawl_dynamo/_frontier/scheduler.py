"""Chooses which items this process claims next: which hosts are due, what their queues show, which is best.

What the index shows is kept for a few seconds as candidates, so that one look serves several claims. The
write that claims a candidate decides whether it can still be had (see lease_issuer.py).
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

# Hosts that one pass considers; their records are read in one request, with the run's control.
_HOSTS_CONSIDERED = 24

# Hosts whose queues one pass looks into at least, if it has candidates of fewer.
_HOSTS_LOOKED_INTO = 8

# Most shards of one host that are looked into at once, after the first ones had too little.
_SHARDS_AT_ONCE = 8

# Seconds for which candidates are kept; longer where no other process can have taken them unnoticed, since a
# limited host's record tells who got its latest lease.
CANDIDATE_SECONDS = 5.0
LIMITED_CANDIDATE_SECONDS = 30.0

# Passes of one claim; a further one makes up for what others were faster at, or was left to them.
_PASSES = 4


@dataclass
class ClaimResult:
    """What came of a claim.

    Attributes:
        leases: The leases that were issued, by index into the terms.
        refused: Claims and reservations for which another process was faster.
        held_back: Whether there was more, left to other processes for now.
        next_at: When something may be claimable, as far as the last pass saw.
    """

    leases: IssuedLeases = field(default_factory=dict)
    refused: int = 0
    held_back: bool = False
    next_at: datetime | None = None

    def expect(self, moment: datetime | None) -> None:
        """Notes that something may be claimable at a moment."""
        if moment is not None:
            self.next_at = moment if self.next_at is None else min(self.next_at, moment)


@dataclass(frozen=True, slots=True)
class _Look:
    """What the queue of a host showed: candidates, whether that was all, and when more becomes claimable."""

    candidates: list[Candidate]
    is_all: bool
    next_work: datetime | None


class Scheduler:
    """Claims items of one run for one process."""

    def __init__(self, run: RunContext) -> None:
        self._run = run
        self.issuer = LeaseIssuer(run)

    async def claim(self, terms: Sequence[LeaseTerms]) -> ClaimResult:
        """Claims items for as many terms as there is something claimable for, the first terms first.

        Raises:
            FrontierCancelledError: The run was cancelled.
            ServiceError: DynamoDB cannot be reached, or refused.
        """
        total = ClaimResult()
        for attempt in range(_PASSES):
            left = [i for i in range(len(terms)) if i not in total.leases]
            try:
                result = await self._pass([terms[i] for i in left], attempt)
            except RagcrawlDynamoError as error:
                # What is claimed already must reach its claimant.
                if not total.leases:
                    raise
                logger.warning("a claim was cut short: %s", error)
                break
            total.leases |= {left[i]: lease for i, lease in result.leases.items()}
            total.next_at = result.next_at
            # A claimant that has something leaves it at that where others are at the same items.
            goes_on = (
                result.held_back and not result.refused
                if total.leases
                else result.refused or result.held_back
            )
            if len(total.leases) == len(terms) or not goes_on:
                break
        return total

    async def _pass(self, terms: Sequence[LeaseTerms], attempt: int) -> ClaimResult:
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
        known = [view.candidates[host] for host in allowed if host in view.candidates]
        most_distant = distant_bound(known, run.membership.count, attempt)
        choice = choose(view.candidates, allowed, len(terms), most_distant)
        result.held_back = choice.held_back
        issued = await self.issuer.issue(choice.candidates, records, terms, now)
        result.leases = issued.leases
        result.refused = issued.refused
        return result

    async def _consider(self, wanted: int, now: datetime, result: ClaimResult) -> list[str]:
        """The hosts of this pass: those with candidates first, then those that are due."""
        view, membership = self._run.view, self._run.membership
        view.drop_expired(now)
        supply = {host: n for host, known in view.candidates.items() if (n := known.supply(now))}
        ready: list[str] = []
        oldest = now - timedelta(seconds=CANDIDATE_SECONDS)
        if sum(supply.values()) < wanted or view.due_list_read_at is None or view.due_list_read_at < oldest:
            due_list = await self._run.hosts.due_list()
            view.due_list_read_at = now
            ready = due_list.ready(now)
            result.expect(due_list.next_due(now))
        names = supply.keys() | ready
        await membership.refresh(now, self._run.clock.monotonic())
        # Each process has an order of its own among them, so that few of them meet.
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
        """Reads candidates of hosts that have too few, until there are enough to choose from."""
        run, view = self._run, self._run.view
        supply = 0
        hosts: list[str] = []
        for host, allowance in allowed.items():
            record = records[host]
            # Of a limited host other processes may have taken the candidates, unless we had the latest lease.
            if record.is_limited and record.reserver != run.membership.me:
                view.drop_candidates([host])
            known = view.candidates.get(host)
            have = len(known.candidates) if known else 0
            is_enough = have >= allowance or (known is not None and known.is_all)
            if not is_enough and (supply < 2 * wanted or len(hosts) < _HOSTS_LOOKED_INTO):
                hosts.append(host)
                have = READY_READ // 2
            supply += min(allowance, have)
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
        """Looks into shard after shard of a host, those of this process first, until there is enough."""
        shards = list(range(record.shards))
        random.shuffle(shards)
        shards.sort(key=lambda shard: not self._run.membership.owns(record.host, shard))
        candidates: list[Candidate] = []
        later: list[datetime] = []
        is_all = True
        done = 0
        while done < len(shards) and len(candidates) < wanted:
            # One, one, two, four, ...: few reads where there is much, few steps where there is little.
            group = shards[done : done + max(1, min(done, _SHARDS_AT_ONCE))]
            done += len(group)
            for look in await gather(self._look_into_shard(record.host, shard, now) for shard in group):
                candidates += look.candidates
                is_all = is_all and look.is_all
                if look.next_work is not None:
                    later.append(look.next_work)
        return _Look(candidates, is_all and done == len(shards), min(later, default=None))

    async def _look_into_shard(self, host: str, shard: int, now: datetime) -> _Look:
        items, membership = self._run.items, self._run.membership
        ready, timed = await gather([items.ready(host, shard), items.timed(host, shard)])
        candidates = [*(candidate for moment, candidate in timed if moment <= now), *ready]
        if not membership.owns(host, shard):
            # Processes that help with a share that is not theirs begin with different items of it.
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
