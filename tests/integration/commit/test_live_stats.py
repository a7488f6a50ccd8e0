"""Stats of a run while it runs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ragcrawl_dynamo import Claim, DynamoDBBackend, DynamoDBConfig
from ragcrawl_dynamo.testing import ManualClock
from tests.support.engines import on_dynamodb_local
from tests.support.factories import make_page, make_run, make_version

pytestmark = on_dynamodb_local


async def commit(backend: DynamoDBBackend, claim: Claim, name: str) -> None:
    page_url = claim.item.url
    version = make_version(page_id=name, version_id=name, url=page_url, run_id="run")
    await backend.commit_page(make_page(name, url=page_url), version, claim=claim)


async def crawled(backend: DynamoDBBackend) -> int:
    run = await backend.get_run("run", "site")
    assert run is not None
    return run.stats.pages_crawled


async def test_commit_page_without_a_claim_writes_the_stats_that_are_due(
    dynamodb_config: DynamoDBConfig,
) -> None:
    clock = ManualClock()
    async with DynamoDBBackend(dynamodb_config, clock=clock) as backend:
        await backend.save_run(make_run(status="running"))
        frontier = backend.frontier("run", "site")
        await frontier.add(["https://a.example/1"])
        (claim,) = await frontier.claim()
        await commit(backend, claim, "one")
        clock.advance(1)
        version = make_version(page_id="two", version_id="two", run_id="run")
        await backend.commit_page(make_page("two"), version)
        assert await crawled(backend) == 1


async def test_commit_page_that_is_cancelled_after_its_transaction_counts_in_the_stats(
    dynamodb_config: DynamoDBConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    async with DynamoDBBackend(dynamodb_config, clock=clock) as backend:
        await backend.save_run(make_run(status="running"))
        # With a maximum in flight, the host is told of the end of the lease after the transaction.
        frontier = backend.frontier("run", "site", host_max_in_flight=2)
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
