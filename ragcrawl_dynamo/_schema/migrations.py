"""Stores the schema version of the tables, and migrates items of an older version."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import uuid4

from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.codec import from_item, to_item
from ragcrawl_dynamo._dynamodb.expressions import AllOf, AnyOf, Compare, Condition, Exists, Missing, Update
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.values import Item, Key, unescape
from ragcrawl_dynamo._schema.attributes import EXPIRES_AT
from ragcrawl_dynamo._schema.keys import frontier_key, schema_key, url_key
from ragcrawl_dynamo._schema.queue_entries import QueueEntries
from ragcrawl_dynamo._schema.records import SchemaRecord
from ragcrawl_dynamo._utils.concurrency import gather_bounded
from ragcrawl_dynamo.errors import AccessDeniedError, ConditionFailedError, SchemaVersionError
from ragcrawl_dynamo.models import MAX_NAMED

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.type_defs import TransactWriteItemsInputTypeDef, UpdateItemInputTypeDef

    from ragcrawl_dynamo._dynamodb.table import Table
    from ragcrawl_dynamo._schema.tables import Tables

__all__ = ["MigrationProgress"]

logger = logging.getLogger(__name__)

# The version grows when items change in a way that other versions of this package cannot read. Tables without
# a schema record have the first version.
FIRST_VERSION = 1
SCHEMA_VERSION = 2

OnProgress: TypeAlias = "Callable[[MigrationProgress], None]"

# Seconds between reads of a missing schema record. The process that creates the tables stores it
# as soon as they are active, which others may see a little earlier.
_PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6)

# Items that one request reads, and items that are rewritten at the same time.
_PER_PAGE = 200
_IN_FLIGHT = 16


@dataclass(frozen=True, slots=True)
class MigrationProgress:
    """The progress of a migration after one page of a table.

    Attributes:
        version: The schema version to which the items are migrated.
        table: The full name of the table.
        seen: How many items the page has.
        rewritten: How many of them had the old form, and were rewritten.
    """

    version: int
    table: str
    seen: int
    rewritten: int


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the migration to a version: it upgrades the items of one table.

    Attributes:
        version: The version to which the items are migrated.
        table: The name of the table, without prefix.
        upgrade: Returns the upgraded form of an item, perhaps with another key. It must return an upgraded
            item unchanged.
    """

    version: int
    table: str
    upgrade: Callable[[Item], Item]


def renew_url_key(item: Item) -> Item:
    """Returns a page with the key of its URL's present normal form; other items of its table as they are."""
    if "url_key" not in item:
        return item
    return {**item, "url_key": {"S": url_key(item["url"]["S"])}}


def count_domains(item: Item) -> Item:
    """Returns a run with the number of its hosts and some of their names, instead of the set of all names."""
    if _DOMAINS not in item:
        return item
    upgraded = dict(item)
    stats = dict(upgraded["stats"]["M"])
    # A process of version 1 may have begun a new set after the item was upgraded.
    sample = [name["S"] for name in stats.get("domains_sample", {"L": []})["L"]]
    names = sorted({*upgraded.pop(_DOMAINS)["SS"], *sample})
    count = max(len(names), int(stats.get("domains_crawled", {"N": "0"})["N"]))
    stats["domains_crawled"] = {"N": str(count)}
    stats["domains_sample"] = {"L": [{"S": name} for name in names[:MAX_NAMED]]}
    upgraded["stats"] = {"M": stats}
    return upgraded


def spread_items(item: Item) -> Item:
    """Returns a frontier item with its key in the layout of version 2; other items as they are.

    An item that is in a queue stays. Its run was opened meanwhile, and the migration will be refused.
    """
    run_id = item["run_id"]["S"]
    if "#" in run_id or "queue" in item:
        return item
    return {**item, **frontier_key(unescape(run_id), unescape(item["item_id"]["S"]))}


# The set of the hosts of a run, which version 1 stores beside the stats. It grew with the run, up to the
# 400 KB that an item may take.
_DOMAINS = "stats_domains_crawled"

