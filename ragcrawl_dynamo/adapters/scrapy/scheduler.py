"""Scrapy (2.13 or later, asyncio reactor) on this storage; needs the extra `scrapy`.

    ADDONS = {"ragcrawl_dynamo.adapters.scrapy.Addon": 500}
    RAGCRAWL_DYNAMO_RUN_ID = "monday"

The add-on puts in the scheduler, whose requests are the frontier of a run; the duplicate filter, which is the
frontier too; and a pipeline, which commits items that have a `url` as pages. Any number of processes that
crawl with the same site and run share them. What is leased by a killed process is crawled by another one, or
by the same one when it is started again; what is finished stays finished. A new run begins anew.

| setting | meaning | default |
|---|---|---|
| RAGCRAWL_DYNAMO_CONFIG | a DynamoDBConfig, or a dict of its fields | that of the environment |
| RAGCRAWL_DYNAMO_SITE_ID | whom the crawl is of | the spider's name |
| RAGCRAWL_DYNAMO_RUN_ID | which crawl of it | none: it must be given |
| RAGCRAWL_DYNAMO_LEASE_SECONDS | when requests of a killed process come back | 60 |
| RAGCRAWL_DYNAMO_HOST_DELAY | seconds between requests to a host, of all processes | DOWNLOAD_DELAY |
| RAGCRAWL_DYNAMO_HOST_MAX_IN_FLIGHT | requests to a host at a time, of all processes | any |
| RAGCRAWL_DYNAMO_PREFETCH | requests that are claimed ahead | CONCURRENT_REQUESTS |

A request is finished once its callback and the pipelines are through with all that it yielded, and the
requests among that are stored. It fails if its download does, its last response has one of RETRY_HTTP_CODES,
its callback raises, or an item's pipeline does; it is then tried again later, by whichever process, and
becomes a dead letter after `frontier_max_attempts`. What the downloader's middlewares forbid, such as
robots.txt, is skipped.

What does not map:

- **Order.** Of one priority the oldest request comes first, and hosts take turns; Scrapy's own default is the
  youngest.
- **Requests that are no data** stay in the memory of their process, as with Scrapy's JOBDIR: those whose
  callbacks are no methods of the spider, or whose `meta` or `cb_kwargs` have anything but None, bools,
  numbers, text, bytes, datetimes, lists, tuples, sets and dicts of them.
- **Start requests** are filtered like all others, though Scrapy makes them with `dont_filter`: otherwise each
  process would crawl them.
- **DUPEFILTER_CLASS** sees no requests. `enqueue_request` says yes to duplicates; the stat
  `dupefilter/filtered` counts them.
- Retries and redirects by Scrapy's own middlewares stay in their process, under the same lease.
- A lease can be lost while a request is crawled, if its process stood still: somebody else crawls it too.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import secrets
from collections import deque
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Self
from weakref import WeakKeyDictionary

from itemadapter import ItemAdapter
from pydantic import ValidationError
from scrapy import Request, signals
from scrapy.core.scheduler import BaseScheduler
from scrapy.dupefilters import BaseDupeFilter
from scrapy.exceptions import IgnoreRequest
from scrapy.utils.defer import deferred_from_coro
from scrapy.utils.misc import load_object
from scrapy.utils.request import request_from_dict

from ragcrawl_dynamo._utils.urls import link_id, normalize_url
from ragcrawl_dynamo._utils.validation import first_of
from ragcrawl_dynamo.adapters._runs import close_run, open_run, run_name
from ragcrawl_dynamo.backend import DynamoDBBackend
from ragcrawl_dynamo.config import DynamoDBConfig, StorageConfig
from ragcrawl_dynamo.errors import (
    FrontierCancelledError,
    InvalidArgumentError,
    LeaseLostError,
    PartialBatchError,
    RagcrawlDynamoError,
)
from ragcrawl_dynamo.models import FrontierItem, Page, PageVersion

if TYPE_CHECKING:
    from scrapy import Spider
    from scrapy.crawler import Crawler
    from scrapy.http import Response
    from scrapy.settings import BaseSettings
    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

    from ragcrawl_dynamo._frontier.claim import Claim
    from ragcrawl_dynamo._frontier.frontier import Frontier

__all__ = ["Addon", "FrontierDupeFilter", "FrontierMiddleware", "FrontierScheduler", "PagePipeline"]

logger = logging.getLogger(__name__)

# In a request's meta: the token of the claim under which it is crawled.
_TOKEN = "ragcrawl_dynamo_claim"  # noqa: S105 # the name of one

# Scrapy's own mark of start requests.
_IS_START = "is_start_request"

# Nearest to the engine: they see what all others have made of a request and its output.
_NEAR_ENGINE = 1

# Seconds between two looks for what other processes added, doubled while there is nothing.
_POLL_SECONDS = 0.25
_LONGEST_POLL_SECONDS = 2.0

# Fields of an item that are a version's or a page's own; all others are the version's `extra`.
_VERSION_FIELDS = set(PageVersion.model_fields) - {"version_id", "page_id", "site_id", "run_id", "extra"}
_PAGE_FIELDS = {
    "canonical_url",
    "etag",
    "last_modified",
    "depth",
    "referrer_url",
    "status_code",
    "is_tombstone",
}


class Addon:
    """Puts the components in: `ADDONS = {"ragcrawl_dynamo.adapters.scrapy.Addon": 500}`."""

    def update_settings(self, settings: BaseSettings) -> None:
        """See Scrapy."""
        settings.set("SCHEDULER", FrontierScheduler, "addon")
        settings.set("DUPEFILTER_CLASS", FrontierDupeFilter, "addon")
        for name, component, priority in (
            ("DOWNLOADER_MIDDLEWARES", FrontierMiddleware, _NEAR_ENGINE),
            ("SPIDER_MIDDLEWARES", FrontierMiddleware, _NEAR_ENGINE),
            ("ITEM_PIPELINES", PagePipeline, 900),
        ):
            if component not in settings[name]:
                settings[name][component] = priority


class FrontierDupeFilter(BaseDupeFilter):
    """Filters nothing: the frontier knows what is known, of all processes."""


class _Crawl:
    """What the components of one crawler share: the backend, the run, and how requests went."""

    _all: ClassVar[WeakKeyDictionary[Crawler, _Crawl]] = WeakKeyDictionary()

    def __init__(self, crawler: Crawler) -> None:
        settings = crawler.settings
        config = settings.get("RAGCRAWL_DYNAMO_CONFIG")
        if isinstance(config, dict):
            config = DynamoDBConfig.model_validate(config)
        run_id = settings.get("RAGCRAWL_DYNAMO_RUN_ID")
        if not run_id:
            raise InvalidArgumentError(
                "RAGCRAWL_DYNAMO_RUN_ID", "must be set: crawls with the same one are one crawl"
            )
        spider_name = crawler.spider.name if crawler.spider else crawler.spidercls.name
        self.site_id: str = settings.get("RAGCRAWL_DYNAMO_SITE_ID") or spider_name
        self.run_id = run_name(self.site_id, run_id)
        self.backend = DynamoDBBackend(config or StorageConfig.from_env().backend)
        # What becomes of requests that are not just crawled, "failed" or "skipped", and why, by token.
        self.noted: dict[str, tuple[str, str]] = {}
        self._is_open = False
        self._opening = asyncio.Lock()
        crawler.signals.connect(self._on_closed, signals.spider_closed)

    @classmethod
    def of(cls, crawler: Crawler) -> _Crawl:
        """The one of a crawler."""
        if crawler not in cls._all:
            cls._all[crawler] = cls(crawler)
        return cls._all[crawler]

    async def open(self) -> DynamoDBBackend:
        """The backend, opened by whoever needs it first."""
        async with self._opening:
            if not self._is_open:
                await self.backend.initialize()
                await open_run(self.backend, self.site_id, self.run_id, {"crawler": "scrapy"})
                self._is_open = True
        return self.backend

    async def _on_closed(self) -> None:
        await self.backend.close()


class FrontierMiddleware:
    """Watches how requests go, nearest to the engine of the downloader's and of the spider's middlewares."""

    def __init__(self, crawl: _Crawl, retried: set[int]) -> None:
        self._crawl = crawl
        self._retried = retried

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """See Scrapy."""
        crawl = _Crawl.of(crawler)
        retried = {int(code) for code in crawler.settings.getlist("RETRY_HTTP_CODES")}
        return cls(crawl, retried)

    def process_response(self, request: Request, response: Response, spider: Any = None) -> Response:
        """See Scrapy: notes responses for which it would be tried again, after Scrapy's own tries."""
        token = request.meta.get(_TOKEN)
        if token and response.status in self._retried:
            self._crawl.noted[token] = ("failed", f"HTTP {response.status}")
        return response

    def process_exception(self, request: Request, exception: Exception, spider: Any = None) -> None:
        """See Scrapy: notes failed downloads, and what was forbidden."""
        if token := request.meta.get(_TOKEN):
            what = "skipped" if isinstance(exception, IgnoreRequest) else "failed"
            self._crawl.noted[token] = (what, f"{type(exception).__name__}: {exception}")

    async def process_spider_output(
        self, response: Response, result: AsyncIterator[Any], spider: Any = None
    ) -> AsyncIterator[Any]:
        """See Scrapy: what a callback yields is a request of its own, whatever meta it copied."""
        async for each in result:
            if isinstance(each, Request):
                each.meta.pop(_TOKEN, None)
                each.meta.pop(_IS_START, None)
            yield each


