"""Settles claims and renews leases, and updates hosts and counters accordingly."""

from __future__ import annotations

import logging
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from ragcrawl_dynamo._dynamodb.conditional_writes import ConditionalUpdate
from ragcrawl_dynamo._dynamodb.outcomes import Applied, Failed
from ragcrawl_dynamo._frontier.candidates import Candidate
from ragcrawl_dynamo._frontier.claim import Claim, note_lost
from ragcrawl_dynamo._frontier.context import RunContext
from ragcrawl_dynamo._frontier.host_updates import EndLeases, ExtendLeases, HostUpdate
from ragcrawl_dynamo._frontier.item_store import candidate_of
from ragcrawl_dynamo._frontier.notifier import Notifier
from ragcrawl_dynamo._frontier.work import Work, WorkByHost
from ragcrawl_dynamo.errors import LeaseLostError, PartialBatchError, RagcrawlDynamoError
from ragcrawl_dynamo.models import FrontierItem, FrontierStatus

logger = logging.getLogger(__name__)


@dataclass
class _Written:
    """The claims of a call, by the results of their writes under leases.

    Attributes:
        done: The write was applied.
        already: The same method had been applied before.
        lost: The lease was lost.
        over: A renewal came after the claim was settled.
        unknown: The write failed, with the error; it is not known whether it was applied.
    """

    done: list[Claim] = field(default_factory=list)
    already: list[Claim] = field(default_factory=list)
    lost: list[Claim] = field(default_factory=list)
    over: list[Claim] = field(default_factory=list)
    unknown: list[tuple[Claim, RagcrawlDynamoError]] = field(default_factory=list)

    def raise_if_incomplete(self) -> None:
        """Raises an error if some writes were not applied.

        Raises:
            LeaseLostError: Some leases were lost; all other writes were applied.
            PartialBatchError: Some writes failed.
        """
        lost = [*self.lost, *self.over]
        if self.unknown:
            failures = [*self.unknown, *((claim, LeaseLostError([claim])) for claim in lost)]
            raise PartialBatchError(len(self.done) + len(self.already), failures)
        if lost:
            raise LeaseLostError(lost)


@dataclass(frozen=True, slots=True)
class Return:
    """A claim whose item goes back into the queue.

    Attributes:
        claim: The claim.
        update: The write that ends the lease.
        item: The item after the write.
        retry_at: When the item can be claimed again; None for at once.
    """

    claim: Claim
    update: ConditionalUpdate
    item: FrontierItem
    retry_at: datetime | None = None

    @property
    def candidate(self) -> Candidate:
        """The candidate that the index will show."""
        return candidate_of(self.item, self.retry_at)


