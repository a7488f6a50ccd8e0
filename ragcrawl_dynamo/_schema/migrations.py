"""The version of what the tables hold, and how items of an older one are brought up."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.codec import from_item, to_item
from ragcrawl_dynamo._dynamodb.expressions import AllOf, AnyOf, Compare, Condition, Exists, Missing, Update
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.values import Item, Key
from ragcrawl_dynamo._schema.keys import schema_key
from ragcrawl_dynamo._schema.records import SchemaRecord
from ragcrawl_dynamo._utils.concurrency import gather_bounded
from ragcrawl_dynamo.errors import AccessDeniedError, ConditionFailedError, SchemaVersionError

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.type_defs import UpdateItemInputTypeDef

    from ragcrawl_dynamo._dynamodb.table import Table
    from ragcrawl_dynamo._schema.tables import Tables

__all__ = ["MigrationProgress"]

logger = logging.getLogger(__name__)

# It grows when items change in a way that other versions of this package can not read. Tables without a
# record are of the first.
FIRST_VERSION = 1
SCHEMA_VERSION = 1

OnProgress: TypeAlias = "Callable[[MigrationProgress], None]"

# Items read at once, and rewritten at once.
_PER_PAGE = 200
_IN_FLIGHT = 16


@dataclass(frozen=True, slots=True)
class MigrationProgress:
    """A page of a table that was looked through.

    Attributes:
        version: To which the items were brought.
        table: Full name of the table.
        seen: Items of the page.
        rewritten: How many of them were of the old form.
    """

    version: int
    table: str
    seen: int
    rewritten: int


@dataclass(frozen=True, slots=True)
class Migration:
    """What brings the items of one table to a version.

    Attributes:
        version: To which.
        table: Name of the table, without prefix.
        upgrade: Of an item what it is to be, with the same key; the same item where nothing is to be done. To
            apply it twice must be as good as once.
    """

    version: int
    table: str
    upgrade: Callable[[Item], Item]


# By version. Version 1 is the first that there is.
MIGRATIONS: tuple[Migration, ...] = ()


class SchemaStore:
    """Key `#schema` / `#schema` of the runs table: one record for all five tables."""

    def __init__(self, gateway: Gateway, tables: Tables) -> None:
        self._gateway = gateway
        self._tables = tables
        self._table = tables.schema

    @property
    def version(self) -> int:
        """Of this package."""
        return SCHEMA_VERSION

    async def read(self) -> SchemaRecord | None:
        """The record; None where nobody has written one."""
        response = await self._gateway.call("GetItem", requests.get_request(self._table, schema_key()))
        return from_item(self._table, response["Item"]) if "Item" in response else None

    async def ensure(self, *, is_new: bool, write: bool = True) -> None:
        """Proves that the tables are of this version, and says so in them if nobody has.

        Args:
            is_new: Whether the tables were only just made, so that they are of no older version.
            write: Whether to say so.

        Raises:
            SchemaVersionError: They are of another version.
        """
        record = await self.read()
        unsaid = SCHEMA_VERSION if is_new else FIRST_VERSION
        version = unsaid if record is None else record.version
        if version != SCHEMA_VERSION:
            raise SchemaVersionError(version, SCHEMA_VERSION)
        if record is None and write:
            try:
                await self._write(SchemaRecord(version=SCHEMA_VERSION), Missing("version"))
            except (ConditionFailedError, AccessDeniedError) as error:
                # Someone else was faster, or may write what this role may not.
                logger.debug("the schema's version is not recorded: %s", error)

    async def migrate(self, on_progress: OnProgress) -> int:
        """Brings all items up to this version, from where an earlier call was ended.

        Others may read and write all the while. What they write in the old form behind its back is found by
        a second look, and a third, until one finds nothing.

        Returns:
            How many items were rewritten.

        Raises:
            SchemaVersionError: The tables are of a newer version.
            ServiceError: A request failed; the next call goes on from there.
        """
        record = await self.read() or SchemaRecord(version=FIRST_VERSION)
        rewritten = 0
        while record.version < SCHEMA_VERSION:
            steps = [each for each in MIGRATIONS if each.version == record.version + 1]
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
        """Goes through a table once; the record is at its next step if there was nothing to do."""
        table: Table[Any] = getattr(self._tables, migration.table)
        rewritten = 0
        while True:
            start: Key = {name: {"S": text} for name, text in record.position.items()}
            request = requests.scan_request(table, limit=_PER_PAGE, start=start or None)
            response = await self._gateway.call("Scan", request)

            rewrite = partial(self._rewrite, table, migration)
            changed = sum(await gather_bounded(rewrite, response["Items"], _IN_FLIGHT))
            rewritten += changed
            last = response.get("LastEvaluatedKey", {})
            position = {name: value["S"] for name, value in last.items()}
            clean = record.clean and not changed
            if position:
                after = record.model_copy(update={"position": position, "clean": clean})
            else:
                # From the beginning: of the next step, or for another look.
                after = SchemaRecord(version=record.version, step=record.step + int(clean))
            record = await self._advance(record, after)
            on_progress(MigrationProgress(migration.version, table.name, len(response["Items"]), changed))
            if not position or (record.version, record.step) != (after.version, after.step):
                return record, rewritten

    async def _rewrite(self, table: Table[Any], migration: Migration, item: Item) -> bool:
        if schema_key().items() <= item.items():
            return False
        while (new := migration.upgrade(item)) != item:
            try:
                await self._gateway.call("UpdateItem", _replacement(table, item, new))
            except ConditionFailedError as error:
                if error.item is None:
                    # Deleted meanwhile.
                    return False
                item = error.item
            else:
                return True
        return False

    async def _advance(self, before: SchemaRecord, after: SchemaRecord) -> SchemaRecord:
        """Writes how far it is; whoever migrates at the same time may be further."""
        same: Condition = AllOf(
            (
                Compare("version", "=", {"N": str(before.version)}),
                Compare("step", "=", {"N": str(before.step)}),
            )
        )
        if before.version == FIRST_VERSION:
            same = AnyOf((same, Missing("version")))
        try:
            await self._write(after, same)
        except ConditionFailedError:
            return await self.read() or after
        return after

    async def _write(self, record: SchemaRecord, condition: Condition | None) -> None:
        item = to_item(self._table, record)
        await self._gateway.call("PutItem", requests.put_request(self._table, item, condition))


def _replacement(table: Table[Any], item: Item, new: Item) -> UpdateItemInputTypeDef:
    """Writes what differs, if that is still as it was read; the rest may have changed since."""
    names = sorted(name for name in {*item, *new} if item.get(name) != new.get(name))
    return requests.update_request(
        table,
        {name: item[name] for name in table.primary_key},
        Update(
            put={name: new[name] for name in names if name in new},
            remove=[name for name in names if name not in new],
        ),
        # An item that was deleted meanwhile stays so.
        AllOf(
            [
                Exists(table.partition_key),
                *(Compare(name, "=", item[name]) if name in item else Missing(name) for name in names),
            ]
        ),
    )
