"""Stats of a run while it runs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ragcrawl_dynamo import Claim, DynamoDBBackend, DynamoDBConfig
from ragcrawl_dynamo._dynamodb.client import open_client
from ragcrawl_dynamo._frontier.membership import Membership
from ragcrawl_dynamo.testing import ManualClock
from tests.support.engines import on_dynamodb_local
from tests.support.factories import make_page, make_run, make_version
from tests.support.fakes import client_error, intercepting

pytestmark = on_dynamodb_local


async def commit(backend: DynamoDBBackend, claim: Claim, name: str) -> None:
    page_url = claim.item.url
    version = make_version(page_id=name, version_id=name, url=page_url, run_id="run")
    await backend.commit_page(make_page(name, url=page_url), version, claim=claim)


async def crawled(backend: DynamoDBBackend) -> int:
    run = await backend.get_run("site", "run")
    assert run is not None
    return run.stats.pages_crawled


async def test_commit_page_without_a_claim_writes_the_stats_that_are_due(
    dynamodb_config: DynamoDBConfig,
) -> None:
    clock = ManualClock()
    async with DynamoDBBackend(dynamodb_config, clock=clock) as backend:
        await backend.save_run(make_run(status="running"))
        frontier = backend.frontier("site", "run")
        await frontier.add(["https://a.example/1"])
        (claim,) = await frontier.claim()
        await commit(backend, claim, "one")
        clock.advance(1)
        version = make_version(page_id="two", version_id="two", run_id="run")
        await backend.commit_page(make_page("two"), version)
        await backend._rooms.live_stats._tasks.join()
        assert await crawled(backend) == 1


async def test_commit_page_does_not_wait_for_the_stats(dynamodb_config: DynamoDBConfig) -> None:
    clock, is_open = ManualClock(), asyncio.Event()
    held: list[str] = []

    async def hold_stats(operation: str, request: dict[str, Any], call: Any) -> Any:
        if operation == "update_item" and request["TableName"].endswith("runs"):
            held.append(operation)
            await is_open.wait()
        return await call(**request)

    async with DynamoDBBackend(
        dynamodb_config, clock=clock, client_factory=intercepting(hold_stats)
    ) as backend:
        await backend.save_run(make_run(status="running"))
        frontier = backend.frontier("site", "run")
        await frontier.add(f"https://a.example/{i}" for i in range(3))
        for i, claim in enumerate(await frontier.claim(3)):
            await asyncio.wait_for(commit(backend, claim, f"p{i}"), 5)
            clock.advance(1)
        # One write at a time.
        assert len(held) == 1
        is_open.set()
    async with DynamoDBBackend(dynamodb_config) as backend:
        assert await crawled(backend) == 3


async def test_commit_page_that_is_throttled_pauses_its_host(dynamodb_config: DynamoDBConfig) -> None:
    throttled = [True, True]

    async def throttle(operation: str, request: dict[str, Any], call: Any) -> Any:
        if operation == "transact_write_items" and throttled and throttled.pop():
            reasons = [{"Code": "ThrottlingError"} for _ in request["TransactItems"]]
            raise client_error("TransactionCanceledException", CancellationReasons=reasons)
        return await call(**request)

    slow = dynamodb_config.model_copy(update={"retry_base_delay": 0.3})
    async with DynamoDBBackend(slow, client_factory=intercepting(throttle)) as backend:
        await backend.save_run(make_run(status="running"))
        frontier = backend.frontier("site", "run")
        await frontier.add([*(f"https://a.example/{i}" for i in range(2)), "https://b.example/"])
        claims = {claim.item.domain: claim for claim in await frontier.claim(2)}
        committing = asyncio.create_task(commit(backend, claims["a.example"], "one"))
        bench = frontier._queue.run.view.bench
        while not bench.paused:  # noqa: ASYNC110 # no event tells
            await asyncio.sleep(0.001)
        assert list(bench.paused) == ["a.example"]
        await committing
        assert len(await frontier.claim(wait_seconds=5)) == 1


async def test_commit_page_that_is_cancelled_after_its_transaction_counts_in_the_stats(
    dynamodb_config: DynamoDBConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    async with DynamoDBBackend(dynamodb_config, clock=clock) as backend:
        await backend.save_run(make_run(status="running"))
        # With a maximum in flight, the lease is counted off at its host after the transaction.
        frontier = backend.frontier("site", "run", host_max_in_flight=2)
        await frontier.add(["https://a.example/1"])
        (claim,) = await frontier.claim()
        gateway: Any = backend._rooms.gateway
        send, telling_host = gateway._await_client, asyncio.Event()
        is_committed = False

        async def hold_what_follows(client: Any, operation: str, request: Any) -> Any:
            nonlocal is_committed
            if is_committed:
                telling_host.set()
                await asyncio.sleep(0.05)
            response = await send(client, operation, request)
            is_committed |= operation == "TransactWriteItems"
            return response

        monkeypatch.setattr(gateway, "_await_client", hold_what_follows)
        task = asyncio.create_task(commit(backend, claim, "one"))
        await telling_host.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    async with DynamoDBBackend(dynamodb_config) as backend:
        assert await crawled(backend) == 1


async def test_commit_page_writes_stats_whose_units_do_not_grow_with_the_hosts(
    dynamodb_config: DynamoDBConfig,
) -> None:
    clock = ManualClock()
    async with DynamoDBBackend(dynamodb_config, clock=clock) as backend:
        await backend.save_run(make_run(status="running"))
        frontier = backend.frontier("site", "run")
        # 120 hosts with names of 57 bytes take 6.8 KB.
        await frontier.add([f"https://{i:03}{'x' * 46}.example/" for i in range(120)])
        key = ("UpdateItem", f"{dynamodb_config.table_prefix}runs")
        claims = await frontier.claim(120)
        for i, claim in enumerate(claims):
            if i % 10 == 9:
                clock.advance(1)
            await commit(backend, claim, f"p{i}")
            await backend._rooms.live_stats._tasks.join()
        written = backend.metrics()[key]
        assert (written.requests, written.write_units) == (12, 12)
        # More pages of the same hosts.
        await frontier.add([f"{claim.item.url}more" for claim in claims[:20]])
        clock.advance(1)
        for i, claim in enumerate(await frontier.claim(20)):
            await commit(backend, claim, f"q{i}")
            await backend._rooms.live_stats._tasks.join()
    async with DynamoDBBackend(dynamodb_config) as backend:
        run = await backend.get_run("site", "run")
        assert run is not None
        assert (run.stats.pages_crawled, run.stats.domains_crawled) == (140, 120)


async def test_run_does_not_grow_with_the_processes_that_add_to_its_stats(
    dynamodb_config: DynamoDBConfig,
) -> None:
    async with DynamoDBBackend(dynamodb_config) as backend:
        await backend.save_run(make_run(status="running"))
        frontier = backend.frontier("site", "run")
        await frontier.add([f"https://a.example/{i}" for i in range(20)])
    for i in range(20):
        async with DynamoDBBackend(dynamodb_config) as backend:
            (claim,) = await backend.frontier("site", "run").claim(1)
            await commit(backend, claim, f"p{i}")
    async with open_client(dynamodb_config) as client:
        (item,) = [
            item
            for item in (await client.scan(TableName=f"{dynamodb_config.table_prefix}runs"))["Items"]
            if item["run_id"] == {"S": "run"}
        ]
    assert 1 <= len(item["stats_writers"]["M"]) <= 8
    async with DynamoDBBackend(dynamodb_config) as backend:
        assert await crawled(backend) == 20


async def test_live_stats_are_written_less_often_by_each_of_many_processes(
    dynamodb_config: DynamoDBConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    async with DynamoDBBackend(dynamodb_config, clock=clock) as backend:
        await backend.save_run(make_run(status="running"))
        frontier = backend.frontier("site", "run")
        await frontier.add([f"https://a.example/{i}" for i in range(2)])
        claims = await frontier.claim(2)
        # As if 500 processes claimed from the run.
        monkeypatch.setattr(Membership, "count", 500)
        # The totals are kept for five seconds.
        for i, seconds in enumerate((2.0, 2.9)):
            await commit(backend, claims[i], f"p{i}")
            assert await crawled(backend) == 0
            clock.advance(seconds)
        assert await crawled(backend) == 0
        clock.advance(0.2)
        async with asyncio.timeout(10):
            while await crawled(backend) < 2:  # noqa: ASYNC110 # it polls a database
                await asyncio.sleep(0.01)