# In the order of their versions. Version 2 has another normal form of URLs, another layout of queues, runs
# that do not grow with their hosts, and items that are spread over partitions. Queues are not migrated: no
# run may be open, and of finished runs only the items are read.
MIGRATIONS: tuple[Migration, ...] = (
    Migration(2, "pages", renew_url_key),
    Migration(2, "runs", count_domains),
    Migration(2, "frontier", spread_items),
)


class SchemaStore:
    """The schema record, key `#schema` / `#schema` of the runs table: one for all five tables."""

    def __init__(self, gateway: Gateway, tables: Tables) -> None:
        self._gateway = gateway
        self._tables = tables
        self._table = tables.schema
        self._queue_entries = QueueEntries(gateway, tables)

    @property
    def version(self) -> int:
        """The schema version of this package."""
        return SCHEMA_VERSION

    async def read(self) -> SchemaRecord | None:
        """Returns the schema record, or None if none is stored."""
        response = await self._gateway.call("GetItem", requests.get_request(self._table, schema_key()))
        return from_item(self._table, response["Item"]) if "Item" in response else None

    async def ensure(self, *, is_new: bool, write: bool = True) -> None:
        """Checks that the tables have this package's version, and stores the version if none is stored.

        Args:
            is_new: Whether the tables were just created, so that they cannot have an older version.
            write: Whether to store the version.

        Raises:
            SchemaVersionError: The tables have another version.
        """
        record = await self.read()
        if record is None and not is_new:
            record = await self._read_later()
        default_version = SCHEMA_VERSION if is_new else FIRST_VERSION
        version = default_version if record is None else record.version
        if version != SCHEMA_VERSION:
            raise SchemaVersionError(version, SCHEMA_VERSION)
        if record is None and write:
            try:
                await self._write(SchemaRecord(version=SCHEMA_VERSION), Missing("version"))
            except (ConditionFailedError, AccessDeniedError) as error:
                logger.debug(
                    "the schema version was not stored, because another process stored it first, or only "
                    "another role may write it: %s",
                    error,
                )

    async def _read_later(self) -> SchemaRecord | None:
        """Reads the schema record again and again: another process may have just created the tables."""
        for pause in _PAUSES:
            await asyncio.sleep(pause)
            if (record := await self.read()) is not None:
                return record
        return None

    async def migrate(self, on_progress: OnProgress) -> int:
        """Migrates all items to this package's version. A call resumes where an interrupted one stopped.

        Other processes may read and write pages meanwhile. They may write items of the old form in a part of
        a table that is already migrated. The table is therefore read again, until a pass finds no such item.

        Returns:
            How many items were rewritten.

        Raises:
            SchemaVersionError: The tables have a newer version.
            OpenRunsError: The tables have version 1, and runs are open.
            ServiceError: A request failed; the next call resumes there.
        """
        record = await self.read() or SchemaRecord(version=FIRST_VERSION)
        rewritten = 0
        while record.version < SCHEMA_VERSION:
            if record.version == FIRST_VERSION:
                # Before each step and before the end, since an old process may open a run meanwhile.
                rewritten += await self._queue_entries.clear()
            steps = [step for step in MIGRATIONS if step.version == record.version + 1]
            if record.step < len(steps):
                record, count = await self._look(record, steps[record.step], on_progress)
                rewritten += count
            else:
                record = await self._advance(record, SchemaRecord(version=record.version + 1))
        await self.ensure(is_new=False)
        return rewritten

    async def _look(
        self, record: SchemaRecord, migration: Migration, on_progress: OnProgress
    ) -> tuple[SchemaRecord, int]:
        """Reads a table once and upgrades its items.

        Returns:
            The schema record, at the next step if nothing was rewritten; and how many items were rewritten.
        """
        table: Table[Any] = getattr(self._tables, migration.table)
        rewritten = 0
        while True:
            start: Key = {name: {"S": text} for name, text in record.position.items()}
            request = requests.scan_request(table, limit=_PER_PAGE, start=start or None)
            response = await self._gateway.call("Scan", request)
            rewrite = partial(self._rewrite, table, migration)
            rewritten_of_page = sum(await gather_bounded(rewrite, response["Items"], _IN_FLIGHT))
            rewritten += rewritten_of_page
            last_key = response.get("LastEvaluatedKey", {})
            position = {name: value["S"] for name, value in last_key.items()}
            clean = record.clean and not rewritten_of_page
            if position:
                after = record.model_copy(update={"position": position, "clean": clean})
            else:
                # The next step begins, or another pass of this step.
                after = SchemaRecord(version=record.version, step=record.step + int(clean))
            record = await self._advance(record, after)
            seen = len(response["Items"])
            on_progress(MigrationProgress(migration.version, table.name, seen, rewritten_of_page))
            if not position or (record.version, record.step) != (after.version, after.step):
                return record, rewritten

    async def _rewrite(self, table: Table[Any], migration: Migration, item: Item) -> bool:
        """Upgrades one item; returns whether it was rewritten."""
        if schema_key().items() <= item.items():
            return False
        while (upgraded := migration.upgrade(item)) != item:
            try:
                if _has_key_of(table, item, upgraded):
                    await self._gateway.call("UpdateItem", _replacement(table, item, upgraded))
                else:
                    await self._gateway.call("TransactWriteItems", _move(table, item, upgraded))
            except ConditionFailedError as error:
                stored = error.items[0] if error.items else error.item
                if not stored:
                    # The item was deleted meanwhile, or another process has moved it.
                    return False
                item = stored
            else:
                return True
        return False

    async def _advance(self, before: SchemaRecord, after: SchemaRecord) -> SchemaRecord:
        """Stores the progress; returns the stored record. Another migrating process may have advanced it."""
        is_as_read: Condition = AllOf(
            (
                Compare("version", "=", {"N": str(before.version)}),
                Compare("step", "=", {"N": str(before.step)}),
            )
        )
        if before.version == FIRST_VERSION:
            is_as_read = AnyOf((is_as_read, Missing("version")))
        try:
            await self._write(after, is_as_read)
        except ConditionFailedError:
            return await self.read() or after
        return after

    async def _write(self, record: SchemaRecord, condition: Condition | None) -> None:
        item = to_item(self._table, record)
        await self._gateway.call("PutItem", requests.put_request(self._table, item, condition))


