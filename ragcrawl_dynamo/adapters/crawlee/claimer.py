"""Claims the next requests of a queue: when Crawlee asks for one, and in the background."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from ragcrawl_dynamo import Claim, Frontier, LeaseKeeper, RagcrawlDynamoError
from ragcrawl_dynamo.adapters.crawlee.memory import ClaimedRequest, QueueMemory
from ragcrawl_dynamo.adapters.crawlee.options import RequestQueueSettings
from ragcrawl_dynamo.adapters.crawlee.serialization import request_of

logger: logging.Logger = logging.getLogger(__name__)

# Seconds for which a claim waits in the background after nothing could be claimed, and for which `is_empty`
# waits for it if hosts have limits.
_WAIT_SECONDS = 2.0

# Seconds for which a claim that got nothing is not repeated, if no claim waits: Crawlee asks twice a second.
_ANSWER_SECONDS = 0.5


class RequestClaimer:
    """Fills `memory.ready` with requests that are claimed from the frontier.

    While nothing can be claimed, one claim waits in the background. The frontier knows when a host is due, so
    this claim gets its request then, and no other call has to ask DynamoDB. A process that has never fetched
    a request does not wait: it may only add requests, and would hold those that it claims forever.
    """

    def __init__(
        self, frontier: Frontier, keeper: LeaseKeeper, memory: QueueMemory, settings: RequestQueueSettings
    ) -> None:
        self._frontier = frontier
        self._keeper = keeper
        self._memory = memory
        self._settings = settings
        self._claiming = asyncio.Lock()
        self._refilling: asyncio.Task[None] | None = None
        self._waiting: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()

    async def claim_if_none_ready(self) -> None:
        """Claims requests, unless some are ready and nothing was put before them.

        Raises:
            RagcrawlDynamoError: The requests could not be claimed.
        """
        memory = self._memory
        if memory.ready and not memory.in_front:
            return
        async with self._claiming:
            while (memory.in_front or not memory.ready) and not memory.is_empty():
                await self._claim()
        if memory.ready or not memory.has_fetched:
            return
        if self._waiting is None or self._waiting.done():
            self._waiting = asyncio.create_task(self._wait_for_claims())
        memory.note_empty(math.inf)

    async def wait(self, is_finished: Callable[[], Awaitable[bool]]) -> None:
        """Waits until requests are ready, some seconds at most, or until `wake` is called.

        Args:
            is_finished: Returns whether all requests are handled, so that there is nothing to wait for.
        """
        if self._memory.ready or not self._memory.has_fetched:
            return
        # Cleared before `is_finished` is called, since requests may become ready during the call.
        self._woken.clear()
        if await is_finished():
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_WAIT_SECONDS):
                await self._woken.wait()

    def refill(self) -> None:
        """Claims the next requests in the background, if few are ready and no such claim is running.

        With a host delay it does not: requests that wait here would later be fetched without a delay.
        """
        if self._settings.host_delay or not self._has_room() or self._memory.is_empty():
            return
        if self._refilling is None or self._refilling.done():
            self._refilling = asyncio.create_task(self._claim_ahead())

    def wake(self) -> None:
        """Ends all waiting calls: requests were claimed, or this process has nothing left to do."""
        self._woken.set()

    async def stop(self) -> None:
        """Cancels the claims in the background. Requests that they have just claimed are given back."""
        if self._waiting is not None:
            self._waiting.cancel()
        running = [task for task in (self._waiting, self._refilling) if task is not None]
        await asyncio.gather(*running, return_exceptions=True)

    def _has_room(self) -> bool:
        return len(self._memory.ready) <= self._settings.prefetch // 2

    async def _claim_ahead(self) -> None:
        try:
            async with self._claiming:
                if self._has_room():
                    await self._claim()
        except RagcrawlDynamoError as error:
            # The next call that needs a request claims again, and raises the error.
            logger.warning(
                "no requests could be claimed ahead; they are claimed when Crawlee asks for one: %s", error
            )

    async def _wait_for_claims(self) -> None:
        settings = self._settings
        try:
            claims = await self._frontier.claim(
                settings.prefetch, lease_seconds=settings.lease_seconds, wait_seconds=_WAIT_SECONDS
            )
            # Nothing else is awaited before `_hold` has made the requests ready: another claim that got
            # nothing because of this one must not return earlier.
            await self._hold(claims)
        except RagcrawlDynamoError as error:
            logger.warning("no requests could be claimed in the background; this is tried again: %s", error)
        finally:
            self._memory.forget_empty()

    async def _claim(self) -> None:
        """Claims the next requests: those in the front of the queue, or those after the ready ones."""
        memory = self._memory
        in_front, changes = memory.in_front, memory.changes
        count = in_front or self._settings.prefetch - len(memory.ready)
        claims = await self._frontier.claim(count, lease_seconds=self._settings.lease_seconds)
        memory.in_front -= in_front
        # The claim may not have seen requests that were added in the meantime.
        if not claims and not memory.ready and memory.changes == changes:
            memory.note_empty(_ANSWER_SECONDS)
        await self._hold(claims)

    async def _hold(self, claims: Sequence[Claim]) -> None:
        """Makes claimed requests ready. Items that are no requests become dead letters."""
        memory = self._memory
        claimed: list[ClaimedRequest] = []
        invalid: list[tuple[Claim, str]] = []
        for claim in claims:
            try:
                claimed.append(ClaimedRequest(claim, request_of(claim.item)))
            except ValueError as error:
                invalid.append((claim, f"is not a request: {error}"))
        self._keeper.hold(claim for claim, _ in claimed)
        # Requests in the front of the queue go before those that were claimed earlier.
        memory.ready.extend(claimed)
        memory.ready.sort(key=lambda ready: -ready.claim.item.priority)
        if claimed:
            memory.forget_empty()
            self.wake()
        for claim, reason in invalid:
            logger.error("item %s %s", claim.item.item_id, reason)
            await self._frontier.fail(claim, reason, retry=False)
