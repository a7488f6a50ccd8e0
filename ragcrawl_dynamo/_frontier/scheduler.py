"""Chooses which items this process claims next, and claims them.

The knowledge of the process about hosts lies on a workbench in memory (workbench.py). A claim takes from it,
and fills it if too little is known: from the lists of hosts (host_lists.py), and from the queues of the hosts
that come next (queue_reader.py). The conditional write of a claim decides whether its candidate can still be
claimed (lease_issuer.py).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ragcrawl_dynamo._frontier.candidates import Candidate
from ragcrawl_dynamo._frontier.context import RunContext
from ragcrawl_dynamo._frontier.control_store import cancelled
from ragcrawl_dynamo._frontier.host_lists import HostLists
from ragcrawl_dynamo._frontier.idle_hosts import IdleHosts
from ragcrawl_dynamo._frontier.lease_issuer import IssuedLeases, LeaseIssuer, LeaseTerms
from ragcrawl_dynamo._frontier.queue_reader import QueueReader
from ragcrawl_dynamo._frontier.unused_leases import UnusedLeases
from ragcrawl_dynamo._schema.records import RunControl, RunState
from ragcrawl_dynamo._utils.concurrency import gather
from ragcrawl_dynamo.errors import RagcrawlDynamoError, ThrottledError

logger = logging.getLogger(__name__)

# How many times one claim chooses candidates at most. It chooses again if other processes claimed them first,
# or if a second look at idle hosts has shown more items.
_ATTEMPTS = 40

# How many items are read by key after other processes were faster, so that those are tried that are free.
_CHECKED = 25


@dataclass
class ClaimResult:
    """The result of a claim.

    Attributes:
        leases: The leases that were issued, by index into the terms.
        next_at: When an item may be claimable; None if no moment is known.
        throttled: The error of a claim that got nothing, if hosts wait because DynamoDB holds them up.
        is_finished: Whether a process has found that the run is finished, and nothing was added since.
    """

    leases: IssuedLeases = field(default_factory=dict)
    next_at: datetime | None = None
    throttled: ThrottledError | None = None
    is_finished: bool = False


class Scheduler:
    """Claims items of one run for this process. `issuer` issues the leases."""

    def __init__(self, run: RunContext, unused: UnusedLeases) -> None:
        self._run = run
        self._lists = HostLists(run)
        self._reader = QueueReader(run)
        self._idle = IdleHosts(run, self._lists, self._reader)
        self._limits: str | None = None
        self.issuer: LeaseIssuer = LeaseIssuer(run, self._reader, unused)

    async def claim(self, terms: Sequence[LeaseTerms], *, is_thorough: bool) -> ClaimResult:
        """Claims an item for each of the terms, in their order, as long as there are claimable items.

        Args:
            terms: The terms of the leases.
            is_thorough: Whether to look again at idle hosts before the claim returns no lease. Otherwise, and
                before it returns fewer leases than wanted, that is done once a second.

        Raises:
            FrontierCancelledError: The run was cancelled.
            ServiceError: DynamoDB refused a request or could not be reached.
        """
        run, result = self._run, ClaimResult()
        now = run.clock.now()
        control, is_changed = await gather(
            [self._read_control(), run.membership.refresh(now, run.clock.monotonic())]
        )
        if is_changed:
            run.view.bench.set_shares(run.share)
        if control is not None:
            result.is_finished = bool(control.finished_by)
            if control.state is not RunState.RUNNING:
                return result
        is_due, has_looked = self._idle.is_due(), False
        for _ in range(_ATTEMPTS):
            unserved = [i for i in range(len(terms)) if i not in result.leases]
            try:
                now = run.clock.now()
                chosen = await self._choose(len(unserved), now)
                if not chosen:
                    is_enough = bool(result.leases) and (has_looked or not is_due)
                    if is_enough or not (is_thorough or is_due):
                        break
                    has_looked = True
                    if not await self._idle.look_again(len(unserved), now):
                        break
                    continue
                issued = await self.issuer.issue(chosen, [terms[i] for i in unserved])
                result.leases |= {unserved[i]: lease for i, lease in issued.items()}
                if len(result.leases) == len(terms):
                    break
                if self.issuer.is_beaten:
                    await self._check(now)
            except RagcrawlDynamoError as error:
                # Items that are claimed already must reach the caller.
                if not result.leases:
                    raise
                logger.warning("a claim returns fewer items because a request failed: %s", error)
                break
        result.next_at = run.view.bench.next_moment()
        if not result.leases and run.view.bench.paused:
            result.throttled = _throttled(list(run.view.bench.paused))
        return result

    def clear(self) -> None:
        """Forgets how far the lists of hosts were read, after the run's items were deleted."""
        self._lists.clear()

    async def _choose(self, wanted: int, now: datetime) -> list[Candidate]:
        """Takes the best candidates from the workbench, after it is filled so far that they are the best."""
        bench, monotonic = self._run.view.bench, self._run.clock.monotonic()
        chosen: list[Candidate] = []
        try:
            await self._lists.refill(wanted, now)
            while len(chosen) < wanted:
                choice = bench.choose(wanted - len(chosen), now, monotonic)
                chosen += choice.candidates
                if not choice.looks:
                    break
                await self._reader.look(choice.looks, -(-wanted // len(choice.looks)), now)
        except BaseException:
            bench.give_back(chosen)
            raise
        return chosen

    async def _check(self, now: datetime) -> None:
        """Reads the items by key that come next: other processes may have leased many of them."""
        candidates = await self._choose(_CHECKED, now)
        try:
            unknown = [candidate for candidate in candidates if candidate.expired_token is None]
            if unknown:
                await self._reader.learn(unknown)
        finally:
            known = [candidate for candidate in candidates if candidate.expired_token is not None]
            self._run.view.bench.give_back(known)
            self._run.view.bench.end_claim({candidate.host for candidate in candidates})

    async def _read_control(self) -> RunControl | None:
        """Returns the run's control; None if none is stored.

        Raises:
            FrontierCancelledError: The run was cancelled.
        """
        control = await self._run.control_reads.recent()
        if control is None:
            return None
        if control.limits_changed_by != self._limits:
            self._limits = control.limits_changed_by
            self._run.view.bench.recheck_limits(self._run.clock.monotonic())
        if control.state is RunState.CANCELLED:
            raise cancelled(control.run)
        return control


def _throttled(hosts: Sequence[str]) -> ThrottledError:
    names = ", ".join(hosts[:3])
    return ThrottledError(
        f"nothing was claimed: DynamoDB throttles the requests for {len(hosts)} hosts, such as {names}, or "
        f"answers them too late; raise the capacity, or claim fewer items at once",
        code="Throttled",
        operation="claim",
        table=None,
    )
