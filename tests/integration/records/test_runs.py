"""Stats that many add, over connections that lose requests and answers."""

import asyncio
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig
from tests.support.engines import on_dynamodb_local
from tests.support.factories import make_run
from tests.support.fakes import intercepting

QUICK = {"retry_base_delay": 0.001, "retry_attempts": 3, "call_timeout": 5}


@on_dynamodb_local
@pytest.mark.parametrize("applied", [True, False], ids=["answer lost", "request lost"])
async def test_add_run_stats_adds_once_although_requests_and_answers_are_lost(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, applied: bool
) -> None:
    async def lossy(operation: str, request: Any, call: Any) -> Any:
        lost.append(operation)
        if operation == "update_item" and lost.count("update_item") % 2:
            if applied:
                await call(**request)
            raise EndpointConnectionError(endpoint_url="lost")
        return await call(**request)

    lost: list[str] = []
    await backend.save_run(make_run())
    config = dynamodb_config.model_copy(update=QUICK)
    async with DynamoDBBackend(config, client_factory=intercepting(lossy)) as lossy_backend:
        for i in range(1, 11):
            run = await lossy_backend.add_run_stats(
                "site", "run", pages_crawled=1, status_codes={200: 2}, domains_crawled=2
            )
            assert run.stats.pages_crawled == i
            assert run.stats.status_codes == {200: 2 * i}
            assert run.stats.domains_crawled == 2 * i
    assert lost.count("update_item") == 20


@on_dynamodb_local
async def test_add_run_stats_by_many_workers_loses_nothing(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    await backend.save_run(make_run())
    async with DynamoDBBackend(dynamodb_config) as other:

        async def add(worker: int) -> None:
            for _ in range(4):
                await (backend, other)[worker % 2].add_run_stats(
                    "site",
                    "run",
                    pages_crawled=1,
                    total_bytes_downloaded=100,
                    status_codes={200 + worker % 3: 1},
                    domains_crawled=1,
                )

        await asyncio.gather(*(add(worker) for worker in range(64)))
    run = await backend.get_run("site", "run")
    assert run is not None
    assert run.stats.pages_crawled == 256
    assert run.stats.total_bytes_downloaded == 25_600
    assert run.stats.status_codes == {200: 88, 201: 84, 202: 84}
    assert run.stats.domains_crawled == 256
