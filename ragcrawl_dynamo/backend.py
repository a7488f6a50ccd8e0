"""The storage backend on Amazon DynamoDB: composes the rooms of this package."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Unpack

from typing_extensions import override

from ragcrawl_dynamo._assembly import Assembly
from ragcrawl_dynamo._changes.change import ChangeSlice, PageChange
from ragcrawl_dynamo._changes.consumers import Following
from ragcrawl_dynamo._commit.decision import CommitResult
from ragcrawl_dynamo._commit.responses import ResponseKind
from ragcrawl_dynamo._content.garbage import GarbageReport
from ragcrawl_dynamo._content.retention import PruneReport
from ragcrawl_dynamo._content.usage import ContentUsage
from ragcrawl_dynamo._dynamodb.client import Access, ClientOptions
from ragcrawl_dynamo._dynamodb.destination import Destination
from ragcrawl_dynamo._dynamodb.metrics import Observer, OperationMetrics
from ragcrawl_dynamo._dynamodb.pagination import Slice
from ragcrawl_dynamo._frontier.arguments import HostLimits
from ragcrawl_dynamo._frontier.claim import Claim, LeaseObserver
from ragcrawl_dynamo._frontier.frontier import Frontier
from ragcrawl_dynamo._frontier.link_rules import LinkRules
from ragcrawl_dynamo._records.runs import StatsDeltas
from ragcrawl_dynamo._schema.migrations import MigrationProgress
from ragcrawl_dynamo._schema.table_info import TableInfo
from ragcrawl_dynamo._utils.clock import Clock
from ragcrawl_dynamo._utils.deprecation import formerly
from ragcrawl_dynamo.config import DynamoDBConfig
from ragcrawl_dynamo.models import CrawlRun, FrontierItem, FrontierStatus, Page, PageVersion, RunStatus, Site
from ragcrawl_dynamo.storage import StorageBackend

__all__ = ["DynamoDBBackend"]


class DynamoDBBackend(StorageBackend):
    """The backend on Amazon DynamoDB. It does no I/O before `initialize()`, and belongs to one event loop.

    Args:
        config: The settings of the backend.
        clock: The clock by which leases, ages and delays are judged; replaced in tests.
        on_request: Called in the event loop after each request, retries included. Its errors are logged.
        on_lease_lost: Called once with each claim whose lease proves to be lost. Its errors are logged.
        **clients: `session`, for one's own credentials, and `client_config`, for a proxy; see ClientOptions.
    """

    def __init__(
        self,
        config: DynamoDBConfig,
        *,
        clock: Clock | None = None,
        on_request: Observer | None = None,
        on_lease_lost: LeaseObserver | None = None,
        **clients: Unpack[ClientOptions],
    ) -> None:
        self._rooms = Assembly(config, Access(**clients), clock, on_request, on_lease_lost)

    @property
    def config(self) -> DynamoDBConfig:
        """The settings."""
        return self._rooms.config

    def find_destination(self) -> Destination:
        """Returns the region and the endpoint of requests, and the setting or variable that chose each."""
        return self._rooms.gateway.find_destination()

    @property
    def schema_version(self) -> int:
        """The schema version of this package; `describe_tables` returns that of the tables."""
        return self._rooms.schema.version

    async def describe_tables(self) -> tuple[list[TableInfo], int | None]:
        """Describes the five tables, with their schema version. It needs no initialize()."""
        return await self._rooms.describe_tables()

    async def migrate(self, on_progress: Callable[[MigrationProgress], None] | None = None) -> int:
        """Migrates tables of an older schema version to this one; returns how many items were rewritten.

        It is resumable. Queues of version 1 are not migrated: finish or cancel all runs, and stop the
        processes of the older version, before.

        Args:
            on_progress: Called after each page of a table that was read.

        Raises:
            SchemaVersionError: The tables are of a newer version than this package.
            OpenRunsError: The tables are of version 1, and runs are open. It names them.
            SchemaMismatchError: A table has other keys than this version needs.
            ServiceError: A request failed.
        """
        return await self._rooms.migrate(on_progress)

    @override
    async def initialize(self, *, create_missing_indexes: bool = False, create_tables: bool = True) -> None:
        await self._rooms.open(create_tables=create_tables, create_missing_indexes=create_missing_indexes)

    @override
    async def health_check(self) -> bool:
        return await self._rooms.schema.is_healthy(self._rooms.bucket.check)

    @override
    async def close(self) -> None:
        await self._rooms.close()

    @override
    def metrics(self) -> dict[tuple[str, str], OperationMetrics]:
        return self._rooms.metrics.snapshot()

    @override
    async def save_site(self, site: Site) -> None:
        await self._rooms.sites.save(site)

    @override
    async def ensure_site(self, site: Site) -> Site:
        return await self._rooms.sites.ensure(site)

    @override
    async def get_site(self, site_id: str) -> Site | None:
        return await self._rooms.sites.get(site_id)

    @override
    @formerly("limit", "cursor")
    async def list_sites(self, *, limit: int = 1000, cursor: str | None = None) -> Slice[Site]:
        return await self._rooms.sites.listing(limit, cursor)

    @override
    def iter_sites(self) -> AsyncIterator[Site]:
        return self._rooms.sites.iterate()

    @override
    async def delete_site(self, site_id: str) -> bool:
        return await self._rooms.site_deletion.delete(site_id)

    @override
    async def start_run(self, run: CrawlRun) -> CrawlRun:
        return await self._rooms.runs.start(run, self._rooms.clock.now())

    @override
    async def save_run(self, run: CrawlRun) -> None:
        await self._rooms.runs.save(run)

    @override
    @formerly("run_id", "site_id", without_site="find_run(run_id)")
    async def get_run(self, site_id: str, run_id: str) -> CrawlRun | None:
        return await self._rooms.runs.get(site_id, run_id)

    @override
    async def find_run(self, run_id: str) -> CrawlRun | None:
        return await self._rooms.runs.get(None, run_id)

    @override
    @formerly("site_id", "limit", "cursor")
    async def list_runs(
        self, site_id: str, *, limit: int = 100, cursor: str | None = None
    ) -> Slice[CrawlRun]:
        return await self._rooms.runs.listing(site_id, limit, cursor)

    @override
    def iter_runs(self, site_id: str) -> AsyncIterator[CrawlRun]:
        return self._rooms.runs.iterate(site_id)

    @override
    async def get_latest_run(self, site_id: str) -> CrawlRun | None:
        return await self._rooms.runs.get_latest(site_id)

    @override
    async def add_run_stats(self, site_id: str, run_id: str, **deltas: Unpack[StatsDeltas]) -> CrawlRun:
        return await self._rooms.runs.add_stats(site_id, run_id, {**deltas})

    @override
    @formerly("site_id", "run_id", "status")
    async def complete_run(
        self, site_id: str, run_id: str, *, status: RunStatus | str = RunStatus.COMPLETED
    ) -> CrawlRun:
        return await self._rooms.run_completion.complete(site_id, run_id, status)

    @override
    async def save_page(self, page: Page) -> None:
        await self._rooms.pages.save(page)

    @override
    async def save_pages_bulk(self, pages: Iterable[Page]) -> int:
        return await self._rooms.pages.save_bulk(pages)

    @override
    async def get_page(self, site_id: str, page_id: str) -> Page | None:
        return await self._rooms.pages.get(site_id, page_id)

    @override
    async def get_pages_bulk(self, site_id: str, page_ids: Iterable[str]) -> list[Page]:
        return await self._rooms.pages.get_bulk(site_id, page_ids)

    @override
    async def get_page_by_url(self, site_id: str, url: str) -> Page | None:
        return await self._rooms.pages.get_by_url(site_id, url)

    @override
    @formerly("site_id", "limit", "cursor", "include_tombstones")
    async def list_pages(
        self, site_id: str, *, limit: int = 1000, cursor: str | None = None, include_tombstones: bool = False
    ) -> Slice[Page]:
        return await self._rooms.pages.listing(site_id, limit, cursor, include_tombstones)

    @override
    @formerly("site_id", "include_tombstones")
    def iter_pages(self, site_id: str, *, include_tombstones: bool = False) -> AsyncIterator[Page]:
        return self._rooms.pages.iterate(site_id, include_tombstones)

    @override
    def iter_aliases(self, site_id: str) -> AsyncIterator[Page]:
        return self._rooms.pages.aliases(site_id)

    @override
    @formerly("site_id", "include_tombstones")
    async def count_pages(self, site_id: str, *, include_tombstones: bool = False) -> int:
        return await self._rooms.pages.count(site_id, include_tombstones)

    @override
    @formerly("site_id", "max_age_hours", "limit")
    async def get_pages_needing_recrawl(
        self, site_id: str, *, max_age_hours: float | None = None, limit: int = 1000
    ) -> list[Page]:
        return await self._rooms.pages.needing_recrawl(site_id, max_age_hours, limit)

    @override
    async def mark_seen(self, site_id: str, urls: Iterable[str]) -> int:
        return await self._rooms.pages.mark_seen(site_id, urls)

    @override
    @formerly("site_id", "run_id", "limit")
    async def get_unseen_pages(self, site_id: str, run_id: str, *, limit: int = 1000) -> list[Page]:
        return await self._rooms.unseen_pages.find(site_id, run_id, limit)

    @override
    async def tombstone_pages(
        self, site_id: str, page_ids: Iterable[str], *, allow_mass_deletion: bool = False
    ) -> int:
        return await self._rooms.tombstones.mark(site_id, page_ids, allow_mass_deletion=allow_mass_deletion)

    @override
    async def save_version(self, version: PageVersion, *, keep_unchanged: bool = False) -> str:
        return await self._rooms.versions.save(version, keep_unchanged=keep_unchanged)

    @override
    async def save_versions_bulk(
        self, versions: Iterable[PageVersion], *, keep_unchanged: bool = False
    ) -> int:
        return await self._rooms.versions.save_bulk(versions, keep_unchanged=keep_unchanged)

    @override
    @formerly("page_id", "version_id", without_site="get_version(site_id, page_id, version_id)")
    async def get_version(self, site_id: str, page_id: str, version_id: str) -> PageVersion | None:
        return await self._rooms.versions.get(site_id, page_id, version_id)

    @override
    async def find_version(self, site_id: str, version_id: str) -> PageVersion | None:
        return await self._rooms.versions.find(site_id, version_id)

    @override
    async def get_current_version(self, site_id: str, page_id: str) -> PageVersion | None:
        return await self._rooms.versions.get_current(site_id, page_id)

    @override
    @formerly("page_id", "limit", "cursor", "include_content", without_site="list_versions(site_id, page_id)")
    async def list_versions(
        self,
        site_id: str,
        page_id: str,
        *,
        limit: int = 100,
        cursor: str | None = None,
        include_content: bool = True,
    ) -> Slice[PageVersion]:
        return await self._rooms.versions.listing(site_id, page_id, limit, cursor, include_content)

    @override
    def iter_versions(self, site_id: str) -> AsyncIterator[PageVersion]:
        return self._rooms.versions.iterate_current(site_id)

    @override
    async def get_content_usage(self, site_id: str) -> ContentUsage:
        return await self._rooms.usage.measure(site_id)

    @override
    async def prune_versions(
        self,
        site_id: str,
        *,
        keep_last: int | None = None,
        max_age_days: float | None = None,
        dry_run: bool = False,
        allow_mass_deletion: bool = False,
    ) -> PruneReport:
        prune = self._rooms.retention.prune
        return await prune(site_id, keep_last, max_age_days, dry_run, allow_mass_deletion)

    @override
    async def collect_garbage(
        self,
        site_id: str,
        *,
        grace_hours: float = 24.0,
        dry_run: bool = False,
        allow_mass_deletion: bool = False,
    ) -> GarbageReport:
        return await self._rooms.garbage.collect(site_id, grace_hours, dry_run, allow_mass_deletion)

    @override
    async def save_frontier_item(self, item: FrontierItem) -> None:
        await self._rooms.frontier_items.save(item)

    @override
    @formerly("run_id", "status", "limit", "cursor")
    async def get_frontier_items(
        self,
        run_id: str,
        *,
        status: FrontierStatus | str | None = None,
        limit: int = 1000,
        cursor: str | None = None,
    ) -> Slice[FrontierItem]:
        return await self._rooms.frontier_items.get_items(run_id, status, limit, cursor)

    @override
    @formerly("run_id", "item_id", "status", "error")
    async def update_frontier_status(
        self, run_id: str, item_id: str, status: FrontierStatus | str, *, error: str | None = None
    ) -> FrontierItem:
        return await self._rooms.frontier_items.update_status(run_id, item_id, status, error)

    @override
    async def clear_frontier(self, run_id: str) -> int:
        return await self._rooms.clear_frontier(run_id)

    @override
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
        arguments = page, version, claim, discovered, also, kind, retry_after
        return await self._rooms.committer.commit(*arguments, follow_redirect=follow_redirect)

    @override
    @formerly("site_id", "limit", "cursor")
    async def list_changes(
        self, site_id: str, *, limit: int = 100, cursor: str | None = None, include_content: bool = False
    ) -> ChangeSlice:
        return await self._rooms.changes.listing(site_id, limit, cursor, include_content)

    @override
    @formerly("site_id", "consumer", "limit")
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
        following = Following.checked(follow, poll_seconds, stop)
        return self._rooms.consumers.iterate(site_id, consumer, limit, include_content, following)

    @override
    async def get_change_cursor(self, site_id: str, consumer: str | None = None) -> str | None:
        return await self._rooms.changes.cursor(site_id, consumer)

    @override
    async def save_change_cursor(self, site_id: str, consumer: str, cursor: str) -> None:
        await self._rooms.changes.save_cursor(site_id, consumer, cursor)

    @override
    @formerly("run_id", "site_id")
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
        limits = HostLimits.checked(host_delay, host_max_in_flight, host_max_items)
        rules = LinkRules.checked(normalize, politeness_key)
        return self._rooms.frontiers.get(site_id, run_id, limits, rules)
