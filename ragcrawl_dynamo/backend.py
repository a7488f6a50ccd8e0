"""The storage backend: what it promises, and its implementation on DynamoDB."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from typing import Any, Self

from ragcrawl_dynamo._gateway import ClientFactory, Gateway, open_client
from ragcrawl_dynamo._keys import unescape
from ragcrawl_dynamo._metrics import OperationMetrics
from ragcrawl_dynamo._paging import Slice, iterate
from ragcrawl_dynamo._provision import all_active, ensure_tables
from ragcrawl_dynamo._tables import Tables
from ragcrawl_dynamo.config import DynamoDBConfig, StorageConfig
from ragcrawl_dynamo.errors import ServiceError
from ragcrawl_dynamo.models import CrawlRun, FrontierItem, FrontierStatus, Page, PageVersion, Site
from ragcrawl_dynamo.stores.frontier import FrontierStore
from ragcrawl_dynamo.stores.pages import PageStore
from ragcrawl_dynamo.stores.runs import RunStore
from ragcrawl_dynamo.stores.sites import SiteStore
from ragcrawl_dynamo.stores.versions import VersionStore

__all__ = ["DynamoDBBackend", "StorageBackend", "create_storage_backend"]

logger = logging.getLogger(__name__)


class StorageBackend(ABC):
    """Where a crawler keeps its sites, runs, pages, versions and frontier.

    Every `save_*` writes over whatever has the same key. Every `get_*` returns None for what is absent. An id
    is any non-empty text of at most 1,024 bytes in UTF-8; "#" and "~" count twice.

    Besides the errors that a method names, each may raise `BackendStateError` when the backend is not open,
    or is open in another event loop, and `ServiceError` when DynamoDB refuses the request or can not be
    reached. Methods that take a record raise `InvalidInputError`, which names the field and the limit, for
    what DynamoDB can not store; those that return records raise `CorruptItemError` for items that something
    else wrote.
    """

    # Lifecycle

    @abstractmethod
    async def initialize(self, *, create_missing_indexes: bool = False) -> None:
        """Opens the backend and makes the tables that are missing; safe from many processes at once.

        Args:
            create_missing_indexes: Add global indexes that an existing table lacks. Building one reads the
                whole table, so it is done on request only.

        Raises:
            SchemaMismatchError: A table exists whose keys or indexes differ; it names the difference.
            DeadlineExceededError: A table was not active within `table_timeout`.
        """

    @abstractmethod
    async def health_check(self) -> bool:
        """Whether all tables are there and serve requests; answers within `health_timeout`.

        What is wrong is logged at warning.
        """

    @abstractmethod
    async def close(self) -> None:
        """Lets requests in flight end and closes the connections; a second call does nothing."""

    async def __aenter__(self) -> Self:
        """Initializes the backend."""
        await self.initialize()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Closes the backend."""
        await self.close()

    # Sites

    @abstractmethod
    async def save_site(self, site: Site) -> None:
        """Saves a site."""

    @abstractmethod
    async def get_site(self, site_id: str) -> Site | None:
        """One site; strongly consistent."""

    @abstractmethod
    async def list_sites(self, limit: int = 1000, cursor: str | None = None) -> Slice[Site]:
        """A slice of all sites, in no particular order.

        Raises:
            InvalidArgumentError: `limit` is below 1.
            InvalidCursorError: `cursor` is damaged or of another listing.
        """

    @abstractmethod
    def iter_sites(self) -> AsyncIterator[Site]:
        """All sites, in no particular order."""

    @abstractmethod
    async def delete_site(self, site_id: str) -> bool:
        """Deletes a site with its runs, their frontiers, its pages and their versions; the site itself last.

        It can be interrupted and repeated. Other sites keep their versions of the same page_id. Stop the
        site's crawlers first: what is saved while this runs can be left over, and so can a version that was
        saved so shortly before (commonly well under a second) that its index does not show it yet. A
        frontier is found through its run: one whose run was never saved needs `clear_frontier`.

        Returns:
            Whether there was anything to delete.

        Raises:
            PartialBatchError: Some items could not be deleted; repeat the call.
        """

    # Runs

    @abstractmethod
    async def save_run(self, run: CrawlRun) -> None:
        """Saves a run, its stats included; to add to them from many workers use `add_run_stats`."""

    @abstractmethod
    async def get_run(self, run_id: str, site_id: str | None = None) -> CrawlRun | None:
        """One run; strongly consistent with `site_id`, through an index that lags a little without.

        Raises:
            AmbiguousIdError: Without `site_id`, several sites have a run of this id.
        """

    @abstractmethod
    async def list_runs(self, site_id: str, limit: int = 100, cursor: str | None = None) -> Slice[CrawlRun]:
        """A slice of a site's runs, newest `created_at` first; strongly consistent.

        Raises:
            InvalidArgumentError: `limit` is below 1.
            InvalidCursorError: `cursor` is damaged or of another listing.
        """

    @abstractmethod
    def iter_runs(self, site_id: str) -> AsyncIterator[CrawlRun]:
        """All runs of a site, newest first."""

    @abstractmethod
    async def get_latest_run(self, site_id: str) -> CrawlRun | None:
        """A site's run with the newest `created_at`; strongly consistent."""

    @abstractmethod
    async def add_run_stats(self, site_id: str, run_id: str, **deltas: Any) -> CrawlRun:
        """Adds to a run's stats, atomically and, though an answer may be lost and sent again, once.

        Args:
            site_id: The run's site.
            run_id: The run.
            **deltas: Fields of CrawlStats: a number to add, a map of numbers to add by key, or a set to
                unite. `avg_fetch_latency_ms` can not be added to.

        Returns:
            The run as it is then.

        Raises:
            NotFoundError: The run does not exist.
            InvalidArgumentError: A name or value does not fit CrawlStats.
        """

    # Pages

    @abstractmethod
    async def save_page(self, page: Page) -> None:
        """Saves a page."""

    @abstractmethod
    async def save_pages_bulk(self, pages: Iterable[Page]) -> int:
        """Saves pages in batches of 25; of several with one key the last is saved.

        Returns:
            How many distinct pages were written.

        Raises:
            PartialBatchError: Some were not; it carries them and their errors. All others were.
        """

    @abstractmethod
    async def get_page(self, site_id: str, page_id: str) -> Page | None:
        """One page; strongly consistent."""

    @abstractmethod
    async def get_page_by_url(self, site_id: str, url: str) -> Page | None:
        """The page of a URL of any length, compared in w3lib's canonical form.

        It is found through an index that lags a little, and then read strongly consistent.
        """

    @abstractmethod
    async def list_pages(
        self,
        site_id: str,
        limit: int = 1000,
        cursor: str | None = None,
        include_tombstones: bool = False,
    ) -> Slice[Page]:
        """A slice of a site's pages, by page_id; strongly consistent.

        Raises:
            InvalidArgumentError: `limit` is below 1.
            InvalidCursorError: `cursor` is damaged or of another listing.
        """

    @abstractmethod
    def iter_pages(self, site_id: str, include_tombstones: bool = False) -> AsyncIterator[Page]:
        """All pages of a site, by page_id, in bounded memory; parts of a large site are read ahead."""

    @abstractmethod
    async def count_pages(self, site_id: str, include_tombstones: bool = False) -> int:
        """How many pages a site has. Reads them all (0.5 read units per 4 KB), but returns none."""

    @abstractmethod
    async def get_pages_needing_recrawl(
        self, site_id: str, max_age_hours: float | None = None, limit: int = 1000
    ) -> list[Page]:
        """The pages to crawl next: never crawled first, then oldest first; no tombstones.

        Args:
            site_id: The site.
            max_age_hours: Leave out what was crawled within that many hours; None leaves out nothing.
            limit: How many at most. Memory is bounded by it, not by the size of the site.

        Raises:
            InvalidArgumentError: `max_age_hours` is negative, or `limit` below 1.
        """

    # Versions

    @abstractmethod
    async def save_version(self, version: PageVersion) -> None:
        """Saves a version with its body."""

    @abstractmethod
    async def save_versions_bulk(self, versions: Iterable[PageVersion]) -> int:
        """Saves versions in batches of 25; see `save_pages_bulk`.

        Raises:
            PartialBatchError: Some were not saved; it carries them and their errors. All others were.
        """

    @abstractmethod
    async def get_version(
        self, page_id: str, version_id: str, *, site_id: str | None = None
    ) -> PageVersion | None:
        """One version with its body; strongly consistent.

        Raises:
            AmbiguousIdError: Without `site_id`, several sites have this version of this page.
        """

    @abstractmethod
    async def get_current_version(self, site_id: str, page_id: str) -> PageVersion | None:
        """The version that the page names as its current one; two strongly consistent reads."""

    @abstractmethod
    async def list_versions(
        self,
        page_id: str,
        limit: int = 100,
        cursor: str | None = None,
        include_content: bool = True,
        *,
        site_id: str | None = None,
    ) -> Slice[PageVersion]:
        """A slice of a page's versions, newest `crawled_at` first; strongly consistent.

        Args:
            page_id: The page. Sites that crawl the same URL share it.
            limit: How many at most.
            cursor: From the slice before.
            include_content: Without, `markdown` is "", `html` and `plain_text` are None.
            site_id: Only this site's versions.

        Raises:
            InvalidArgumentError: `limit` is below 1.
            InvalidCursorError: `cursor` is damaged or of another listing.
        """

    # Frontier records

    @abstractmethod
    async def save_frontier_item(self, item: FrontierItem) -> None:
        """Saves a frontier item. Run ids are taken to be unique over all sites."""

    @abstractmethod
    async def get_frontier_items(
        self,
        run_id: str,
        status: FrontierStatus | str | None = None,
        limit: int = 1000,
        cursor: str | None = None,
    ) -> Slice[FrontierItem]:
        """A slice of a run's items, by item_id; strongly consistent. The limit counts matches.

        Raises:
            InvalidArgumentError: `limit` is below 1, or `status` is none of FrontierStatus.
            InvalidCursorError: `cursor` is damaged or of another listing.
        """

    @abstractmethod
    async def update_frontier_status(
        self, run_id: str, item_id: str, status: FrontierStatus | str, error: str | None = None
    ) -> FrontierItem:
        """Sets an item's status, and `started_at` or `completed_at` with it; repeating it is safe.

        Returns:
            The item as it is then.

        Raises:
            NotFoundError: The item does not exist.
            InvalidArgumentError: `status` is none of FrontierStatus.
        """

    @abstractmethod
    async def clear_frontier(self, run_id: str) -> int:
        """Deletes all items of a run; returns how many.

        Raises:
            PartialBatchError: Some could not be deleted; repeat the call.
        """


