"""Concurrent claims of one process, served together: few, full requests."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from ragcrawl_dynamo._frontier.claim import Claim
from ragcrawl_dynamo._frontier.scheduler import Claimer, Grant, LeaseTerms, Round
from ragcrawl_dynamo._utils.clock import Clock
from ragcrawl_dynamo._utils.tasks import Tasks
from ragcrawl_dynamo.errors import RagcrawlDynamoError

logger = logging.getLogger(__name__)


@dataclass
class _Waiting:
    """A claim that waits for its part of the next round."""

    terms: list[LeaseTerms]
    result: asyncio.Future[tuple[list[Claim], datetime | None]]


class Rounds:
    """Runs one round of claiming at a time, for all who wait at its beginning."""

    def __init__(
        self,
        claimer: Claimer,
        tasks: Tasks,
        clock: Clock,
        release: Callable[[list[Claim]], Awaitable[None]],
    ) -> None:
        """`release` takes back claims whose claimant was cancelled."""
        self._claimer = claimer
        self._tasks = tasks
        self._clock = clock
        self._release = release
        self._waiting: list[_Waiting] = []
        self._serving: asyncio.Task[None] | None = None

    async def claim(self, terms: list[LeaseTerms]) -> tuple[list[Claim], datetime | None]:
        """Claims, one for each of the terms at most, and when to look again where there are none.

        Raises:
            FrontierCancelledError: The run was cancelled.
            ServiceError: DynamoDB can not be reached, or refused.
        """
        waiting = _Waiting(terms, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._serving is None or self._serving.done():
            self._serving = self._tasks.spawn(self._serve())
        try:
            return await waiting.result
        except asyncio.CancelledError:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            result = waiting.result
            if result.done() and not result.cancelled() and result.exception() is None:
                self._give_back(result.result()[0])
            raise

    async def _serve(self) -> None:
        # Lets tasks that were started together ask together.
        await asyncio.sleep(0)
        while self._waiting:
            served, self._waiting = self._waiting, []
            try:
                found = await self._claimer.claim([each for waiting in served for each in waiting.terms])
            except Exception as error:
                for waiting in served:
                    if not waiting.result.done():
                        waiting.result.set_exception(error)
            else:
                self._hand_out(served, found)

    def _hand_out(self, served: list[_Waiting], found: Round) -> None:
        first = 0
        for waiting in served:
            own = range(first, first + len(waiting.terms))
            first = own.stop
            claims = [self._claim(found.grants[i]) for i in own if i in found.grants]
            if waiting.result.done():
                # Cancelled meanwhile.
                self._give_back(claims)
            else:
                waiting.result.set_result((claims, found.next_at))

    def _claim(self, grant: Grant) -> Claim:
        left = (grant.lease.ends_at - self._clock.now()).total_seconds()
        return Claim(
            item=grant.item,
            worker_id=grant.lease.owner,
            expires_at=grant.lease.ends_at,
            has_slot=grant.has_slot,
            deadline=self._clock.monotonic() + left,
        )

    def _give_back(self, claims: list[Claim]) -> None:
        if claims:
            self._tasks.spawn(self._release_quietly(claims))

    async def _release_quietly(self, claims: list[Claim]) -> None:
        try:
            await self._release(claims)
        except RagcrawlDynamoError as error:
            logger.warning("%d claims could not be released and will expire: %s", len(claims), error)
