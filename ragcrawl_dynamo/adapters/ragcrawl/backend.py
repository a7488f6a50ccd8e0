"""Implements ragcrawl's synchronous storage interface with the asynchronous backend of this package."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

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
from ragcrawl_dynamo._utils.validation import check_several
from ragcrawl_dynamo.adapters._slices import all_slices, closing, sliced
from ragcrawl_dynamo.adapters.ragcrawl.listings import (
    check_range,
    first_by,
    last_seen_page,
    newest_site,
    next_item,
)
from ragcrawl_dynamo.adapters.ragcrawl.memory import SiteMemory
from ragcrawl_dynamo.adapters.ragcrawl.serialization import to_ragcrawl, to_ragcrawl_or_none, to_stored
from ragcrawl_dynamo.adapters.ragcrawl.settings import backend_config

if TYPE_CHECKING:
    from ragcrawl.config.storage_config import DynamoDBConfig as RagcrawlConfig

_STATUSES = tuple(status.value for status in FrontierStatus)

T = TypeVar("T")

logger = logging.getLogger(__name__)

# Frontier items in a slice.
_ITEMS_AT_ONCE = 1000


class RagcrawlBackend(StorageBackend):
    """Implements ragcrawl's `StorageBackend`. Its methods can be called from any thread.

    They are those of ragcrawl, but raise the errors of this package. The asynchronous backend runs in an
    event loop in its own thread.

    Args:
        config: ragcrawl's settings, or settings of this package, which have more.
        create_tables: Creates missing tables. If False, `initialize` raises `TableNotFoundError` for them.
    """

    def __init__(self, config: RagcrawlConfig | DynamoDBConfig, *, create_tables: bool = True) -> None:
        self.config = config
        self._create_tables = create_tables
        self._config = config if isinstance(config, DynamoDBConfig) else backend_config(config)
        self._lock = threading.Lock()
        self._opened: tuple[Portal, DynamoDBBackend] | None = None
        self._sites = SiteMemory()

    @override
    def initialize(self) -> None:
        """Opens the backend, and creates missing tables. Each forked process opens it for itself."""
        with self._lock:
            if self._opened is not None and self._opened[0].is_of_this_process:
                return
            portal = Portal("ragcrawl_dynamo")
            backend = DynamoDBBackend(self._config)
            try:
                portal.call(backend.initialize(create_tables=self._create_tables))
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
            self._opened = None
            if not portal.is_of_this_process:
                return
            try:
                portal.call(backend.close())
            finally:
                portal.close()

    @override
    def health_check(self) -> bool:
        """Returns whether DynamoDB answers within `health_timeout`; the reason for False is logged.

        Before `initialize` the tables may not exist yet. Then it returns whether tables can be described.
        """
        if self._opened is not None:
            return self._call(lambda backend: backend.health_check())
        try:
            self.check()
        except RagcrawlDynamoError as error:
            # ragcrawl's factory asks this question, and drops the reason.
            logger.error(
                "DynamoDB cannot be used: %s. Unless StorageConfig.fail_if_unavailable is set, ragcrawl now "
                "stores everything in a local DuckDB file: set it, so that the job fails instead",
                error,
            )
            return False
        return True

    def check(self) -> None:
        """Checks that tables can be described, within `health_timeout`; they may be missing.

        Raises:
            ServiceError: DynamoDB refuses that, or cannot be reached.
        """
        seconds = min(self._config.health_timeout, self._config.call_timeout)
        config = self._config.model_copy(update={"call_timeout": seconds})
        portal = Portal("ragcrawl_dynamo")
        try:
            portal.call(DynamoDBBackend(config).describe_tables())
        finally:
            portal.close()

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
        sites = self._call(lambda backend: first_by(newest_site, backend.iter_sites(), 0, None))
        return [to_ragcrawl(Site, site) for site in sites]

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
        check_range(offset, limit)

        async def read(backend: DynamoDBBackend) -> list[ragcrawl_dynamo.CrawlRun]:
            return [run async for run in sliced(backend.iter_runs(site_id), offset, limit)]

        runs = self._call(read)
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
        """Returns pages of a site, those seen last first. It reads all pages of the site."""
        check_range(offset, limit)
        if limit == 0:
            return []
        pages = self._call(
            lambda backend: first_by(
                last_seen_page,
                backend.iter_pages(site_id, include_tombstones=include_tombstones),
                offset,
                limit,
            )
        )
        return [to_ragcrawl(Page, page) for page in pages]

    @override
    def get_pages_needing_recrawl(
        self, site_id: str, max_age_hours: float | None = None, limit: int = 1000
    ) -> list[Page]:
        """Returns pages whose last crawl is older than that, the oldest first."""
        check_range(0, limit)
        if limit == 0:
            return []
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
        check_range(0, limit)
        if limit == 0:
            return []
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
        """Returns items of a run: those with the highest priority first, and of these the oldest.

        It reads all items of the run. An unknown status returns no items, and "" returns all.
        """
        check_range(0, limit)
        if limit == 0 or (status and status not in _STATUSES):
            return []

        def read(backend: DynamoDBBackend) -> Coroutine[Any, Any, list[ragcrawl_dynamo.FrontierItem]]:
            items = all_slices(
                lambda cursor: backend.get_frontier_items(
                    run_id, status=status or None, limit=_ITEMS_AT_ONCE, cursor=cursor
                )
            )
            return first_by(next_item, items, 0, limit)

        items = self._call(read)
        return [to_ragcrawl(FrontierItem, item) for item in items]

    @override
    def update_frontier_status(self, item_id: str, status: str, error: str | None = None) -> None:
        """Sets the status of an item, and does nothing if the item does not exist.

        ragcrawl makes the ids of items from the id of the run and a `_`. An item whose id has another form is
        looked for in the runs of the sites of this backend. Without an error, the stored one stays.

        Raises:
            InvalidArgumentError: The status is unknown; nothing was changed.
        """
        if status not in _STATUSES:
            raise InvalidArgumentError("status", f"must be one of {', '.join(_STATUSES)}, not {status!r}")

        async def update(backend: DynamoDBBackend, run_id: str) -> bool:
            try:
                await backend.update_frontier_status(run_id, item_id, status, error=error or None)
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
    def save_pages_bulk(self, pages: Iterable[Page]) -> int:
        """Saves pages; returns how many distinct pages were written."""
        pages = check_several("pages", pages, Page)
        self._sites.note(*(page.site_id for page in pages))
        stored = [to_stored(ragcrawl_dynamo.Page, page) for page in pages]
        return self._call(lambda backend: backend.save_pages_bulk(stored))

    @override
    def save_versions_bulk(self, versions: Iterable[PageVersion]) -> int:
        """Saves versions, also those whose content did not change; returns how many were written."""
        versions = check_several("versions", versions, PageVersion)
        self._sites.note(*(version.site_id for version in versions))
        stored = [to_stored(ragcrawl_dynamo.PageVersion, version) for version in versions]
        return self._call(lambda backend: backend.save_versions_bulk(stored, keep_unchanged=True))

    def _open(self) -> tuple[Portal, DynamoDBBackend]:
        if self._opened is None:
            raise BackendStateError("the backend is not open: call initialize() first")
        if not self._opened[0].is_of_this_process:
            raise BackendStateError(
                "the backend was opened before this process was forked: call initialize()"
            )
        return self._opened

    def _call(self, work: Callable[[DynamoDBBackend], Coroutine[Any, Any, T]]) -> T:
        """Runs a call of the asynchronous backend in its event loop."""
        portal, backend = self._open()
        return portal.call(work(backend))

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