class DynamoDBBackend(StorageBackend):
    """The backend on Amazon DynamoDB. It does no I/O before `initialize()`, and belongs to one event loop.

    Args:
        config: Its settings.
        client_factory: Makes the AWS client; to be replaced in tests.
    """

    def __init__(self, config: DynamoDBConfig, *, client_factory: ClientFactory = open_client) -> None:
        self._config = config
        self._gateway = Gateway(config, client_factory)
        self._tables = tables = Tables.of(config.table_prefix)
        self._sites = SiteStore(self._gateway, tables.sites)
        self._runs = RunStore(self._gateway, tables.runs)
        self._pages = PageStore(self._gateway, tables.pages)
        self._versions = VersionStore(self._gateway, tables.versions)
        self._frontier = FrontierStore(self._gateway, tables.frontier)

    @property
    def config(self) -> DynamoDBConfig:
        """The settings."""
        return self._config

    def metrics(self) -> dict[tuple[str, str], OperationMetrics]:
        """Requests, retries and capacity units since the backend was made, by (operation, table)."""
        return self._gateway.metrics.snapshot()

    async def initialize(self, *, create_missing_indexes: bool = False) -> None:
        """See StorageBackend."""
        await self._gateway.open()
        try:
            await ensure_tables(self._gateway, self._tables, create_missing_indexes=create_missing_indexes)
        except BaseException:
            await self._gateway.close()
            raise

    async def health_check(self) -> bool:
        """See StorageBackend."""
        try:
            async with asyncio.timeout(self._config.health_timeout):
                healthy = await all_active(self._gateway, self._tables)
        except ServiceError as error:
            logger.warning("unhealthy: %s", error)
            return False
        except TimeoutError:
            logger.warning("unhealthy: no answer within health_timeout = %s s", self._config.health_timeout)
            return False
        if not healthy:
            logger.warning(
                "unhealthy: a table of prefix %r is missing or inactive", self._config.table_prefix
            )
        return healthy

    async def close(self) -> None:
        """See StorageBackend."""
        await self._gateway.close()

    async def save_site(self, site: Site) -> None:
        """See StorageBackend."""
        await self._sites.save(site)

    async def get_site(self, site_id: str) -> Site | None:
        """See StorageBackend."""
        return await self._sites.get(site_id)

    async def list_sites(self, limit: int = 1000, cursor: str | None = None) -> Slice[Site]:
        """See StorageBackend."""
        return await self._sites.listing(limit, cursor)

    def iter_sites(self) -> AsyncIterator[Site]:
        """See StorageBackend."""
        return iterate(lambda cursor: self._sites.listing(1000, cursor))

    async def delete_site(self, site_id: str) -> bool:
        """See StorageBackend."""
        existed = await self._sites.get(site_id) is not None
        removed = 0
        async with aclosing(self._runs.keys(site_id)) as pages:
            async for keys in pages:
                for key in keys:
                    # A run goes after its frontier: while it is there, a repeated call finds the frontier.
                    removed += await self._frontier.clear(unescape(key["run_id"]["S"]), site_id)
                removed += await self._runs.delete(keys)
        removed += await self._pages.delete_of_site(site_id)
        removed += await self._versions.delete_of_site(site_id)
        await self._sites.delete(site_id)
        return existed or removed > 0

    async def save_run(self, run: CrawlRun) -> None:
        """See StorageBackend."""
        await self._runs.save(run)

    async def get_run(self, run_id: str, site_id: str | None = None) -> CrawlRun | None:
        """See StorageBackend."""
        return await self._runs.get(run_id, site_id)

    async def list_runs(self, site_id: str, limit: int = 100, cursor: str | None = None) -> Slice[CrawlRun]:
        """See StorageBackend."""
        return await self._runs.listing(site_id, limit, cursor)

    def iter_runs(self, site_id: str) -> AsyncIterator[CrawlRun]:
        """See StorageBackend."""
        return iterate(lambda cursor: self._runs.listing(site_id, 100, cursor))

    async def get_latest_run(self, site_id: str) -> CrawlRun | None:
        """See StorageBackend."""
        return next(iter(await self._runs.listing(site_id, 1, None)), None)

    async def add_run_stats(self, site_id: str, run_id: str, **deltas: Any) -> CrawlRun:
        """See StorageBackend."""
        return await self._runs.add_stats(site_id, run_id, deltas)

    async def save_page(self, page: Page) -> None:
        """See StorageBackend."""
        await self._pages.save(page)

    async def save_pages_bulk(self, pages: Iterable[Page]) -> int:
        """See StorageBackend."""
        return await self._pages.save_bulk(pages)

    async def get_page(self, site_id: str, page_id: str) -> Page | None:
        """See StorageBackend."""
        return await self._pages.get(site_id, page_id)

    async def get_page_by_url(self, site_id: str, url: str) -> Page | None:
        """See StorageBackend."""
        return await self._pages.get_by_url(site_id, url)

    async def list_pages(
        self,
        site_id: str,
        limit: int = 1000,
        cursor: str | None = None,
        include_tombstones: bool = False,
    ) -> Slice[Page]:
        """See StorageBackend."""
        return await self._pages.listing(site_id, limit, cursor, include_tombstones)

    def iter_pages(self, site_id: str, include_tombstones: bool = False) -> AsyncIterator[Page]:
        """See StorageBackend."""
        return self._pages.iterate(site_id, include_tombstones)

    async def count_pages(self, site_id: str, include_tombstones: bool = False) -> int:
        """See StorageBackend."""
        return await self._pages.count(site_id, include_tombstones)

    async def get_pages_needing_recrawl(
        self, site_id: str, max_age_hours: float | None = None, limit: int = 1000
    ) -> list[Page]:
        """See StorageBackend."""
        return await self._pages.needing_recrawl(site_id, max_age_hours, limit)

    async def save_version(self, version: PageVersion) -> None:
        """See StorageBackend."""
        await self._versions.save(version)

    async def save_versions_bulk(self, versions: Iterable[PageVersion]) -> int:
        """See StorageBackend."""
        return await self._versions.save_bulk(versions)

    async def get_version(
        self, page_id: str, version_id: str, *, site_id: str | None = None
    ) -> PageVersion | None:
        """See StorageBackend."""
        return await self._versions.get(page_id, version_id, site_id)

    async def get_current_version(self, site_id: str, page_id: str) -> PageVersion | None:
        """See StorageBackend."""
        page = await self._pages.get(site_id, page_id)
        if page is None or page.current_version_id is None:
            return None
        return await self._versions.get(page_id, page.current_version_id, site_id)

    async def list_versions(
        self,
        page_id: str,
        limit: int = 100,
        cursor: str | None = None,
        include_content: bool = True,
        *,
        site_id: str | None = None,
    ) -> Slice[PageVersion]:
        """See StorageBackend."""
        return await self._versions.listing(page_id, limit, cursor, include_content, site_id)

    async def save_frontier_item(self, item: FrontierItem) -> None:
        """See StorageBackend."""
        await self._frontier.save(item)

    async def get_frontier_items(
        self,
        run_id: str,
        status: FrontierStatus | str | None = None,
        limit: int = 1000,
        cursor: str | None = None,
    ) -> Slice[FrontierItem]:
        """See StorageBackend."""
        return await self._frontier.get_items(run_id, status, limit, cursor)

    async def update_frontier_status(
        self, run_id: str, item_id: str, status: FrontierStatus | str, error: str | None = None
    ) -> FrontierItem:
        """See StorageBackend."""
        return await self._frontier.update_status(run_id, item_id, status, error)

    async def clear_frontier(self, run_id: str) -> int:
        """See StorageBackend."""
        return await self._frontier.clear(run_id)


def create_storage_backend(config: StorageConfig | None = None) -> StorageBackend:
    """The backend that a configuration describes, not yet open; the defaults where none is given."""
    return DynamoDBBackend((config or StorageConfig()).backend)
