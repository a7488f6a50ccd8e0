"""Writes under leases: renewing and ending them, with what hosts and counters must know of it."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ragcrawl_dynamo._dynamodb.conditional_writes import Applied, ConditionalUpdate, Failed
from ragcrawl_dynamo._frontier.claim import Claim, LeaseObserver, note_lost
from ragcrawl_dynamo._frontier.counters import Counters
from ragcrawl_dynamo._frontier.host_store import HostStore, Mutation
from ragcrawl_dynamo._frontier.item_store import QueueStore, ready_candidate
from ragcrawl_dynamo._frontier.notifier import Waker
from ragcrawl_dynamo._frontier.scheduler import Claimer
from ragcrawl_dynamo.errors import LeaseLostError, PartialBatchError, RagcrawlDynamoError
from ragcrawl_dynamo.models import FrontierStatus

logger = logging.getLogger(__name__)


@dataclass
class _Written:
    """What came of writes under leases.

    Attributes:
        done: Claims whose write was done now.
        already: Claims for which the same verb had done it before.
        lost: Claims whose lease had ended.
        over: Claims that were to be renewed, and which a verb under the same lease has ended.
        unknown: Claims for which it is unknown, with the error.
    """

    done: list[Claim] = field(default_factory=list)
    already: list[Claim] = field(default_factory=list)
    lost: list[Claim] = field(default_factory=list)
    over: list[Claim] = field(default_factory=list)
    unknown: list[tuple[Claim, RagcrawlDynamoError]] = field(default_factory=list)

    def raise_if_incomplete(self) -> None:
        """Raises what the caller must know.

        Raises:
            LeaseLostError: Some leases were lost; everything else was done.
            PartialBatchError: Of some it is unknown.
        """
        lost = [*self.lost, *self.over]
        if self.unknown:
            failures = [*self.unknown, *((claim, LeaseLostError([claim])) for claim in lost)]
            raise PartialBatchError(len(self.done) + len(self.already), failures) from failures[0][1]
        if lost:
            raise LeaseLostError(lost)


class Finisher:
    """Renews and ends leases of one run's items."""

    def __init__(
        self,
        hosts: HostStore,
        queue: QueueStore,
        counters: Counters,
        claimer: Claimer,
        waker: Waker,
        on_lease_lost: LeaseObserver,
    ) -> None:
        self._hosts = hosts
        self._queue = queue
        self._counters = counters
        self._claimer = claimer
        self._waker = waker
        self._on_lease_lost = on_lease_lost

    async def renew(
        self, claims: Sequence[Claim], ends_at: datetime, free_at: datetime, deadline: float
    ) -> None:
        """Makes leases end later.

        Raises:
            LeaseLostError: Some were lost.
            PartialBatchError: Whether some were renewed is unknown.
        """
        changes = [self._queue.renew(each.item, ends_at, free_at) for each in claims]
        written = await self._write(claims, changes, FrontierStatus.IN_PROGRESS)
        for claim in written.done:
            claim.expires_at, claim.deadline = ends_at, deadline
        for claim in written.lost:
            note_lost(claim, self._on_lease_lost)
        for claim in written.over:
            claim.ended = True
        await self._tell_hosts(written.done, lambda tokens: _extending(tokens, free_at))
        written.raise_if_incomplete()

    async def end(self, claims: Sequence[Claim], changes: Sequence[ConditionalUpdate], becomes: str) -> None:
        """Ends leases for good.

        Args:
            claims: The claims, of one host or several.
            changes: The write for each.
            becomes: "completed", "failed" or "skipped".

        Raises:
            LeaseLostError: Some were lost.
            PartialBatchError: Whether some were ended is unknown.
        """
        written = await self._end(claims, changes, FrontierStatus(becomes), becomes)
        written.raise_if_incomplete()

    async def ended_elsewhere(self, claim: Claim, becomes: str, *, counted: bool) -> None:
        """Notes that a transaction has ended a lease for good; `counted` if it was noted before."""
        claim.ended = True
        if not counted:
            self._counters.move(claim.item.domain, "in_progress", becomes)
        await self._tell_hosts([claim], _freeing)

    async def put_back(
        self, claims: Sequence[Claim], changes: Sequence[ConditionalUpdate], becomes: str, at: datetime
    ) -> None:
        """Ends leases whose items go back into the queue.

        Args:
            claims: The claims, of one host or several.
            changes: The write for each.
            becomes: "pending" or "delayed".
            at: When they can be claimed again.

        Raises:
            LeaseLostError: Some were lost.
            PartialBatchError: Whether some were ended is unknown.
        """
        written = await self._end(claims, changes, FrontierStatus.PENDING, becomes)
        back = [*written.done, *written.already, *(claim for claim, _ in written.unknown)]
        if becomes == "pending":
            for claim in written.done:
                self._claimer.offer(ready_candidate(claim.item))
        if back:
            try:
                await self._waker.wake({claim.item.domain: (at, 1) for claim in back})
            except RagcrawlDynamoError as error:
                # They are in the queue; their hosts are woken by the next call, or when all seems finished.
                logger.warning("%d items went back, but their hosts sleep on: %s", len(back), error)
        written.raise_if_incomplete()

    async def _end(
        self,
        claims: Sequence[Claim],
        changes: Sequence[ConditionalUpdate],
        status: FrontierStatus,
        becomes: str,
    ) -> _Written:
        written = await self._write(claims, changes, status)
        for claim in written.lost:
            note_lost(claim, self._on_lease_lost)
        ended = [*written.done, *written.already, *written.lost]
        for claim in ended:
            claim.ended = True
        for claim in written.done:
            self._counters.move(claim.item.domain, "in_progress", becomes)
        await self._tell_hosts(ended, _freeing)
        return written

    async def _write(
        self, claims: Sequence[Claim], changes: Sequence[ConditionalUpdate], status: FrontierStatus
    ) -> _Written:
        written = _Written()
        refused: list[Claim] = []
        for claim, outcome in zip(claims, await self._queue.run(changes), strict=True):
            if isinstance(outcome, Failed):
                written.unknown.append((claim, outcome.error))
            elif isinstance(outcome, Applied) and outcome.item and outcome.item["status"] == {"S": status}:
                written.done.append(claim)
            else:
                refused.append(claim)
        if not refused:
            return written
        # The same verb may have done it before, in a call whose end its caller did not see.
        items = await self._queue.read(list({claim.item.item_id for claim in refused}))
        for claim in refused:
            now = items.get(claim.item.item_id)
            if now is None or now.lease_token != claim.item.lease_token:
                written.lost.append(claim)
            elif status is FrontierStatus.IN_PROGRESS:
                written.over.append(claim)
            elif now.status == status:
                written.already.append(claim)
            else:
                written.lost.append(claim)
        return written

    async def _tell_hosts(self, claims: Iterable[Claim], change: Callable[[list[str]], Mutation]) -> None:
        """Tells hosts that count their leases in flight of those that ended, or end later."""
        tokens: defaultdict[str, list[str]] = defaultdict(list)
        for claim in claims:
            if claim.has_slot and claim.item.lease_token:
                tokens[claim.item.domain].append(claim.item.lease_token)
        if not tokens:
            return
        try:
            await self._hosts.change({host: change(each) for host, each in tokens.items()})
        except RagcrawlDynamoError as error:
            logger.warning("%d hosts count leases as in flight until they expire: %s", len(tokens), error)
        self._waker.changed.set()


def _extending(tokens: list[str], free_at: datetime) -> Mutation:
    return lambda record: record.extended(dict.fromkeys(tokens, free_at))


def _freeing(tokens: list[str]) -> Mutation:
    return lambda record: record.freed(tokens)
