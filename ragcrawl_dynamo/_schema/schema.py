"""Creates, checks, describes and migrates the five tables as a whole."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._schema.autoscaling import Autoscaling
from ragcrawl_dynamo._schema.migrations import MigrationProgress, SchemaStore
from ragcrawl_dynamo._schema.provisioning import all_active, ensure_tables, require_tables
from ragcrawl_dynamo._schema.table_info import TableInfo, describe_tables
from ragcrawl_dynamo._schema.tables import Tables
from ragcrawl_dynamo._utils.validation import check_callable
from ragcrawl_dynamo.errors import ServiceError

logger = logging.getLogger(__name__)


class Schema:
    """The tables of one prefix, and the version of their schema."""

    def __init__(self, gateway: Gateway, tables: Tables, autoscaling: Autoscaling) -> None:
        self._gateway = gateway
        self._tables = tables
        self._autoscaling = autoscaling
        self.store = SchemaStore(gateway, tables)

    @property
    def version(self) -> int:
        """The schema version of this package."""
        return self.store.version

    async def initialize(self, *, create_tables: bool, create_missing_indexes: bool) -> None:
        """Creates missing tables, and checks all tables and their version; see StorageBackend.initialize."""
        new: set[str] = set()
        if create_tables:
            new = await self._ensure_tables(create_missing_indexes=create_missing_indexes)
        else:
            await require_tables(self._gateway, self._tables)
        await self.store.ensure(is_new=self._tables.runs.name in new, write=create_tables)

    async def describe(self) -> tuple[list[TableInfo], int | None]:
        """Returns descriptions of the tables, and the stored version of their schema, or None."""
        scaling = await self._autoscaling.read(self._tables)
        tables = await describe_tables(self._gateway, self._tables, scaling)
        has_runs = any(table.name == self._tables.runs.name and table.billing for table in tables)
        record = await self.store.read() if has_runs else None
        return tables, None if record is None else record.version

    async def migrate(self, on_progress: Callable[[MigrationProgress], None] | None) -> int:
        """Migrates the tables to this package's version; returns how many items were rewritten."""
        await self._ensure_tables(create_missing_indexes=True)
        check_callable("on_progress", on_progress)
        return await self.store.migrate(on_progress or (lambda _: None))

    async def is_healthy(self, check_others: Callable[[], Awaitable[object]]) -> bool:
        """Returns whether the tables serve requests and another check passes, within `health_timeout`."""
        config = self._gateway.config
        try:
            async with asyncio.timeout(config.health_timeout):
                is_active = await all_active(self._gateway, self._tables)
                await check_others()
        except ServiceError as error:
            logger.warning("the health check failed: %s", error)
            return False
        except TimeoutError:
            logger.warning(
                "the health check failed: DynamoDB did not answer within health_timeout = %s s",
                config.health_timeout,
            )
            return False
        if not is_active:
            logger.warning(
                "the health check failed: a table with prefix %r is missing or not active",
                config.table_prefix,
            )
        return is_active

    async def _ensure_tables(self, *, create_missing_indexes: bool) -> set[str]:
        """Makes the tables usable, and lets their capacity be scaled; returns the names of new ones."""
        new = await ensure_tables(self._gateway, self._tables, create_missing_indexes=create_missing_indexes)
        await self._autoscaling.ensure(self._tables)
        return new
