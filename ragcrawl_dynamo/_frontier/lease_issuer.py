"""Issues leases of candidates: reserves leases with limited hosts, claims items, returns unused leases."""

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

# Seconds at most for which a process prefers other hosts, after other processes were faster at one.
_AVOID_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """The terms on which a caller wants to lease one item.

    Attributes:
        seconds: How many seconds the lease lasts.
        owner: The name of the worker.
    """

    seconds: float
    owner: str


@dataclass(frozen=True, slots=True)
class IssuedLease:
    """A lease that was issued.

    Attributes:
        item: The item that was claimed.
        lease: Its lease.
        has_slot: Whether the lease takes an in-flight slot of the host.
    """

    item: FrontierItem
    lease: Lease
    has_slot: bool


IssuedLeases: TypeAlias = dict[int, IssuedLease]


@dataclass
class IssueResult:
    """The result of issuing leases.

    Attributes:
        leases: The leases that were issued, by index into the candidates.
        refused: How many claims and reservations were refused because another process was faster.
    """

    leases: IssuedLeases = field(default_factory=dict)
    refused: int = 0


class LeaseIssuer:
    """Issues leases of one run's items to one process.

    Attributes:
        tried: How many conditional writes were sent to claim items.
        granted: How many of them were applied.
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
        """Claims candidates, unless other processes were faster.

        Args:
            candidates: The candidates, at most as many as there are terms.
            records: The hosts of the candidates, as they were read.
            terms: The terms of the lease for each candidate.
            now: When the leases begin.
        """
        result = IssueResult()
        leases = [self._lease(lease_terms, now) for lease_terms in terms[: len(candidates)]]
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
        # The other candidates of these hosts are as old as those that could not be claimed.
        self._run.view.drop_candidates(misses)
        self._avoid((host for host, count in misses.items() if 3 * count > len(indexes[host])), now)
        return result

    async def _reserve(
        self,
        indexes: Mapping[str, Sequence[int]],
        records: Mapping[str, HostRecord],
        leases: Sequence[Lease],
        now: datetime,
    ) -> tuple[dict[str, HostRecord], set[str]]:
        """Reserves leases with limited hosts; returns their new records, and hosts that refused them."""
        process = self._run.membership.me
        updates = {
            host: ReserveLeases({leases[i].token: leases[i].free_at for i in host_indexes}, now, process)
            for host, host_indexes in indexes.items()
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
        """Gives reserved leases that are not used back to their hosts."""
        if not unused:
            return
        updates = {host: ReturnLeases(tuple(tokens), now) for host, tokens in unused.items()}
        try:
            await self._run.hosts.try_update(reserved, updates)
        except RagcrawlDynamoError as error:
            logger.warning(
                "unused leases of %d hosts could not be returned, these hosts wait longer: %s",
                len(unused),
                error,
            )

    async def _write_claims(
        self, claimed: Mapping[int, Candidate], leases: Sequence[Lease], result: IssueResult
    ) -> dict[int, FrontierItem | None]:
        """Claims candidates; returns the items by index, None for those that could not be claimed."""
        items = self._run.items
        max_attempts = self._run.config.frontier_max_attempts
        writes = [items.claim(candidate, leases[i], max_attempts) for i, candidate in claimed.items()]
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
                    # No worker can decode the item. Its leases will expire until it becomes a dead letter.
                    logger.warning("an item was claimed but cannot be decoded: %s", error)
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
        """Makes items dead letters if the lease of their last attempt has expired."""
        if not candidates:
            return
        items = self._run.items
        max_attempts = self._run.config.frontier_max_attempts
        now = self._run.clock.now()
        outcomes = await items.run(
            [items.give_up(candidate, secrets.token_hex(8), now, max_attempts) for candidate in candidates]
        )
        for candidate, outcome in zip(candidates, outcomes, strict=True):
            if isinstance(outcome, Applied):
                logger.warning(
                    "item %s of host %s is a dead letter: the lease of its last attempt expired",
                    candidate.item_id,
                    candidate.host,
                )
                self._run.counters.move(candidate.host, candidate.state, "failed")

    def _avoid(self, hosts: Iterable[str], now: datetime) -> None:
        """Lets this process prefer other hosts for a few seconds."""
        for host in hosts:
            seconds = _AVOID_SECONDS * random.random()  # noqa: S311 # spreads load
            self._run.view.avoid(host, now + timedelta(seconds=seconds))

    def _lease(self, terms: LeaseTerms, now: datetime) -> Lease:
        ends_at = now + timedelta(seconds=terms.seconds)
        free_at = ends_at + timedelta(seconds=self._run.config.frontier_max_clock_skew)
        return Lease(secrets.token_hex(8), terms.owner, now, ends_at, free_at)
