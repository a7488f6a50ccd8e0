"""Claims of the next requests: when hosts are due, and how often DynamoDB is asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Any

import pytest
from crawlee import ConcurrencySettings
from crawlee.crawlers import BasicCrawler, BasicCrawlingContext
from crawlee.storages import RequestQueue

from ragcrawl_dynamo import BackendStateError, Claim, DynamoDBConfig
from ragcrawl_dynamo.adapters.crawlee import DynamoDBRequestQueueClient, DynamoDBStorageClient
from tests.adapters.crawlee.requests import handle_all, remaining, url, wait_until
from tests.support.engines import on_dynamodb_local

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), on_dynamodb_local]


async def seconds(work: Awaitable[object]) -> float:
    started = time.monotonic()
    await work
    return time.monotonic() - started


async def crawl_moments(client: DynamoDBStorageClient, count: int) -> list[float]:
    """Crawls some requests of one host, and returns when their handlers began."""
    crawler = BasicCrawler(
        storage_client=client,
        configure_logging=False,
        concurrency_settings=ConcurrencySettings(desired_concurrency=4, max_concurrency=4),
    )
    moments: list[float] = []

    @crawler.router.default_handler
    async def handle(context: BasicCrawlingContext) -> None:
        moments.append(time.monotonic())

    await crawler.run([url(number) for number in range(count)])
    return moments


@pytest.mark.parametrize("options", [{"host_delay": 0.1}, {"host_max_in_flight": 1}])
async def test_crawlee_crawler_fetches_a_request_as_soon_as_its_host_is_due(
    dynamodb_config: DynamoDBConfig, options: Any
) -> None:
    limited = DynamoDBStorageClient(dynamodb_config, site_id="site", run_id="run", **options)
    async with limited as client:
        moments = await crawl_moments(client, 12)
    assert len(moments) == 12
    # Half a second, if Crawlee had to ask again for each.
    assert (moments[-1] - moments[0]) / 11 < 0.3


async def test_crawlee_request_queue_waits_only_for_a_host_that_is_due(
    dynamodb_config: DynamoDBConfig,
) -> None:
    slow = DynamoDBStorageClient(dynamodb_config, site_id="site", run_id="run", host_delay=1.0)
    async with slow as client:
        queue = await RequestQueue.open(storage_client=client)
        await queue.add_requests([url(1), url(2)])
        first = await queue.fetch_next_request()
        assert first is not None
        assert 0.5 < await seconds(queue.is_empty()) < 1.9
        second = await queue.fetch_next_request()
        assert second is not None
        assert 0.9 < await seconds(queue.is_empty()) < 3
        # Crawlee starts a task for each place that is free.
        assert await seconds(queue.fetch_next_request()) < 0.9
        # Waiting tasks are woken when no request is left to wait for.
        waiting = asyncio.create_task(seconds(queue.is_empty()))
        await asyncio.sleep(0.1)
        for request in (first, second):
            await queue.mark_request_as_handled(request)
        assert await waiting < 1
        assert await queue.is_finished()
        assert await seconds(queue.is_empty()) < 1


async def test_crawlee_request_queue_without_limits_of_hosts_answers_at_once(queue: RequestQueue) -> None:
    await queue.add_request(url(1))
    assert await queue.fetch_next_request() is not None
    for ask in (queue.is_empty, queue.is_finished, queue.fetch_next_request):
        assert await seconds(ask()) < 1


async def test_crawlee_request_queue_does_not_claim_ahead_with_a_host_delay(
    dynamodb_config: DynamoDBConfig,
) -> None:
    slow = DynamoDBStorageClient(dynamodb_config, site_id="site", run_id="run", host_delay=0.05)
    async with slow as client:
        queue = await RequestQueue.open(storage_client=client)
        await queue.add_requests([f"https://{host}.example/{i}" for i in range(3) for host in "ab"])
        assert await queue.fetch_next_request() is not None
        await asyncio.sleep(0.6)
        # Both hosts are due again.
        assert await queue.fetch_next_request() is not None
        await asyncio.sleep(0.2)
        # A request that waited here would be fetched without a delay.
        assert (await client.backend.frontier("site", "site/run").stats()).in_progress == 2


async def test_crawlee_request_queue_keeps_no_requests_from_others_if_it_only_adds_them(
    queue: RequestQueue, other_client: DynamoDBStorageClient
) -> None:
    other_queue = await RequestQueue.open(storage_client=other_client)
    await queue.add_requests([url(1), url(2)], wait_for_all_requests_to_be_added=True)
    assert not await queue.is_finished()
    assert await handle_all(other_queue) == ["1", "2"]
    assert await queue.is_empty()
    await queue.add_request(url(3))
    await wait_until(other_queue.is_empty, False)
    assert await handle_all(other_queue) == ["3"]


async def test_crawlee_request_queue_asks_dynamodb_once_while_it_is_empty(
    queue: RequestQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(queue._client, DynamoDBRequestQueueClient)
    frontier = queue._client._frontier
    claim = frontier.claim
    waits: list[float] = []

    async def count(limit: int, *, wait_seconds: float = 0.0, **options: Any) -> list[Claim]:
        waits.append(wait_seconds)
        return await claim(limit, wait_seconds=wait_seconds, **options)

    monkeypatch.setattr(frontier, "claim", count)
    for _ in range(40):
        assert await queue.is_empty()
        assert await queue.fetch_next_request() is None
        await asyncio.sleep(0.02)
    assert [wait > 0 for wait in waits] == [False, True]


async def test_crawlee_request_queue_fetches_a_request_that_is_added_while_a_claim_waits(
    queue: RequestQueue, other_client: DynamoDBStorageClient
) -> None:
    other_queue = await RequestQueue.open(storage_client=other_client)
    for name in range(5):
        assert await queue.is_empty()
        await asyncio.sleep(0.05)
        await queue.add_request(url(name))
        request = await queue.fetch_next_request()
        assert request is not None
        await queue.mark_request_as_handled(request)
    assert await queue.is_empty()
    await other_queue.add_request(url("other"))
    await wait_until(queue.is_empty, False)


async def test_crawlee_request_queue_logs_an_error_of_a_claim_that_waits(
    queue: RequestQueue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(queue._client, DynamoDBRequestQueueClient)
    frontier = queue._client._frontier
    claim = frontier.claim

    async def refuse(limit: int, *, wait_seconds: float = 0.0, **options: Any) -> list[Claim]:
        if wait_seconds:
            raise BackendStateError("refused by the test")
        return await claim(limit, **options)

    monkeypatch.setattr(frontier, "claim", refuse)
    assert await queue.fetch_next_request() is None
    await asyncio.sleep(0)
    await queue.add_request(url(1))
    assert await queue.fetch_next_request() is not None
    assert (
        "no requests could be claimed in the background; this is tried again: refused by the test"
        in caplog.text
    )


async def test_crawlee_request_queue_claims_ahead_while_requests_are_handled(queue: RequestQueue) -> None:
    await queue.add_requests([url(number) for number in range(40)], wait_for_all_requests_to_be_added=True)
    assert isinstance(queue._client, DynamoDBRequestQueueClient)
    ready = queue._client._memory.ready
    for _ in range(8):
        assert await queue.fetch_next_request() is not None

    async def is_refilled() -> bool:
        return len(ready) == 16

    await wait_until(is_refilled, True)
    rest = [request.url async for request in remaining(queue)]
    assert rest == [url(number) for number in range(8, 40)]


async def test_crawlee_request_queue_does_not_wait_if_the_last_request_is_handled_while_it_asks(
    dynamodb_config: DynamoDBConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = DynamoDBStorageClient(dynamodb_config, site_id="site", run_id="run", host_delay=0.01)
    async with slow as client:
        queue = await RequestQueue.open(storage_client=client)
        await queue.add_request(url(1))
        request = await queue.fetch_next_request()
        assert request is not None
        assert isinstance(queue._client, DynamoDBRequestQueueClient)
        is_finished = queue._client.is_finished

        async def handle_and_ask() -> bool:
            answer = await is_finished()
            await queue.mark_request_as_handled(request)
            return answer

        monkeypatch.setattr(queue._client, "is_finished", handle_and_ask)
        assert await seconds(queue.is_empty()) < 1
