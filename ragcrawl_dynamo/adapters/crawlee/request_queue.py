"""Stores request queues: each one is the frontier of a run."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from crawlee._request import RequestState
from crawlee.storage_clients._base import RequestQueueClient
from crawlee.storage_clients.models import (
    AddRequestsResponse,
    ProcessedRequest,
    RequestQueueMetadata,
    UnprocessedRequest,
)
from typing_extensions import override

from ragcrawl_dynamo import (
    AddResult,
    Claim,
    CrawlRun,
    DynamoDBBackend,
    FrontierItem,
    InvalidInputError,
    LeaseLostError,
    RagcrawlDynamoError,
)
from ragcrawl_dynamo.adapters._runs import close_run, delete_run
from ragcrawl_dynamo.adapters.crawlee.adder import RequestAdder
from ragcrawl_dynamo.adapters.crawlee.claimer import RequestClaimer
from ragcrawl_dynamo.adapters.crawlee.memory import QueueMemory
from ragcrawl_dynamo.adapters.crawlee.metadata import StorageTimes, storage_name
from ragcrawl_dynamo.adapters.crawlee.options import RequestQueueSettings
from ragcrawl_dynamo.adapters.crawlee.serialization import crawl_depth_of, payload_of, request_of
from ragcrawl_dynamo.adapters.crawlee.settler import Settler

if TYPE_CHECKING:
    from crawlee import Request

logger: logging.Logger = logging.getLogger(__name__)

# Seconds to wait for settlements before the queue is read.
_JOIN_SECONDS = 5.0

# Ends a claim; takes a new payload for its item.
_End: TypeAlias = Callable[..., Coroutine[Any, Any, object]]

# In earlier versions of Crawlee, which have no `is_finished`, `is_empty` tells whether a queue is finished.
_HAS_IS_FINISHED = hasattr(RequestQueueClient, "is_finished")


class DynamoDBRequestQueueClient(RequestQueueClient):
    """A request queue, stored as the frontier of a run. It renews the leases of requests in progress."""

    def __init__(self, backend: DynamoDBBackend, run: CrawlRun, settings: RequestQueueSettings) -> None:
        self._backend = backend
        self._run = run
        self._settings = settings
        self._frontier = backend.frontier(
            run.site_id,
            run.run_id,
            host_delay=settings.host_delay,
            host_max_in_flight=settings.host_max_in_flight,
        )
        self._keeper = self._frontier.keeper(self._on_lost, lease_seconds=settings.lease_seconds)
        self._adder = RequestAdder(self._frontier)
        self._settler = Settler()
        self._memory = QueueMemory(backend.config.frontier_seen_cache)
        self._times = StorageTimes(run.created_at)
        self._is_dropped = False
        self._claimer = RequestClaimer(self._frontier, self._keeper, self._memory, settings)

    async def __aenter__(self) -> Self:
        """Starts to renew leases."""
        await self._keeper.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Settles handled requests, releases all others, and records the end of the run if it is finished."""
        await self._claimer.stop()
        await self._adder.join()
        await self._settler.close()
        await self._keeper.__aexit__(kind, error, trace)
        self._memory.clear()
        try:
            await self._frontier.release(self._keeper.held)
        except RagcrawlDynamoError as failure:
            logger.warning(
                "some requests could not be released; other processes get them when their leases end: %s",
                failure,
            )
        if not self._is_dropped:
            await close_run(self._backend, self._run.site_id, self._run.run_id)

    @override
    async def get_metadata(self) -> RequestQueueMetadata:
        await self._settler.join(_JOIN_SECONDS)
        stats = await self._frontier.stats()
        handled = stats.completed + stats.failed + stats.skipped
        pending = stats.pending + stats.delayed + stats.in_progress
        return RequestQueueMetadata(
            id=self._run.run_id,
            name=storage_name(self._run.config_snapshot),
            # Other processes can use the queue at any time.
            had_multiple_clients=True,
            handled_request_count=handled,
            pending_request_count=pending,
            total_request_count=handled + pending,
            **self._times.fields(),
        )

    @override
    async def drop(self) -> None:
        """Deletes all requests and the record of the run. The next request that is added makes a new run."""
        await self.purge()
        await delete_run(self._backend, self._run)
        self._is_dropped = True

    @override
    async def purge(self) -> None:
        await self._claimer.stop()
        await self._settler.join(_JOIN_SECONDS)
        for claim in self._keeper.held:
            self._keeper.let_go(claim)
        self._memory.clear()
        await self._backend.clear_frontier(self._run.run_id)
        self._note_change()

    @override
    async def add_batch_of_requests(
        self, requests: Sequence[Request], *, forefront: bool = False
    ) -> AddRequestsResponse:
        """Adds requests. A request that cannot be stored is logged and returned as unprocessed."""
        if self._is_dropped:
            await self._backend.save_run(self._run)
            self._is_dropped = False
        items: dict[int, FrontierItem] = {}
        outcomes: dict[int, ProcessedRequest | UnprocessedRequest] = {}
        for number, request in enumerate(requests):
            if request.unique_key in self._memory.stored_keys:
                outcomes[number] = self._processed(request, was_added=False)
                continue
            try:
                items[number] = self._item(request, forefront=forefront)
            except ValueError as error:
                outcomes[number] = _refused(request, error)
        results = await self._adder.add([*items.values()])
        for number, result in zip(items, results, strict=True):
            outcomes[number] = self._outcome(requests[number], result)
        # In the order of the requests.
        ordered = [outcomes[number] for number in range(len(requests))]
        response = AddRequestsResponse(
            processed_requests=[outcome for outcome in ordered if isinstance(outcome, ProcessedRequest)],
            unprocessed_requests=[outcome for outcome in ordered if isinstance(outcome, UnprocessedRequest)],
        )
        added = sum(not processed.was_already_present for processed in response.processed_requests)
        if added:
            self._note_in_front(added if forefront else 0)
            self._note_change()
        return response

    @override
    async def get_request(self, unique_key: str) -> Request | None:
        self._times.note_access()
        await self._settler.join(_JOIN_SECONDS)
        item = await self._frontier.get(unique_key)
        if item is None:
            return None
        request = request_of(item)
        if item.status.is_final and request.handled_at is None:
            request.handled_at = item.completed_at
        return request

    @override
    async def fetch_next_request(self) -> Request | None:
        self._times.note_access()
        memory = self._memory
        memory.has_fetched = True
        await self._claimer.claim_if_none_ready()
        if not memory.ready:
            return None
        claim, request = memory.ready.pop(0)
        memory.claims[request.unique_key] = claim
        self._claimer.refill()
        return request

    @override
    async def mark_request_as_handled(self, request: Request) -> ProcessedRequest | None:
        """Completes a request. One that Crawlee gave up becomes a dead letter."""
        claim = self._open_claim(request)
        if claim is None:
            return None
        if request.handled_at is None:
            request.handled_at = datetime.now(UTC)
        if request.state is RequestState.ERROR:
            reason = f"failed after {request.retry_count} retries"
            end: _End = partial(self._frontier.fail, claim, reason, retry=False)
        else:
            end = partial(self._frontier.complete, claim)
        self._memory.forget_claim(claim)
        await self._settler.start(claim, partial(self._end, claim, end, payload_of(request)))
        self._memory.note_handled(request.unique_key)
        if not self._memory.claims:
            self._claimer.wake()
        self._times.note_change()
        return ProcessedRequest(
            unique_key=request.unique_key, was_already_present=True, was_already_handled=True
        )

    @override
    async def reclaim_request(self, request: Request, *, forefront: bool = False) -> ProcessedRequest | None:
        claim = self._open_claim(request)
        if claim is None:
            return None
        settlement = self._frontier.put_back(
            claim, payload=payload_of(request), priority=_priority(forefront=forefront), to_end=True
        )
        if not await self._settle(claim, settlement):
            return None
        self._note_in_front(int(forefront))
        self._note_change()
        return ProcessedRequest(
            unique_key=request.unique_key, was_already_present=True, was_already_handled=False
        )

    @override
    async def is_empty(self) -> bool:
        """Returns whether no request can be fetched now; claims the next requests to find out.

        If hosts have limits, it waits a moment for a host that is due. Otherwise Crawlee would ask again half
        a second after the answer that the queue is empty, and each request would be late.
        """
        self._times.note_access()
        await self._claimer.claim_if_none_ready()
        if self._settings.has_host_limits:
            await self._claimer.wait(self.is_finished)
        if self._memory.ready:
            return False
        return _HAS_IS_FINISHED or await self.is_finished()

    @override
    async def is_finished(self) -> bool:
        """Returns whether all requests are handled, those in progress in other processes included."""
        if self._memory.is_unfinished():
            return False
        # A claim costs less than the proof that the run is finished. A process that only adds requests must
        # not claim any.
        if self._memory.has_fetched:
            await self._claimer.claim_if_none_ready()
        if self._memory.is_unfinished() or not await self._settler.join(_JOIN_SECONDS):
            return False
        finished = await self._frontier.is_finished()
        if not finished:
            self._memory.note_unfinished()
        return finished

    async def _end(self, claim: Claim, end: _End, payload: str) -> None:
        """Ends the claim of a handled request, and stores the request as it is now if that is possible."""
        try:
            await end(payload=payload)
        except InvalidInputError as error:
            # The handler has run: its request must not be handled again.
            logger.error("request %s is handled, but its changes cannot be stored: %s", claim.item.url, error)
            await end()

    def _open_claim(self, request: Request) -> Claim | None:
        """Returns the claim of a request in progress."""
        claim = self._memory.claims.get(request.unique_key)
        return None if claim is None or claim.ended else claim

    async def _settle(self, claim: Claim, settlement: Awaitable[None]) -> bool:
        """Ends a claim. Returns False if its lease was lost, so that nothing has changed."""
        try:
            await settlement
            is_settled = True
        except LeaseLostError as error:
            logger.warning("%s", error)
            is_settled = False
        # The claim is kept until here, since Crawlee repeats the call after any other error.
        self._memory.forget_claim(claim)
        return is_settled

    def _outcome(self, request: Request, result: AddResult | None) -> ProcessedRequest | UnprocessedRequest:
        if result is None:
            return _unprocessed(request)
        if result.error is not None:
            return _refused(request, result.error)
        self._memory.stored_keys.add(request.unique_key)
        is_final = result.status is not None and result.status.is_final
        return self._processed(request, was_added=result.added, is_final=is_final)

    def _processed(self, request: Request, *, was_added: bool, is_final: bool = False) -> ProcessedRequest:
        return ProcessedRequest(
            unique_key=request.unique_key,
            was_already_present=not was_added,
            was_already_handled=self._memory.is_handled(request.unique_key) or is_final,
        )

    def _item(self, request: Request, *, forefront: bool) -> FrontierItem:
        return self._frontier.link(
            request.url,
            unique_key=request.unique_key,
            payload=payload_of(request),
            depth=crawl_depth_of(request),
            priority=_priority(forefront=forefront),
        )

    def _note_in_front(self, count: int) -> None:
        self._memory.in_front = min(self._memory.in_front + count, self._settings.prefetch)

    def _note_change(self) -> None:
        self._memory.forget_answers()
        self._times.note_change()

    def _on_lost(self, claim: Claim, reason: str) -> None:
        logger.warning("request %s: %s; another process will handle it", claim.item.url, reason)
        self._memory.forget_claim(claim)


def _priority(*, forefront: bool) -> float:
    """Returns the priority of a request. In the front, the latest request has the highest one."""
    return time.time() if forefront else 0.0


def _refused(request: Request, error: Exception) -> UnprocessedRequest:
    """Logs why a request cannot be stored, and returns it as unprocessed."""
    logger.error("request %s cannot be stored: %s", request.url, error)
    return _unprocessed(request)


def _unprocessed(request: Request) -> UnprocessedRequest:
    return UnprocessedRequest(unique_key=request.unique_key, url=request.url, method=request.method)
