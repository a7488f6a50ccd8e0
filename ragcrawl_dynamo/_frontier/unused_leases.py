"""Gives back leases that no caller has received, so that they do not count as failed attempts.

A lease that ends unsettled counts as a failed attempt: its worker has died, or hung. No worker has ever seen
the leases here. Their claims took too long, or their callers were cancelled, or the answers were lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from ragcrawl_dynamo._dynamodb.retry import full_jitter
from ragcrawl_dynamo._frontier.candidates import Candidate
from ragcrawl_dynamo._frontier.claim import Claim
from ragcrawl_dynamo._frontier.context import RunContext
from ragcrawl_dynamo._frontier.item_store import Lease
from ragcrawl_dynamo.errors import RagcrawlDynamoError
from ragcrawl_dynamo.models import FrontierStatus

logger = logging.getLogger(__name__)

# Seconds after which an item is read again whose claim seemed not to be applied. DynamoDB may do a write after
# its client gave up.
_LATE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class _Uncertain:
    """A claim that may be applied.

    Attributes:
        candidate: What was claimed.
        lease: The lease that the item has if the claim is applied.
        read_again: Whether to read the item once more if it does not have the lease.
    """

    candidate: Candidate
    lease: Lease
    read_again: bool = True


class UnusedLeases:
    """Gives back the unused leases of one run in the background, until it is done or the leases are over."""

    def __init__(self, run: RunContext, release: Callable[[list[Claim]], Awaitable[None]]) -> None:
        """`release` releases claims."""
        self._run = run
        self._release = release
        self._claims: list[Claim] = []
        self._uncertain: list[_Uncertain] = []
        self._task: asyncio.Task[None] | None = None

    def give_back(self, claims: Iterable[Claim]) -> None:
        """Gives back claims."""
        self._claims += claims
        self._start()

    def check(self, candidate: Candidate, lease: Lease) -> None:
        """Gives back the lease of a candidate, if its claim was applied although it seems to have failed."""
        self._uncertain.append(_Uncertain(candidate, lease))
        self._start()

    async def close(self) -> None:
        """Tries once more to give back what is left."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        try:
            await self._give_back()
        except RagcrawlDynamoError as error:
            logger.warning("leases could not be given back and will expire: %s", error)
        self._claims, self._uncertain = [], []

    def _start(self) -> None:
        if (self._claims or self._uncertain) and (self._task is None or self._task.done()):
            self._task = self._run.tasks.spawn(self._work())

    async def _work(self) -> None:
        failures = 0
        while self._claims or self._uncertain:
            try:
                await self._give_back()
                failures = 0
                pause = _LATE_SECONDS
            except RagcrawlDynamoError as error:
                failures += 1
                pause = full_jitter(self._run.config, failures)
                logger.warning("leases could not be given back yet: %s", error)
            self._drop_expired()
            if self._claims or self._uncertain:
                await self._run.clock.sleep(pause)

    async def _give_back(self) -> None:
        """Reads the items of uncertain claims, and releases the claims.

        Raises:
            RagcrawlDynamoError: Some claims are not released.
        """
        if self._uncertain:
            await self._read_uncertain()
        if not self._claims:
            return
        try:
            await self._release(list(self._claims))
        finally:
            self._claims = [claim for claim in self._claims if not claim.ended]

    async def _read_uncertain(self) -> None:
        run = self._run
        some, self._uncertain = self._uncertain, []
        try:
            items = await run.items.read(list({one.candidate.item_id for one in some}))
        except BaseException:
            self._uncertain += some
            raise
        for one in some:
            lease, item = one.lease, items.get(one.candidate.item_id)
            if item is None or item.lease_token != lease.token:
                if one.read_again:
                    self._uncertain.append(_Uncertain(one.candidate, lease, read_again=False))
            elif item.status is FrontierStatus.IN_PROGRESS:
                run.counters.move(one.candidate.host, one.candidate.state, "in_progress")
                self._claims.append(Claim(item=item, worker_id=lease.owner, expires_at=lease.ends_at))

    def _drop_expired(self) -> None:
        """Forgets leases that are over: other processes may claim the items."""
        now = self._run.clock.now()
        self._claims = [claim for claim in self._claims if claim.expires_at > now]
        self._uncertain = [one for one in self._uncertain if one.lease.ends_at > now]
