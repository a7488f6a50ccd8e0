"""Stores which chunks of a page may be in an index, so that a later version can replace all of them.

A record is written before chunks go to the index and after it has taken them. So a process that is killed in
between leaves a record of every chunk that may be there.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Self

from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.batching import read_all
from ragcrawl_dynamo._dynamodb.expressions import BeginsWith, Compare, Missing
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.pagination import read_pages
from ragcrawl_dynamo._dynamodb.requests import Query
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._dynamodb.values import Item
from ragcrawl_dynamo._dynamodb.write_token import WriteToken
from ragcrawl_dynamo._schema.attributes import REVISION, expiry
from ragcrawl_dynamo._schema.keys import changes_partition, chunks_key, chunks_prefix
from ragcrawl_dynamo._utils.clock import Clock
from ragcrawl_dynamo._utils.concurrency import gather_bounded
from ragcrawl_dynamo.errors import ConditionFailedError
from ragcrawl_dynamo.models import Page

# Records that are written at once.
_WRITES_IN_FLIGHT = 16


@dataclass(frozen=True, slots=True)
class ChunkRecord:
    """Which chunks of a page may be in an index.

    Attributes:
        page_id: The page.
        counts: By version_id, how many of the version's chunks may be in the index: those at the positions
            from 0 on. Empty if the index has none of the page.
        complete: The version whose chunks the index has, all of them and no others of the page; None while
            that is not known.
        generation: The generation of the index for which `complete` holds.
        fence: The number of the lease under which the record was written.
        revision: The random name of its latest write; None if it is not stored.
    """

    page_id: str
    counts: Mapping[str, int] = field(default_factory=dict)
    complete: str | None = None
    generation: int = 0
    fence: int = 0
    revision: str | None = None

    @classmethod
    def of(cls, item: Item) -> Self:
        """Reads the record of an item."""
        complete = item.get("complete")
        return cls(
            item["chunked_page"]["S"],
            {version_id: int(count["N"]) for version_id, count in item["counts"]["M"].items()},
            None if complete is None else complete["S"],
            int(item["generation"]["N"]),
            int(item["fence"]["N"]),
            item[REVISION]["S"],
        )

    def has(self, version_id: str | None, generation: int) -> bool:
        """Whether an index of a generation has exactly the chunks of a version; of None, no chunk at all."""
        if version_id is None:
            return not self.counts
        return self.complete == version_id and self.generation == generation


class ChunkRecords:
    """Key `#{site_id}` / `chunks#{consumer}#{hash}`; all reads are strongly consistent."""

    def __init__(self, gateway: Gateway, table: Table[Page], clock: Clock) -> None:
        self._gateway = gateway
        self._table = table
        self._clock = clock

    async def get_many(
        self, site_id: str, consumer: str, page_ids: Collection[str]
    ) -> dict[str, ChunkRecord]:
        """Returns a record for each page, an empty one where none is stored."""
        keys = [chunks_key(site_id, consumer, page_id) for page_id in page_ids]
        items = await read_all(self._gateway, self._table, keys)
        stored = {record.page_id: record for record in map(ChunkRecord.of, items)}
        return {page_id: stored.get(page_id) or ChunkRecord(page_id) for page_id in page_ids}

    async def iterate(self, site_id: str, consumer: str) -> AsyncGenerator[list[ChunkRecord], None]:
        """Yields the records of an index in parts, without empty ones. Use it within `aclosing`."""
        is_record = BeginsWith("page_id", {"S": chunks_prefix(consumer)})
        query = Query(self._table, changes_partition(site_id), sort=is_record)
        async with aclosing(read_pages(self._gateway, query)) as pages:
            async for _, items in pages:
                yield [record for record in map(ChunkRecord.of, items) if record.counts]

    async def put_all(
        self, site_id: str, consumer: str, records: Sequence[ChunkRecord]
    ) -> tuple[list[ChunkRecord], list[ChunkRecord]]:
        """Writes records of different pages, each if the stored one has the `revision` that it was read with.

        Returns:
            The records that were written, with their new revisions, and for each other one the stored record.
        """
        written: list[ChunkRecord] = []
        stored: list[ChunkRecord] = []

        async def put(record: ChunkRecord) -> None:
            token = WriteToken.new(REVISION)
            item = self._item(site_id, consumer, record, token)
            is_as_read = (
                Missing(self._table.partition_key)
                if record.revision is None
                else Compare(REVISION, "=", {"S": record.revision})
            )
            try:
                await self._gateway.call("PutItem", requests.put_request(self._table, item, is_as_read))
            except ConditionFailedError as error:
                if not token.is_in(error.item):
                    # Without an item, the site was deleted meanwhile.
                    stored.append(ChunkRecord.of(error.item) if error.item else ChunkRecord(record.page_id))
                    return
            written.append(ChunkRecord.of(item))

        await gather_bounded(put, records, _WRITES_IN_FLIGHT)
        return written, stored

    def _item(self, site_id: str, consumer: str, record: ChunkRecord, token: WriteToken) -> Item:
        item: Item = {
            **chunks_key(site_id, consumer, record.page_id),
            "chunked_page": {"S": record.page_id},
            "counts": {"M": {version_id: {"N": str(n)} for version_id, n in record.counts.items()}},
            "generation": {"N": str(record.generation)},
            "fence": {"N": str(record.fence)},
            **token.attributes,
        }
        if record.complete is not None:
            item["complete"] = {"S": record.complete}
        if not record.counts:
            # It is not deleted: its fence refuses a process that has lost its lease.
            item |= expiry(self._gateway.config.change_retention_days, self._clock.now())
        return item
