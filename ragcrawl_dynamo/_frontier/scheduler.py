"""Who gets which items next: chooses hosts, looks at their queues, reserves, claims.

One `Claimer` serves all claims of one process on one run. What the index shows is kept for a few seconds as
candidates, so that one look serves several claims; whether a candidate can still be had is decided by the
write.
"""

from __future__ import annotations

import bisect
import heapq
import logging
import random
import secrets
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from ragcrawl_dynamo._dynamodb.conditional_writes import Applied, Failed
from ragcrawl_dynamo._frontier.counters import Counters
from ragcrawl_dynamo._frontier.host_store import HostStore, Mutation
from ragcrawl_dynamo._frontier.item_store import READY_READ, Candidate, Lease, QueueStore
from ragcrawl_dynamo._frontier.membership import Members
from ragcrawl_dynamo._schema.queue_order import LEASED
from ragcrawl_dynamo._schema.records import HostRecord, RunState
from ragcrawl_dynamo._utils.clock import Clock
from ragcrawl_dynamo._utils.concurrency import gather
from ragcrawl_dynamo.config import DynamoDBConfig
from ragcrawl_dynamo.errors import CorruptItemError, FrontierCancelledError, RagcrawlDynamoError
from ragcrawl_dynamo.models import FrontierItem

logger = logging.getLogger(__name__)

# Hosts that one round considers; their records are read in one request, with that of the run.
_HOSTS_CONSIDERED = 24

# Hosts that one round looks into at least, if it has candidates of fewer.
_HOSTS_LOOKED_INTO = 8

# Most shards of one host that are looked into at once, after the first ones had too little.
_SHARDS_AT_ONCE = 8

# Seconds for which candidates are kept; longer where nobody else can have taken them unnoticed, since a
# limited host's record tells who got its latest lease.
CANDIDATE_SECONDS = 5.0
LIMITED_CANDIDATE_SECONDS = 30.0

# Most seconds for which a process prefers other hosts, after others were faster at one.
_AVOID_SECONDS = 5.0

# Rounds of one claim; a further one makes up for what others were faster at, or was left to them.
_ROUNDS = 4


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """What the claimant of one item wants: how long, and under which name."""

    seconds: float
    owner: str


@dataclass(frozen=True, slots=True)
class Grant:
    """An item that was claimed, and whether its host counts it."""

    item: FrontierItem
    lease: Lease
    has_slot: bool


@dataclass
class Round:
    """What came of one look around.

    Attributes:
        grants: By index into the terms.
        refused: Claims and reservations for which others were faster.
        held_back: Whether there was more, left to others for now.
        next_at: When something may be claimable, as far as this round saw.
    """

    grants: dict[int, Grant] = field(default_factory=dict)
    refused: int = 0
    held_back: bool = False
    next_at: datetime | None = None

    def expect(self, moment: datetime | None) -> None:
        """Something may be claimable at a moment."""
        if moment is not None:
            self.next_at = moment if self.next_at is None else min(self.next_at, moment)


@dataclass
class _Buffer:
    """Candidates of one host, best first; `is_all` if its queue had no more."""

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


@dataclass(frozen=True, slots=True)
class _Look:
    """What the queue of a host showed."""

    candidates: list[Candidate]
    is_all: bool
    next_work: datetime | None


