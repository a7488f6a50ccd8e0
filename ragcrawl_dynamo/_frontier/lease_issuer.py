"""Issues leases of chosen items: reserves them with their hosts, writes claims, returns what is unused."""

from __future__ import annotations

import logging
import random
import secrets
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeAlias

from ragcrawl_dynamo._dynamodb.conditional_writes import Applied, Failed
from ragcrawl_dynamo._frontier.candidates import Candidate
from ragcrawl_dynamo._frontier.context import RunContext
from ragcrawl_dynamo._frontier.host_updates import ReserveLeases, ReturnLeases
from ragcrawl_dynamo._frontier.item_store import Lease
from ragcrawl_dynamo._schema.queue_order import LEASED
from ragcrawl_dynamo._schema.records import HostRecord
from ragcrawl_dynamo.errors import CorruptItemError, RagcrawlDynamoError
from ragcrawl_dynamo.models import FrontierItem

logger = logging.getLogger(__name__)

# Most seconds for which a process prefers other hosts, after others were faster at one.
_AVOID_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """What the claimant of one item asks for: how many seconds, and under which worker's name."""

    seconds: float
    owner: str


@dataclass(frozen=True, slots=True)
class IssuedLease:
    """An item that was claimed, its lease, and whether its host counts the lease as in flight."""

    item: FrontierItem
    lease: Lease
    has_slot: bool


IssuedLeases: TypeAlias = dict[int, IssuedLease]


@dataclass
class IssueResult:
    """What came of issuing leases.

    Attributes:
        leases: Those that were issued, by index into the candidates.
        refused: Claims and reservations for which another process was faster.
    """

    leases: IssuedLeases = field(default_factory=dict)
    refused: int = 0


class LeaseIssuer:
    """Issues leases of one run's items to one process.

    Attributes:
        tried: Conditional writes with which it tried to claim items.
        granted: How many of them succeeded.
    """

    def __init__(self, run: RunContext) -> None:
        self._run = run
        self.tried = 0
        self.granted = 0

    async def issue(
        self,
        candidates: Sequence[Candidate],
        records: Mapping[str, HostRecord],
        terms: Sequence[LeaseTerms],
        now: datetime,
    ) -> IssueResult:
        """Claims candidates, as far as nobody was faster.

        Args:
            candidates: Not more than terms.
            records: Their hosts, as they were read.
            terms: For each candidate those of its lease.
            now: When the leases begin.
        """
        result = IssueResult()
        leases = [self._lease(wanted, now) for wanted in terms[: len(candidates)]]
        indexes: dict[str, list[int]] = defaultdict(list)
        for i, candidate in enumerate(candidates):
            indexes[candidate.host].append(i)
        reserved, lost = await self._reserve(indexes, records, leases, now)
        result.refused += len(lost)
        claimed = {i: candidate for i, candidate in enumerate(candidates) if candidate.host not in lost}
        unused: dict[str, list[str]] = defaultdict(list)
        misses: dict[str, int] = defaultdict(int)
        for i, item in (await self._write_claims(claimed, leases, result)).items():
            host = claimed[i].host
            if item is not None:
                has_slot = host in reserved and reserved[host].max_in_flight is not None
                result.leases[i] = IssuedLease(item, leases[i], has_slot)
                self._run.counters.move(host, claimed[i].state, "in_progress")
                continue
            misses[host] += 1
            if host in reserved:
                unused[host].append(leases[i].token)
        await self._return(unused, reserved, now)
        # What else was seen together with the misses is as old.
        self._run.view.drop_candidates(misses)
        self._avoid((host for host, n in misses.items() if 3 * n > len(indexes[host])), now)
        return result

    async def _reserve(
        self,
        indexes: Mapping[str, Sequence[int]],
        records: Mapping[str, HostRecord],
        leases: Sequence[Lease],
        now: datetime,
    ) -> tuple[dict[str, HostRecord], set[str]]:
        """Reserves leases with limited hosts; returns these hosts, and those where others were faster."""
        process = self._run.membership.me
        updates = {
            host: ReserveLeases({leases[i].token: leases[i].free_at for i in of_host}, now, process)
            for host, of_host in indexes.items()
            if records[host].is_limited
        }
        reserved = await self._run.hosts.try_update(records, updates)
        for record in reserved.values():
            self._run.view.close_host(record.host, record.open_at)
        lost = updates.keys() - reserved.keys()
        self._avoid(lost, now)
        return reserved, lost

    async def _return(
        self, unused: Mapping[str, Sequence[str]], reserved: Mapping[str, HostRecord], now: datetime
    ) -> None:
        """Gives reserved leases back that are not used after all."""
        if not unused:
            return
        updates = {host: ReturnLeases(tuple(tokens), now) for host, tokens in unused.items()}
        try:
            await self._run.hosts.try_update(reserved, updates)
        except RagcrawlDynamoError as error:
            logger.warning("%d hosts wait longer than they need to: %s", len(unused), error)

    async def _write_claims(
        self, claimed: Mapping[int, Candidate], leases: Sequence[Lease], result: IssueResult
    ) -> dict[int, FrontierItem | None]:
        """The items that were claimed; None for those that others changed first."""
        items = self._run.items
        most = self._run.config.frontier_max_attempts
        writes = [items.claim(candidate, leases[i], most) for i, candidate in claimed.items()]
        outcomes = await items.run(writes)
        self.tried += len(outcomes)
        taken: dict[int, FrontierItem | None] = {}
        failures = [outcome for outcome in outcomes if isinstance(outcome, Failed)]
        for i, outcome in zip(claimed, outcomes, strict=True):
            taken[i] = None
            if isinstance(outcome, Applied) and outcome.item is not None:
                self.granted += 1
                try:
                    taken[i] = items.decode(outcome.item)
                except CorruptItemError as error:
                    # Nobody can work on it; its leases will expire until it is given up.
                    logger.warning("an item cannot be claimed: %s", error)
            else:
                result.refused += 1
        if failures:
            if len(failures) == len(outcomes):
                raise failures[0].error
            logger.warning(
                "%d of %d claims failed, the first: %s", len(failures), len(outcomes), failures[0].error
            )
        await self._give_up(
            [claimed[i] for i, item in taken.items() if item is None and claimed[i].kind == LEASED]
        )
        return taken

    async def _give_up(self, candidates: Sequence[Candidate]) -> None:
        """Makes dead letters of those whose last attempt expired."""
        if not candidates:
            return
        items = self._run.items
        most = self._run.config.frontier_max_attempts
        now = self._run.clock.now()
        outcomes = await items.run(
            [items.give_up(candidate, secrets.token_hex(8), now, most) for candidate in candidates]
        )
        for candidate, outcome in zip(candidates, outcomes, strict=True):
            if isinstance(outcome, Applied):
                logger.warning(
                    "item %s of host %s: its last lease expired", candidate.item_id, candidate.host
                )
                self._run.counters.move(candidate.host, candidate.state, "failed")

    def _avoid(self, hosts: Iterable[str], now: datetime) -> None:
        """Prefers other hosts for a while."""
        for host in hosts:
            seconds = _AVOID_SECONDS * random.random()  # noqa: S311 # spreads load
            self._run.view.avoid(host, now + timedelta(seconds=seconds))

    def _lease(self, terms: LeaseTerms, now: datetime) -> Lease:
        ends_at = now + timedelta(seconds=terms.seconds)
        free_at = ends_at + timedelta(seconds=self._run.config.frontier_max_clock_skew)
        return Lease(secrets.token_hex(8), terms.owner, now, ends_at, free_at)
