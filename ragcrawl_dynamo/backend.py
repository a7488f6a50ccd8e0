"""The storage backend: what it promises, and its implementation on DynamoDB."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing, suppress
from types import NoneType
from typing import Any, Self, TypeAlias

from ragcrawl_dynamo._changes.change import ChangeSlice, PageChange
from ragcrawl_dynamo._changes.feed import ChangeStore
from ragcrawl_dynamo._changes.log import Lanes
from ragcrawl_dynamo._commit.commit import Committer, Fetched
from ragcrawl_dynamo._commit.decision import CommitResult
from ragcrawl_dynamo._commit.live_stats import LiveStats
from ragcrawl_dynamo._content.garbage import ContentUsage, GarbageReport, Maintenance, PruneReport
from ragcrawl_dynamo._content.versions import VersionStore
from ragcrawl_dynamo._dynamodb.client import ClientFactory, open_client, open_object_client
from ragcrawl_dynamo._dynamodb.conditional_writes import conditional_writes
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.metrics import Metrics, Observer, OperationMetrics
from ragcrawl_dynamo._dynamodb.pagination import Slice, iterate
from ragcrawl_dynamo._frontier.claim import Claim, LeaseObserver, guarded
from ragcrawl_dynamo._frontier.frontier import Frontier
from ragcrawl_dynamo._records.frontier_items import FrontierStore
from ragcrawl_dynamo._records.pages import PageStore
from ragcrawl_dynamo._records.runs import RunStore
from ragcrawl_dynamo._records.sites import SiteStore
from ragcrawl_dynamo._schema.keys import Key, page_key, unescape
from ragcrawl_dynamo._schema.migrations import SchemaStore
from ragcrawl_dynamo._schema.provisioning import (
    TableInfo,
    all_active,
    describe_tables,
    ensure_tables,
    require_tables,
)
from ragcrawl_dynamo._schema.records import MigrationProgress
from ragcrawl_dynamo._schema.tables import Tables
from ragcrawl_dynamo._utils.clock import Clock, SystemClock
from ragcrawl_dynamo._utils.tasks import Tasks
from ragcrawl_dynamo._utils.validation import check_final_status, check_kind, check_several
from ragcrawl_dynamo.config import DynamoDBConfig, StorageConfig
from ragcrawl_dynamo.errors import InvalidArgumentError, InvalidKeyError, NotFoundError, ServiceError
from ragcrawl_dynamo.models import (
    CrawlRun,
    FrontierItem,
    FrontierStatus,
    Page,
    PageVersion,
    RunStatus,
    Site,
)

__all__ = ["DynamoDBBackend", "StorageBackend", "create_storage_backend"]

logger = logging.getLogger(__name__)

# page_id, version_id, site_id.
VersionId: TypeAlias = tuple[str, str, str]


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
    async def initialize(self, *, create_missing_indexes: bool = False, create_tables: bool = True) -> None:
        """Opens the backend and makes the tables that are missing; safe from many processes at once.

        Args:
            create_tables: Without, tables that are missing are an error, and nothing is changed.
            create_missing_indexes: Add global indexes that an existing table lacks. Building one reads the
                whole table, so it is done on request only.

        Raises:
            SchemaMismatchError: A table exists whose keys or indexes differ; it names the difference.
            SchemaVersionError: The tables are of another version of this package; see `migrate`.
            TableNotFoundError: Tables are missing, and none were to be made.
            BucketNotFoundError: The configured content bucket does not exist.
            DeadlineExceededError: A table was not active within `table_timeout`.
        """

    @abstractmethod
    async def health_check(self) -> bool:
        """Whether all tables, and the content bucket, serve requests; answers within `health_timeout`.

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

    @abstractmethod
    async def complete_run(
        self, site_id: str, run_id: str, status: RunStatus | str = RunStatus.COMPLETED
    ) -> CrawlRun:
        """Closes a run: its stats are counted anew from the outcomes recorded with its frontier items.

        So they are exact whatever workers died, and nothing is counted twice. It reads the run's items (a
        read unit for 4 KB) and counts the site's pages and runs. Repeating it is safe.

        Args:
            site_id: The run's site.
            run_id: The run.
            status: How it ended; COMPLETED becomes PARTIAL where items failed or are still open.

        Returns:
            The run as it is then.

        Raises:
            NotFoundError: The run does not exist.
            InvalidArgumentError: `status` is none of RunStatus, or none that ends a run.
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
    async def get_pages_bulk(self, site_id: str, page_ids: Iterable[str]) -> list[Page]:
        """Those of several pages that exist, in the order of their ids; strongly consistent.

        Args:
            site_id: Their site.
            page_ids: Any number; one that is given twice counts once.

        Raises:
            InvalidKeyError: An id is empty or too long; nothing was read.
            InvalidArgumentError: They are not several texts.
        """

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
        """How many pages a site has. Reads them all (a read unit for 4 KB), but returns none."""

    @abstractmethod
    async def get_pages_needing_recrawl(
        self, site_id: str, max_age_hours: float | None = None, limit: int = 1000
    ) -> list[Page]:
        """The pages to crawl next: never crawled first, then oldest first; no tombstones.

        It goes through the whole site, a few parts at once, eventually consistent (0.5 read units for 4 KB):
        what was saved within the last second can be missing. What it returns is read again.

        Args:
            site_id: The site.
            max_age_hours: Leave out what was crawled within that many hours; None leaves out nothing.
            limit: How many at most. Memory is bounded by it, not by the size of the site.

        Raises:
            InvalidArgumentError: `max_age_hours` is negative, or `limit` below 1.
        """

    @abstractmethod
    async def mark_seen(self, site_id: str, urls: Iterable[str]) -> int:
        """Notes that pages are still there without a fetch: something links to them, or a sitemap lists them.

        They are found by URL through an index that lags a little. Of a page that is marked by several workers
        the latest moment stays.

        Returns:
            How many pages the URLs have; those that have none are passed over.
        """

    @abstractmethod
    async def get_unseen_pages(self, site_id: str, run_id: str, limit: int = 1000) -> list[Page]:
        """The pages that a completed run neither fetched nor marked as seen, longest unseen first.

        They are what `tombstone_pages` is for, whose guard keeps a run that saw too little from burying a
        site.

        Args:
            site_id: The site.
            run_id: The run; what was last seen before it started counts as unseen.
            limit: How many at most. Memory is bounded by it, not by the size of the site.

        Raises:
            NotFoundError: The run does not exist.
            InvalidArgumentError: The run is not completed, or `limit` is below 1.
        """

    @abstractmethod
    async def tombstone_pages(
        self, site_id: str, page_ids: Iterable[str], *, allow_mass_deletion: bool = False
    ) -> int:
        """Marks pages as gone: listings and recrawls pass over them, their versions stay.

        Args:
            site_id: The site.
            page_ids: The pages; absent ones are passed over.
            allow_mass_deletion: Mark even more than `max_deleted_share` of the site's pages.

        Returns:
            How many of the pages exist.

        Raises:
            MassDeletionError: It would mark more than that share; nothing was marked.
        """

    # Versions

    @abstractmethod
    async def save_version(self, version: PageVersion, *, keep_unchanged: bool = False) -> str:
        """Saves a version with its body, unless the page's current version has the same `content_hash`.

        The body (`markdown`, `html`, `plain_text`, `outlinks`, `headings_outline`) may have any size up to
        `max_content_bytes`. It is durable before the version becomes visible. A body that equals one of the
        page's other versions is not stored again. The body of a version that is replaced is left to
        `collect_garbage`.

        Args:
            version: The version.
            keep_unchanged: Save it even if the content did not change.

        Returns:
            The id of the version that holds this content: its own, or the current one's where unchanged.
        """

    @abstractmethod
    async def save_versions_bulk(
        self, versions: Iterable[PageVersion], *, keep_unchanged: bool = False
    ) -> int:
        """Saves versions as `save_version` does, their heads in batches of 25.

        Returns:
            How many distinct versions were written.

        Raises:
            PartialBatchError: Some were not saved; it carries them and their errors. All others were.
        """

    @abstractmethod
    async def get_version(
        self, page_id: str, version_id: str, *, site_id: str | None = None
    ) -> PageVersion | None:
        """One version with its body; strongly consistent.

        With `site_id` one request, where the body takes no more than one item; otherwise one more.

        Raises:
            AmbiguousIdError: Without `site_id`, several sites have this version of this page.
            CorruptContentError: The body is not, or not all, what was saved.
        """

    @abstractmethod
    async def get_current_version(self, site_id: str, page_id: str) -> PageVersion | None:
        """The version that the page names as its current one; two strongly consistent reads.

        Raises:
            CorruptContentError: The body is not, or not all, what was saved.
        """

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
            include_content: Without, no body is read: `markdown` is "", `html` and `plain_text` are None,
                `outlinks` and `headings_outline` are empty.
            site_id: Only this site's versions.

        Raises:
            InvalidArgumentError: `limit` is below 1.
            InvalidCursorError: `cursor` is damaged or of another listing.
            CorruptContentError: A body is not, or not all, what was saved.
        """

    @abstractmethod
    def iter_versions(self, site_id: str) -> AsyncIterator[PageVersion]:
        """The current version of every page of a site but tombstones, by page_id, with its body.

        In bounded memory: some forty versions are read ahead, of each body the first part at most.

        Raises:
            CorruptContentError: A body is not, or not all, what was saved.
        """

    @abstractmethod
    async def get_content_usage(self, site_id: str) -> ContentUsage:
        """How many versions a site has and what they take; reads the head of each (one read unit)."""

    @abstractmethod
    async def prune_versions(
        self,
        site_id: str,
        *,
        keep_last: int | None = None,
        max_age_days: float | None = None,
        dry_run: bool = False,
        allow_mass_deletion: bool = False,
    ) -> PruneReport:
        """Removes old versions with their bodies; never a page's current version.

        Args:
            site_id: The site.
            keep_last: Keep that many of each page, the newest.
            max_age_days: Keep what was crawled within that many days. A version stays if either keeps it.
            dry_run: Only count.
            allow_mass_deletion: Delete even more than `max_deleted_share` of the site's versions.

        Raises:
            InvalidArgumentError: Neither limit is given, or one is negative.
            MassDeletionError: It would delete more than that share; nothing was deleted.
        """

    @abstractmethod
    async def collect_garbage(
        self,
        site_id: str,
        *,
        grace_hours: float = 24.0,
        dry_run: bool = False,
        allow_mass_deletion: bool = False,
    ) -> GarbageReport:
        """Removes bodies that no version uses: what killed workers and replaced versions left.

        Args:
            site_id: The site.
            grace_hours: Leave what was written within that many hours. From 1 on it is safe beside workers
                that save versions; below, only when none does.
            dry_run: Only count.
            allow_mass_deletion: Delete even more than `max_deleted_share` of the site's bodies, if that is
                more than 100.

        Raises:
            InvalidArgumentError: `grace_hours` is negative.
            MassDeletionError: It would delete more than that share; nothing was deleted.
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
        """Deletes all items of a run, and what its queue knows of hosts and counts; returns how many items.

        Stop the run's workers first: another process would take links that it has seen for known.

        Raises:
            PartialBatchError: Some could not be deleted; repeat the call.
        """

    # Commit

    @abstractmethod
    async def commit_page(
        self,
        page: Page,
        version: PageVersion | None = None,
        *,
        claim: Claim | None = None,
        discovered: Iterable[str | FrontierItem] = (),
    ) -> CommitResult:
        """Stores what a fetch of a page brought, in one atomic step with the end of its claim.

        First the body is written, where nothing shows it yet; then the discovered links are added to the
        run's frontier; then the version, the page and the frontier item change together, or not at all. So a
        worker that is killed leaves an item that will be claimed again, and one whose lease was lost changes
        nothing.

        The page is created, changed (its `content_hash` differs), unchanged (only what tells of freshness is
        written, and no body), tombstoned (404, 410, or `is_tombstone`) or revived. `first_seen`,
        `version_count`, `last_changed`, `content_hash` and `current_version_id` are kept by the store, and
        `last_seen` and `last_crawled` are now.

        Args:
            page: What the fetch says of the page.
            version: Its content; None where the server sent none, as with 304, 404 and 410.
            claim: The claim of its frontier item, which this completes.
            discovered: Links found on the page, for the frontier of the claim's run, or of the version's.

        A run's stats follow a second later, as far as its process lives; `complete_run` makes them exact.

        Returns:
            What became of the page. Repeating a commit under the same claim, after its answer was lost,
            returns the same and changes nothing.

        Raises:
            LeaseLostError: The claim's lease was lost; nothing visible was changed.
            ConflictError: Others changed the page each time that it was read; nothing visible was changed.
            InvalidArgumentError: Page, version and claim do not belong together, or a page without content is
                said to be unchanged.
            PartialBatchError: Some discovered links may not have been added; nothing else was changed.
        """

    # Changes

    @abstractmethod
    async def list_changes(self, site_id: str, limit: int = 100, cursor: str | None = None) -> ChangeSlice:
        """What commits and `tombstone_pages` created, changed and deleted since a cursor.

        Of a page that changed several times only the latest change comes, with the page as it is now. What
        comes of one page is in the order of its commits; of different ones, about so. Nothing is passed over,
        however long a commit takes: a reader waits for it, ten seconds at most, and then makes it log its
        change further on. A change can come twice; `page.current_version_id` tells. `save_page` logs nothing.

        A slice takes a read unit for 4 KB of changes, of which each process that commits has a list of its
        own, and one for each page.

        Args:
            site_id: The site.
            limit: How many at most.
            cursor: From the slice before, or from an earlier day; without, all pages that have content come
                first, as created.

        Returns:
            The changes and a cursor for what follows; `is_end` where nothing does for now.

        Raises:
            InvalidArgumentError: `limit` is below 1.
            InvalidCursorError: `cursor` is damaged or of another site.
            ChangesExpiredError: `cursor` is older than `change_retention_days`, or than the site.
        """

    @abstractmethod
    def iter_changes(self, site_id: str, consumer: str, limit: int = 100) -> AsyncIterator[PageChange]:
        """The changes that a consumer has not handled yet, up to the present.

        Its cursor is kept with the site: it moves on after each slice, once the last change of the slice has
        been handled, that is, when the next one is asked for. A consumer that is killed gets those of the
        slice again.

        Args:
            site_id: The site.
            consumer: Its name.
            limit: Changes of a slice.

        Raises:
            InvalidArgumentError: `limit` is below 1.
            InvalidKeyError: The name is empty or too long.
            ChangesExpiredError: It has not read for `change_retention_days`, or the site was deleted since.
                `list_changes` without a cursor begins anew.
        """

    @abstractmethod
    async def get_change_cursor(self, site_id: str, consumer: str | None = None) -> str | None:
        """A consumer's cursor, None if it has none; without a name, one that is beyond all changes so far."""

    @abstractmethod
    async def save_change_cursor(self, site_id: str, consumer: str, cursor: str) -> None:
        """Keeps a consumer's cursor; to be done once the changes before it have been handled.

        Raises:
            InvalidCursorError: `cursor` is damaged or of another site.
            InvalidKeyError: The name is empty or too long.
        """

    # Frontier queue

    @abstractmethod
    def frontier(
        self,
        run_id: str,
        site_id: str,
        *,
        host_delay: float = 0.0,
        host_max_in_flight: int | None = None,
    ) -> Frontier:
        """The queue of a run; the same object each time, so that tasks share it.

        What `save_frontier_item` and `update_frontier_status` write goes past the queue: a pending item that
        was saved so is queued once nothing else is left.

        Args:
            run_id: The run. Run ids are taken to be unique over all sites.
            site_id: Its site.
            host_delay: Seconds between two leases of one host's items, for every host that has no delay of
                its own. Kept with the run by whoever uses its queue first.
            host_max_in_flight: Leases of one host at a time, likewise.

        Raises:
            InvalidKeyError: An id is empty or too long.
            InvalidArgumentError: A limit is negative or too large, or not that of an earlier call.
        """


