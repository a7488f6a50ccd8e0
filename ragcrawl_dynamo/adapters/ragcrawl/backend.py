"""The backend: ragcrawl's synchronous storage interface over the asynchronous backend of this package."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel
from ragcrawl.models import CrawlRun, FrontierItem, Page, PageVersion, Site
from ragcrawl.storage.backend import StorageBackend
from typing_extensions import override

import ragcrawl_dynamo
from ragcrawl_dynamo import (
    BackendStateError,
    DynamoDBBackend,
    DynamoDBConfig,
    FrontierStatus,
    InvalidArgumentError,
    NotFoundError,
    OperationMetrics,
    RagcrawlDynamoError,
)
from ragcrawl_dynamo._utils.portal import Portal
from ragcrawl_dynamo.adapters._slices import all_slices, closing, sliced
from ragcrawl_dynamo.adapters.ragcrawl.memory import SiteMemory
from ragcrawl_dynamo.adapters.ragcrawl.serialization import to_ragcrawl, to_ragcrawl_or_none, to_stored
from ragcrawl_dynamo.adapters.ragcrawl.settings import backend_config

if TYPE_CHECKING:
    from ragcrawl.config.storage_config import DynamoDBConfig as RagcrawlConfig

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")

# Frontier items that are read at a time.
_ITEMS_AT_ONCE = 100


class RagcrawlBackend(StorageBackend):
    """Implements ragcrawl's `StorageBackend`. Its methods can be called from any thread.

    They are those of ragcrawl, but raise the errors of this package. The asynchronous backend runs in an
    event loop in its own thread.

    Args:
        config: ragcrawl's settings, or settings of this package, which have more.
    """

    def __init__(self, config: RagcrawlConfig | DynamoDBConfig) -> None:
        self.config = config
        self._config = config if isinstance(config, DynamoDBConfig) else backend_config(config)
        self._lock = threading.Lock()
        self._opened: tuple[Portal, DynamoDBBackend] | None = None
        self._sites = SiteMemory()

    @override
    def initialize(self) -> None:
        """Opens the backend, and creates missing tables."""
        with self._lock:
            if self._opened is not None:
                return
            portal = Portal("ragcrawl_dynamo")
            backend = DynamoDBBackend(self._config)
            try:
                portal.call(backend.initialize())
            except BaseException:
                portal.close()
                raise
            self._opened = portal, backend

    @override
    def close(self) -> None:
        """Closes the connections. `initialize` opens them again."""
        with self._lock:
            if self._opened is None:
                return
            portal, backend = self._opened
            try:
                portal.call(backend.close())
            finally:
                portal.close()
                self._opened = None

    @override
    def health_check(self) -> bool:
        """Returns whether DynamoDB answers.

        Before `initialize` the tables may not exist yet. Then it returns whether tables can be described.
        """
        if self._opened is not None:
            return self._call(lambda backend: backend.health_check())
        portal = Portal("ragcrawl_dynamo")
        try:
            portal.call(DynamoDBBackend(self._config).describe_tables())
        except RagcrawlDynamoError:
            return False
        finally:
            portal.close()
        return True

    def metrics(self) -> dict[tuple[str, str], OperationMetrics]:
        """Returns the counters of all requests, as `DynamoDBBackend.metrics` does."""
        return self._open()[1].metrics()

    @override
    def save_site(self, site: Site) -> None:
        self._sites.note(site.site_id)
        self._call(lambda backend: backend.save_site(to_stored(ragcrawl_dynamo.Site, site)))

    @override
    def get_site(self, site_id: str) -> Site | None:
        return to_ragcrawl_or_none(Site, self._call(lambda backend: backend.get_site(site_id)))

    @override
    def list_sites(self) -> list[Site]:
        """Returns all sites, the newest first."""
        sites = self._collect(lambda backend: backend.iter_sites())
        return [to_ragcrawl(Site, site) for site in sorted(sites, key=_created_at, reverse=True)]

    @override
    def delete_site(self, site_id: str) -> bool:
        return self._call(lambda backend: backend.delete_site(site_id))

    @override
    def save_run(self, run: CrawlRun) -> None:
        self._sites.note_run(run.site_id)
        self._call(lambda backend: backend.save_run(to_stored(ragcrawl_dynamo.CrawlRun, run)))

    @override
    def get_run(self, run_id: str) -> CrawlRun | None:
        return to_ragcrawl_or_none(CrawlRun, self._call(lambda backend: backend.find_run(run_id)))

    @override
    def list_runs(self, site_id: str, limit: int = 100, offset: int = 0) -> list[CrawlRun]:
        """Returns runs of a site, the newest first."""
        runs = self._collect(lambda backend: backend.iter_runs(site_id), offset, limit)
        return [to_ragcrawl(CrawlRun, run) for run in runs]

    @override
    def get_latest_run(self, site_id: str) -> CrawlRun | None:
        return to_ragcrawl_or_none(CrawlRun, self._call(lambda backend: backend.get_latest_run(site_id)))

    @override
    def save_page(self, page: Page) -> None:
        self._sites.note(page.site_id)
        self._call(lambda backend: backend.save_page(to_stored(ragcrawl_dynamo.Page, page)))

    @override
    def get_page(self, page_id: str) -> Page | None:
        """Returns a page by its id, from the sites of this backend."""
        page = self._find(lambda backend, site_id: backend.get_page(site_id, page_id))
        return to_ragcrawl_or_none(Page, page)

    @override
    def get_page_by_url(self, site_id: str, url: str) -> Page | None:
        return to_ragcrawl_or_none(Page, self._call(lambda backend: backend.get_page_by_url(site_id, url)))

    @override
    def list_pages(
        self, site_id: str, limit: int = 1000, offset: int = 0, include_tombstones: bool = False
    ) -> list[Page]:
        """Returns pages of a site, in the order of their ids."""
        pages = self._collect(
            lambda backend: backend.iter_pages(site_id, include_tombstones=include_tombstones), offset, limit
        )
        return [to_ragcrawl(Page, page) for page in pages]

    @override
    def get_pages_needing_recrawl(
        self, site_id: str, max_age_hours: float | None = None, limit: int = 1000
    ) -> list[Page]:
        """Returns pages whose last crawl is older than that, the oldest first."""
        pages = self._call(
            lambda backend: backend.get_pages_needing_recrawl(
                site_id, max_age_hours=max_age_hours, limit=limit
            )
        )
        return [to_ragcrawl(Page, page) for page in pages]

    @override
    def count_pages(self, site_id: str, include_tombstones: bool = False) -> int:
        return self._call(lambda backend: backend.count_pages(site_id, include_tombstones=include_tombstones))

    @override
    def save_version(self, version: PageVersion) -> None:
        """Saves a version, also if its content is that of the version before."""
        self._sites.note(version.site_id)
        stored = to_stored(ragcrawl_dynamo.PageVersion, version)
        # The page that ragcrawl saves next names this version as its current one.
        self._call(lambda backend: backend.save_version(stored, keep_unchanged=True))

    @override
    def get_version(self, version_id: str) -> PageVersion | None:
        """Returns a version by its id, from the sites of this backend."""
        version = self._find(lambda backend, site_id: backend.find_version(site_id, version_id))
        return to_ragcrawl_or_none(PageVersion, version)

    @override
    def get_current_version(self, page_id: str) -> PageVersion | None:
        """Returns the current version of a page, from the sites of this backend."""
        version = self._find(lambda backend, site_id: backend.get_current_version(site_id, page_id))
        return to_ragcrawl_or_none(PageVersion, version)

    @override
    def list_versions(self, page_id: str, limit: int = 100) -> list[PageVersion]:
        """Returns versions of a page, the newest first, from the sites of this backend."""
        versions = self._find(lambda backend, site_id: backend.list_versions(site_id, page_id, limit=limit))
        return [to_ragcrawl(PageVersion, version) for version in versions or ()]

    @override
    def save_frontier_item(self, item: FrontierItem) -> None:
        self._sites.note(item.site_id)
        self._call(lambda backend: backend.save_frontier_item(to_stored(ragcrawl_dynamo.FrontierItem, item)))

    @override
    def get_frontier_items(
        self, run_id: str, status: str | None = None, limit: int = 1000
    ) -> list[FrontierItem]:
        """Returns items of a run: those with the highest priority first, and of these the oldest."""
        only = None if status is None else FrontierStatus(status)
        items = self._collect(
            lambda backend: all_slices(
                lambda cursor: backend.get_frontier_items(
                    run_id, status=only, limit=_ITEMS_AT_ONCE, cursor=cursor
                )
            )
        )
        items.sort(key=_queue_order)
        return [to_ragcrawl(FrontierItem, item) for item in items[:limit]]

    @override
    def update_frontier_status(self, item_id: str, status: str, error: str | None = None) -> None:
        """Sets the status of an item, and does nothing if the item does not exist.

        ragcrawl makes the ids of items from the id of the run and a `_`. An item whose id has another form is
        looked for in the runs of the sites of this backend.
        """
        new_status = FrontierStatus(status)

        async def update(backend: DynamoDBBackend, run_id: str) -> bool:
            try:
                await backend.update_frontier_status(run_id, item_id, new_status, error=error)
            except NotFoundError:
                return False
            return True

        async def update_in_site(backend: DynamoDBBackend, site_id: str) -> bool:
            async with closing(backend.iter_runs(site_id)) as runs:
                async for run in runs:
                    if await update(backend, run.run_id):
                        return True
            return False

        run_id = item_id.rpartition("_")[0]
        if not (run_id and self._call(lambda backend: update(backend, run_id))):
            self._find(update_in_site)

    @override
    def clear_frontier(self, run_id: str) -> int:
        return self._call(lambda backend: backend.clear_frontier(run_id))

    @override
    def save_pages_bulk(self, pages: list[Page]) -> int:
        self._sites.note(*(page.site_id for page in pages))
        stored = [to_stored(ragcrawl_dynamo.Page, page) for page in pages]
        return self._call(lambda backend: backend.save_pages_bulk(stored))

    @override
    def save_versions_bulk(self, versions: list[PageVersion]) -> int:
        self._sites.note(*(version.site_id for version in versions))
        stored = [to_stored(ragcrawl_dynamo.PageVersion, version) for version in versions]
        return self._call(lambda backend: backend.save_versions_bulk(stored, keep_unchanged=True))

    def _open(self) -> tuple[Portal, DynamoDBBackend]:
        if self._opened is None:
            raise BackendStateError("the backend is not open: call initialize() first")
        return self._opened

    def _call(self, work: Callable[[DynamoDBBackend], Coroutine[Any, Any, T]]) -> T:
        """Runs a call of the asynchronous backend in its event loop."""
        portal, backend = self._open()
        return portal.call(work(backend))

    def _collect(
        self,
        records: Callable[[DynamoDBBackend], AsyncIterator[M]],
        offset: int = 0,
        limit: int | None = None,
    ) -> list[M]:
        """Returns up to `limit` records of an iterator of the asynchronous backend, from `offset` on."""
        for name, value in (("offset", offset), ("limit", limit)):
            if value is not None and value < 0:
                raise InvalidArgumentError(name, f"must not be negative, and is {value}")

        async def collect(backend: DynamoDBBackend) -> list[M]:
            return [record async for record in sliced(records(backend), offset, limit)]

        return self._call(collect)

    def _find(self, look: Callable[[DynamoDBBackend, str], Coroutine[Any, Any, T]]) -> T | None:
        """Looks in one site after the other, and returns the first result that is not empty."""
        known_sites = self._sites.latest_first()

        async def find(backend: DynamoDBBackend) -> T | None:
            for site_id in known_sites:
                if result := await look(backend, site_id):
                    return result
            if self._sites.has_run:
                return None
            async with closing(backend.iter_sites()) as sites:
                async for site in sites:
                    if site.site_id not in self._sites and (result := await look(backend, site.site_id)):
                        return result
            return None

        return self._call(find)


def _created_at(site: ragcrawl_dynamo.Site) -> datetime:
    return site.created_at


def _queue_order(item: ragcrawl_dynamo.FrontierItem) -> tuple[float, datetime, str]:
    """Returns a sort key: the highest priority comes first, then the oldest item, then the first id."""
    return -item.priority, item.discovered_at, item.item_id
