"""Workers whose handlers are slow, or whose leases cannot be renewed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from botocore.exceptions import EndpointConnectionError

from ragcrawl_dynamo import Claim, DynamoDBBackend, DynamoDBConfig
from ragcrawl_dynamo.testing import ManualClock
from tests.support.engines import on_dynamodb_local
from tests.support.frontiers import opened
from tests.support.queues import items, names, url, urls


@on_dynamodb_local
async def test_worker_keeps_the_lease_of_a_slow_handler(
    config: DynamoDBConfig, backend: DynamoDBBackend
) -> None:
    clock = ManualClock()
    async with opened(config, clock=clock) as frontier, opened(config, clock=clock) as thief:
        await frontier.add([url(1)])
        stolen: list[Claim] = []

        async def handle(claim: Claim) -> None:
            for _ in range(8):
                await clock.sleep(9)
                stolen.extend(await thief.claim())

        async def pass_time() -> None:
            """Lets seconds pass while both the handler and the renewal of its lease sleep."""
            while True:
                while sum(not sleeper.done() for _, sleeper in clock._sleepers) < 2:  # noqa: ASYNC110 # no event tells
                    await asyncio.sleep(0.001)
                clock.advance(1)

        async with frontier.worker(lease_seconds=30) as worker:
            passing = asyncio.create_task(pass_time())
            await worker.run(handle)
            passing.cancel()
        assert (stolen, worker.completed, worker.lost) == ([], 1, 0)
        # Without renewals the lease would have ended twice.
        assert clock.monotonic() >= 72
    assert (await items(backend))[url(1)].attempt == 1


@on_dynamodb_local
async def test_worker_cancels_a_handler_before_its_lease_is_taken_over(
    config: DynamoDBConfig,
) -> None:
    quick = config.model_copy(update={"frontier_max_clock_skew": 0.2, "retry_attempts": 1})
    loop = asyncio.get_running_loop()
    started = asyncio.Event()
    ended: list[float] = []

    async def cut_off(operation: str, request: dict[str, Any], call: Any) -> Any:
        statement = str(request.get("Statements"))
        if "lease_expires_at" in statement and "lease_owner" not in statement and "REMOVE" not in statement:
            raise EndpointConnectionError(endpoint_url="renewals are cut off")
        return await call(**request)

    async def handle(claim: Claim) -> None:
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(loop.time())

    async with opened(quick, cut_off) as frontier, opened(quick) as other:
        await frontier.add([url(1)])
        async with frontier.worker(lease_seconds=1.5) as worker:
            running = asyncio.create_task(worker.run(handle))
            await started.wait()
            # Another handler of this worker must not get it first.
            worker.stop()
            claims = await other.claim(wait_seconds=20)
            taken = loop.time()
            assert names(claims) == [url(1)]
            assert len(ended) == 1
            assert ended[0] < taken
            await running
            assert (worker.lost, worker.completed) == (1, 0)


@on_dynamodb_local
async def test_worker_process_that_gets_sigterm_leaves_no_lease(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    frontier = backend.frontier("site", "run")
    await frontier.add(urls(3))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.patient_worker"),
        *(str(dynamodb_config.endpoint_url), dynamodb_config.table_prefix, "0.2"),
        cwd=Path(__file__).parents[3],
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    begun = [(await process.stdout.readline()).decode().strip() for _ in range(3)]
    assert sorted(begun) == sorted(urls(3))
    assert await frontier.claim() == []
    process.terminate()
    output, _ = await process.communicate()
    assert (output.decode().split(), process.returncode) == (["closed"], 143)
    # Its leases had ten minutes to go.
    assert sorted(names(await frontier.claim(wait_seconds=10))) == sorted(urls(3))


@on_dynamodb_local
async def test_worker_counts_every_item_that_it_completes(config: DynamoDBConfig) -> None:
    async with opened(config) as frontier:
        await frontier.add(urls(100))

        async def handle(claim: Claim) -> None:
            await asyncio.sleep(0.02)

        async with frontier.worker(concurrency=16) as worker:
            await worker.run(handle)
        assert (worker.completed, worker.failed, worker.lost) == (100, 0, 0)
        assert (await frontier.stats()).completed == 100
