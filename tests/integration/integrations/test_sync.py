"""The sync of an index on a real engine: its cost in capacity units, and faults."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig
from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo.iam import policy
from ragcrawl_dynamo.integrations import Chunk, SyncReport, clear_index, reset_index, sync_index
from tests.integration.test_bill import units
from tests.support.actions import allowed, recorded
from tests.support.engines import on_dynamodb_local
from tests.support.faults import Faults, faulty
from tests.support.indexes import MemoryIndex, chunks_of_site, paragraphs, remove, split, write

pytestmark = on_dynamodb_local


async def sync(backend: DynamoDBBackend, index: MemoryIndex, consumer: str = "search") -> SyncReport:
    return await sync_index(backend, "site", consumer, index, split)


async def test_capacity_units_of_sync_index(dynamodb_config: DynamoDBConfig) -> None:
    """DynamoDB Local does not count a read that finds nothing, which AWS counts as one unit."""
    index = MemoryIndex()
    async with DynamoDBBackend(dynamodb_config) as crawler:
        for i in range(20):
            await write(crawler, f"p{i}", paragraphs(f"p{i}", 2))
    async with DynamoDBBackend(dynamodb_config) as backend:
        await sync(backend, index)
        # The state of the index, and the shards of the change log.
        assert await units(backend, sync(backend, index)) == (2, 0)
        assert index.embedded == 40
    async with DynamoDBBackend(dynamodb_config) as crawler:
        await write(crawler, "p1", paragraphs("p1 again", 2))
        for i in range(2, 12):
            await write(crawler, f"p{i}", paragraphs(f"p{i} again", 2))
        await remove(crawler, "p12")
    async with DynamoDBBackend(dynamodb_config) as backend:
        reads, writes = await units(backend, sync(backend, index))
        assert index.embedded == 40 + 2 * 11
        # Two for each chunk record; the lease is taken, saves the cursor, and is ended.
        assert writes == 2 * 12 + 3
        # The state of the index, the shards, and entries of the log, each twice; and the page of a first look
        # at the feed. Then of each page its record and itself, and of eleven their version.
        assert reads == 3 * 2 + 1 + 12 * 2 + 11


async def test_sync_index_needs_the_role_of_a_reader(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A role that keeps an index may write nothing but keys that begin with "#"."""
    index, written = MemoryIndex(), []
    for page_id in ("a", "b"):
        await write(backend, page_id, paragraphs(page_id, 2))
    put_request = requests.put_request

    def noting(table: Any, item: Any, *condition: Any) -> Any:
        written.append(item["site_id"]["S"])
        return put_request(table, item, *condition)

    monkeypatch.setattr(requests, "put_request", noting)
    with recorded(monkeypatch) as needed:
        async with DynamoDBBackend(dynamodb_config) as reader:
            await sync(reader, index)
            await reset_index(reader, "site", "search")
            await sync(reader, index)
            await clear_index(reader, "site", "search", index)
    assert needed <= allowed(policy(dynamodb_config, "reader"))
    assert len(written) > 10
    assert all(key.startswith("#") for key in written)


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2])
async def test_sync_index_under_faults_ends_with_the_chunks_of_the_site(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, seed: int
) -> None:
    """Answers are lost and damaged while a crawl writes, and two consumers go at two paces."""
    indexes = {"quick": MemoryIndex(), "slow": MemoryIndex()}
    faults = Faults(str(dynamodb_config.endpoint_url), 0.2, seed)
    is_over = asyncio.Event()

    async def crawl() -> None:
        for i in range(30):
            await write(backend, f"p{i % 9}", paragraphs(f"p{i}", 1 + i % 4))
            if i % 5 == 4:
                await remove(backend, f"p{(i - 2) % 9}")
        is_over.set()

    async def follow(consumer: str, pause: float) -> None:
        while not is_over.is_set():
            await sync(reader, indexes[consumer], consumer)
            await asyncio.sleep(pause)
        await sync(reader, indexes[consumer], consumer)

    async with faulty(faults) as proxy:
        config = dynamodb_config.model_copy(
            update={"endpoint_url": proxy, "retry_base_delay": 0.0, "retry_attempts": 30, "read_timeout": 1.0}
        )
        async with DynamoDBBackend(config) as reader:
            await asyncio.gather(crawl(), follow("quick", 0.0), follow("slow", 0.5))
    assert faults.injected.total() > 20
    wanted = await chunks_of_site(backend)
    for index in indexes.values():
        assert index.texts() == wanted


@pytest.mark.long
async def test_sync_index_of_several_processes_at_once_embeds_each_version_once(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    at_once: list[int] = []

    class WatchedIndex(MemoryIndex):
        running = 0

        async def upsert(self, chunks: Sequence[Chunk]) -> None:
            self.running += 1
            at_once.append(self.running)
            await asyncio.sleep(0.01)
            await super().upsert(chunks)
            self.running -= 1

    index = WatchedIndex()
    for i in range(12):
        await write(backend, f"p{i}", paragraphs(f"p{i}", 2))

    async def process() -> SyncReport:
        async with DynamoDBBackend(dynamodb_config) as other:
            return await sync(other, index)

    reports = await asyncio.gather(*(process() for _ in range(3)))
    assert sum(report.embedded_chunks for report in reports) == index.embedded == 24
    assert max(at_once) == 1
    assert index.texts() == await chunks_of_site(backend)