class FrontierScheduler(BaseScheduler):
    """The requests of all processes of a run. Its methods ask nobody; a task talks to DynamoDB.

    Stats: `ragcrawl_dynamo/claimed`, `completed`, `failed`, `skipped`, `lost`, `in_memory`.
    """

    def __init__(self, crawler: Crawler) -> None:
        # Parts of it are None until it crawls.
        self._crawler: Any = crawler
        self._crawl = _Crawl.of(crawler)
        settings = crawler.settings
        self._lease_seconds = settings.getfloat("RAGCRAWL_DYNAMO_LEASE_SECONDS", 60.0)
        self._prefetch = settings.getint("RAGCRAWL_DYNAMO_PREFETCH") or settings.getint("CONCURRENT_REQUESTS")
        self._host_delay = settings.getfloat(
            "RAGCRAWL_DYNAMO_HOST_DELAY", settings.getfloat("DOWNLOAD_DELAY")
        )
        limit = settings.get("RAGCRAWL_DYNAMO_HOST_MAX_IN_FLIGHT")
        self._host_max_in_flight = None if limit is None else int(limit)
        # Claims with the request that is crawled under each, by token; which of them wait to be crawled.
        self._held: dict[str, tuple[Claim, Request]] = {}
        self._waiting: deque[str] = deque()
        self._in_memory: deque[Request] = deque()
        # What the task has still to do: requests to add, then claims to end.
        self._to_add: list[FrontierItem] = []
        self._to_end: list[tuple[Claim, str]] = []
        self._work = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_finished = False

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """See Scrapy."""
        return cls(crawler)

    def open(self, spider: Spider) -> Deferred[None]:
        """See Scrapy."""
        self._spider = spider
        return deferred_from_coro(self._open())

    def close(self, reason: str) -> Deferred[None]:
        """See Scrapy: writes what is left to write, and gives back what was not crawled."""
        return deferred_from_coro(self._close(reason))

    def has_pending_requests(self) -> bool:
        """See Scrapy: whether any process has something left to do."""
        return not self._is_finished or bool(self._in_memory or self._to_add)

    def enqueue_request(self, request: Request) -> bool:
        """See Scrapy."""
        token = request.meta.get(_TOKEN)
        if token in self._held and token not in self._crawl.noted:
            # Tried again, or redirected, by a middleware of the downloader: under the same lease.
            self._held[token] = (self._held[token][0], request)
            self._waiting.appendleft(token)
            return True
        # What an errback yields may have copied the meta of a request that has failed.
        request.meta.pop(_TOKEN, None)
        try:
            self._to_add.append(self._item(request))
        except (TypeError, ValueError) as error:
            logger.warning("%s stays in memory, since it can not be stored: %s", request, error)
            self._count("in_memory")
            self._in_memory.append(request)
        self._is_finished = False
        self._work.set()
        return True

    def next_request(self) -> Request | None:
        """See Scrapy."""
        self._settle()
        while self._waiting:
            token = self._waiting.popleft()
            if token in self._held:
                return self._held[token][1]
        return self._in_memory.popleft() if self._in_memory else None

    async def _open(self) -> None:
        backend = await self._crawl.open()
        self._frontier: Frontier = backend.frontier(
            self._crawl.run_id,
            self._crawl.site_id,
            host_delay=self._host_delay,
            host_max_in_flight=self._host_max_in_flight,
        )
        self._keeper = self._frontier.keeper(self._on_lost, lease_seconds=self._lease_seconds)
        await self._keeper.__aenter__()
        connect = self._crawler.signals.connect
        connect(self._on_error, signals.spider_error)
        connect(self._on_error, signals.item_error)
        self._task = asyncio.create_task(self._run())

    async def _close(self, reason: str) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._settle()
        try:
            await self._write()
            await self._frontier.release(self._keeper.held)
        except RagcrawlDynamoError as error:
            # Leases end, and what was not added is found again by whoever crawls their requests.
            logger.error("not all could be written at the end: %s", error)  # says all
        await self._keeper.__aexit__(None, None, None)
        if reason == "finished":
            await close_run(self._crawl.backend, self._crawl.site_id, self._crawl.run_id)

    def _settle(self) -> None:
        """Ends the claims whose requests the engine is through with."""
        slot = self._slot
        if slot is None:
            return
        waiting = set(self._waiting)
        for token, (claim, request) in list(self._held.items()):
            if token not in waiting and request not in slot.inprogress:
                del self._held[token]
                self._to_end.append((claim, token))
                self._work.set()

    async def _run(self) -> None:
        """Adds, ends and claims, as long as the spider is open."""
        pause = _POLL_SECONDS
        while True:
            self._work.clear()
            try:
                await self._write()
                claimed = await self._claim()
                pause = _POLL_SECONDS if claimed else min(2 * pause, _LONGEST_POLL_SECONDS)
                if not claimed and not self._is_busy() and await self._frontier.is_finished():
                    self._is_finished = not self._is_busy()
                    self._nudge()
            except FrontierCancelledError as error:
                logger.info("%s", error)
                self._is_finished = True
                self._in_memory.clear()
                self._nudge()
            except RagcrawlDynamoError as error:
                logger.error("DynamoDB: %s", error)  # says all
                pause = _LONGEST_POLL_SECONDS
            except Exception:  # without this task the spider would wait for ever
                logger.exception("the scheduler goes on after an error")
                pause = _LONGEST_POLL_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._work.wait()
                    pause = _POLL_SECONDS

    def _is_busy(self) -> bool:
        return bool(self._held or self._in_memory or self._to_add or self._to_end)

    async def _write(self) -> None:
        """Adds requests, and then ends claims: those whose requests they are among them."""
        ends, items = len(self._to_end), self._to_add[:]
        if items:
            failed = await self._add(items)
            del self._to_add[: len(items)]
            if failed is not None:
                # They are tried again, and before they are stored nothing ends.
                self._to_add[:0] = [item for item, _ in failed.failures]
                raise failed
        await self._end(self._to_end[:ends])
        del self._to_end[:ends]

    async def _add(self, items: list[FrontierItem]) -> PartialBatchError | None:
        try:
            results = await self._frontier.add(items)
        except PartialBatchError as error:
            return error
        for item, result in zip(items, results, strict=True):
            if result.error is not None:
                logger.error("request %s can not be stored: %s", item.url, result.error)
                self._count("unstorable")
            elif not result.added:
                self._count("filtered", prefix="dupefilter")
        return None

    async def _end(self, ends: list[tuple[Claim, str]]) -> None:
        """Ends claims by what became of their requests; those that an earlier try ended are passed over."""
        crawled: list[Claim] = []
        for claim, token in ends:
            if claim.ended:
                continue
            match self._crawl.noted.get(token):
                case None:
                    crawled.append(claim)
                case "failed", why:
                    await self._count_ended("failed", self._frontier.fail(claim, why))
                case _, why:
                    await self._count_ended("skipped", self._frontier.skip(claim, why))
        if crawled:
            await self._count_ended("completed", self._frontier.complete(crawled), len(crawled))
        for _, token in ends:
            self._crawl.noted.pop(token, None)

    async def _count_ended(self, what: str, ending: Awaitable[None], count: int = 1) -> None:
        """Ends claims; leases that were lost are somebody else's."""
        lost = 0
        try:
            await ending
        except LeaseLostError as error:
            logger.warning("%s", error)
            lost = len(error.claims)
        self._count("lost", lost)
        self._count(what, count - lost)

    async def _claim(self) -> bool:
        """Claims what can be crawled soon; whether there was anything."""
        free = self._prefetch - len(self._waiting)
        if free <= 0:
            return True
        claims = await self._frontier.claim(free, lease_seconds=self._lease_seconds)
        self._keeper.hold(claims)
        for claim in claims:
            try:
                request = self._request(claim.item)
            except Exception as error:  # whatever a request class or a spider's method makes of it
                logger.error("item %s is no request: %s", claim.item.item_id, error)  # says all
                await self._frontier.fail(claim, f"is no request: {error}", retry=False)
                continue
            request.meta[_TOKEN] = claim.token
            self._held[claim.token] = (claim, request)
            self._waiting.append(claim.token)
            self._count("claimed")
        if claims:
            self._nudge()
        return bool(claims)

    def _nudge(self) -> None:
        """Lets the engine ask for requests now; without, it asks every five seconds."""
        if self._slot is not None:
            self._slot.nextcall.schedule()

    @property
    def _slot(self) -> Any:
        """The engine's requests: no signal tells when it is through with one, pipelines included."""
        return getattr(self._crawler.engine, "_slot", None)

    def _item(self, request: Request) -> FrontierItem:
        key = self._crawler.request_fingerprinter.fingerprint(request).hex()
        if request.dont_filter and not request.meta.get(_IS_START):
            key += f"-{secrets.token_hex(8)}"
        return self._frontier.link(
            request.url,
            unique_key=key,
            payload=_dumps(request.to_dict(spider=self._spider)),
            depth=int(request.meta.get("depth", 0)),
            priority=float(request.priority),
        )

    def _request(self, item: FrontierItem) -> Request:
        """The request of an item; one of its URL alone, if something else than Scrapy added it."""
        if item.payload is None:
            return Request(item.url, meta={"depth": item.depth})
        fields = _loads(item.payload)
        name = fields.get("_class")
        if name is not None and not issubclass(load_object(name), Request):
            raise ValueError(f"{name} is no class of requests")
        return request_from_dict(fields, spider=self._spider)

    def _on_error(self, response: Any, failure: Failure) -> None:
        """Notes what a callback, or an item's pipeline, raised."""
        request = getattr(response, "request", None)
        token = None if request is None else request.meta.get(_TOKEN)
        if token in self._held:
            self._crawl.noted[token] = ("failed", f"{type(failure.value).__name__}: {failure.value}")

    def _on_lost(self, claim: Claim, why: str) -> None:
        logger.warning("request %s: %s, somebody else will crawl it", claim.item.url, why)
        self._count("lost")
        self._held.pop(claim.token, None)
        self._crawl.noted.pop(claim.token, None)

    def _count(self, what: str, count: int = 1, *, prefix: str = "ragcrawl_dynamo") -> None:
        if count:
            self._crawler.stats.inc_value(f"{prefix}/{what}", count)