class Claimer:
    """Claims items of one run for one process."""

    def __init__(
        self,
        hosts: HostStore,
        queue: QueueStore,
        counters: Counters,
        members: Members,
        clock: Clock,
        config: DynamoDBConfig,
    ) -> None:
        self._hosts = hosts
        self._queue = queue
        self._counters = counters
        self._clock = clock
        self._config = config
        self._members = members
        self._buffers: dict[str, _Buffer] = {}
        self._avoided: dict[str, datetime] = {}
        self._turns_read_at: datetime | None = None
        self.tried = 0
        self.granted = 0

    def forget(self, hosts: Iterable[str]) -> None:
        """Drops what is known of hosts whose queue changed."""
        for host in hosts:
            self._buffers.pop(host, None)

    def offer(self, candidate: Candidate) -> None:
        """Adds an item that this process made claimable, if its turn comes before those that are known."""
        buffer = self._buffers.get(candidate.host)
        if not buffer or not buffer.candidates:
            return
        if buffer.is_all or candidate.turn < buffer.candidates[-1].turn:
            bisect.insort(buffer.candidates, candidate, key=_turn)

    def look_again(self) -> None:
        """Lets the next claim see hosts that have got work."""
        self._turns_read_at = None

    async def claim(self, terms: Sequence[LeaseTerms]) -> Round:
        """Items for as many terms as there is something claimable for, the first ones first.

        Raises:
            FrontierCancelledError: The run was cancelled.
            ServiceError: DynamoDB can not be reached, or refused.
        """
        total = Round()
        for round_number in range(_ROUNDS):
            left = [i for i in range(len(terms)) if i not in total.grants]
            try:
                now = await self._round([terms[i] for i in left], round_number)
            except RagcrawlDynamoError as error:
                # What is claimed already must reach its claimant.
                if not total.grants:
                    raise
                logger.warning("a claim was cut short: %s", error)
                break
            total.grants |= {left[i]: grant for i, grant in now.grants.items()}
            total.next_at = now.next_at
            # Whoever has something leaves it at that where others are at the same items.
            goes_on = now.held_back and not now.refused if total.grants else now.refused or now.held_back
            if len(total.grants) == len(terms) or not goes_on:
                break
        return total

    async def _round(self, terms: Sequence[LeaseTerms], round_number: int) -> Round:
        now = self._clock.now()
        result = Round()
        names = await self._consider(len(terms), now, result)
        control, records = await self._hosts.read(names)
        if control is not None and control.state is RunState.CANCELLED:
            raise FrontierCancelledError
        if control is not None and control.state is RunState.PAUSED:
            return result
        allowed: dict[str, int] = {}
        for host in names:
            if (record := records.get(host)) is None or record.work_at is None:
                self.forget([host])
            elif record.work_at > now and host not in self._buffers:
                result.expect(record.due)
            elif allowance := record.allowance(now, len(terms)):
                allowed[host] = allowance
            else:
                result.expect(record.due)
                self._close_until(record)
        await self._look_into(records, allowed, len(terms), now, result)
        chosen = self._choose(allowed, len(terms), round_number, result)
        await self._take(chosen, records, terms, now, result)
        return result

    async def _consider(self, wanted: int, now: datetime, result: Round) -> list[str]:
        """The hosts of this round: those with candidates first, then those that are due."""
        self._buffers = {
            host: each for host, each in self._buffers.items() if each.candidates and each.keep_until > now
        }
        self._avoided = {host: until for host, until in self._avoided.items() if until > now}
        supply = {host: n for host, each in self._buffers.items() if (n := each.supply(now))}
        ready: list[str] = []
        oldest = now - timedelta(seconds=CANDIDATE_SECONDS)
        if sum(supply.values()) < wanted or self._turns_read_at is None or self._turns_read_at < oldest:
            turns = await self._hosts.turns()
            self._turns_read_at = now
            ready = turns.ready(now)
            result.expect(turns.next_due(now))
        names = supply.keys() | ready
        await self._members.refresh(now, self._clock.monotonic())
        # Each process has an order of its own among them, so that few of them meet.
        order = sorted(
            names,
            key=lambda host: (
                host in self._avoided,
                host not in self._buffers,
                not self._members.owns(host, 0),
                zlib.crc32(f"{self._members.me}{host}".encode()),
            ),
        )
        return order[:_HOSTS_CONSIDERED]

    async def _look_into(
        self,
        records: dict[str, HostRecord],
        allowed: dict[str, int],
        wanted: int,
        now: datetime,
        result: Round,
    ) -> None:
        """Reads candidates of hosts that have too few, until there are enough to choose from."""
        supply = 0
        looks: list[str] = []
        for host, allowance in allowed.items():
            record = records[host]
            # Of a limited host others may have taken the candidates, unless we had the latest lease.
            if record.is_limited and record.reserver != self._members.me:
                self.forget([host])
            buffer = self._buffers.get(host)
            have = len(buffer.candidates) if buffer else 0
            is_enough = have >= allowance or (buffer is not None and buffer.is_all)
            if not is_enough and (supply < 2 * wanted or len(looks) < _HOSTS_LOOKED_INTO):
                looks.append(host)
                have = READY_READ // 2
            supply += min(allowance, have)
        seen = await gather(self._look(records[host], min(wanted, allowed[host]), now) for host in looks)
        empty: dict[str, Mutation] = {}
        for host, look in zip(looks, seen, strict=True):
            self.forget([host])
            if look.candidates:
                self._buffers[host] = _buffer(records[host], look, now)
            else:
                empty[host] = _emptied(now, look.next_work)
        for record in (await self._hosts.try_change(records, empty)).values():
            result.expect(record.due)

    async def _look(self, record: HostRecord, wanted: int, now: datetime) -> _Look:
        """Looks into shard after shard of a host, its own ones first, until there are enough candidates."""
        shards = list(range(record.shards))
        random.shuffle(shards)
        shards.sort(key=lambda each: not self._members.owns(record.host, each))
        found: list[Candidate] = []
        later: list[datetime] = []
        is_all = True
        done = 0
        while done < len(shards) and len(found) < wanted:
            # One, one, two, four, ...: few reads where there is much, few steps where there is little.
            group = shards[done : done + max(1, min(done, _SHARDS_AT_ONCE))]
            done += len(group)
            parts = await gather(self._look_into_shard(record.host, each, now) for each in group)
            found += [each for candidates, _, _ in parts for each in candidates]
            later += [each for _, moments, _ in parts for each in moments]
            is_all = is_all and all(is_whole for _, _, is_whole in parts)
        return _Look(found, is_all and done == len(shards), min(later, default=None))

    async def _look_into_shard(
        self, host: str, shard: int, now: datetime
    ) -> tuple[list[Candidate], list[datetime], bool]:
        """What can be claimed of a shard, when more can be, and whether that is all."""
        ready, timed = await gather([self._queue.ready(host, shard), self._queue.timed(host, shard)])
        found = [*(each for moment, each in timed if moment <= now), *ready]
        if not self._members.owns(host, shard):
            # Those who turn to a share that is not theirs begin with different items of it.
            found = [replace(each, distance=self._members.distance(each.item_id)) for each in found]
        return found, [moment for moment, _ in timed if moment > now], len(ready) < READY_READ

    def _choose(
        self, allowed: dict[str, int], wanted: int, round_number: int, result: Round
    ) -> list[Candidate]:
        """The best candidates of all hosts, as many of each as it allows; they leave the buffers."""
        left = dict(allowed)
        heads = [
            (self._buffers[host].candidates[0].turn, host)
            for host in allowed
            if host in self._buffers and self._buffers[host].candidates
        ]
        heapq.heapify(heads)
        # What others are about to claim is tried by few at a time.
        farthest = sum(each.distance > 1 for _, host in heads for each in self._buffers[host].candidates)
        most_farthest = max(1, farthest // self._members.count) << round_number
        chosen: list[Candidate] = []
        while heads and len(chosen) < wanted:
            (_, distance, _), host = heapq.heappop(heads)
            if distance > 1 and len(chosen) >= most_farthest:
                result.held_back = True
                continue
            candidates = self._buffers[host].candidates
            chosen.append(candidates.pop(0))
            left[host] -= 1
            if candidates and left[host]:
                heapq.heappush(heads, (candidates[0].turn, host))
        return chosen

    async def _take(
        self,
        chosen: list[Candidate],
        records: dict[str, HostRecord],
        terms: Sequence[LeaseTerms],
        now: datetime,
        result: Round,
    ) -> None:
        leases = [self._lease(each, now) for each in terms]
        by_host: dict[str, list[int]] = defaultdict(list)
        for i, candidate in enumerate(chosen):
            by_host[candidate.host].append(i)
        limited = {host: which for host, which in by_host.items() if records[host].is_limited}
        reserved = await self._hosts.try_change(
            records,
            {host: _reserving(which, leases, now, self._members.me) for host, which in limited.items()},
        )
        for record in reserved.values():
            self._close_until(record)
        lost = limited.keys() - reserved.keys()
        result.refused += len(lost)
        self._avoid(lost, now)
        takes = {i: each for i, each in enumerate(chosen) if each.host not in lost}
        outcomes = await self._write_claims(takes, leases, result)
        unused: dict[str, list[str]] = defaultdict(list)
        misses: dict[str, int] = defaultdict(int)
        for i, item in outcomes.items():
            host = takes[i].host
            if item is not None:
                slot = reserved[host].max_in_flight is not None if host in reserved else False
                result.grants[i] = Grant(item, leases[i], slot)
                self._counters.move(host, takes[i].state, "in_progress")
                continue
            misses[host] += 1
            if host in reserved:
                unused[host].append(leases[i].token)
        if unused:
            try:
                await self._hosts.try_change(
                    reserved, {host: _giving_back(tokens, now) for host, tokens in unused.items()}
                )
            except RagcrawlDynamoError as error:
                logger.warning("%d hosts wait longer than they need to: %s", len(unused), error)
        # What else was seen together with those is as old.
        self.forget(misses)
        self._avoid((host for host, n in misses.items() if 3 * n > len(by_host[host])), now)

    async def _write_claims(
        self, takes: dict[int, Candidate], leases: Sequence[Lease], result: Round
    ) -> dict[int, FrontierItem | None]:
        """The items that were claimed; None for those that others changed first."""
        most = self._config.frontier_max_attempts
        outcomes = await self._queue.run(
            [self._queue.claim(each, leases[i], most) for i, each in takes.items()]
        )
        self.tried += len(outcomes)
        taken: dict[int, FrontierItem | None] = {}
        failures = [each for each in outcomes if isinstance(each, Failed)]
        for i, outcome in zip(takes, outcomes, strict=True):
            taken[i] = None
            if isinstance(outcome, Applied) and outcome.item is not None:
                self.granted += 1
                try:
                    taken[i] = self._queue.decode(outcome.item)
                except CorruptItemError as error:
                    # Nobody can work on it; its leases will expire until it is given up.
                    logger.warning("an item can not be claimed: %s", error)
            else:
                result.refused += 1
        if failures:
            if len(failures) == len(outcomes):
                raise failures[0].error
            logger.warning(
                "%d of %d claims failed, the first: %s", len(failures), len(outcomes), failures[0].error
            )
        await self._give_up(
            [takes[i] for i, item in taken.items() if item is None and takes[i].kind == LEASED]
        )
        return taken

    async def _give_up(self, candidates: Sequence[Candidate]) -> None:
        """Makes dead letters of those whose last attempt expired."""
        if not candidates:
            return
        most = self._config.frontier_max_attempts
        now = self._clock.now()
        outcomes = await self._queue.run(
            [self._queue.give_up(each, secrets.token_hex(8), now, most) for each in candidates]
        )
        for each, outcome in zip(candidates, outcomes, strict=True):
            if isinstance(outcome, Applied):
                logger.warning("item %s of host %s: its last lease expired", each.item_id, each.host)
                self._counters.move(each.host, each.state, "failed")

    def _close_until(self, record: HostRecord) -> None:
        """Leaves a host alone until its limits allow a lease, or its turn comes before that."""
        if record.host in self._buffers and record.open_at is not None:
            self._buffers[record.host].open_at = record.open_at

    def _avoid(self, hosts: Iterable[str], now: datetime) -> None:
        """Prefers other hosts for a while."""
        for host in hosts:
            self.forget([host])
            self._avoided[host] = now + timedelta(seconds=_AVOID_SECONDS * random.random())  # noqa: S311 # spreads load

    def _lease(self, terms: LeaseTerms, now: datetime) -> Lease:
        ends_at = now + timedelta(seconds=terms.seconds)
        free_at = ends_at + timedelta(seconds=self._config.frontier_max_clock_skew)
        return Lease(secrets.token_hex(8), terms.owner, now, ends_at, free_at)


def _buffer(record: HostRecord, look: _Look, now: datetime) -> _Buffer:
    seconds = LIMITED_CANDIDATE_SECONDS if record.is_limited else CANDIDATE_SECONDS
    return _Buffer(
        keep_until=now + timedelta(seconds=seconds),
        candidates=sorted(look.candidates, key=_turn),
        is_all=look.is_all,
        is_limited=record.is_limited,
        open_at=now,
    )


def _turn(candidate: Candidate) -> tuple[str, int, float]:
    return candidate.turn


def _emptied(now: datetime, next_work: datetime | None) -> Mutation:
    return lambda record: record.looked_empty(now, next_work)


def _reserving(which: Sequence[int], leases: Sequence[Lease], now: datetime, by: str) -> Mutation:
    tokens = {leases[i].token: leases[i].free_at for i in which}
    return lambda record: record.reserved(tokens, now, by)


def _giving_back(tokens: Sequence[str], reserved_at: datetime) -> Mutation:
    return lambda record: record.given_back(tokens, reserved_at)