class DynamoDBBackend(StorageBackend):
    """The backend on Amazon DynamoDB. It does no I/O before `initialize()`, and belongs to one event loop.

    Args:
        config: Its settings.
        client_factory: Makes the AWS client; to be replaced in tests.
        clock: By which leases are judged; to be replaced in tests.
        on_request: Called with each request that was answered or failed, retries included: in the event
            loop, so it must be quick. What it raises is logged.
        on_lease_lost: Called with each claim whose lease proved to be lost when it was renewed, finished or
            committed, once; likewise.
    """

    def __init__(
        self,
        config: DynamoDBConfig,
        *,
        client_factory: ClientFactory = open_client,
        clock: Clock | None = None,
        on_request: Observer | None = None,
        on_lease_lost: LeaseObserver | None = None,
    ) -> None:
        self._config = config
        self._metrics = Metrics(on_request)
        self._on_lease_lost = guarded(on_lease_lost)
        self._gateway = Gateway(config, client_factory, metrics=self._metrics)
        self._tables = tables = Tables.of(config.table_prefix)
        self._sites = SiteStore(self._gateway, tables.sites)
        self._runs = RunStore(self._gateway, tables.runs)
        self._clock = clock or SystemClock()
        self._lanes = Lanes(self._gateway, tables.pages, self._clock)
        self._pages = PageStore(self._gateway, tables.pages, self._lanes)
        self._changes = ChangeStore(self._gateway, tables.pages, self._pages, self._lanes)
        self._objects = _content_bucket(config, self._metrics)
        self._versions = VersionStore(self._gateway, tables.versions, self._objects)
        self._frontier = FrontierStore(self._gateway, tables.frontier)
        self._schema = SchemaStore(self._gateway, tables)
        self._live = LiveStats(self._runs, self._clock)
        self._tasks = Tasks()
        self._committer = Committer(
            self._gateway,
            tables,
            self._pages,
            self._versions,
            self._lanes,
            self._live,
            self._clock,
            self._on_lease_lost,
        )
        self._queue_writes = conditional_writes(self._gateway, tables.frontier)
        self._queues: dict[tuple[str, str], Frontier] = {}
        self._maintenance = Maintenance(self._gateway, tables.versions, self._versions, self._pages)

    @property
    def config(self) -> DynamoDBConfig:
        """The settings."""
        return self._config

    def metrics(self) -> dict[tuple[str, str], OperationMetrics]:
        """Requests, retries and units since the backend was made, by (operation, table or bucket)."""
        return self._metrics.snapshot()

    async def initialize(self, *, create_missing_indexes: bool = False, create_tables: bool = True) -> None:
        """See StorageBackend."""
        await self._gateway.open()
        try:
            if self._objects is not None:
                await self._objects.open()
                await self._check_bucket()
            new: set[str] = set()
            if create_tables:
                new = await ensure_tables(
                    self._gateway, self._tables, create_missing_indexes=create_missing_indexes
                )
            else:
                await require_tables(self._gateway, self._tables)
            await self._schema.ensure(is_new=self._tables.runs.name in new, write=create_tables)
        except BaseException:
            await self.close()
            raise

    @property
    def schema_version(self) -> int:
        """That of this package; `describe_tables` says that of the tables."""
        return self._schema.version

    async def describe_tables(self) -> tuple[list[TableInfo], int | None]:
        """What DynamoDB says of the five tables, and the version of their schema, if one is recorded.

        Needs no initialize(), and changes nothing.

        Raises:
            ServiceError: A request failed.
        """
        was_open = self._gateway.is_open
        await self._gateway.open()
        try:
            found = await describe_tables(self._gateway, self._tables)
            has_runs = any(each.name == self._tables.runs.name and each.billing for each in found)
            record = await self._schema.read() if has_runs else None
            return found, None if record is None else record.version
        finally:
            if not was_open:
                await self.close()

    async def migrate(self, on_progress: Callable[[MigrationProgress], None] | None = None) -> int:
        """Brings tables of an older schema version up to this one; afterwards initialize() takes them.

        Online: others may read and write meanwhile. Resumable: after an error, or an end of the process, the
        next call goes on from there. It ends when one look through the tables finds nothing old, so that
        processes of the older version have to be stopped at last. Tables of this version are not looked at.

        Args:
            on_progress: Told of each page of a table that was looked through.

        Returns:
            How many items were rewritten.

        Raises:
            SchemaVersionError: The tables are of a newer version than this package.
            SchemaMismatchError: A table has other keys than this version needs.
            ServiceError: A request failed.
        """
        await self._gateway.open()
        try:
            await ensure_tables(self._gateway, self._tables, create_missing_indexes=True)
            return await self._schema.migrate(on_progress or (lambda _: None))
        finally:
            await self.close()

    async def health_check(self) -> bool:
        """See StorageBackend."""
        try:
            async with asyncio.timeout(self._config.health_timeout):
                healthy = await all_active(self._gateway, self._tables)
                await self._check_bucket()
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
        try:
            await self._pages.close()
            await self._versions.close()
            await self._frontier.close()
            await self._tasks.join()
            try:
                async with asyncio.timeout(self._config.health_timeout):
                    await self._live.flush()
                    await self._lanes.close()
            except TimeoutError:
                logger.warning("the last stats of runs are not recorded: no answer within health_timeout")
            queues, self._queues = self._queues, {}
            for queue in queues.values():
                await queue.close()
        finally:
            await self._close_clients()

    async def _close_clients(self) -> None:
        try:
            await self._gateway.close()
        finally:
            if self._objects is not None:
                await self._objects.close()

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
        removed += await self._changes.delete_of_site(site_id)
        removed += await self._maintenance.delete_versions(site_id)
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

    async def complete_run(
        self, site_id: str, run_id: str, status: RunStatus | str = RunStatus.COMPLETED
    ) -> CrawlRun:
        """See StorageBackend."""
        ends = check_final_status(status)
        queue = self.frontier(run_id, site_id)
        fold = await queue.fold()
        stats = fold.stats()
        if ends is RunStatus.COMPLETED and (fold.open or stats.pages_failed):
            ends = RunStatus.PARTIAL
        now = self._clock.now()
        run = await self._runs.complete(
            site_id,
            run_id,
            ends,
            stats,
            completed_at=now,
            frontier_size=stats.pages_discovered,
            max_depth_reached=fold.max_depth,
        )
        total_pages, total_runs = await asyncio.gather(
            self._pages.count(site_id, False), self._runs.count(site_id)
        )
        await self._sites.record_crawl(
            site_id, total_pages=total_pages, total_runs=total_runs, moment=now, is_sync=run.is_sync
        )
        # A service that lives long sees many runs.
        self._queues.pop((run_id, site_id), None)
        await queue.close()
        return run

    async def save_page(self, page: Page) -> None:
        """See StorageBackend."""
        await self._pages.save(page)

    async def save_pages_bulk(self, pages: Iterable[Page]) -> int:
        """See StorageBackend."""
        return await self._pages.save_bulk(check_several("pages", pages, object))

    async def get_page(self, site_id: str, page_id: str) -> Page | None:
        """See StorageBackend."""
        return await self._pages.get(site_id, page_id)

    async def get_pages_bulk(self, site_id: str, page_ids: Iterable[str]) -> list[Page]:
        """See StorageBackend."""
        ids = dict.fromkeys(check_several("page_ids", page_ids, str))
        return await self._pages.get_many([page_key(site_id, each) for each in ids])

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

    async def mark_seen(self, site_id: str, urls: Iterable[str]) -> int:
        """See StorageBackend."""
        wanted = check_several("urls", urls, str)
        return await self._pages.mark_seen(site_id, wanted, self._clock.now())

    async def get_unseen_pages(self, site_id: str, run_id: str, limit: int = 1000) -> list[Page]:
        """See StorageBackend."""
        run = await self._runs.get(run_id, site_id)
        if run is None:
            raise NotFoundError(f"run {run_id!r} of site {site_id!r} does not exist")
        if run.status is not RunStatus.COMPLETED:
            raise InvalidArgumentError(
                "run_id", f"is of a run that is {run.status}: only a completed one saw all"
            )
        return await self._pages.not_seen_since(site_id, run.started_at or run.created_at, limit)

    async def tombstone_pages(
        self, site_id: str, page_ids: Iterable[str], *, allow_mass_deletion: bool = False
    ) -> int:
        """See StorageBackend."""
        return await self._maintenance.tombstone(
            site_id, check_several("page_ids", page_ids, str), allow_mass_deletion=allow_mass_deletion
        )

    async def save_version(self, version: PageVersion, *, keep_unchanged: bool = False) -> str:
        """See StorageBackend."""
        check_kind("version", version, PageVersion)
        if not keep_unchanged:
            for current in (await self._unchanged([version])).values():
                return current
        await self._versions.save(version)
        return version.version_id

    async def save_versions_bulk(
        self, versions: Iterable[PageVersion], *, keep_unchanged: bool = False
    ) -> int:
        """See StorageBackend."""
        last = {_identity(each): each for each in check_several("versions", versions, PageVersion)}
        unchanged = {} if keep_unchanged else await self._unchanged(list(last.values()))
        return await self._versions.save_bulk(
            [each for identity, each in last.items() if identity not in unchanged]
        )

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

    async def iter_versions(self, site_id: str) -> AsyncIterator[PageVersion]:
        """See StorageBackend."""
        async with (
            aclosing(self._pages.current_versions(site_id)) as keys,
            aclosing(self._versions.iterate(keys)) as versions,
        ):
            async for version in versions:
                yield version

    async def find_version(self, site_id: str, version_id: str) -> PageVersion | None:
        """A version with its body, by its id alone; eventually consistent.

        Reads the index of the site's versions until it is found, half a read unit for 8 KB or some 36 of
        them: for those who have lost the page's id. `get_version` reads by the full key.

        Raises:
            CorruptContentError: The body is not, or not all, what was saved.
        """
        check_kind("site_id", site_id, str)
        check_kind("version_id", version_id, str)
        return await self._versions.find(site_id, version_id)

    async def get_content_usage(self, site_id: str) -> ContentUsage:
        """See StorageBackend."""
        return await self._maintenance.usage(site_id)

    async def prune_versions(
        self,
        site_id: str,
        *,
        keep_last: int | None = None,
        max_age_days: float | None = None,
        dry_run: bool = False,
        allow_mass_deletion: bool = False,
    ) -> PruneReport:
        """See StorageBackend."""
        return await self._maintenance.prune(
            site_id,
            keep_last=keep_last,
            max_age_days=max_age_days,
            dry_run=dry_run,
            allow_mass_deletion=allow_mass_deletion,
        )

    async def collect_garbage(
        self,
        site_id: str,
        *,
        grace_hours: float = 24.0,
        dry_run: bool = False,
        allow_mass_deletion: bool = False,
    ) -> GarbageReport:
        """See StorageBackend."""
        check_kind("grace_hours", grace_hours, int, float)
        return await self._maintenance.collect_garbage(
            site_id, grace_hours=grace_hours, dry_run=dry_run, allow_mass_deletion=allow_mass_deletion
        )

    async def save_frontier_item(self, item: FrontierItem) -> None:
        """See StorageBackend."""
        check_kind("item", item, FrontierItem)
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
        removed = await self._frontier.clear(run_id)
        for (of_run, _), queue in self._queues.items():
            if of_run == run_id:
                queue.forget()
        return removed

    def frontier(
        self,
        run_id: str,
        site_id: str,
        *,
        host_delay: float = 0.0,
        host_max_in_flight: int | None = None,
    ) -> Frontier:
        """See StorageBackend."""
        check_kind("run_id", run_id, str)
        check_kind("site_id", site_id, str)
        if (queue := self._queues.get((run_id, site_id))) is None:
            queue = self._queues[run_id, site_id] = Frontier(
                self._gateway,
                self._tables,
                self._queue_writes,
                run_id,
                site_id,
                host_delay=host_delay,
                host_max_in_flight=host_max_in_flight,
                clock=self._clock,
                on_lease_lost=self._on_lease_lost,
            )
        elif (host_delay, host_max_in_flight) not in ((0.0, None), queue.host_limits):
            raise InvalidArgumentError("host_delay", "this process uses the run's frontier with other limits")
        return queue

    async def commit_page(
        self,
        page: Page,
        version: PageVersion | None = None,
        *,
        claim: Claim | None = None,
        discovered: Iterable[str | FrontierItem] = (),
    ) -> CommitResult:
        """See StorageBackend."""
        check_kind("page", page, Page)
        check_kind("version", version, PageVersion, NoneType)
        check_kind("claim", claim, Claim, NoneType)
        links = check_several("discovered", discovered, object)
        run_id = claim.item.run_id if claim is not None else version.run_id if version is not None else None
        frontier = None if run_id is None else self.frontier(run_id, page.site_id)
        result = await self._committer.commit(Fetched(page, version, claim, frontier, links))
        if self._live.is_due:
            await self._tasks.uninterrupted(self._live.flush())
        return result

    async def list_changes(self, site_id: str, limit: int = 100, cursor: str | None = None) -> ChangeSlice:
        """See StorageBackend."""
        return await self._changes.read(site_id, limit, cursor)

    async def iter_changes(self, site_id: str, consumer: str, limit: int = 100) -> AsyncIterator[PageChange]:
        """See StorageBackend."""
        cursor = saved = await self._changes.load(site_id, consumer)
        is_end = False
        while not is_end:
            part = await self._changes.read(site_id, limit, cursor)
            for each in part:
                yield each
            cursor, is_end = part.cursor, part.is_end
            if self._changes.is_worth_saving(site_id, saved, part):
                await self._changes.save(site_id, consumer, cursor)
                saved = cursor

    async def get_change_cursor(self, site_id: str, consumer: str | None = None) -> str | None:
        """See StorageBackend."""
        if consumer is None:
            return await self._changes.present(site_id)
        return await self._changes.load(site_id, consumer)

    async def save_change_cursor(self, site_id: str, consumer: str, cursor: str) -> None:
        """See StorageBackend."""
        await self._changes.save(site_id, consumer, cursor)

    async def _check_bucket(self) -> None:
        if self._objects is not None:
            await self._objects.call("HeadBucket", {"Bucket": self._config.content_bucket})

    async def _unchanged(self, versions: Sequence[PageVersion]) -> dict[VersionId, str]:
        """For each version with the content of its page's current one: the id of that."""
        keys: list[Key] = []
        for ids in {(each.site_id, each.page_id) for each in versions}:
            # An id that can be no key is that of no page; saving the version will say so.
            with suppress(InvalidKeyError):
                keys.append(page_key(*ids))
        pages = {(page.site_id, page.page_id): page for page in await self._pages.get_many(keys)}
        current: dict[VersionId, VersionId] = {}
        for each in versions:
            page = pages.get((each.site_id, each.page_id))
            if page is None or page.current_version_id in (None, each.version_id):
                continue
            if page.content_hash == each.content_hash:
                current[_identity(each)] = (each.page_id, str(page.current_version_id), each.site_id)
        # The page may name a version that was never saved.
        hashes = await self._versions.content_hashes(set(current.values()))
        wanted = {_identity(each): each.content_hash for each in versions}
        return {own: other[1] for own, other in current.items() if hashes.get(other) == wanted[own]}


def _content_bucket(config: DynamoDBConfig, metrics: Metrics) -> Gateway | None:
    if config.content_bucket is None:
        return None
    return Gateway(config, open_object_client, service="S3", metrics=metrics)


def _identity(version: PageVersion) -> VersionId:
    return version.page_id, version.version_id, version.site_id


def create_storage_backend(
    config: StorageConfig | None = None,
    *,
    on_request: Observer | None = None,
    on_lease_lost: LeaseObserver | None = None,
) -> StorageBackend:
    """The backend that a configuration describes, not yet open; the defaults where none is given.

    `on_request` is told of each request, `on_lease_lost` of each claim that was lost; see DynamoDBBackend.
    """
    return DynamoDBBackend(
        (config or StorageConfig()).backend, on_request=on_request, on_lease_lost=on_lease_lost
    )