def _has_key_of(table: Table[Any], item: Item, other: Item) -> bool:
    return all(item[name] == other[name] for name in table.primary_key)


def _move(table: Table[Any], item: Item, moved: Item) -> TransactWriteItemsInputTypeDef:
    """Builds the transaction that gives an item another key, on the condition that it is as it was read."""
    key: Key = {name: item[name] for name in table.primary_key}
    names = {*item, *table.model.model_fields, EXPIRES_AT, "queue", "queue_order"} - key.keys()
    is_as_read = [Compare(name, "=", item[name]) if name in item else Missing(name) for name in sorted(names)]
    delete = requests.transact_delete(table, key, AllOf((Exists(table.partition_key), *is_as_read)))
    return requests.transaction_request(uuid4().hex, [delete, requests.transact_put(table, moved)])


def _replacement(table: Table[Any], item: Item, upgraded: Item) -> UpdateItemInputTypeDef:
    """Builds the update of the attributes that differ, on the condition that they are as they were read.

    Other attributes may have changed meanwhile; they keep their values.
    """
    update = Update.between(item, upgraded)
    names = sorted({*map(str, update.put), *update.remove})
    return requests.update_request(
        table,
        {name: item[name] for name in table.primary_key},
        update,
        # Do not create an item that was deleted meanwhile.
        AllOf(
            [
                Exists(table.partition_key),
                *(Compare(name, "=", item[name]) if name in item else Missing(name) for name in names),
            ]
        ),
    )
