"""The exchange: a background task that moves requests between the memory of a process and the frontier."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from contextlib import suppress

from ragcrawl_dynamo import (
    Claim,
    Frontier,
    FrontierCancelledError,
    FrontierItem,
    LeaseLostError,
    PartialBatchError,
    RagcrawlDynamoError,
)
from ragcrawl_dynamo.adapters.scrapy.crawl import CLAIM_TOKEN, Crawl
from ragcrawl_dynamo.adapters.scrapy.engine import Engine
from ragcrawl_dynamo.adapters.scrapy.memory import Settlement
from ragcrawl_dynamo.adapters.scrapy.serialization import RequestSerializer

logger = logging.getLogger(__name__)

# Seconds until the task looks again for requests of other processes. They are doubled while there are none.
_POLL_SECONDS = 0.25
_MAX_POLL_SECONDS = 2.0


class FrontierExchange:
    """Adds new requests to the frontier, settles the claims of crawled ones, and claims the next ones."""

    def __init__(
        self, crawl: Crawl, frontier: Frontier, serializer: RequestSerializer, engine: Engine
    ) -> None:
        self._settings = crawl.settings
        self._memory = crawl.memory
        self._frontier = frontier
        self._serializer = serializer
        self._engine = engine
        self._keeper = frontier.keeper(self._on_lost, lease_seconds=crawl.settings.lease_seconds)
        self._has_work = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts the task, and the renewal of leases."""
        await self._keeper.__aenter__()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stops the task, writes what is left to write, and releases requests that were not crawled."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.collect_crawled()
        try:
            await self._write()
            await self._frontier.release(self._keeper.held)
        except RagcrawlDynamoError as error:
            # Leases end, and whoever crawls these requests again yields again what was not added.
            logger.error("not everything was written at the end of the crawl: %s", error)
        await self._keeper.__aexit__(None, None, None)

    def wake(self) -> None:
        """Lets the task work now."""
        self._has_work.set()

    def collect_crawled(self) -> None:
        """Marks the claims of all requests that the engine has crawled to be settled."""
        in_progress = self._engine.requests_in_progress()
        if in_progress is None:
            return
        waiting = set(self._memory.waiting)
        for token, (_, request) in list(self._memory.held.items()):
            if token not in waiting and request not in in_progress:
                self._memory.settle(token)
                self.wake()

    async def _run(self) -> None:
        pause = _POLL_SECONDS
        while True:
            self._has_work.clear()
            try:
                await self._write()
                has_claimed = await self._claim()
                pause = _POLL_SECONDS if has_claimed else min(2 * pause, _MAX_POLL_SECONDS)
                if not has_claimed:
                    await self._check_finished()
            except FrontierCancelledError as error:
                logger.info("%s", error)
                self._memory.cancel()
                self._engine.wake()
            except RagcrawlDynamoError as error:
                logger.error("requests cannot be exchanged with DynamoDB, it is tried again: %s", error)
                pause = _MAX_POLL_SECONDS
            except Exception:  # without this task the spider would wait forever
                logger.exception("requests cannot be exchanged with DynamoDB, it is tried again")
                pause = _MAX_POLL_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._has_work.wait()
                    pause = _POLL_SECONDS

    async def _check_finished(self) -> None:
        """Notes that the crawl is finished, if no process has anything left to do."""
        if not self._memory.is_busy and await self._frontier.is_finished():
            # The engine may have yielded a request in the meantime.
            self._memory.is_finished = not self._memory.is_busy
            self._engine.wake()

    async def _write(self) -> None:
        """Adds new requests, and then settles claims: first the requests that a crawled one has yielded."""
        memory = self._memory
        settlements, items = memory.to_settle[:], memory.to_add[:]
        if items:
            failure = await self._add(items)
            del memory.to_add[: len(items)]
            if failure is not None:
                # These items are added again, and no claim is settled before.
                memory.to_add[:0] = [item for item, _ in failure.failures]
                raise failure
        await self._settle(settlements)
        del memory.to_settle[: len(settlements)]

    async def _add(self, items: list[FrontierItem]) -> PartialBatchError | None:
        try:
            results = await self._frontier.add(items)
        except PartialBatchError as error:
            return error
        for item, result in zip(items, results, strict=True):
            if result.error is not None:
                logger.error("request %s cannot be stored: %s", item.url, result.error)
                self._engine.count("unstorable")
            elif not result.added:
                self._engine.count("filtered", prefix="dupefilter")
        return None

    async def _settle(self, settlements: list[Settlement]) -> None:
        """Settles claims by the outcomes of their requests. Skips those that an earlier try has settled."""
        completed: list[Claim] = []
        for claim, outcome in settlements:
            if claim.ended:
                continue
            if outcome is None:
                completed.append(claim)
            elif outcome.kind == "failed":
                await self._count_settled("failed", self._frontier.fail(claim, outcome.reason))
            else:
                await self._count_settled("skipped", self._frontier.skip(claim, outcome.reason))
        if completed:
            await self._count_settled("completed", self._frontier.complete(completed), len(completed))

    async def _count_settled(self, stat: str, settlement: Awaitable[None], count: int = 1) -> None:
        """Awaits the settlement of claims, and counts them. Lost leases are counted apart."""
        lost = 0
        try:
            await settlement
        except LeaseLostError as error:
            logger.warning("%s", error)
            lost = len(error.claims)
        self._engine.count("lost", lost)
        self._engine.count(stat, count - lost)

    async def _claim(self) -> bool:
        """Claims requests that can be crawled soon. Returns False if there were none."""
        free = self._settings.prefetch - len(self._memory.waiting)
        if free <= 0:
            return True
        claims = await self._frontier.claim(free, lease_seconds=self._settings.lease_seconds)
        invalid: list[tuple[Claim, str]] = []
        for claim in claims:
            try:
                request = self._serializer.request_of(claim.item)
            except Exception as error:  # whatever a request class or the spider raises
                invalid.append((claim, f"is not a request: {error}"))
                continue
            request.meta[CLAIM_TOKEN] = claim.token
            self._keeper.hold([claim])
            self._memory.hold(claim, request)
            self._engine.count("claimed")
        if claims:
            self._engine.wake()
        for claim, reason in invalid:
            logger.error("item %s %s", claim.item.item_id, reason)
            await self._frontier.fail(claim, reason, retry=False)
        return bool(claims)

    def _on_lost(self, claim: Claim, reason: str) -> None:
        logger.warning("request %s: %s; another process will crawl it", claim.item.url, reason)
        self._engine.count("lost")
        self._memory.forget(claim.token)
