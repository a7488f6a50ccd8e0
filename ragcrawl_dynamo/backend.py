"""The storage backend on Amazon DynamoDB: composes the rooms of this package."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing
from types import NoneType
from typing import Any

from typing_extensions import override

from ragcrawl_dynamo._changes.change import ChangeSlice, PageChange
from ragcrawl_dynamo._changes.feed import ChangeFeed
from ragcrawl_dynamo._changes.log import ChangeLog
from ragcrawl_dynamo._commit.commit import Committer, Fetched
from ragcrawl_dynamo._commit.decision import CommitResult
from ragcrawl_dynamo._commit.live_stats import LiveStats
from ragcrawl_dynamo._content.garbage import GarbageCollector, GarbageReport, Maintenance
from ragcrawl_dynamo._content.retention import PruneReport, Retention
from ragcrawl_dynamo._content.usage import ContentUsage, UsageMeter
from ragcrawl_dynamo._content.versions import VersionStore
from ragcrawl_dynamo._dynamodb.client import ClientFactory, open_client, open_object_client
from ragcrawl_dynamo._dynamodb.conditional_writes import conditional_writes
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.metrics import Metrics, Observer, OperationMetrics
from ragcrawl_dynamo._dynamodb.pagination import Slice, iterate
from ragcrawl_dynamo._dynamodb.values import unescape
from ragcrawl_dynamo._frontier.claim import Claim, LeaseObserver, guarded
from ragcrawl_dynamo._frontier.frontier import Frontier
from ragcrawl_dynamo._records.frontier_items import FrontierStore
from ragcrawl_dynamo._records.pages import PageStore
from ragcrawl_dynamo._records.runs import RunStore, check_final_status
from ragcrawl_dynamo._records.sites import SiteStore
from ragcrawl_dynamo._schema.keys import page_key
from ragcrawl_dynamo._schema.migrations import MigrationProgress, SchemaStore
from ragcrawl_dynamo._schema.provisioning import (
    TableInfo,
    all_active,
    describe_tables,
    ensure_tables,
    require_tables,
)
from ragcrawl_dynamo._schema.tables import Tables
from ragcrawl_dynamo._utils.clock import Clock, SystemClock
from ragcrawl_dynamo._utils.tasks import Tasks
from ragcrawl_dynamo._utils.validation import check_kind, check_several
from ragcrawl_dynamo.config import DynamoDBConfig, StorageConfig
from ragcrawl_dynamo.errors import InvalidArgumentError, NotFoundError, ServiceError
from ragcrawl_dynamo.models import (
    CrawlRun,
    FrontierItem,
    FrontierStatus,
    Page,
    PageVersion,
    RunStatus,
    Site,
)
from ragcrawl_dynamo.storage import StorageBackend

__all__ = ["DynamoDBBackend", "create_storage_backend"]

logger = logging.getLogger(__name__)


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
        self._change_log = ChangeLog(self._gateway, tables.pages, self._clock)
        self._pages = PageStore(self._gateway, tables.pages, self._change_log)
        self._changes = ChangeFeed(self._gateway, tables.pages, self._pages, self._change_log)
        self._objects = _content_bucket(config, self._metrics)
        self._versions = VersionStore(self._gateway, tables.versions, self._objects, self._pages, self._clock)
        self._usage = UsageMeter(self._gateway, tables.versions)
        self._retention = Retention(self._gateway, tables.versions, self._versions, self._pages, self._clock)
        self._garbage = GarbageCollector(self._gateway, tables.versions, self._versions, self._clock)
        self._frontier = FrontierStore(self._gateway, tables.frontier)
        self._schema = SchemaStore(self._gateway, tables)
        self._live = LiveStats(self._runs, self._clock)
        self._tasks = Tasks()
        self._committer = Committer(
            self._gateway,
            tables,
            self._pages,
            self._versions,
            self._change_log,
            self._live,
            self._clock,
            self._on_lease_lost,
        )
        self._queue_writes = conditional_writes(self._gateway, tables.frontier)
        self._queues: dict[tuple[str, str], Frontier] = {}
        self._maintenance = Maintenance(self._gateway, self._pages)

    @property
    def config(self) -> DynamoDBConfig:
        """The settings."""
        return self._config

    def metrics(self) -> dict[tuple[str, str], OperationMetrics]:
        """Requests, retries and units since the backend was made, by (operation, table or bucket)."""
        return self._metrics.snapshot()

    @override
    async def initialize(self, *, create_missing_indexes: bool = False, create_tables: bool = True) -> None:
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

    @override
    async def health_check(self) -> bool:
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

    @override
    async def close(self) -> None:
        try:
            await self._pages.close()
            await self._versions.close()
            await self._frontier.close()
            await self._tasks.join()
            try:
                async with asyncio.timeout(self._config.health_timeout):
                    await self._live.flush()
                    await self._change_log.close()
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

    @override
    async def save_site(self, site: Site) -> None:
        await self._sites.save(site)

    @override
    async def get_site(self, site_id: str) -> Site | None:
        return await self._sites.get(site_id)

    @override
    async def list_sites(self, limit: int = 1000, cursor: str | None = None) -> Slice[Site]:
        return await self._sites.listing(limit, cursor)

    @override
    def iter_sites(self) -> AsyncIterator[Site]:
        return iterate(lambda cursor: self._sites.listing(1000, cursor))

    @override
    async def delete_site(self, site_id: str) -> bool:
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
        removed += await self._garbage.delete_of_site(site_id)
        await self._sites.delete(site_id)
        return existed or removed > 0

    @override
    async def save_run(self, run: CrawlRun) -> None:
        await self._runs.save(run)

    @override
    async def get_run(self, run_id: str, site_id: str | None = None) -> CrawlRun | None:
        return await self._runs.get(run_id, site_id)

    @override
    async def list_runs(self, site_id: str, limit: int = 100, cursor: str | None = None) -> Slice[CrawlRun]:
        return await self._runs.listing(site_id, limit, cursor)

    @override
    def iter_runs(self, site_id: str) -> AsyncIterator[CrawlRun]:
        return iterate(lambda cursor: self._runs.listing(site_id, 100, cursor))

    @override
    async def get_latest_run(self, site_id: str) -> CrawlRun | None:
        return next(iter(await self._runs.listing(site_id, 1, None)), None)

    @override
    async def add_run_stats(self, site_id: str, run_id: str, **deltas: Any) -> CrawlRun:
        return await self._runs.add_stats(site_id, run_id, deltas)

    @override
    async def complete_run(
        self, site_id: str, run_id: str, status: RunStatus | str = RunStatus.COMPLETED
    ) -> CrawlRun:
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

    @override
    async def save_page(self, page: Page) -> None:
        await self._pages.save(page)

    @override
    async def save_pages_bulk(self, pages: Iterable[Page]) -> int:
        return await self._pages.save_bulk(check_several("pages", pages, object))

    @override
    async def get_page(self, site_id: str, page_id: str) -> Page | None:
        return await self._pages.get(site_id, page_id)

    @override
    async def get_pages_bulk(self, site_id: str, page_ids: Iterable[str]) -> list[Page]:
        ids = dict.fromkeys(check_several("page_ids", page_ids, str))
        return await self._pages.get_many([page_key(site_id, each) for each in ids])

    @override
    async def get_page_by_url(self, site_id: str, url: str) -> Page | None:
        return await self._pages.get_by_url(site_id, url)

    @override
    async def list_pages(
        self,
        site_id: str,
        limit: int = 1000,
        cursor: str | None = None,
        include_tombstones: bool = False,
    ) -> Slice[Page]:
        return await self._pages.listing(site_id, limit, cursor, include_tombstones)

    @override
    def iter_pages(self, site_id: str, include_tombstones: bool = False) -> AsyncIterator[Page]:
        return self._pages.iterate(site_id, include_tombstones)

    @override
    async def count_pages(self, site_id: str, include_tombstones: bool = False) -> int:
        return await self._pages.count(site_id, include_tombstones)

    @override
    async def get_pages_needing_recrawl(
        self, site_id: str, max_age_hours: float | None = None, limit: int = 1000
    ) -> list[Page]:
        return await self._pages.needing_recrawl(site_id, max_age_hours, limit)

    @override
    async def mark_seen(self, site_id: str, urls: Iterable[str]) -> int:
        wanted = check_several("urls", urls, str)
        return await self._pages.mark_seen(site_id, wanted, self._clock.now())

    @override
    async def get_unseen_pages(self, site_id: str, run_id: str, limit: int = 1000) -> list[Page]:
        run = await self._runs.get(run_id, site_id)
        if run is None:
            raise NotFoundError(f"run {run_id!r} of site {site_id!r} does not exist")
        if run.status is not RunStatus.COMPLETED:
            raise InvalidArgumentError(
                "run_id", f"is of a run that is {run.status}: only a completed one saw all"
            )
        return await self._pages.not_seen_since(site_id, run.started_at or run.created_at, limit)

    @override
    async def tombstone_pages(
        self, site_id: str, page_ids: Iterable[str], *, allow_mass_deletion: bool = False
    ) -> int:
        return await self._maintenance.tombstone(
            site_id, check_several("page_ids", page_ids, str), allow_mass_deletion=allow_mass_deletion
        )

    @override
    async def save_version(self, version: PageVersion, *, keep_unchanged: bool = False) -> str:
        return await self._versions.save(version, keep_unchanged=keep_unchanged)

    @override
    async def save_versions_bulk(
        self, versions: Iterable[PageVersion], *, keep_unchanged: bool = False
    ) -> int:
        return await self._versions.save_bulk(versions, keep_unchanged=keep_unchanged)

    @override
    async def get_version(
        self, page_id: str, version_id: str, *, site_id: str | None = None
    ) -> PageVersion | None:
        return await self._versions.get(page_id, version_id, site_id)

    @override
    async def get_current_version(self, site_id: str, page_id: str) -> PageVersion | None:
        return await self._versions.get_current(site_id, page_id)

    @override
    async def list_versions(
        self,
        page_id: str,
        limit: int = 100,
        cursor: str | None = None,
        include_content: bool = True,
        *,
        site_id: str | None = None,
    ) -> Slice[PageVersion]:
        return await self._versions.listing(page_id, limit, cursor, include_content, site_id)

    @override
    def iter_versions(self, site_id: str) -> AsyncIterator[PageVersion]:
        return self._versions.iterate_current(site_id)

    async def find_version(self, site_id: str, version_id: str) -> PageVersion | None:
        """A version with its body, by its id alone; eventually consistent.

        Reads the index of the site's versions until it is found, half a read unit for 8 KB or some 36 of
        them: for those who have lost the page's id. `get_version` reads by the full key.

        Raises:
            CorruptContentError: The body is not, or not all, what was saved.
        """
        return await self._versions.find(site_id, version_id)

    @override
    async def get_content_usage(self, site_id: str) -> ContentUsage:
        return await self._usage.measure(site_id)

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
        return await self._retention.prune(
            site_id,
            keep_last=keep_last,
            max_age_days=max_age_days,
            dry_run=dry_run,
            allow_mass_deletion=allow_mass_deletion,
        )

    @override
    async def collect_garbage(
        self,
        site_id: str,
        *,
        grace_hours: float = 24.0,
        dry_run: bool = False,
        allow_mass_deletion: bool = False,
    ) -> GarbageReport:
        return await self._garbage.collect(
            site_id, grace_hours=grace_hours, dry_run=dry_run, allow_mass_deletion=allow_mass_deletion
        )

    @override
    async def save_frontier_item(self, item: FrontierItem) -> None:
        check_kind("item", item, FrontierItem)
        await self._frontier.save(item)

    @override
    async def get_frontier_items(
        self,
        run_id: str,
        status: FrontierStatus | str | None = None,
        limit: int = 1000,
        cursor: str | None = None,
    ) -> Slice[FrontierItem]:
        return await self._frontier.get_items(run_id, status, limit, cursor)

    @override
    async def update_frontier_status(
        self, run_id: str, item_id: str, status: FrontierStatus | str, error: str | None = None
    ) -> FrontierItem:
        return await self._frontier.update_status(run_id, item_id, status, error)

    @override
    async def clear_frontier(self, run_id: str) -> int:
        removed = await self._frontier.clear(run_id)
        for (of_run, _), queue in self._queues.items():
            if of_run == run_id:
                queue.forget()
        return removed

    @override
    def frontier(
        self,
        run_id: str,
        site_id: str,
        *,
        host_delay: float = 0.0,
        host_max_in_flight: int | None = None,
    ) -> Frontier:
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

    @override
    async def commit_page(
        self,
        page: Page,
        version: PageVersion | None = None,
        *,
        claim: Claim | None = None,
        discovered: Iterable[str | FrontierItem] = (),
    ) -> CommitResult:
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

    @override
    async def list_changes(self, site_id: str, limit: int = 100, cursor: str | None = None) -> ChangeSlice:
        return await self._changes.read(site_id, limit, cursor)

    @override
    def iter_changes(self, site_id: str, consumer: str, limit: int = 100) -> AsyncIterator[PageChange]:
        return self._changes.iterate(site_id, consumer, limit)

    @override
    async def get_change_cursor(self, site_id: str, consumer: str | None = None) -> str | None:
        return await self._changes.cursor(site_id, consumer)

    @override
    async def save_change_cursor(self, site_id: str, consumer: str, cursor: str) -> None:
        await self._changes.save_cursor(site_id, consumer, cursor)

    async def _check_bucket(self) -> None:
        if self._objects is not None:
            await self._objects.call("HeadBucket", {"Bucket": self._config.content_bucket})


def _content_bucket(config: DynamoDBConfig, metrics: Metrics) -> Gateway | None:
    if config.content_bucket is None:
        return None
    return Gateway(config, open_object_client, service="S3", metrics=metrics)


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
