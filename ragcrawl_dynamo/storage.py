"""The contract of a storage backend: what a crawler, and whoever reads what it stored, can rely on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable
from typing import Any, Self

from ragcrawl_dynamo._changes.change import ChangeSlice, PageChange
from ragcrawl_dynamo._commit.decision import CommitResult
from ragcrawl_dynamo._content.garbage import GarbageReport
from ragcrawl_dynamo._content.retention import PruneReport
from ragcrawl_dynamo._content.usage import ContentUsage
from ragcrawl_dynamo._dynamodb.pagination import Slice
from ragcrawl_dynamo._frontier.claim import Claim
from ragcrawl_dynamo._frontier.frontier import Frontier
from ragcrawl_dynamo.models import (
    CrawlRun,
    FrontierItem,
    FrontierStatus,
    Page,
    PageVersion,
    RunStatus,
    Site,
)

__all__ = ["StorageBackend"]


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
