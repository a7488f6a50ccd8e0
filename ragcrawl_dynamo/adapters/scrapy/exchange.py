"""Moves requests between the memory of a process and the frontier, in background tasks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from scrapy.utils.httpobj import urlparse_cached

from ragcrawl_dynamo import (
    Claim,
    Frontier,
    FrontierCancelledError,
    HostBudgetError,
    InvalidInputError,
    LeaseLostError,
    RagcrawlDynamoError,
)
from ragcrawl_dynamo._utils.concurrency import run_until
from ragcrawl_dynamo.adapters.scrapy.crawl import CLAIM_TOKEN, Crawl
from ragcrawl_dynamo.adapters.scrapy.engine import Engine
from ragcrawl_dynamo.adapters.scrapy.memory import NewRequest, Outcome, Settlement
from ragcrawl_dynamo.adapters.scrapy.serialization import (
    RequestSerializer,
    errors_of,
    payload_with_errors,
)

if TYPE_CHECKING:
    from scrapy import Request

logger: logging.Logger = logging.getLogger(__name__)

# Seconds that a claim waits for requests before the exchange asks whether the crawl is finished, and seconds
# until an exchange that has failed is tried again.
_WAIT_SECONDS = 2.0


class FrontierExchange:
    """Adds new requests to the frontier, settles the claims of crawled ones, and claims the next ones.

    One task writes and another one claims, so that the engine gets requests while others are written.
    """

    def __init__(
        self, crawl: Crawl, frontier: Frontier, serializer: RequestSerializer, engine: Engine
    ) -> None:
        self._settings = crawl.settings
        self._memory = crawl.memory
        self._frontier = frontier
        self._serializer = serializer
        self._engine = engine
        self._keeper = frontier.keeper(self._on_lost, lease_seconds=crawl.settings.lease_seconds)
        self._has_output = asyncio.Event()
        self._has_room = asyncio.Event()
        self._is_over = asyncio.Event()
        self._delayed_hosts: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Starts the tasks, and the renewal of leases."""
        await self._keeper.__aenter__()
        self._tasks = [asyncio.create_task(self._write_always()), asyncio.create_task(self._claim_always())]

    async def stop(self) -> None:
        """Stops the tasks, writes requests and settlements that are left, and releases all other requests."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.collect_crawled()
        try:
            await self._write()
            await self._frontier.release(self._keeper.held)
        except RagcrawlDynamoError as error:
            # A request that is not settled is crawled again, and then yields its new requests again.
            logger.error(
                "some requests could not be written at the end of the crawl; requests that were crawled are "
                "crawled again after their leases have ended: %s",
                error,
            )
        await self._keeper.__aexit__(None, None, None)

    def note_output(self) -> None:
        """Lets the exchange write now."""
        self._has_output.set()

    def note_taken(self) -> None:
        """Lets the exchange claim now, if the engine has taken half of the requests that waited for it."""
        if self._has_room_for_claims():
            self._has_room.set()

    def collect_crawled(self) -> None:
        """Marks the claims of all requests that the engine has crawled to be settled."""
        in_progress = self._engine.requests_in_progress()
        if in_progress is None:
            return
        waiting = set(self._memory.waiting)
        for token, (_, request) in list(self._memory.held.items()):
            if token not in waiting and request not in in_progress:
                self._memory.settle(token)
                self.note_output()

    async def _write_always(self) -> None:
        while True:
            await self._has_output.wait()
            self._has_output.clear()
            if not await self._attempt(self._write()):
                self._has_output.set()
                await asyncio.sleep(_WAIT_SECONDS)
            # A settled request can be the last one. A claim that waits goes on: its host may be due now.
            if not self._memory.is_busy:
                await self._attempt(self._check_finished())

    async def _claim_always(self) -> None:
        while True:
            self._has_room.clear()
            if not await self._attempt(self._claim()):
                await asyncio.sleep(_WAIT_SECONDS)
            elif self._memory.is_finished or not self._has_room_for_claims():
                with suppress(TimeoutError):
                    async with asyncio.timeout(_WAIT_SECONDS):
                        await self._has_room.wait()

    async def _attempt(self, exchange: Coroutine[Any, Any, object]) -> bool:
        """Runs an exchange; returns whether it succeeded. If not, it must be repeated."""
        try:
            await exchange
        except FrontierCancelledError as error:
            logger.info("%s", error)
            self._memory.cancel()
            self._engine.wake()
        except RagcrawlDynamoError as error:
            logger.error("requests could not be exchanged with DynamoDB; this is tried again: %s", error)
        except Exception:  # without its task the spider would wait forever
            logger.exception("requests could not be exchanged with DynamoDB; this is tried again")
        else:
            return True
        return False

    async def _check_finished(self) -> bool:
        """Notes that the crawl is finished, and returns True, if no process has anything left to do."""
        if self._memory.is_busy or not await self._frontier.is_finished():
            return False
        # The engine may have yielded a request in the meantime.
        self._memory.is_finished = not self._memory.is_busy
        if self._memory.is_finished:
            self._is_over.set()
        self._engine.wake()
        return self._memory.is_finished

    async def _write(self) -> None:
        """Adds new requests, and then settles claims: first the requests that a crawled one has yielded."""
        memory = self._memory
        settlements, new = memory.to_settle[:], memory.to_add[:]
        if new:
            await self._set_slot_delays(new)
            await self._add(new)
            del memory.to_add[: len(new)]
        await self._settle(settlements)
        del memory.to_settle[: len(settlements)]

    async def _set_slot_delays(self, new: list[NewRequest]) -> None:
        """Sets the delays of DOWNLOAD_SLOTS for hosts to which this process adds its first requests."""
        for item, request, _ in new:
            parts = urlparse_cached(request)
            delay = self._settings.slot_delays.get(parts.hostname or "")
            if delay is None or parts.netloc in self._delayed_hosts:
                continue
            with suppress(InvalidInputError):  # such as an unknown scheme: the request stays in memory
                await self._frontier.set_host_delay(item.url, delay)
            self._delayed_hosts.add(parts.netloc)

    async def _add(self, new: list[NewRequest]) -> None:
        try:
            results = await self._frontier.add([request.item for request in new])
        except BaseException:
            # All of them are added again. It is not known then whether a request is a duplicate.
            self._memory.to_add[: len(new)] = [request._replace(is_repeated=True) for request in new]
            raise
        for (item, request, is_repeated), result in zip(new, results, strict=True):
            if isinstance(result.error, HostBudgetError):
                logger.warning("%s is dropped: %s", request, result.error)
                self._engine.count("over_budget")
                self._engine.signal_dropped(request)
            elif result.error is not None:
                self.keep_in_memory(request, item.unique_key or "", result.error)
                self._engine.wake()
            else:
                self._memory.stored_keys.add(item.unique_key or "")
                if result.added or is_repeated:
                    self._engine.count("enqueued", prefix="scheduler")
                    self._engine.count("enqueued/dynamodb", prefix="scheduler")
                else:
                    self._engine.log_duplicate(request)
                    self._engine.signal_dropped(request)

    def keep_in_memory(self, request: Request, unique_key: str, error: Exception) -> None:
        """Keeps a request that cannot be stored in the memory of this process, unless it is a duplicate."""
        if not request.dont_filter:
            if unique_key in self._memory.kept_keys:
                self._engine.log_duplicate(request)
                self._engine.signal_dropped(request)
                return
            self._memory.kept_keys.add(unique_key)
        if self._memory.kept_count == 0:
            logger.warning(
                "Unable to serialize request: %s - reason: %s - it stays in memory; no more of "
                "these will be logged (the stat scheduler/unserializable counts them)",
                *(request, error),
            )
        self._engine.count("unserializable", prefix="scheduler")
        self._engine.count("enqueued", prefix="scheduler")
        self._engine.count("enqueued/memory", prefix="scheduler")
        self._memory.keep(request)

    async def _settle(self, settlements: list[Settlement]) -> None:
        """Settles claims by the outcomes of their requests. Skips those that an earlier try has settled."""
        completed: list[Claim] = []
        settling: list[Awaitable[None]] = []
        for claim, outcome in settlements:
            if claim.ended:
                continue
            if outcome is None:
                completed.append(claim)
            elif outcome.kind == "skipped":
                settling.append(self._count_settled("skipped", self._frontier.skip(claim, outcome.reason)))
            else:
                settling.append(self._count_settled("failed", self._fail(claim, outcome)))
        if completed:
            completion = self._frontier.complete(completed)
            settling.append(self._count_settled("completed", completion, len(completed)))
        # An error of one settlement must not cancel the others.
        for error in await asyncio.gather(*settling, return_exceptions=True):
            if error is not None:
                raise error

    def _fail(self, claim: Claim, outcome: Outcome) -> Awaitable[object]:
        """Fails a claim. Its request becomes a dead letter, unless it may be crawled again."""
        if outcome.kind == "interrupted":
            return self._frontier.fail(claim, outcome.reason)
        errors = errors_of(claim.item) + 1
        if outcome.kind == "invalid" or errors >= self._settings.error_attempts:
            return self._frontier.fail(claim, outcome.reason, retry=False)
        return self._frontier.fail(claim, outcome.reason, payload=payload_with_errors(claim.item, errors))

    async def _count_settled(self, stat: str, settlement: Awaitable[object], count: int = 1) -> None:
        """Awaits the settlement of claims, and counts them. Lost leases are counted apart."""
        lost = 0
        try:
            await settlement
        except LeaseLostError as error:
            logger.warning("%s", error)
            lost = len(error.claims)
        self._engine.count("lost", lost)
        self._engine.count(stat, count - lost)

    def _has_room_for_claims(self) -> bool:
        return len(self._memory.waiting) <= self._settings.prefetch // 2

    async def _claim(self) -> None:
        """Claims requests, or waits for them, if there is room for more.

        It also notes that the crawl is finished, if no process has anything left to do.
        """
        if not self._has_room_for_claims() or await self._check_finished():
            return
        claims = await self._wait_for_claims(self._settings.prefetch - len(self._memory.waiting))
        invalid: list[tuple[Claim, str]] = []
        for claim in claims:
            try:
                request = self._serializer.request_of(claim.item)
            except Exception as error:  # a request class or the spider may raise anything
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

    async def _wait_for_claims(self, limit: int) -> list[Claim]:
        """Waits for requests and claims them; returns early when the crawl is finished."""
        self._is_over.clear()
        claim = self._frontier.claim(
            limit,
            lease_seconds=self._settings.lease_seconds,
            wait_seconds=_WAIT_SECONDS,
            until_finished=True,
        )
        return await run_until(self._is_over, claim) or []

    def _on_lost(self, claim: Claim, reason: str) -> None:
        logger.warning("request %s: %s; another process will crawl it", claim.item.url, reason)
        self._engine.count("lost")
        self._memory.forget(claim.token)
