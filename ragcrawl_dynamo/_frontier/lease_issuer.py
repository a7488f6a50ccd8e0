"""Issues leases of candidates: reserves leases with limited hosts, claims items, returns unused leases."""

from __future__ import annotations

import logging
import secrets
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeAlias

from ragcrawl_dynamo._dynamodb.outcomes import (
    Applied,
    Failed,
    Outcome,
    Refused,
    is_held_up,
    raise_if_all_failed,
)
from ragcrawl_dynamo._frontier.candidates import Candidate
from ragcrawl_dynamo._frontier.context import RunContext
from ragcrawl_dynamo._frontier.host_updates import ReserveLeases, ReturnLeases
from ragcrawl_dynamo._frontier.item_store import Lease
from ragcrawl_dynamo._frontier.queue_reader import QueueReader
from ragcrawl_dynamo._frontier.unused_leases import UnusedLeases
from ragcrawl_dynamo._schema.records import HostRecord
from ragcrawl_dynamo.errors import CorruptItemError, RagcrawlDynamoError
from ragcrawl_dynamo.models import FrontierItem

logger = logging.getLogger(__name__)

# Seconds that the claims of candidates may take at least, after their leases were reserved.
_FEWEST_SECONDS = 0.05


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
        lease: The lease of the item.
        has_slot: Whether the lease takes an in-flight slot of the host.
    """

    item: FrontierItem
    lease: Lease
    has_slot: bool


IssuedLeases: TypeAlias = dict[int, IssuedLease]


class LeaseIssuer:
    """Issues leases of one run's items to one process.

    Attributes:
        tried: How many conditional writes were sent to claim items.
        granted: How many of them were applied.
        is_beaten: Whether other processes were faster at some of the latest candidates.
    """

    def __init__(self, run: RunContext, reader: QueueReader, unused: UnusedLeases) -> None:
        self._run = run
        self._reader = reader
        self._unused = unused
        self.tried: int = 0
        self.granted: int = 0
        self.is_beaten: bool = False

    async def issue(self, candidates: Sequence[Candidate], terms: Sequence[LeaseTerms]) -> IssuedLeases:
        """Claims candidates, unless other processes were faster. The leases begin now.

        It does not wait for candidates whose writes DynamoDB throttles, and waits at most half of the time
        for which a lease can be used. The hosts of candidates that are held up wait on the workbench.

        Args:
            candidates: The candidates, at most as many as there are terms.
            terms: The terms of the lease for each candidate.

        Returns:
            The leases that were issued, by index into the candidates.

        Raises:
            ServiceError: All claims failed that were not held up.
        """
        now = self._run.clock.now()
        end = self._run.clock.monotonic() + self._seconds(terms[: len(candidates)])
        leases = [self._lease(lease_terms, now) for lease_terms in terms[: len(candidates)]]
        indexes: dict[str, list[int]] = defaultdict(list)
        for i, candidate in enumerate(candidates):
            indexes[candidate.host].append(i)
        untried = set(range(len(candidates)))
        try:
            reserved, lost = await self._reserve(indexes, leases, now, end)
            self.is_beaten = not lost <= self._run.view.bench.paused.keys()
            claimed = {i: candidate for i, candidate in enumerate(candidates) if candidate.host not in lost}
            outcomes = await self._write_claims(claimed, leases, end)
            untried -= {i for i, outcome in outcomes.items() if not isinstance(outcome, Failed)}
            return await self._take(claimed, leases, outcomes, reserved, now)
        finally:
            bench = self._run.view.bench
            bench.give_back(candidates[i] for i in untried)
            bench.end_claim(indexes)

    async def _reserve(
        self, indexes: Mapping[str, Sequence[int]], leases: Sequence[Lease], now: datetime, end: float
    ) -> tuple[dict[str, HostRecord], set[str]]:
        """Reserves leases with limited hosts; returns their new records, and hosts that allow no leases now.

        A host may have changed on the workbench since the candidates were chosen: this process may have read
        its record again, or noticed that it has to.
        """
        bench = self._run.view.bench
        lost = {host for host, chosen in indexes.items() if not bench.allows(host, len(chosen), now)}
        known = {host: bench.hosts[host].record for host in indexes if host not in lost}
        records = {host: record for host, record in known.items() if record is not None and record.is_limited}
        updates = {
            host: ReserveLeases({leases[i].token: leases[i].free_at for i in indexes[host]}, now)
            for host in records
        }
        held_up: set[str] = set()
        reserved = await self._run.hosts.try_update(
            records, updates, on_held_up=held_up.add, seconds=self._left(end)
        )
        for host in (records.keys() & bench.hosts.keys()) - held_up:
            # The record of a host that has refused must be read again.
            bench.hosts[host].record = reserved.get(host)
        for host in held_up:
            self._run.hold_up(host)
        return reserved, lost | (records.keys() - reserved.keys())

    async def _take(
        self,
        claimed: Mapping[int, Candidate],
        leases: Sequence[Lease],
        outcomes: Mapping[int, Outcome],
        reserved: Mapping[str, HostRecord],
        reserved_at: datetime,
    ) -> IssuedLeases:
        """Notes the outcomes of claims on the workbench; returns the leases that were issued.

        Raises:
            ServiceError: All claims failed, or nothing was issued and refused items could not be read.
        """
        issued: IssuedLeases = {}
        unused: dict[str, list[str]] = defaultdict(list)
        refused: list[Candidate] = []
        uncertain: list[tuple[Candidate, Lease]] = []
        for i, outcome in outcomes.items():
            candidate, lease = claimed[i], leases[i]
            item = self._note_claim(candidate, lease, outcome)
            if item is not None:
                has_slot = candidate.host in reserved and reserved[candidate.host].max_in_flight is not None
                issued[i] = IssuedLease(item, lease, has_slot)
                continue
            if isinstance(outcome, Refused):
                refused.append(candidate)
            elif isinstance(outcome, Failed) and outcome.may_be_applied:
                uncertain.append((candidate, lease))
            if candidate.host in reserved:
                unused[candidate.host].append(lease.token)
        self.is_beaten |= bool(refused)
        self._unused.check(uncertain)
        try:
            await self._return(unused, reserved, reserved_at)
            raise_if_all_failed([outcome for outcome in outcomes.values() if not is_held_up(outcome)])
            await self._give_up([candidate for candidate in refused if candidate.expired_token is not None])
            if refused:
                await self._reader.learn(refused)
        except RagcrawlDynamoError as error:
            if not issued:
                raise
            logger.warning(
                "%d items that other processes have claimed could not be read; they are tried later: %s",
                len(refused),
                error,
            )
        return issued

    def _note_claim(self, candidate: Candidate, lease: Lease, outcome: Outcome) -> FrontierItem | None:
        """Notes a claim on the workbench; returns the item that was claimed."""
        if not isinstance(outcome, Applied) or outcome.item is None:
            return None
        run = self._run
        self.granted += 1
        if (host := run.view.bench.hosts.get(candidate.host)) is not None:
            host.wait(replace(candidate, expired_token=lease.token), lease.free_at, is_own=True)
            host.note_claimed(run.clock.monotonic())
            host.held_up = 0
        try:
            item = run.items.decode(outcome.item)
        except CorruptItemError as error:
            # No worker can decode the item. Its leases will expire until it becomes a dead letter.
            logger.warning("a claimed item cannot be decoded, so it will become a dead letter: %s", error)
            return None
        run.counters.move(candidate.host, candidate.state, "in_progress")
        return item

    async def _return(
        self,
        unused: Mapping[str, Sequence[str]],
        reserved: Mapping[str, HostRecord],
        reserved_at: datetime,
    ) -> None:
        """Gives reserved leases that are not used back to their hosts.

        It is tried again in the background.
        """
        if not unused:
            return
        updates = {host: ReturnLeases(tuple(tokens), reserved_at) for host, tokens in unused.items()}
        bench = self._run.view.bench
        returned: dict[str, HostRecord] = {}
        try:
            returned = await self._run.hosts.try_update(reserved, updates, on_held_up=lambda _: None)
        except RagcrawlDynamoError as error:
            logger.debug("unused leases could not be returned, and are returned later: %s", error)
        for host in updates.keys() & bench.hosts.keys():
            bench.hosts[host].record = returned.get(host)
        if left := {host: update for host, update in updates.items() if host not in returned}:
            self._run.tasks.spawn(self._return_later(left))

    async def _return_later(self, updates: Mapping[str, ReturnLeases]) -> None:
        try:
            self._run.note_updates(await self._run.hosts.update(updates))
        except RagcrawlDynamoError as error:
            logger.warning(
                "unused leases of %d hosts could not be returned; the hosts wait until these leases end: %s",
                len(updates),
                error,
            )

    async def _write_claims(
        self, claimed: Mapping[int, Candidate], leases: Sequence[Lease], end: float
    ) -> dict[int, Outcome]:
        """Writes claims; returns their outcomes by index. Hosts that are held up are paused."""
        items = self._run.items
        max_attempts = self._run.config.frontier_max_attempts
        writes = [items.claim(candidate, leases[i], max_attempts) for i, candidate in claimed.items()]
        outcomes = await items.run(writes, once=True, seconds=self._left(end))
        self.tried += len(outcomes)
        held_up = {
            candidate.host
            for candidate, outcome in zip(claimed.values(), outcomes, strict=True)
            if is_held_up(outcome)
        }
        for host in held_up:
            self._run.hold_up(host)
        failures = [outcome for outcome in outcomes if isinstance(outcome, Failed)]
        if failures:
            logger.warning(
                "%d of %d claims failed, the first with: %s", len(failures), len(outcomes), failures[0].error
            )
        return dict(zip(claimed, outcomes, strict=True))

    async def _give_up(self, candidates: Sequence[Candidate]) -> None:
        """Makes items dead letters if the lease of their last attempt has expired."""
        if not candidates:
            return
        items = self._run.items
        max_attempts = self._run.config.frontier_max_attempts
        now = self._run.clock.now()
        outcomes = await items.run(
            [items.give_up(candidate, secrets.token_hex(8), now, max_attempts) for candidate in candidates],
            once=True,
        )
        for candidate, outcome in zip(candidates, outcomes, strict=True):
            if isinstance(outcome, Applied):
                logger.error(
                    "item %s of host %s is given up as a dead letter: the lease of its last attempt expired",
                    candidate.item_id,
                    candidate.host,
                )
                self._run.counters.move(candidate.host, candidate.state, "failed")

    def _seconds(self, terms: Iterable[LeaseTerms]) -> float:
        """Returns how long claims may take, so that the leases have time left, or can be given back."""
        shortest = min((lease_terms.seconds for lease_terms in terms), default=0.0)
        return (shortest - self._run.config.frontier_max_clock_skew) / 2

    def _left(self, end: float) -> float:
        """Returns the seconds until a moment of the monotonic clock, or few if it is over."""
        return max(_FEWEST_SECONDS, end - self._run.clock.monotonic())

    def _lease(self, terms: LeaseTerms, now: datetime) -> Lease:
        ends_at = now + timedelta(seconds=terms.seconds)
        free_at = ends_at + timedelta(seconds=self._run.config.frontier_max_clock_skew)
        deadline = self._run.clock.monotonic() + terms.seconds
        return Lease(secrets.token_hex(8), terms.owner, now, ends_at, free_at, deadline)
