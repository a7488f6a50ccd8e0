"""Coalesces concurrent claims of one process: the scheduler serves all waiting calls at once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from ragcrawl_dynamo._frontier.claim import Claim
from ragcrawl_dynamo._frontier.context import RunContext
from ragcrawl_dynamo._frontier.lease_issuer import IssuedLease, LeaseTerms
from ragcrawl_dynamo._frontier.scheduler import ClaimResult, Scheduler
from ragcrawl_dynamo._frontier.unused_leases import UnusedLeases


@dataclass
class _Waiting:
    """A call that waits for its claims."""

    terms: list[LeaseTerms]
    is_thorough: bool
    result: asyncio.Future[tuple[list[Claim], ClaimResult]]


class ClaimCoalescer:
    """Lets the scheduler run one claim at a time, for all calls that wait when the claim begins."""

    def __init__(self, run: RunContext, scheduler: Scheduler, unused: UnusedLeases) -> None:
        self._run = run
        self._scheduler = scheduler
        self._unused = unused
        self._waiting: list[_Waiting] = []
        self._serving: asyncio.Task[None] | None = None

    async def claim(self, terms: list[LeaseTerms], *, is_thorough: bool) -> tuple[list[Claim], ClaimResult]:
        """Returns claims, at most one for each of the terms, and when to try again.

        `is_thorough` is explained in Scheduler.claim.

        Raises:
            FrontierCancelledError: The run was cancelled.
            ServiceError: DynamoDB refused a request or could not be reached.
        """
        waiting = _Waiting(terms, is_thorough, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._serving is None or self._serving.done():
            self._serving = self._run.tasks.spawn(self._serve())
        try:
            return await waiting.result
        except asyncio.CancelledError:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            result = waiting.result
            if result.done() and not result.cancelled() and result.exception() is None:
                self._unused.give_back(result.result()[0])
            raise

    async def _serve(self) -> None:
        # Calls of tasks that were started together wait together.
        await asyncio.sleep(0)
        while self._waiting:
            served, self._waiting = self._waiting, []
            try:
                result = await self._scheduler.claim(
                    [terms for call in served for terms in call.terms],
                    is_thorough=any(call.is_thorough for call in served),
                )
            except Exception as error:
                for call in served:
                    if not call.result.done():
                        call.result.set_exception(error)
            else:
                self._hand_out(served, result)

    def _hand_out(self, served: list[_Waiting], result: ClaimResult) -> None:
        first = 0
        for call in served:
            indexes = range(first, first + len(call.terms))
            first = indexes.stop
            claims = [_claim(result.leases[i]) for i in indexes if i in result.leases]
            # The claim may have taken long. A worker would have to stop at once.
            late = [claim for claim in claims if self._is_late(claim)]
            self._unused.give_back(late)
            claims = [claim for claim in claims if claim not in late]
            if call.result.done():
                # The caller was cancelled meanwhile.
                self._unused.give_back(claims)
            else:
                call.result.set_result((claims, result))

    def _is_late(self, claim: Claim) -> bool:
        """Returns whether a lease has no more time left than clocks may differ."""
        return claim.deadline - self._run.clock.monotonic() <= self._run.config.frontier_max_clock_skew


def _claim(issued: IssuedLease) -> Claim:
    return Claim(
        item=issued.item,
        worker_id=issued.lease.owner,
        expires_at=issued.lease.ends_at,
        has_slot=issued.has_slot,
        deadline=issued.lease.deadline,
    )
