"""Assembles the rooms of this package into one backend: makes their objects, opens and closes them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from ragcrawl_dynamo._changes.consumers import ChangeConsumers
from ragcrawl_dynamo._changes.contents import ChangeContents
from ragcrawl_dynamo._changes.feed import ChangeFeed
from ragcrawl_dynamo._changes.log import ChangeLog
from ragcrawl_dynamo._commit.commit import Committer
from ragcrawl_dynamo._commit.live_stats import LiveStats
from ragcrawl_dynamo._commit.run_completion import RunCompletion
from ragcrawl_dynamo._commit.site_deletion import SiteDeletion
from ragcrawl_dynamo._commit.tombstones import Tombstones
from ragcrawl_dynamo._commit.unseen_pages import UnseenPages
from ragcrawl_dynamo._content.bucket import ContentBucket
from ragcrawl_dynamo._content.garbage import GarbageCollector
from ragcrawl_dynamo._content.retention import Retention
from ragcrawl_dynamo._content.usage import UsageMeter
from ragcrawl_dynamo._content.versions import VersionStore
from ragcrawl_dynamo._dynamodb.client import Access
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.metrics import Metrics, Observer
from ragcrawl_dynamo._frontier.claim import LeaseObserver, guarded
from ragcrawl_dynamo._frontier.frontiers import Frontiers
from ragcrawl_dynamo._indexing.chunk_records import ChunkRecords
from ragcrawl_dynamo._indexing.lease import IndexLeases
from ragcrawl_dynamo._records.frontier_items import FrontierItemStore
from ragcrawl_dynamo._records.pages import PageStore
from ragcrawl_dynamo._records.runs import RunStore
from ragcrawl_dynamo._records.sites import SiteStore
from ragcrawl_dynamo._schema.autoscaling import Autoscaling
from ragcrawl_dynamo._schema.migrations import MigrationProgress
from ragcrawl_dynamo._schema.schema import Schema
from ragcrawl_dynamo._schema.table_info import TableInfo
from ragcrawl_dynamo._schema.tables import Tables
from ragcrawl_dynamo._utils.clock import Clock, SystemClock
from ragcrawl_dynamo.config import DynamoDBConfig

logger = logging.getLogger(__name__)


class Assembly:
    """The objects that one backend consists of, by room."""

    def __init__(
        self,
        config: DynamoDBConfig,
        access: Access,
        clock: Clock | None,
        on_request: Observer | None,
        on_lease_lost: LeaseObserver | None,
    ) -> None:
        self.config = config
        access.check(config)
        self.clock: Clock = clock or SystemClock()
        self.metrics = Metrics(on_request)
        self.access = access
        self._on_lease_lost = guarded(on_lease_lost)
        self._make()

    def _make(self) -> None:
        config, access, clock, metrics = self.config, self.access, self.clock, self.metrics
        self.gateway = gateway = Gateway(config, access=access, metrics=metrics)
        self.tables = tables = Tables.of(config.table_prefix)
        self.bucket = ContentBucket(config, access, metrics)
        self.schema = Schema(gateway, tables, Autoscaling(config, access, metrics))
        self.sites = SiteStore(gateway, tables.sites)
        self.runs = RunStore(gateway, tables.runs)
        self.pages = PageStore(gateway, tables.pages, clock)
        self.frontier_items = FrontierItemStore(gateway, tables.frontier, clock)
        self.frontiers = Frontiers(gateway, tables, clock, self._on_lease_lost)
        self.versions = VersionStore(gateway, tables.versions, self.bucket.gateway, self.pages, clock)
        self.change_log = ChangeLog(gateway, tables.pages, clock)
        contents = ChangeContents(config, self.pages, self.versions.loader)
        self.changes = ChangeFeed(gateway, tables.pages, self.pages, self.change_log, contents)
        self.consumers = ChangeConsumers(self.changes, clock)
        self.index_leases = IndexLeases(gateway, tables.pages, clock)
        self.chunk_records = ChunkRecords(gateway, tables.pages, clock)
        self.usage = UsageMeter(gateway, tables.versions)
        self.retention = Retention(gateway, tables.versions, self.versions, self.pages, clock)
        self.garbage = GarbageCollector(gateway, tables.versions, self.versions, clock)
        self.live_stats = LiveStats(self.runs, clock)
        self.committer = Committer(
            self.frontiers, self.pages, self.versions, self.change_log, self.live_stats
        )
        self.tombstones = Tombstones(self.frontiers, self.pages, self.change_log)
        self.unseen_pages = UnseenPages(self.frontiers, self.runs, self.pages)
        self.run_completion = RunCompletion(self.frontiers, self.runs, self.pages, self.sites)
        self.site_deletion = SiteDeletion(
            self.sites,
            self.runs,
            self.frontier_items,
            self.frontiers,
            (self.pages, self.changes, self.garbage),
        )

    async def open(self, *, create_tables: bool, create_missing_indexes: bool) -> None:
        """Opens the connections, and makes the tables that are missing; see StorageBackend.initialize."""
        await self._leave_closed_loop()
        await self.gateway.open()
        try:
            await self.bucket.open()
            await self.schema.initialize(
                create_tables=create_tables, create_missing_indexes=create_missing_indexes
            )
        except BaseException:
            await self.close()
            raise

    async def describe_tables(self) -> tuple[list[TableInfo], int | None]:
        """Describes the tables; see DynamoDBBackend.describe_tables."""
        await self._leave_closed_loop()
        was_open = self.gateway.is_open
        await self.gateway.open()
        try:
            return await self.schema.describe()
        finally:
            if not was_open:
                await self.close()

    async def migrate(self, on_progress: Callable[[MigrationProgress], None] | None) -> int:
        """Migrates the tables; see DynamoDBBackend.migrate."""
        await self._leave_closed_loop()
        await self.gateway.open()
        try:
            return await self.schema.migrate(on_progress)
        finally:
            await self.close()

    async def clear_frontier(self, run_id: str) -> int:
        """Deletes the items of a run, and forgets its queue; see StorageBackend.clear_frontier."""
        removed = await self.frontier_items.clear(run_id)
        self.frontiers.clear(run_id)
        return removed

    async def close(self) -> None:
        """Writes the data that is kept in memory, and closes the connections, even if a step fails."""
        if self.gateway.is_inherited:
            # Only the process that opened the connections writes the data that is kept in memory.
            return
        await self._leave_closed_loop()
        steps: list[Callable[[], Awaitable[None]]] = [
            *(self.pages.close, self.versions.close, self.frontier_items.close),
            # Commits that end while their queue is closed add to the last stats.
            *(self.frontiers.close, self._write_last, self.gateway.close, self.bucket.close),
        ]
        async with AsyncExitStack() as stack:
            for step in reversed(steps):
                stack.push_async_callback(step)

    async def _leave_closed_loop(self) -> None:
        """Replaces all objects if their event loop is closed: calls that wait in them would wait forever."""
        if not self.gateway.is_stranded or self.gateway.is_inherited:
            return
        gateway, bucket = self.gateway, self.bucket
        self._make()
        await gateway.close()
        await bucket.close()

    async def _write_last(self) -> None:
        try:
            async with asyncio.timeout(self.config.health_timeout):
                await self.live_stats.close()
                await self.change_log.close()
        except TimeoutError:
            logger.warning(
                "while closing, DynamoDB did not answer within health_timeout = %s s: the last stats of runs "
                "were not stored; complete_run() counts them again",
                self.config.health_timeout,
            )