class PagePipeline:
    """Commits items that have a `url` as pages of the site: `commit_page`, once for equal content.

    An item's fields that a version or a page has are theirs (`title`, `markdown`, `html`, `plain_text`,
    `status_code`, `etag` ...); all others are the version's `extra`, and must be JSON. Content is what is in
    `markdown`, `plain_text` and `html`, or the whole item if it has none of them.
    """

    def __init__(self, crawl: _Crawl) -> None:
        self._crawl = crawl

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """See Scrapy."""
        return cls(_Crawl.of(crawler))

    async def process_item(self, item: Any, spider: Any = None) -> Any:
        """See Scrapy.

        Raises:
            InvalidInputError: The item can not be stored.
        """
        fields = dict(ItemAdapter(item).asdict())
        if isinstance(fields.get("url"), str) and fields["url"]:
            page, version = _record(fields, self._crawl.site_id, self._crawl.run_id)
            backend = await self._crawl.open()
            await backend.commit_page(page, version)
        return item


def _record(fields: dict[str, Any], site_id: str, run_id: str) -> tuple[Page, PageVersion]:
    own = {name: value for name, value in fields.items() if name in _VERSION_FIELDS and value is not None}
    extra = {name: value for name, value in fields.items() if name not in _VERSION_FIELDS}
    content = {name: own[name] for name in ("markdown", "plain_text", "html") if own.get(name)}
    try:
        text = json.dumps(content or fields, ensure_ascii=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError("item", f"is no JSON: {error}") from error
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
    ids = {"page_id": link_id(normalize_url(fields["url"])), "site_id": site_id}
    try:
        version = PageVersion.model_validate(
            {
                "status_code": 200,
                "content_hash": digest,
                **own,
                **ids,
                "version_id": digest[:32],
                "run_id": run_id,
                "extra": extra,
            }
        )
        page = Page.model_validate(
            {
                "status_code": version.status_code,
                **{name: own[name] for name in _PAGE_FIELDS & own.keys()},
                **ids,
                "url": normalize_url(fields["url"]),
            }
        )
    except ValidationError as error:
        field, why = first_of(error)
        raise InvalidArgumentError(f"item.{field}", why) from error
    return page, version


def _dumps(value: Any) -> str:
    return json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":"))


