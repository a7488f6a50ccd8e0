"""Keeps the requests of a spider in the frontier of a run, as Scrapy's scheduler."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Self

from scrapy import signals
from scrapy.core.scheduler import BaseScheduler
from scrapy.utils.defer import deferred_from_coro
from typing_extensions import override

from ragcrawl_dynamo import InvalidInputError, RagcrawlDynamoError
from ragcrawl_dynamo.adapters._runs import close_run
from ragcrawl_dynamo.adapters.scrapy.crawl import CLAIM_TOKEN, Crawl
from ragcrawl_dynamo.adapters.scrapy.engine import Engine
from ragcrawl_dynamo.adapters.scrapy.exchange import FrontierExchange
from ragcrawl_dynamo.adapters.scrapy.memory import NewRequest, Outcome, OutcomeKind
from ragcrawl_dynamo.adapters.scrapy.serialization import RequestSerializer

if TYPE_CHECKING:
    from scrapy import Request, Spider
    from scrapy.crawler import Crawler
    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

logger: logging.Logger = logging.getLogger(__name__)


class FrontierScheduler(BaseScheduler):
    """Schedules the requests of all processes of a run.

    Its methods never wait for DynamoDB: they use the memory of this process, and a background task exchanges
    requests with the frontier.

    Stats: `ragcrawl_dynamo/claimed`, `completed`, `failed`, `skipped`, `lost` (leases) and `over_budget`
    (requests). `scheduler/enqueued`, `dequeued`, `unserializable` and `dupefilter/filtered` are Scrapy's.
    """

    _serializer: RequestSerializer
    _exchange: FrontierExchange

    def __init__(self, crawler: Crawler) -> None:
        self._crawler = crawler
        self._crawl = Crawl.of(crawler)
        self._memory = self._crawl.memory
        self._engine = Engine(crawler)
        self._is_open = False

    @classmethod
    @override
    def from_crawler(cls, crawler: Crawler) -> Self:
        return cls(crawler)

    @override
    def open(self, spider: Spider) -> Deferred[None]:
        return deferred_from_coro(self._open(spider))

    @override
    def close(self, reason: str) -> Deferred[None]:
        """Writes requests and settlements that are left, and releases requests that were not crawled."""
        return deferred_from_coro(self._close(reason))

    @override
    def has_pending_requests(self) -> bool:
        """Returns whether any process has something left to do."""
        return not self._memory.is_finished or self._memory.has_new

    @override
    def enqueue_request(self, request: Request) -> bool:
        """Accepts a request; returns False for a duplicate, if this process already knows that it is one."""
        if self._stays_claimed(request):
            return True
        if not request.dont_filter and self._engine.dupefilter.request_seen(request):
            self._engine.log_duplicate(request)
            return False
        unique_key = self._serializer.key_of(request)
        if unique_key in self._memory.stored_keys:
            self._engine.log_duplicate(request)
            return False
        self._memory.is_finished = False
        try:
            item = self._serializer.item_of(request, unique_key)
        except (TypeError, ValueError, RecursionError) as error:
            self._exchange.keep_in_memory(request, unique_key, error)
        else:
            self._memory.to_add.append(NewRequest(item, request))
            self._exchange.note_output()
        return True

    @override
    def next_request(self) -> Request | None:
        self._exchange.collect_crawled()
        request = self._memory.next_request()
        if request is not None:
            self._engine.count("dequeued", prefix="scheduler")
            self._exchange.note_taken()
        return request

    def _stays_claimed(self, request: Request) -> bool:
        """Replaces the claimed request of which a middleware made this one; returns whether there is one."""
        # An errback, or the spider, may have copied the meta of a claimed request.
        token = request.meta.pop(CLAIM_TOKEN, None)
        if not self._memory.is_downloading(token):
            return False
        if not self._serializer.is_same_work(self._memory.held[token].request, request):
            return False
        request.meta[CLAIM_TOKEN] = token
        self._memory.replace(token, request)
        self._engine.count("enqueued", prefix="scheduler")
        return True

    async def _open(self, spider: Spider) -> None:
        settings = self._crawl.settings
        backend = await self._crawl.open()
        frontier = backend.frontier(
            settings.site_id,
            settings.run_id,
            host_delay=settings.host_delay,
            host_max_in_flight=settings.host_max_in_flight,
        )
        self._serializer = RequestSerializer(
            self._crawler, spider, frontier, filters_duplicates=self._engine.filters_duplicates
        )
        self._exchange = FrontierExchange(self._crawl, frontier, self._serializer, self._engine)
        if (opening := self._engine.dupefilter.open()) is not None:
            await opening
        self._crawler.signals.connect(self._on_error, signals.spider_error)
        self._crawler.signals.connect(self._on_error, signals.item_error)
        await self._exchange.start()
        self._is_open = True

    async def _close(self, reason: str) -> None:
        if not self._is_open:
            return
        try:
            await self._exchange.stop()
        finally:
            self._memory.clear()
            if (closing := self._engine.dupefilter.close(reason)) is not None:
                await closing
        if reason == "finished":
            settings = self._crawl.settings
            await close_run(self._crawl.backend, settings.site_id, settings.run_id)

    def _on_error(self, response: Any, failure: Failure) -> None:
        """Notes that a callback, or the pipeline of an item, has raised."""
        request = getattr(response, "request", None)
        token = None if request is None else request.meta.get(CLAIM_TOKEN)
        if token in self._memory.held:
            reason = f"{type(failure.value).__name__}: {failure.value}"
            self._memory.note_outcome(token, Outcome(_kind_of(failure.value), reason))


def _kind_of(error: BaseException | None) -> OutcomeKind:
    """Returns the kind of outcome that a request has after an error."""
    if isinstance(error, InvalidInputError):
        return "invalid"
    return "interrupted" if isinstance(error, RagcrawlDynamoError) else "failed"
