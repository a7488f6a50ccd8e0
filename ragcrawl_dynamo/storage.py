"""Defines the contract of a storage backend, for crawlers and for programs that read their results."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Self, Unpack

from ragcrawl_dynamo._changes.change import ChangeSlice, PageChange
from ragcrawl_dynamo._commit.decision import CommitResult
from ragcrawl_dynamo._commit.responses import ResponseKind
from ragcrawl_dynamo._content.garbage import GarbageReport
from ragcrawl_dynamo._content.retention import PruneReport
from ragcrawl_dynamo._content.usage import ContentUsage
from ragcrawl_dynamo._dynamodb.metrics import OperationMetrics
from ragcrawl_dynamo._dynamodb.pagination import Slice
from ragcrawl_dynamo._frontier.claim import Claim
from ragcrawl_dynamo._frontier.frontier import Frontier
from ragcrawl_dynamo._records.runs import StatsDeltas
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
    """Stores the sites, runs, pages, versions and frontier items of a crawler.

    Every `save_*` method replaces a stored record that has the same key. Every `get_*` method returns None
    for a record that does not exist. An id is any non-empty text of at most 1,024 bytes in UTF-8; the
    characters "#" and "~" count as two bytes each.

    Besides the errors that a method names, every method may raise:

    - `BackendStateError`: the backend is not open, or it is open in another event loop or process.
    - `ServiceError`: DynamoDB refused the request or cannot be reached.
    - `InvalidInputError`, if the method takes a record: DynamoDB cannot store the record. The error names the
      field and the limit.
    - `CorruptItemError`, if the method returns records: a program other than this package wrote the item.
    """

    # Lifecycle

    @abstractmethod
    async def initialize(self, *, create_missing_indexes: bool = False, create_tables: bool = True) -> None:
        """Opens the backend and creates missing tables. Many processes may call it at the same time.

        A table that is UPDATING serves requests, so the method does not wait for it. If the event loop in
        which the backend was open is closed, the backend drops its connections there, and opens in this one.

        Args:
            create_missing_indexes: Adds global indexes that an existing table lacks. DynamoDB reads the whole
                table to build an index, so this is off by default.
            create_tables: Creates missing tables. If False, a missing table is an error and nothing is
                changed.

        Raises:
            SchemaMismatchError: An existing table has other keys or indexes than this version needs.
                The error names the differences.
            SchemaVersionError: The tables belong to another version of this package; see `migrate`.
            TableNotFoundError: Tables are missing and `create_tables` is False.
            TableUnusableError: A table is archived, or its KMS key cannot be used.
            BucketNotFoundError: The configured content bucket does not exist.
            DeadlineExceededError: A table did not become active within `table_timeout`.
        """

    @abstractmethod
    async def health_check(self) -> bool:
        """Returns whether all tables and the content bucket serve requests, within `health_timeout`.

        The reason for False is logged at level warning.

        Raises:
            BackendStateError: The backend is not open, or was opened in another event loop or process.
        """

    @abstractmethod
    async def close(self) -> None:
        """Waits for the requests in flight and closes the connections.

        A second call does nothing, nor does a call in a process that was forked after `initialize`.
        """

    async def __aenter__(self) -> Self:
        """Initializes the backend."""
        await self.initialize()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Closes the backend."""
        await self.close()

    @abstractmethod
    def metrics(self) -> dict[tuple[str, str], OperationMetrics]:
        """Returns requests, retries and units since the backend was made, by (operation, table or bucket)."""

    # Sites

    @abstractmethod
    async def save_site(self, site: Site) -> None:
        """Saves a site as it is. To declare a site at the start of a program, use `ensure_site`."""

    @abstractmethod
    async def ensure_site(self, site: Site) -> Site:
        """Saves the settings of a site, and keeps what crawls have stored with it.

        The settings are `name`, `seeds`, `allowed_domains`, `allowed_subdomains`, `config` and `is_active`.
        `created_at`, `last_crawl_at`, `last_sync_at`, `total_pages` and `total_runs` of a stored site stay.

        Returns:
            The site as it is stored now.
        """

    @abstractmethod
    async def get_site(self, site_id: str) -> Site | None:
        """Returns one site, or None. The read is strongly consistent."""

    @abstractmethod
    async def list_sites(self, *, limit: int = 1000, cursor: str | None = None) -> Slice[Site]:
        """Returns a slice of all sites, in no particular order. The reads are strongly consistent.

        Args:
            limit: The largest number of sites in the slice.
            cursor: The `cursor` of the previous slice; None for the first slice.

        Raises:
            InvalidArgumentError: `limit` is below 1.
            InvalidCursorError: `cursor` is damaged or belongs to another listing.
        """

    @abstractmethod
    def iter_sites(self) -> AsyncIterator[Site]:
        """Iterates over all sites, in no particular order. The reads are strongly consistent."""

    @abstractmethod
    async def delete_site(self, site_id: str) -> bool:
        """Deletes a site with its runs, their frontiers, its pages and their versions; the site itself last.

        If the call is interrupted, call it again. Other sites keep their versions of a page with the same
        page_id.

        Stop the site's crawlers first. Records that are saved during the call may remain. So may a version
        that was saved just before the call (usually well under a second), because its index does not show it
        yet. The method finds frontiers by their runs: if a run was never saved, call `clear_frontier` for it.

        Args:
            site_id: The site.

        Returns:
            Whether there was anything to delete.

        Raises:
            PartialBatchError: Some items were not deleted; call the method again.
        """

    # Runs

    @abstractmethod
    async def save_run(self, run: CrawlRun) -> None:
        """Saves a run with its stats. To add to the stats from many workers, use `add_run_stats`."""

    @abstractmethod
    async def start_run(self, run: CrawlRun) -> CrawlRun:
        """Saves a run as running, if it is not stored; several processes may start the same run.

        A stored run stays as it is, except that a pending one is running afterwards, and that an open one
        gets `has_first_links` if it is set.

        Args:
            run: The run. Its `status` is ignored. Its `started_at` is now, unless it is set.

        Returns:
            The run as it is stored now. Its `status` may be one of a run that has ended.

        Raises:
            NotFoundError: Another process deletes the run at the same time.
        """

    @abstractmethod
    async def get_run(self, site_id: str, run_id: str) -> CrawlRun | None:
        """Returns one run, or None. The read is strongly consistent.

        If the run does not exist, the call takes one more request, which tells whether the ids are swapped.

        Args:
            site_id: The run's site.
            run_id: The run.

        Raises:
            InvalidArgumentError: The ids are swapped: there is a run `site_id` of a site `run_id`.
        """

    @abstractmethod
    async def find_run(self, run_id: str) -> CrawlRun | None:
        """Returns a run by its id alone, or None.

        The run is looked up in an eventually consistent index, which lags a little. The run itself is then
        read strongly consistent.

        Args:
            run_id: The run.

        Raises:
            AmbiguousIdError: Several sites have a run with this id.
        """

    @abstractmethod
    async def list_runs(
        self, site_id: str, *, limit: int = 100, cursor: str | None = None
    ) -> Slice[CrawlRun]:
        """Returns a slice of a site's runs, newest `created_at` first. The reads are strongly consistent.

        Args:
            site_id: The site.
            limit: The largest number of runs in the slice.
            cursor: The `cursor` of the previous slice; None for the first slice.

        Raises:
            InvalidArgumentError: `limit` is below 1.
            InvalidCursorError: `cursor` is damaged or belongs to another listing.
        """

    @abstractmethod
    def iter_runs(self, site_id: str) -> AsyncIterator[CrawlRun]:
        """Iterates over all runs of a site, newest first. The reads are strongly consistent."""

    @abstractmethod
    async def get_latest_run(self, site_id: str) -> CrawlRun | None:
        """Returns a site's run with the newest `created_at`, or None. The read is strongly consistent."""

    @abstractmethod
    async def add_run_stats(self, site_id: str, run_id: str, **deltas: Unpack[StatsDeltas]) -> CrawlRun:
        """Adds to a run's stats atomically.

        Each call is counted once, even if an answer of DynamoDB is lost and the request is sent again.

        Args:
            site_id: The run's site.
            run_id: The run.
            **deltas: Fields of CrawlStats. The value is a number to add, or a map of numbers to add key by
                key. To `domains_crawled`, add the number of hosts that are new to the run.
                `avg_fetch_latency_ms` and `domains_sample` cannot be added to.

        Returns:
            The run after the addition.

        Raises:
            NotFoundError: The run does not exist.
            InvalidArgumentError: A name or value does not fit CrawlStats.
        """

    @abstractmethod
    async def complete_run(
        self, site_id: str, run_id: str, *, status: RunStatus | str = RunStatus.COMPLETED
    ) -> CrawlRun:
        """Closes a run and counts its stats again, from the outcomes stored with its frontier items.

        The stats are therefore exact, even if workers died, and nothing is counted twice. The method reads
        all items of the run (one read unit for 4 KB) and counts the site's pages and runs. Repeating the call
        is safe.

        Args:
            site_id: The run's site.
            run_id: The run.
            status: How the run ended. COMPLETED becomes PARTIAL if items failed or are still open.

        Returns:
            The closed run.

        Raises:
            NotFoundError: The run does not exist.
            InvalidArgumentError: `status` is not a RunStatus, or not one that ends a run.
        """

    # Pages

    @abstractmethod
    async def save_page(self, page: Page) -> None:
        """Saves a page."""

    @abstractmethod
    async def save_pages_bulk(self, pages: Iterable[Page]) -> int:
        """Saves pages in batches of 25. Of several pages with the same key, the last one is saved.

        Args:
            pages: Any number of pages.

        Returns:
            How many distinct pages were written.

        Raises:
            PartialBatchError: Some pages were not saved. The error has these pages with their errors. All
                other pages were saved.
        """

    @abstractmethod
    async def get_page(self, site_id: str, page_id: str) -> Page | None:
        """Returns one page, or None. The read is strongly consistent."""

    @abstractmethod
    async def get_pages_bulk(self, site_id: str, page_ids: Iterable[str]) -> list[Page]:
        """Returns those of the given pages that exist, in the order of `page_ids`; strongly consistent.

        Args:
            site_id: The site of the pages.
            page_ids: Any number of ids. A repeated id counts once.

        Raises:
            InvalidKeyError: An id is empty or too long; nothing was read.
            InvalidArgumentError: `page_ids` is a single string, or not a collection of strings.
        """

    @abstractmethod
    async def get_page_by_url(self, site_id: str, url: str) -> Page | None:
        """Returns the page of a URL, or None.

        The page is looked up in an eventually consistent index, which lags a little. The page itself is then
        read strongly consistent.

        Args:
            site_id: The site.
            url: A URL of any length. URLs are compared in the form of `normalize_url`; other texts than
                absolute http(s) URLs are compared as they are.
        """

    @abstractmethod
    async def list_pages(
        self,
        site_id: str,
        *,
        limit: int = 1000,
        cursor: str | None = None,
        include_tombstones: bool = False,
    ) -> Slice[Page]:
        """Returns a slice of a site's pages, ordered by page_id. The reads are strongly consistent.

        Args:
            site_id: The site.
            limit: The largest number of pages in the slice.
            cursor: The `cursor` of the previous slice; None for the first slice.
            include_tombstones: Also returns pages that are gone.

        Raises:
            InvalidArgumentError: `limit` is below 1.
            InvalidCursorError: `cursor` is damaged or belongs to another listing.
        """

    @abstractmethod
    def iter_pages(self, site_id: str, *, include_tombstones: bool = False) -> AsyncIterator[Page]:
        """Iterates over all pages of a site, ordered by page_id. The reads are strongly consistent.

        Memory is bounded. Parts of a large site are read ahead.

        Args:
            site_id: The site.
            include_tombstones: Also returns pages that are gone.
        """

    @abstractmethod
    def iter_aliases(self, site_id: str) -> AsyncIterator[Page]:
        """Iterates over the pages of a site that redirect to another URL, ordered by page_id.

        The target is `redirect_url`. Such a page is a tombstone, unless the redirect is temporary and the
        page has content. The reads are strongly consistent, and read the whole site.
        """

    @abstractmethod
    async def count_pages(self, site_id: str, *, include_tombstones: bool = False) -> int:
        """Counts the pages of a site. DynamoDB reads them all (one read unit for 4 KB), but returns none.

        The reads are strongly consistent.

        Args:
            site_id: The site.
            include_tombstones: Also counts pages that are gone.
        """

    @abstractmethod
    async def get_pages_needing_recrawl(
        self, site_id: str, *, max_age_hours: float | None = None, limit: int = 1000
    ) -> list[Page]:
        """Returns the pages to crawl next: first those never crawled, then the oldest ones; no tombstones.

        The method scans the whole site, a few parts at once. This scan is eventually consistent (0.5 read
        units for 4 KB): a page that was saved within the last second may be missing. The pages that are
        returned are read again.

        Args:
            site_id: The site.
            max_age_hours: Leaves out pages that were crawled within that many hours. None leaves out nothing.
            limit: The largest number of pages to return. It bounds the memory; the size of the site does not.

        Raises:
            InvalidArgumentError: `max_age_hours` is negative, or `limit` is below 1.
        """

    @abstractmethod
    async def mark_seen(self, site_id: str, urls: Iterable[str]) -> int:
        """Sets `last_seen` of pages to now, for pages that are known to exist without a fetch.

        Use it if another page links to them or a sitemap lists them. The pages are looked up by URL in an
        eventually consistent index, which lags a little: a new page may not be found. A page that has another
        URL by now is not marked. If several workers mark a page, the latest moment is kept.

        Args:
            site_id: The site.
            urls: URLs of pages. URLs without a page are ignored.

        Returns:
            How many pages the URLs have.
        """

    @abstractmethod
    async def get_unseen_pages(self, site_id: str, run_id: str, *, limit: int = 1000) -> list[Page]:
        """Returns the pages that a completed run neither fetched nor marked as seen, longest unseen first.

        Pages whose fetch has failed, and those that the run has skipped or not reached, are left out: nobody
        knows whether they are gone. A page to which only such pages link may be returned, unless the run
        began with all known pages.

        Pass the pages to `tombstone_pages`. Its limit protects a site from a run that saw too few of its
        pages. The method scans the whole site, eventually consistent, and reads the frontier items of the
        unseen pages, and the pages that are returned again.

        Args:
            site_id: The site.
            run_id: The run. A page is unseen if it was last seen before this run started, and no commit of
                this run has completed its item.
            limit: The largest number of pages to return. It bounds the memory; the size of the site does not.

        Raises:
            NotFoundError: The run does not exist.
            InvalidArgumentError: The run is not completed or partial, `limit` is below 1, or this process
                uses the run with other functions than those that it began with (see `frontier`).
        """

    @abstractmethod
    async def tombstone_pages(
        self, site_id: str, page_ids: Iterable[str], *, allow_mass_deletion: bool = False
    ) -> int:
        """Marks pages as gone. Listings and recrawls leave them out; their versions stay.

        Args:
            site_id: The site.
            page_ids: The pages. Ids without a page are ignored.
            allow_mass_deletion: Allows marking more than `max_deleted_share` of the site's pages.

        Returns:
            How many of the pages exist.

        Raises:
            MassDeletionError: The call would mark more than `max_deleted_share`; nothing was marked.
        """

    # Versions

    @abstractmethod
    async def save_version(self, version: PageVersion, *, keep_unchanged: bool = False) -> str:
        """Saves a version with its body, unless the page's current version has the same `content_hash`.

        The body consists of `markdown`, `html`, `plain_text`, `outlinks` and `headings_outline`. It may have
        any size up to `max_content_bytes`. The version becomes visible only after its body is stored. If
        another version of the page has an equal body, the body is not stored again. If the call replaces a
        version, `collect_garbage` removes the body of the replaced one.

        Args:
            version: The version.
            keep_unchanged: Saves the version even if the content did not change.

        Returns:
            The id of the version that has this content: the id of `version`, or the id of the current version
            if the content did not change.
        """

    @abstractmethod
    async def save_versions_bulk(
        self, versions: Iterable[PageVersion], *, keep_unchanged: bool = False
    ) -> int:
        """Saves versions as `save_version` does, with their heads in batches of 25.

        Args:
            versions: Any number of versions.
            keep_unchanged: Saves versions even if the content did not change.

        Returns:
            How many distinct versions were written.

        Raises:
            PartialBatchError: Some versions were not saved. The error has these versions with their errors.
                All other versions were saved.
        """

    @abstractmethod
    async def get_version(self, site_id: str, page_id: str, version_id: str) -> PageVersion | None:
        """Returns one version with its body, or None. The reads are strongly consistent.

        This takes one request if the body fits into one item. Otherwise it takes one more.

        Args:
            site_id: The site.
            page_id: The page.
            version_id: The version.

        Raises:
            CorruptContentError: The stored body is incomplete or differs from what was saved.
        """

    @abstractmethod
    async def find_version(self, site_id: str, version_id: str) -> PageVersion | None:
        """Returns a version with its body by its own id, without the page's, or None; eventually consistent.

        The index of the site's versions is read until the version is found, at half a read unit for 8 KB or
        some 36 versions. If you know the page's id, use `get_version`.

        Args:
            site_id: The site.
            version_id: The version.

        Raises:
            CorruptContentError: The stored body is incomplete or differs from what was saved.
        """

    @abstractmethod
    async def get_current_version(self, site_id: str, page_id: str) -> PageVersion | None:
        """Returns the version that a page names as its current one, or None.

        This takes two strongly consistent reads.

        Args:
            site_id: The site.
            page_id: The page.

        Raises:
            CorruptContentError: The stored body is incomplete or differs from what was saved.
        """

    @abstractmethod
    async def list_versions(
        self,
        site_id: str,
        page_id: str,
        *,
        limit: int = 100,
        cursor: str | None = None,
        include_content: bool = True,
    ) -> Slice[PageVersion]:
        """Returns a slice of a page's versions, newest `crawled_at` first. The reads are strongly consistent.

        Args:
            site_id: The site.
            page_id: The page.
            limit: The largest number of versions in the slice.
            cursor: The `cursor` of the previous slice; None for the first slice.
            include_content: Reads the bodies. If False, `markdown` is "", `html` and `plain_text` are None,
                and `outlinks` and `headings_outline` are empty.

        Raises:
            InvalidArgumentError: `limit` is below 1.
            InvalidCursorError: `cursor` is damaged or belongs to another listing.
            CorruptContentError: A stored body is incomplete or differs from what was saved.
        """

    @abstractmethod
    def iter_versions(self, site_id: str) -> AsyncIterator[PageVersion]:
        """Iterates over the current version of every page of a site, ordered by page_id, with its body.

        Tombstones are left out. The reads are strongly consistent. Memory is bounded: about forty versions
        are read ahead, and of each body the first part at most.

        Args:
            site_id: The site.

        Raises:
            CorruptContentError: A stored body is incomplete or differs from what was saved.
        """

    @abstractmethod
    async def get_content_usage(self, site_id: str) -> ContentUsage:
        """Counts a site's versions and their bytes. It reads the head of each version (one read unit).

        The versions are listed by an eventually consistent index, which lags a little: a version that was
        just saved may not be counted.
        """

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
        """Deletes old versions with their bodies. The current version of a page is never deleted.

        A version stays if `keep_last` or `max_age_days` keeps it. An eventually consistent index, which lags
        a little, tells which pages have versions; strongly consistent reads decide which ones are deleted.

        Args:
            site_id: The site.
            keep_last: Keeps that many versions of each page, the newest ones.
            max_age_days: Keeps versions that were crawled within that many days.
            dry_run: Only counts; nothing is deleted.
            allow_mass_deletion: Allows deleting more than `max_deleted_share` of the site's versions.

        Returns:
            How many versions the site had, and how many were (or would be) deleted.

        Raises:
            InvalidArgumentError: Neither `keep_last` nor `max_age_days` is given, or one is negative.
            MassDeletionError: The call would delete more than `max_deleted_share`; nothing was deleted.
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
        """Deletes bodies that no version uses. Killed workers and replaced versions leave such bodies.

        The bodies are listed by an eventually consistent index, which lags a little; strongly consistent
        reads decide.

        Args:
            site_id: The site.
            grace_hours: Keeps bodies that were written within that many hours. With 1 or more, the call is
                safe while workers save versions. With less, call it only when no worker saves versions.
            dry_run: Only counts; nothing is deleted.
            allow_mass_deletion: Allows deleting more than `max_deleted_share` of the site's bodies. Up to 100
                bodies are deleted without it in any case.

        Returns:
            How many bodies the site had, and how many were (or would be) deleted.

        Raises:
            InvalidArgumentError: `grace_hours` is negative.
            MassDeletionError: The call would delete more than `max_deleted_share`, and more than 100 bodies;
                nothing was deleted.
        """

    # Frontier records

    @abstractmethod
    async def save_frontier_item(self, item: FrontierItem) -> None:
        """Saves a frontier item. Run ids must be unique over all sites."""

    @abstractmethod
    async def get_frontier_items(
        self,
        run_id: str,
        *,
        status: FrontierStatus | str | None = None,
        limit: int = 1000,
        cursor: str | None = None,
    ) -> Slice[FrontierItem]:
        """Returns a slice of a run's frontier items, in no particular order; strongly consistent.

        Args:
            run_id: The run.
            status: Returns items with this status only; None for all items.
            limit: The largest number of items in the slice. Only items with the given status count.
            cursor: The `cursor` of the previous slice; None for the first slice.

        Raises:
            InvalidArgumentError: `limit` is below 1, or `status` is not a FrontierStatus.
            InvalidCursorError: `cursor` is damaged or belongs to another listing.
        """

    @abstractmethod
    async def update_frontier_status(
        self, run_id: str, item_id: str, status: FrontierStatus | str, *, error: str | None = None
    ) -> FrontierItem:
        """Sets the status of a frontier item, and `started_at` or `completed_at` with it.

        Repeating the call is safe.

        Args:
            run_id: The run.
            item_id: The item.
            status: The new status.
            error: The new `last_error`; None keeps the stored one.

        Returns:
            The updated item.

        Raises:
            NotFoundError: The item does not exist.
            InvalidArgumentError: `status` is not a FrontierStatus.
        """

    @abstractmethod
    async def clear_frontier(self, run_id: str) -> int:
        """Deletes all frontier items of a run, and the hosts and counts of its queue.

        Stop the run's workers first. A process remembers the links that it has seen, and does not add them
        again after other processes deleted them.

        Args:
            run_id: The run.

        Returns:
            How many items were deleted.

        Raises:
            PartialBatchError: Some items were not deleted; call the method again.
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
        also: Iterable[str] = (),
        kind: ResponseKind | None = None,
        retry_after: float | None = None,
        follow_redirect: bool = True,
    ) -> CommitResult:
        """Saves a page and its version, and completes its frontier item, atomically.

        The method first writes the body, which is not visible yet. It then adds the discovered links to the
        run's frontier. It finally writes the version, the page and the frontier item in one transaction: all
        of them or none. If a worker is killed before that, its item will be claimed again. If the lease has
        been lost, the transaction writes nothing.

        An unchanged page takes no transaction: its freshness is written first, and then its item is
        completed. If a worker is killed in between, its item will be claimed again.

        The outcome is one of these:

        - created: the page is new.
        - changed: its `content_hash` differs.
        - unchanged: only its freshness is updated, such as `last_crawled`. No version and no body is written.
        - tombstoned: the status is 404 or 410, or `is_tombstone` is set.
        - revived: the page was a tombstone.
        - redirected: the status is 301, 302, 303, 307 or 308. The target, `page.redirect_url`, is added to
          the frontier of the claim's run. After 301 and 308 the page is a tombstone, and deleted for readers
          of the changes; after the others its content stays.
        - denied: the status is 401, 403 or 451. The content of the page stays; its error is counted. The
          item is skipped.
        - failed: the status is 408, 425, 429 or 5xx, or it is None and `page.last_error` says why no answer
          came. The content and the freshness of the page stay; its error is counted. The item is failed as by
          `Frontier.fail`: it is tried again, or becomes a dead letter. Links are not added.

        Any other status is refused, unless `kind` gives its meaning. `kind` can also change the meaning of a
        status. A page that is not stored is not created by denied and failed fetches.

        The backend itself keeps `first_seen`, `version_count`, `last_changed`, `content_hash` and
        `current_version_id` of a stored page. It sets `last_seen` and `last_crawled` to now.

        The stats of the run follow about a second later, if the process lives that long. `complete_run` makes
        them exact.

        Args:
            page: The page as the fetch found it.
            version: The content of the page. None if the server sent none, as with 304, 404 and 410.
            claim: The claim of the page's frontier item. The commit completes it.
            discovered: Links found on the page. They go to the frontier of the claim's run, or else of the
                version's run. Relative links are resolved against `page.url`. Links that cannot be added are
                logged. If the run is cancelled, no link is added.
            also: Other URLs of the page, such as those of a redirect. After the transaction, their items are
                completed as by `Frontier.complete(also=...)`.
            kind: The meaning of the server's answer for the page; None to derive it from the status.
            retry_after: Seconds until a failed item is tried again, such as those of the header Retry-After.
                The host of the claim is blocked as long. None for the delay of `Frontier.fail`.
            follow_redirect: False does not add the target of a redirect to the frontier.

        Returns:
            The result of the commit. If the answer was lost, repeat the commit under the same claim: it
            returns the same result and changes nothing.

        Raises:
            LeaseLostError: The lease of the claim was lost. The page, its versions and the frontier item were
                not changed; the discovered links may have been added. If the page is unchanged, its freshness
                may have been updated.
            ConflictError: Other writers changed the page each time that it was read. This call did not change
                the page, its versions and the frontier item; the discovered links may have been added.
            InvalidArgumentError: Page, version and claim do not belong together; or `discovered` is given
                without a claim and a version; or the status says nothing that can be stored, or does not go
                with the content: 2xx needs a version, 304 stored content, and a redirect
                `page.redirect_url`; or the `version_id` is in use for other content of the page.
            PartialBatchError: Some discovered links may not have been added, and nothing else was changed; or
                some items of `also` were not completed, after everything else was done. Repeat the call.
        """

    # Changes

    @abstractmethod
    async def list_changes(
        self, site_id: str, *, limit: int = 100, cursor: str | None = None, include_content: bool = False
    ) -> ChangeSlice:
        """Returns the pages that commits and `tombstone_pages` created, changed or deleted since a cursor.

        Of a page that changed several times, only the latest change is returned, with the page as it is now.
        The changes of one page come in the order of its commits. Changes of different pages come in about
        that order.

        No change is missed, even under concurrent commits: a reader waits up to ten seconds for a commit that
        is under way, and then makes it log its change at a later position. A change can be returned twice:
        compare `page.current_version_id` to recognize it. `save_page` logs no change.

        A slice costs one read unit for 4 KB of logged changes, and one read unit for each page; with
        `include_content` also what `get_version` costs for each page that is not deleted. Every process that
        commits logs to a shard of its own, and each shard is read separately.

        Args:
            site_id: The site.
            limit: The largest number of changes in the slice.
            cursor: The `cursor` of the previous slice, of today or of an earlier day. Without a cursor, all
                pages that have content come first, as created. The method stores no cursor: store it
                yourself, or by `save_change_cursor` under the name of a consumer.
            include_content: Returns each change with its `version`, as `iter_changes` does. All bodies of the
                slice are then in memory at once: choose `limit` by their size.

        Returns:
            The changes, and a cursor for the changes that follow. `is_end` is True if none follows for now.

        Raises:
            InvalidArgumentError: `limit` is below 1.
            InvalidCursorError: `cursor` is damaged or belongs to another site.
            ChangesExpiredError: `cursor` is older than the `change_retention_days` of a process that logged
                changes, or the site was deleted after it was taken.
            CorruptContentError: A stored body is incomplete or differs from what was saved.
        """

    @abstractmethod
    def iter_changes(
        self,
        site_id: str,
        consumer: str,
        *,
        limit: int = 100,
        include_content: bool = False,
        follow: bool = False,
        poll_seconds: float = 10.0,
        stop: asyncio.Event | None = None,
    ) -> AsyncIterator[PageChange]:
        """Iterates over the changes that a consumer has not handled yet, up to now or without end.

        The consumer's cursor is kept with the site. It moves on after each slice, when the consumer asks for
        the change after the last one of the slice: by then all changes of the slice have been handled. A
        consumer that is killed gets the changes of its last slice again. `list_changes` documents the
        changes, their order and their cost.

        With `include_content`, a change has the `version` that its `page` names: `version.version_id` equals
        `page.current_version_id`. The page may have changed since it was read; its next change then follows.
        If the version was pruned meanwhile, the page is read again, and the change has the page and version
        of now. Memory is bounded as in `iter_versions`, with any `limit`.

        With `follow`, the iteration waits for more after the last change. The cursor is saved before that, so
        a consumer that is killed while it waits gets nothing twice. It reads again after a second, then after
        pauses that double up to `poll_seconds` until there is a change. A read without a change takes one
        read unit, and one for each process that commits to the site. An error ends the iteration, as does the
        cancellation of the task; neither moves the cursor. A new call continues from there.

        Args:
            site_id: The site.
            consumer: The name of the consumer.
            limit: The largest number of changes in a slice.
            include_content: Reads the current version of each page that is not deleted, with its body.
            follow: Waits for more changes after the last one, until `stop` is set.
            poll_seconds: The longest pause between two reads while nothing changes, in seconds.
            stop: Ends the iteration once it is set: at once if it waits, otherwise when the consumer asks for
                the next change. The cursor then moves on to the change after the last one that was handled,
                also within a slice. Let the iteration end by itself: after a `break` the cursor stays.

        Raises:
            InvalidArgumentError: `limit` is below 1; or `poll_seconds` is not from 0.1 to 3,600; or `stop` is
                not an asyncio.Event.
            InvalidKeyError: The name is empty or too long.
            ChangesExpiredError: The consumer has not read for the `change_retention_days` of a process that
                logged changes, or the site was deleted since. Call `list_changes` without a cursor to start
                again.
            CorruptContentError: A stored body is incomplete or differs from what was saved. Without
                `include_content` the iteration gets past it.
        """

    @abstractmethod
    async def get_change_cursor(self, site_id: str, consumer: str | None = None) -> str | None:
        """Returns the cursor of a consumer, or None if it has none. Without a consumer, the end of the feed.

        Args:
            site_id: The site.
            consumer: The name of the consumer, as for `iter_changes` and `save_change_cursor`. If None, the
                method returns a cursor beyond all changes so far: `list_changes` with it returns only later
                changes. To read all pages from the start, call `list_changes` without a cursor.
        """

    @abstractmethod
    async def save_change_cursor(self, site_id: str, consumer: str, cursor: str) -> None:
        """Saves the cursor of a consumer. Call it after the changes before the cursor have been handled.

        Args:
            site_id: The site.
            consumer: The name of the consumer.
            cursor: The `cursor` of a slice of `list_changes`.

        Raises:
            InvalidCursorError: `cursor` is damaged or belongs to another site.
            InvalidKeyError: The name is empty or too long.
        """

    # Frontier queue

    @abstractmethod
    def frontier(
        self,
        site_id: str,
        run_id: str,
        *,
        host_delay: float = 0.0,
        host_max_in_flight: int | None = None,
        host_max_items: int | None = None,
        normalize: Callable[[str], str] | None = None,
        politeness_key: Callable[[str], str] | None = None,
    ) -> Frontier:
        """Returns the queue of a run. Every call returns the same object, so that tasks share it.

        `save_frontier_item` and `update_frontier_status` bypass the queue: a pending item that they saved
        enters the queue only when nothing else is left.

        `host_max_items`, `normalize` and `politeness_key` are recorded with the run by the first process that
        adds a link. Pass the same two functions in every process that adds or looks up links, or sets limits
        of hosts. A process with other ones is refused at that call (InvalidArgumentError). Processes that
        only claim or read counts need not pass them.

        If the run has no queue yet, the first call of a method that uses it takes two more requests, which
        tell whether the ids are swapped. The method then raises `InvalidArgumentError`, and stores nothing.

        Args:
            site_id: The run's site.
            run_id: The run. Run ids must be unique over all sites.
            host_delay: Seconds between two leases of items of one host, for every host without a delay of its
                own. The first process that uses the queue stores the value with the run.
            host_max_in_flight: How many leases one host may have at a time; None for any number. It is stored
                like `host_delay`.
            host_max_items: How many links one host may have in all, so that a calendar or a trap of made-up
                URLs ends; None for any number. The result of each further link has a `HostBudgetError`. Over
                all processes, no host gets more. It can get fewer: a part of the budget is lost when a
                process is killed while it adds links. Links that `complete(also=...)` adds do not count. An
                `add` takes one request more, and one write unit for each host.
            normalize: Returns the form by which links are compared; `normalize_url` by default. It gets the
                URL of a link, which is an absolute http(s) URL. Use it to keep fragments, to keep the order
                of parameters, or to drop tracking parameters. The crawl fetches the link as it was added.
                It must be a function of a module, of which the name is recorded, as `module:name`.
            politeness_key: Returns a key that replaces the host in the queue: items with one key share a
                queue, a delay, limits and a budget. It gets the normal form of a link. The default is the
                host with its port. `registrable_domain` takes all hosts of a domain together. It must be a
                function of a module, like `normalize`.

        Raises:
            InvalidKeyError: An id is empty or too long.
            InvalidArgumentError: A limit is negative or too large, a function has no name that other
                processes can compare, or an argument differs from that of an earlier call in this process.
        """