def _loads(text: str) -> Any:
    return _rich(json.loads(text))


def _plain(value: Any) -> Any:
    """A value as JSON that comes back as it was.

    Raises:
        TypeError: It is none of those that can.
    """
    match value:
        case None | bool() | int() | float() | str():
            return value
        case bytes():
            return {"$bytes": base64.b64encode(value).decode()}
        case datetime():
            return {"$datetime": value.isoformat()}
        case list():
            return [_plain(each) for each in value]
        case tuple():
            return {"$tuple": [_plain(each) for each in value]}
        case set():
            return {"$set": [_plain(each) for each in value]}
        case dict():
            if all(isinstance(name, str) and not name.startswith("$") for name in value):
                return {name: _plain(each) for name, each in value.items()}
            return {"$dict": [[_plain(name), _plain(each)] for name, each in value.items()]}
    raise TypeError(f"a {type(value).__name__} can not be stored")


def _rich(value: Any) -> Any:
    if isinstance(value, list):
        return [_rich(each) for each in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((kind, content),) = value.items()
        match kind:
            case "$bytes":
                return base64.b64decode(content)
            case "$datetime":
                return datetime.fromisoformat(content)
            case "$tuple":
                return tuple(_rich(each) for each in content)
            case "$set":
                return {_rich(each) for each in content}
            case "$dict":
                return {_rich(name): _rich(each) for name, each in content}
    return {name: _rich(each) for name, each in value.items()}
