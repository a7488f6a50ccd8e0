"""Gives back leases that no caller has received, so that they do not count as failed attempts.

A lease that ends unsettled counts as a failed attempt: its worker has died, or hung. No worker has ever seen
the leases here. Their claims took too long, or their callers were cancelled, or the answers were lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from ragcrawl_dynamo._dynamodb.retry import full_jitter
from ragcrawl_dynamo._frontier.candidates import Candidate
from ragcrawl_dynamo._frontier.claim import Claim
from ragcrawl_dynamo._frontier.context import RunContext
from ragcrawl_dynamo._frontier.item_store import Lease
from ragcrawl_dynamo._utils.concurrency import wait_for_event
from ragcrawl_dynamo._utils.tasks import Tasks
from ragcrawl_dynamo.errors import RagcrawlDynamoError
from ragcrawl_dynamo.models import FrontierStatus

logger = logging.getLogger(__name__)

# Seconds after which an item is read again whose claim seemed not to be applied. DynamoDB may do a write
# after its client gave up.
_LATE_SECONDS = 2.0


class UnusedLeases:
    """Gives back the unused leases of one run in the background, until it is done or the leases are over."""

    def __init__(self, run: RunContext, release: Callable[[list[Claim]], Awaitable[None]]) -> None:
        """`release` releases claims."""
        self._run = run
        self._release = release
        self._tasks = Tasks()
        self._closing = asyncio.Event()

    def give_back(self, claims: Sequence[Claim]) -> None:
        """Gives back claims."""
        if claims:
            self._tasks.spawn(self._give_back(claims))

    def check(self, tried: Sequence[tuple[Candidate, Lease]]) -> None:
        """Gives back the leases of candidates, where a claim was applied although it seems to have failed."""
        if tried:
            self._tasks.spawn(self._check(tried))

    async def close(self) -> None:
        """Tries once more to give back the leases that are left."""
        self._closing.set()
        await self._tasks.join()
        self._closing.clear()

    async def _give_back(self, claims: Sequence[Claim]) -> None:
        left, failures, is_last = list(claims), 0, False
        while left and not is_last:
            is_last = self._closing.is_set()
            try:
                await self._release(left)
            except RagcrawlDynamoError as error:
                failures += 1
                logger.warning(
                    "%d unused leases could not be given back; this is tried again until they expire: %s",
                    *(len(left), error),
                )
            # Other processes may claim the items of those that are over.
            now = self._run.clock.now()
            left = [claim for claim in left if not claim.ended and claim.expires_at > now]
            if left and not is_last:
                await self._pause(full_jitter(self._run.config, failures))

    async def _check(self, tried: Sequence[tuple[Candidate, Lease]]) -> None:
        left = await self._find(tried)
        if left:
            await self._pause(_LATE_SECONDS)
            await self._find(left)

    async def _find(self, tried: Sequence[tuple[Candidate, Lease]]) -> list[tuple[Candidate, Lease]]:
        """Reads items, and gives back the leases that they have; returns the other ones."""
        run = self._run
        try:
            items = await run.items.read(list({candidate.item_id for candidate, _ in tried}))
        except RagcrawlDynamoError as error:
            logger.warning(
                "%d claims failed, and their items could not be read; if a claim was applied, its item waits "
                "until the lease expires: %s",
                *(len(tried), error),
            )
            return list(tried)
        claims: list[Claim] = []
        left: list[tuple[Candidate, Lease]] = []
        for candidate, lease in tried:
            item = items.get(candidate.item_id)
            if item is None or item.lease_token != lease.token:
                left.append((candidate, lease))
            elif item.status is FrontierStatus.IN_PROGRESS:
                run.counters.move(candidate.host, candidate.state, "in_progress")
                claims.append(Claim(item=item, worker_id=lease.owner, expires_at=lease.ends_at))
        self.give_back(claims)
        return left

    async def _pause(self, seconds: float) -> None:
        """Waits, unless the run is being closed."""
        await wait_for_event(self._closing, self._run.clock, seconds)
