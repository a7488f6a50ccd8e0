"""Crawls a site once: begins or resumes a run, hands tasks to handlers, and completes the run."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from hashlib import sha256
from inspect import isawaitable
from math import isfinite
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import uuid4

from ragcrawl_dynamo._commit.responses import ResponseKind
from ragcrawl_dynamo._crawl.settings import CrawlSettings
from ragcrawl_dynamo._crawl.task import Task, page_id_of
from ragcrawl_dynamo._frontier.claim import AddResult, Claim
from ragcrawl_dynamo._frontier.frontier import Frontier
from ragcrawl_dynamo._frontier.handling import OUTAGE_SECONDS, Skip, WorkSummary
from ragcrawl_dynamo._frontier.outage import while_leased
from ragcrawl_dynamo._frontier.worker import ErrorObserver, Worker
from ragcrawl_dynamo._utils.clock import SystemClock
from ragcrawl_dynamo._utils.concurrency import gather_bounded
from ragcrawl_dynamo._utils.urls import host_of_url, link_id, normalize_url
from ragcrawl_dynamo._utils.validation import check_several
from ragcrawl_dynamo.errors import BackendStateError, ConflictError, InvalidArgumentError
from ragcrawl_dynamo.models import CrawlRun, FrontierItem, Page, RunStatus, Site
from ragcrawl_dynamo.storage import StorageBackend

__all__ = ["Crawl"]

T = TypeVar("T")

logger = logging.getLogger(__name__)

# How many known pages are added to the frontier at a time.
_PAGES_AT_ONCE = 1000

# How many items of unseen pages are read at a time.
_READS_IN_FLIGHT = 32

# The largest number of unseen pages that a crawl lists or deletes.
_MOST_UNSEEN = 100_000


class Crawl:
    """One run of a site. Get it by `Store.crawl`, and use it in `async with`.

    Several processes may crawl the same run at the same time: each calls `Store.crawl` with the same
    arguments. The run is completed when the block ends and nothing is left to crawl. If the block ends
    earlier, by an error or because the worker was stopped, the next call resumes the run.

    Attributes:
        backend: The backend.
        site: The site.
        unseen: After the block, in a sync that was completed: the pages that the run has not seen.
    """

    def __init__(self, backend: StorageBackend, site: Site, settings: CrawlSettings) -> None:
        self.backend: StorageBackend = backend
        self.site: Site = site
        self.unseen: list[Page] = []
        self._settings = settings
        self._hosts = frozenset(site.allowed_domains)
        self._workers: set[Worker] = set()
        self._run: CrawlRun | None = None
        self._frontier: Frontier | None = None

    @property
    def run(self) -> CrawlRun:
        """The run; after the block, as it was completed."""
        return _begun(self._run)

    @property
    def frontier(self) -> Frontier:
        """The queue of the run."""
        return _begun(self._frontier)

    async def __aenter__(self) -> Self:
        """Begins or resumes the run. It gets its first links, unless `crawl` has added them before."""
        site_id = self.site.site_id
        self.site = await self.backend.ensure_site(self.site)
        latest = await self.backend.get_latest_run(site_id)
        run_id = self._settings.run_id
        stored = latest if latest is not None and not latest.status.is_final else None
        if run_id is not None and (stored is None or stored.run_id != run_id):
            stored = await self.backend.get_run(site_id, run_id)
        if stored is not None:
            run_id = stored.run_id
        elif run_id is None:
            run_id, latest, stored = await self._next_run(latest)
        self._frontier = self.backend.frontier(site_id, run_id, **self._settings.limits)
        run = stored or CrawlRun(
            run_id=run_id,
            site_id=site_id,
            seeds=self._settings.seeds,
            is_sync=latest is not None,
            parent_run_id=None if latest is None else latest.run_id,
        )
        # A run gets the mark once it has all that it begins with. If this process is killed before, the next
        # one adds it again. A run without the mark was not begun by `crawl`, and may have any links.
        if not run.status.is_final and not run.has_first_links:
            await self._begin(run)
            run = run.model_copy(update={"has_first_links": True})
        self._run = await self.backend.start_run(run)
        how = "begins" if stored is None else "has ended already" if self.run.status.is_final else "resumes"
        logger.info("run %r of site %r %s", run_id, site_id, how)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Completes the run if nothing is left to crawl."""
        if kind is None and await self.frontier.is_finished():
            await self._complete()

    async def work(
        self,
        handler: Callable[[Task], Awaitable[object]],
        *,
        concurrency: int = 8,
        lease_seconds: float = 60.0,
        worker_id: str | None = None,
        outage_seconds: float = OUTAGE_SECONDS,
        on_error: ErrorObserver | None = None,
    ) -> WorkSummary:
        """Calls a handler for each URL to fetch, until the run is finished; see `Worker.run`.

        Args:
            handler: Fetches the URL of a task, and calls `task.save`. If it raises, the URL is tried again;
                see `Skip` and `DoNotRetry`.
            concurrency: How many handlers run at the same time.
            lease_seconds: How many seconds a URL stays with a worker that has died.
            worker_id: The name of the worker, stored with the items.
            outage_seconds: The worker gives up after an outage of this many seconds.
            on_error: Called with the claim and the error when a handler raises.

        Returns:
            How many items the worker has handled, by their outcome.

        Raises:
            BackendStateError: The crawl is not used in `async with`.
            InvalidArgumentError: The handler is no async function, or another argument is outside its limits.
        """
        if not callable(handler):
            raise InvalidArgumentError("handler", f"must be an async function, not {type(handler).__name__}")
        worker = self.frontier.worker(
            concurrency=concurrency,
            lease_seconds=lease_seconds,
            worker_id=worker_id,
            outage_seconds=outage_seconds,
        )
        refusals: list[InvalidArgumentError] = []

        async def handle(claim: Claim) -> None:
            result: Any = handler(await self._task(claim))
            if not isawaitable(result):
                # It would fail for all items: they stay in the queue, for a handler that works.
                what = f"must be an async function: it returned a value of type {type(result).__name__}"
                refusals.append(InvalidArgumentError("handler", f"{what}, which cannot be awaited"))
                worker.stop()
                await self.frontier.release(claim)
                return
            await result
            if not claim.ended:
                # A completed item says that the run has seen the page, so the page would count as unseen.
                logger.warning(
                    "the handler of %s returned without calling task.save(): the item is skipped",
                    claim.item.url,
                )
                raise Skip("the handler returned without calling task.save()")

        self._workers.add(worker)
        try:
            async with worker:
                summary = await worker.run(handle, on_error=on_error)
        finally:
            self._workers.discard(worker)
        if refusals:
            raise refusals[0]
        return summary

    async def recrawl(self, urls: Iterable[str], *, priority: float = 0.0) -> list[AddResult]:
        """Adds URLs to fetch again soon, also those that the run has fetched or will fetch anyway.

        Use it in a service, with the arguments with which the site is crawled: the run is resumed, or the
        next one begins. The service need not call `work`: the workers of the run fetch the URLs, or those
        of the next call of `crawl`.

        Args:
            urls: The URLs. Each gets an item of its own, with a random `unique_key`, at each call.
            priority: Items with a higher priority are fetched sooner.

        Returns:
            A result for each URL, in order; see `Frontier.add`.

        Raises:
            BackendStateError: The crawl is not used in `async with`.
            ConflictError: The run has ended meanwhile: call `crawl` and this again.
            InvalidArgumentError: An argument has a wrong type or value.
        """
        site_id, links = self.site.site_id, []
        for url in check_several("urls", urls, str):
            key = f"recrawl {uuid4().hex}"
            link = self.frontier.link(url, priority=priority, unique_key=key)
            # `add` refuses what is no URL.
            with suppress(InvalidArgumentError):
                page = await self.backend.get_page(site_id, link_id(self.normalized(url)))
                if page is not None:
                    link.depth, link.referrer_url = page.depth, page.referrer_url
            links.append(link)
        results = await self.frontier.add(links)
        run = await self.backend.get_run(site_id, self.run.run_id)
        if run is None or run.status.is_final:
            raise ConflictError(
                f"run {self.run.run_id!r} of site {site_id!r} has ended, so nothing fetches the "
                f"URLs that were added to it: call crawl() again, which begins the next run, and recrawl()"
            )
        return results

    def stop(self) -> None:
        """Lets `work` return after the handlers that run. The run stays open, to be resumed."""
        for worker in self._workers:
            worker.stop()

    def normalized(self, url: str) -> str:
        """Returns the form by which the run compares URLs."""
        normalize: Callable[[str], str] = self._settings.limits["normalize"] or normalize_url
        return normalize(url)

    def follows(self, url: str, depth: int) -> bool:
        """Returns whether the crawl follows a link: http(s), in its scope, and not too deep."""
        if not self.reaches(depth):
            return False
        try:
            host = host_of_url(normalize_url(url))
        except InvalidArgumentError:
            return False
        if self._settings.follow is not None:
            return bool(self._settings.follow(url))
        return host in self._hosts or (
            self.site.allowed_subdomains and any(host.endswith(f".{domain}") for domain in self._hosts)
        )

    def reaches(self, depth: int) -> bool:
        """Returns whether the crawl follows links at a depth at all."""
        return self._settings.max_depth is None or depth <= self._settings.max_depth

    def to_add(self, urls: Sequence[str], depth: int, referrer_url: str) -> Sequence[str | FrontierItem]:
        """Returns links to add to the frontier: URLs, or items with their priorities."""
        if self._settings.priority is None:
            return urls
        return [self._link(url, depth, referrer_url) for url in urls]

    def kind_of(self, status: int | None) -> ResponseKind:
        """Returns the meaning of an HTTP status for a page."""
        return self._settings.kind_of(status)

    async def _task(self, claim: Claim) -> Task:
        """Returns the task of a claim, in a sync with the page."""
        page = None
        if self.run.is_sync:
            get_page = partial(self.backend.get_page, claim.item.site_id, page_id_of(claim))
            page = await while_leased([claim], SystemClock(), 0.0, get_page)
        return Task(self, claim, page)

    async def _next_run(self, latest: CrawlRun | None) -> tuple[str, CrawlRun | None, CrawlRun | None]:
        """Returns the id of the run to begin, the run before it, and the run itself if it is stored.

        The clock of the process that began the latest run may have been ahead. Then the run after it is
        stored already, and not the latest one by its time.
        """
        site_id = self.site.site_id
        while True:
            run_id = _next_run_id(site_id, latest)
            stored = await self.backend.get_run(site_id, run_id)
            if stored is None or not stored.status.is_final:
                return run_id, latest, stored
            latest = stored

    async def _begin(self, run: CrawlRun) -> None:
        """Adds the seeds, the URLs of the sitemap, and in a sync all known pages."""
        first = [*self._settings.seeds, *self._settings.sitemap]
        for result in await self.frontier.add([self._link(url) for url in first]):
            if result.error is not None:
                logger.warning("%s cannot be crawled: %s", result.url, result.error)
        if self._settings.sitemap:
            await self.backend.mark_seen(self.site.site_id, self._settings.sitemap)
        if not run.is_sync:
            return
        pages: list[Page] = []
        async for page in self.backend.iter_pages(self.site.site_id):
            pages.append(page)
            if len(pages) == _PAGES_AT_ONCE:
                await self._add(pages)
                pages = []
        await self._add(pages)

    async def _add(self, pages: Iterable[Page]) -> None:
        links = [
            self._link(page.url, page.depth, page.referrer_url)
            for page in pages
            if self.follows(page.url, page.depth)
        ]
        if links:
            await self.frontier.add(links)

    def _link(self, url: str, depth: int = 0, referrer_url: str | None = None) -> FrontierItem:
        """Builds the item of a link, with its priority.

        Raises:
            InvalidArgumentError: `priority` returned no finite number.
        """
        priority: Any = 0.0
        if self._settings.priority is not None:
            priority = self._settings.priority(url)
            if not isinstance(priority, int | float) or not isfinite(priority):
                raise InvalidArgumentError(
                    "priority", f"must return a finite number, but returned {priority!r} for {url}"
                )
        return self.frontier.link(url, depth=depth, referrer_url=referrer_url, priority=float(priority))

    async def _complete(self) -> None:
        site_id, run_id = self.site.site_id, self.run.run_id
        stored = await self.backend.get_run(site_id, run_id)
        if stored is not None and stored.status.is_final:
            # Another process has completed it.
            self._run = stored
        else:
            self._run = await self.backend.complete_run(site_id, run_id)
        logger.info("run %r of site %r has ended with status %s", run_id, site_id, self.run.status)
        if not await self.frontier.is_finished():
            logger.warning(
                "links were added to run %r of site %r while it was completed: nothing fetches them; add "
                "them to the next run",
                *(run_id, site_id),
            )
        if not self.run.is_sync or self.run.status not in (RunStatus.COMPLETED, RunStatus.PARTIAL):
            return
        # Opens the queue again with its rules, which the completion has closed.
        self._frontier = self.backend.frontier(site_id, run_id, **self._settings.limits)
        self.unseen = await self.backend.get_unseen_pages(site_id, run_id, limit=_MOST_UNSEEN)
        if len(self.unseen) == _MOST_UNSEEN:
            # There may be more, so it is not known which share of the site would be deleted.
            logger.error(
                "run %r has not seen %d pages or more, which is too many to delete: none is marked as gone; "
                "check the site, then pass the pages that are gone to tombstone_pages()",
                run_id,
                _MOST_UNSEEN,
            )
        elif self.unseen and self._settings.delete_unseen:
            await self._delete_unseen()

    async def _delete_unseen(self) -> None:
        """Marks the unseen pages as gone, except those in scope that the run has no item of.

        The run has not asked the server for these: their host has `host_max_items` links, or the item was
        removed.
        """
        is_untried = await gather_bounded(self._is_untried, self.unseen, _READS_IN_FLIGHT)
        untried = [page.url for page, is_true in zip(self.unseen, is_untried, strict=True) if is_true]
        gone = [page for page, is_true in zip(self.unseen, is_untried, strict=True) if not is_true]
        if untried:
            logger.error(
                "run %r did not fetch %d of its %d unseen pages, such as %s, since its frontier has no items "
                "of them: these are not marked as gone; raise host_max_items, or pass those that are gone to "
                "tombstone_pages()",
                *(self.run.run_id, len(untried), len(self.unseen), untried[0]),
            )
        if gone:
            await self.backend.tombstone_pages(self.site.site_id, [page.page_id for page in gone])

    async def _is_untried(self, page: Page) -> bool:
        """Returns whether the run should have fetched a page, and has no item of it."""
        return self.follows(page.url, page.depth) and await self.frontier.get(page.url) is None


def _begun(value: T | None) -> T:
    """Returns what a crawl has once it has begun its run.

    Raises:
        BackendStateError: It has not.
    """
    if value is None:
        raise BackendStateError("the crawl has not begun: use it in 'async with store.crawl(...) as run'")
    return value


def _next_run_id(site_id: str, latest: CrawlRun | None) -> str:
    """Returns the id of the run after the latest one: the same in all processes that begin it at a time."""
    parts = f"{site_id}\0{latest.run_id if latest is not None else ''}"
    return f"run_{sha256(parts.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"