class Settlement:
    """Settles claims of one run and renews their leases."""

    def __init__(self, run: RunContext, notifier: Notifier) -> None:
        self._run = run
        self._notifier = notifier

    async def renew(self, claims: Sequence[Claim], lease_seconds: float) -> None:
        """Renews leases, so that they last `lease_seconds` from now, or as long as they do already.

        Raises:
            ClockSkewError: This machine's clock is off by too much.
            LeaseLostError: Some leases were lost.
            PartialBatchError: It is not known whether some leases were renewed.
        """
        run = self._run
        run.check_clock()
        now, monotonic = run.clock.now(), run.clock.monotonic()
        deadline = monotonic + lease_seconds
        ends = {id(claim): _renewed_end(claim, lease_seconds, now, monotonic) for claim in claims}
        updates = [run.items.renew(claim.item, ends[id(claim)]) for claim in claims]
        written = await self._write(claims, updates, FrontierStatus.IN_PROGRESS)
        skew = timedelta(seconds=run.config.frontier_max_clock_skew)
        for claim in written.done:
            claim.expires_at, claim.deadline = ends[id(claim)], max(claim.deadline, deadline)
            run.note_renewed(claim.item, claim.expires_at + skew)
        for claim in written.lost:
            note_lost(claim, run.on_lease_lost)
            run.note_lost(claim.item)
        for claim in written.over:
            claim.ended = True
        free_at = max((claim.expires_at for claim in written.done), default=now) + skew
        await self._tell_hosts(written.done, lambda tokens: ExtendLeases(tokens, free_at))
        written.raise_if_incomplete()

    async def end(
        self, claims: Sequence[Claim], updates: Sequence[ConditionalUpdate], status: FrontierStatus
    ) -> None:
        """Ends leases with a final status.

        Args:
            claims: The claims.
            updates: The write for each claim.
            status: The final status of the items.

        Raises:
            LeaseLostError: Some leases were lost.
            PartialBatchError: It is not known whether some leases were ended.
        """
        (await self._end(claims, updates, status, status)).raise_if_incomplete()

    async def note_completed(self, claim: Claim, *, is_counted: bool) -> None:
        """Notes that a commit has completed an item.

        Args:
            claim: The claim of the item.
            is_counted: Whether an earlier call has counted the item as completed.
        """
        claim.ended = True
        if claim.settled_as is None and not claim.lost:
            claim.settled_as = FrontierStatus.COMPLETED
        self._run.note_ended(claim.item)
        if not is_counted:
            self._run.counters.move(claim.item.domain, "in_progress", "completed")
        await self._tell_hosts([claim], EndLeases)

    async def put_back(self, returns: Sequence[Return]) -> None:
        """Ends leases whose items go back into the queue: either all are ready at once, or all are delayed.

        Raises:
            LeaseLostError: Some leases were lost.
            PartialBatchError: It is not known whether some leases were ended.
        """
        run = self._run
        if not returns:
            return
        by_claim = {id(put_back.claim): put_back for put_back in returns}
        claims = [put_back.claim for put_back in returns]
        state = "pending" if returns[0].retry_at is None else "delayed"
        updates = [put_back.update for put_back in returns]
        written = await self._end(claims, updates, FrontierStatus.PENDING, state)
        for claim in (*written.done, *written.already):
            claim.item = by_claim[id(claim)].item
        work = WorkByHost()
        for claim in (*written.done, *written.already, *(claim for claim, _ in written.unknown)):
            put_back = by_claim[id(claim)]
            # The index shows a released item where it was. Only the mark tells others that its lease is over.
            is_changed = put_back.retry_at is None
            work.note(claim.item.domain, Work(put_back.candidate.order, is_changed=is_changed))
        if work:
            try:
                await self._notifier.announce(work)
            except RagcrawlDynamoError as error:
                # The items are in the queue. The next call announces them, and so does the proof of the end.
                logger.warning(
                    "items of %d hosts are back in the queue, but other workers find them later: %s",
                    *(len(work), error),
                )
        for claim in written.done:
            run.offer(by_claim[id(claim)].candidate)
        written.raise_if_incomplete()

    def backoff(self, failures: int) -> float:
        """Returns the seconds until the next attempt: exponential backoff with jitter."""
        config = self._run.config
        # After 60 doublings every delay above 0 has reached the maximum. More could overflow the float.
        doubled = config.frontier_retry_delay * 2.0 ** min(failures, 60)
        delay = min(config.frontier_max_retry_delay, doubled)
        return delay * random.uniform(0.5, 1.0)  # noqa: S311 # spreads load

    async def _end(
        self,
        claims: Sequence[Claim],
        updates: Sequence[ConditionalUpdate],
        status: FrontierStatus,
        state: str,
    ) -> _Written:
        """Ends leases; `state` is the state in which the items are counted afterwards."""
        written = await self._write(claims, updates, status)
        for claim in written.lost:
            note_lost(claim, self._run.on_lease_lost)
        ended = [*written.done, *written.already, *written.lost]
        for claim in ended:
            claim.ended = True
        for claim in (*written.done, *written.already):
            claim.settled_as = status
        for claim in (*written.already, *written.lost):
            self._run.note_lost(claim.item)
        for claim in written.done:
            self._run.note_ended(claim.item)
            self._run.counters.move(claim.item.domain, "in_progress", state)
        await self._tell_hosts(ended, EndLeases)
        return written

    async def _write(
        self, claims: Sequence[Claim], updates: Sequence[ConditionalUpdate], status: FrontierStatus
    ) -> _Written:
        """Does writes under leases; `status` is the status of the items after the writes."""
        written = _Written()
        refused: list[Claim] = []

        def on_throttled(i: int, pause: float) -> None:
            # More leases of the host would wait for their ends too.
            self._run.pause_host(claims[i].item.domain, pause)

        outcomes = await self._run.items.run_coalesced(updates, on_throttled)
        for claim, outcome in zip(claims, outcomes, strict=True):
            if isinstance(outcome, Failed):
                written.unknown.append((claim, outcome.error))
            elif isinstance(outcome, Applied) and outcome.item and outcome.item["status"] == {"S": status}:
                written.done.append(claim)
            else:
                refused.append(claim)
        if not refused:
            return written
        # An earlier call of the same method, whose answer was lost, may have applied the write.
        items = await self._run.items.read(list({claim.item.item_id for claim in refused}))
        for claim in refused:
            item = items.get(claim.item.item_id)
            if item is None or item.lease_token != claim.item.lease_token:
                written.lost.append(claim)
            elif status is FrontierStatus.IN_PROGRESS:
                written.over.append(claim)
            elif item.status == status:
                written.already.append(claim)
            else:
                written.lost.append(claim)
        return written

    async def _tell_hosts(
        self, claims: Iterable[Claim], update: Callable[[tuple[str, ...]], HostUpdate]
    ) -> None:
        """Updates the in-flight slots of hosts for leases that have ended or were renewed."""
        tokens: defaultdict[str, list[str]] = defaultdict(list)
        for claim in claims:
            if claim.has_slot and claim.item.lease_token:
                tokens[claim.item.domain].append(claim.item.lease_token)
        if not tokens:
            return
        try:
            updates = await self._run.hosts.update(
                {host: update(tuple(host_tokens)) for host, host_tokens in tokens.items()}
            )
            self._run.note_updates(updates)
        except RagcrawlDynamoError as error:
            logger.warning(
                "%d hosts could not be updated, and count ended leases as in flight until they expire: %s",
                *(len(tokens), error),
            )
        self._run.view.changed.set()


def _renewed_end(claim: Claim, lease_seconds: float, now: datetime, monotonic: float) -> datetime:
    """Returns when a lease ends that is renewed now.

    If this machine's clock was set back since the claim, the lease is measured by the clock as it was before:
    other processes compare its end with clocks that were not set.
    """
    now_by_claim = claim.expires_at - timedelta(seconds=claim.deadline - monotonic)
    return max(claim.expires_at, max(now, now_by_claim) + timedelta(seconds=lease_seconds))
