"""Keeps the records of a change log's shards: who gives out the sequence numbers of each."""

from __future__ import annotations

import logging
import random
import secrets
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from ragcrawl_dynamo._changes.change import LATEST_HOURS, LogEntry
from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.expressions import AllOf, BeginsWith, Compare, Condition, Missing, Path, Update
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.pagination import read_pages
from ragcrawl_dynamo._dynamodb.requests import Query
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._dynamodb.values import Item, Value, moment_text
from ragcrawl_dynamo._dynamodb.write_token import WriteToken
from ragcrawl_dynamo._schema.keys import (
    CHANGE_SHARD_PREFIX,
    change_shard_key,
    change_shard_of,
    change_shard_partition,
    changes_partition,
)
from ragcrawl_dynamo.errors import ConditionFailedError, RagcrawlDynamoError
from ragcrawl_dynamo.models import Page

logger = logging.getLogger(__name__)

# Shards that a process tries to take over before it makes a new one.
_TAKE_OVERS = 3

# The attribute of the days after which the entries of a shard expire; its value is NULL if they never do.
_RETENTION = "retention_days"


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """A shard of a site's change log as it is stored.

    Attributes:
        shard: The name of the shard.
        holder: The token of the process that took it.
        first: Sequence number with which the holder began.
        next: Sequence number with which the next holder begins; None until the holder leaves the shard.
        held_since: When the holder took it, as it is in the item.
        retention_days: Days after which its entries expire; None if they never do.
    """

    shard: str
    holder: str
    first: int
    next: int | None
    held_since: str
    retention_days: int | None

    @classmethod
    def of(cls, item: Item, retention_days: int | None) -> Self:
        """Reads the record of an item.

        Args:
            item: The item.
            retention_days: The retention that an item counts with which has none: an older version wrote it.
        """
        first = int(item["first"]["N"])
        following = int(item["next"]["N"]) if "next" in item else None
        if (stored := item.get(_RETENTION)) is not None:
            retention_days = int(stored["N"]) if "N" in stored else None
        held_since = item["held_since"]["S"]
        return cls(change_shard_of(item), item["holder"]["S"], first, following, held_since, retention_days)

    @property
    def is_as_read(self) -> Condition:
        """The condition that no process has taken over or left the shard since its record was read."""
        same_holder = Compare("holder", "=", {"S": self.holder})
        if self.next is None:
            return AllOf((same_holder, Missing("next")))
        return AllOf((same_holder, Compare("next", "=", {"N": str(self.next)})))


def holder_token() -> WriteToken:
    """Makes the token of one take-over of a shard. While the record has it, no other process has taken it."""
    return WriteToken.new("holder")


class ShardStore:
    """Key `#{site_id}` / `lane#{shard}`; all reads are strongly consistent.

    The entries of a shard have one retention, that of the processes that hold it. So a reader can tell by the
    record whether entries may have expired; its own setting does not matter.
    """

    def __init__(self, gateway: Gateway, table: Table[Page]) -> None:
        self._gateway = gateway
        self._table = table
        self._retention_days = gateway.config.change_retention_days

    async def records(self, site_id: str) -> list[ShardRecord]:
        """Reads the records of all shards of a site."""
        is_shard = BeginsWith("page_id", {"S": CHANGE_SHARD_PREFIX})
        query = Query(self._table, changes_partition(site_id), sort=is_shard)
        async with aclosing(read_pages(self._gateway, query)) as pages:
            return [ShardRecord.of(item, self._retention_days) async for _, items in pages for item in items]

    async def take(self, site_id: str, token: WriteToken, now: datetime) -> tuple[str, int]:
        """Takes over an unused shard, or makes one; returns its name and next sequence number."""
        for record in await self._candidates(site_id, now):
            first = await self._next_number(site_id, record, now)
            if first is not None and await self._take_over(site_id, record, token, first, now):
                return record.shard, first
        shard = secrets.token_hex(4)
        item: Item = {**change_shard_key(site_id, shard), **token.attributes, **self._taken(1, now)}
        await self._gateway.call("PutItem", requests.put_request(self._table, item))
        return shard, 1

    async def is_held(self, site_id: str, shard: str, token: WriteToken) -> bool:
        """Returns whether a shard still exists and no other process has taken it since."""
        request = requests.get_request(self._table, change_shard_key(site_id, shard))
        return token.is_in((await self._gateway.call("GetItem", request)).get("Item"))

    async def leave(self, site_id: str, shard: str, token: WriteToken, next_number: int) -> None:
        """Lets other processes take over a shard at once, unless one has taken it."""
        update = Update(put={"next": {"N": str(next_number)}})
        is_held = Compare(token.path, "=", token.value)
        request = requests.update_request(self._table, change_shard_key(site_id, shard), update, is_held)
        try:
            await self._gateway.call("UpdateItem", request)
        except RagcrawlDynamoError as error:
            # Another process takes the shard over as it does when a holder is killed.
            logger.debug(
                "shard %s of the change log of site %r could not be released; another process takes it over "
                "in an hour: %s",
                *(shard, site_id, error),
            )

    async def _candidates(self, site_id: str, now: datetime) -> list[ShardRecord]:
        """Chooses some shards with this retention that were left, or have been held for long."""
        long_ago = moment_text(now - timedelta(hours=LATEST_HOURS))
        records = [
            record
            for record in await self.records(site_id)
            if record.retention_days == self._retention_days
            and (record.next is not None or record.held_since < long_ago)
        ]
        random.shuffle(records)
        return sorted(records, key=lambda record: record.next is None)[:_TAKE_OVERS]

    async def _next_number(self, site_id: str, record: ShardRecord, now: datetime) -> int | None:
        """Returns the sequence number with which a new holder of a shard begins; None if it is in use."""
        if record.next is not None:
            return record.next
        query = Query(self._table, change_shard_partition(site_id, record.shard), forward=False)
        response = await self._gateway.call("Query", requests.query_request(query, limit=1))
        # If all entries have expired, the next number is not known.
        for item in response["Items"]:
            last = LogEntry.of(record.shard, item)
            if now - last.logged_at >= timedelta(hours=LATEST_HOURS):
                return last.position.sequence_number + 1
        return None

    async def _take_over(
        self, site_id: str, record: ShardRecord, token: WriteToken, first: int, now: datetime
    ) -> bool:
        """Stores the token in a shard's record, unless another process was faster; returns whether it did."""
        put: dict[Path, Value] = {**token.assignment}
        put.update(self._taken(first, now))
        update = Update(put=put, remove=("next",))
        key = change_shard_key(site_id, record.shard)
        request = requests.update_request(self._table, key, update, record.is_as_read)
        try:
            await self._gateway.call("UpdateItem", request)
        except ConditionFailedError as error:
            return token.is_in(error.item)
        return True

    def _taken(self, first: int, now: datetime) -> Item:
        """Builds the attributes of a shard that is taken, beside the token."""
        days = self._retention_days
        return {
            "first": {"N": str(first)},
            "held_since": {"S": moment_text(now)},
            _RETENTION: {"NULL": True} if days is None else {"N": str(days)},
        }
