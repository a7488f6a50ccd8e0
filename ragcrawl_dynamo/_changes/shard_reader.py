"""Reads one shard of a site's change log, never beyond a sequence number whose commit may be under way.

A reader waits for such a commit. After a while it gives the number up: it uses the number itself. A commit
that comes later finds its position taken, and logs its change further on. So no change can appear before the
cursor of a reader.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from ragcrawl_dynamo._changes.change import (
    LATEST_HOURS,
    VOID,
    LogEntry,
    LogPosition,
    lowest_open_number,
    settled_entries,
)
from ragcrawl_dynamo._changes.log import ChangeLog
from ragcrawl_dynamo._changes.shards import ShardRecord
from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.expressions import Compare, Missing
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.requests import Query
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._schema.keys import change_shard_partition, sequence_text
from ragcrawl_dynamo._utils.concurrency import gather_bounded, map_in_turns
from ragcrawl_dynamo.errors import ConditionFailedError
from ragcrawl_dynamo.models import Page

# Entries that one request reads at least: most of them can be of pages that changed again.
_LEAST_READ = 100

# Sequence numbers that one call gives up at once.
_GAPS_IN_FLIGHT = 16


@dataclass(frozen=True, slots=True)
class ShardPart:
    """The log entries of a shard that can be read now.

    Attributes:
        shard: The name of the shard.
        first: The sequence number from which on it was read.
        entries: The entries, without a gap.
        is_end: Whether nothing more can be read for now.
    """

    shard: str
    first: int
    entries: list[LogEntry]
    is_end: bool


class ShardReader:
    """Reads shards of all sites, strongly consistent."""

    def __init__(self, gateway: Gateway, table: Table[Page], change_log: ChangeLog) -> None:
        self._gateway = gateway
        self._table = table
        self._log = change_log

    async def read(
        self, site_id: str, record: ShardRecord, first: int, limit: int, now: datetime
    ) -> ShardPart:
        """Reads a shard, and gives up sequence numbers that were not used for long.

        Args:
            site_id: The site.
            record: The shard's record.
            first: The sequence number from which on to read.
            limit: Entries that the caller wants at most; there can be more.
            now: The moment.
        """
        if record.next == first:
            return ShardPart(record.shard, first, [], is_end=True)
        later = Compare("page_id", ">=", {"S": sequence_text(first)})
        query = Query(self._table, change_shard_partition(site_id, record.shard), sort=later)
        request = requests.query_request(query, limit=max(limit, _LEAST_READ))
        while True:
            response = await self._gateway.call("Query", request)
            entries = await map_in_turns(partial(LogEntry.of, record.shard), response["Items"])
            settled = settled_entries(first, entries, now)
            if settled.entries or not settled.gap:
                is_whole = len(settled.entries) == len(entries) and "LastEvaluatedKey" not in response
                # A number that is open ends the part that can be read now, even if entries lie beyond it.
                is_open = len(settled.entries) < len(entries) and not settled.gap
                return ShardPart(record.shard, first, settled.entries, is_whole or is_open)
            await self._give_up(site_id, record, settled.gap)

    async def present(self, site_id: str, record: ShardRecord, now: datetime) -> int:
        """Returns the sequence number from which on a reader that begins now has to read a shard."""
        query = Query(self._table, change_shard_partition(site_id, record.shard), forward=False)
        long_ago = now - timedelta(hours=LATEST_HOURS)
        entries: list[LogEntry] = []
        start: Any = None
        while True:
            response = await self._gateway.call("Query", requests.query_request(query, start=start))
            entries += await map_in_turns(partial(LogEntry.of, record.shard), response["Items"])
            start = response.get("LastEvaluatedKey")
            if start is None or any(entry.logged_at <= long_ago for entry in entries):
                return lowest_open_number(record.first, entries, now)

    async def _give_up(self, site_id: str, record: ShardRecord, numbers: Sequence[int]) -> None:
        """Uses the sequence numbers of commits that are late, or have failed."""

        async def give_up(number: int) -> None:
            void = LogEntry(LogPosition(record.shard, number), VOID, "", 0, self._log.now())
            item = void.item(site_id, record.retention_days)
            request = requests.put_request(self._table, item, Missing("page_id"))
            try:
                await self._gateway.call("PutItem", request)
            except ConditionFailedError:
                # The commit was only late, or another reader was faster.
                return

        await gather_bounded(give_up, numbers, _GAPS_IN_FLIGHT)
