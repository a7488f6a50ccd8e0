"""Claims that meet, are cancelled, or see an index that shows the past."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from ragcrawl_dynamo import ClockSkewError, DynamoDBBackend, DynamoDBConfig, Frontier, FrontierStats
from ragcrawl_dynamo.testing import ManualClock
from tests.support.engines import on_dynamodb_local
from tests.support.frontiers import Index, opened
from tests.support.queues import claim_all, items, names, requests, urls


@on_dynamodb_local
async def test_claim_never_leases_an_item_twice_under_concurrency(config: DynamoDBConfig) -> None:
    async with opened(config) as frontier:
        await frontier.add(link for i in range(200) for link in urls(2, f"h{i % 7}.example", 2 * i))
    held: Counter[str] = Counter()

    async def work(frontier: Frontier) -> None:
        while claims := await frontier.claim(7, wait_seconds=2.5):
            held.update(names(claims))
            await asyncio.sleep(0)
            await frontier.complete(claims)

    async with opened(config) as one, opened(config) as two, opened(config) as three:
        await asyncio.gather(*(work(queue) for queue in (one, two, three) for _ in range(4)))
        assert (len(held), set(held.values())) == (400, {1})
        assert await one.is_finished()
        assert await two.stats() == FrontierStats(completed=400)


@on_dynamodb_local
async def test_claim_with_a_stale_index_leases_nothing_twice(config: DynamoDBConfig) -> None:
    index = Index()
    clock = ManualClock()
    async with opened(config, clock=clock) as frontier, opened(config, index, clock) as behind:
        await frontier.add(urls(10))
        # The process has seen all items as pending.
        (seen,) = await behind.claim(1)
        await behind.release(seen)
        claims = await frontier.claim(10, lease_seconds=60)
        assert len(claims) == 10
        index.shows = "the past"
        for _ in range(3):
            clock.advance(6)
            assert await behind.claim(10) == []
        assert not await behind.is_finished()
        await frontier.complete(claims)


@on_dynamodb_local
async def test_claim_that_is_cancelled_gives_its_items_back_at_once(config: DynamoDBConfig) -> None:
    async with opened(config) as frontier:
        await frontier.add(urls(40))
        for delay in range(20):
            claiming = asyncio.create_task(frontier.claim(4))
            for _ in range(delay):
                await asyncio.sleep(0.003)
            claiming.cancel()
            outcome = (await asyncio.gather(claiming, return_exceptions=True))[0]
            if not isinstance(outcome, BaseException):
                await frontier.release(outcome)
        await frontier._queue.run.tasks.join()
        assert len(await claim_all(frontier)) == 40


@on_dynamodb_local
async def test_claim_that_is_cancelled_harms_no_other_caller(config: DynamoDBConfig) -> None:
    async with opened(config) as frontier:
        await frontier.add(urls(40))
        tasks = [asyncio.create_task(frontier.claim(2)) for _ in range(10)]
        await asyncio.sleep(0.005)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        kept = [claims for claims in results[1::2] if isinstance(claims, list)]
        assert [len(claims) for claims in kept] == [2] * 5
        await frontier._queue.run.tasks.join()
        assert len(await claim_all(frontier)) == 30


@on_dynamodb_local
async def test_claim_calls_at_once_share_their_requests(
    config: DynamoDBConfig, backend: DynamoDBBackend
) -> None:
    async with DynamoDBBackend(config) as counted:
        frontier = counted.frontier("site", "run")
        await frontier.add(urls(64))
        before = requests(counted)
        results = await asyncio.gather(*(frontier.claim(1, worker_id=f"w{i}") for i in range(25)))
        assert [len(claims) for claims in results] == [1] * 25
        assert [claims[0].worker_id for claims in results] == [f"w{i}" for i in range(25)]
        # One for each list of hosts, and a few for the queue and the leases.
        assert requests(counted) - before <= config.frontier_buckets + 8


@on_dynamodb_local
@pytest.mark.parametrize(("seconds", "is_refused"), [(30, True), (8, True), (-8, True), (2, False)])
async def test_worker_whose_clock_is_off_by_more_than_half_the_bound_neither_adds_nor_claims_nor_renews(
    config: DynamoDBConfig, seconds: float, is_refused: bool
) -> None:
    ahead = 0.0

    async def shifted(operation: str, request: dict[str, Any], call: Any) -> Any:
        answer = await call(**request)
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        if "date" in headers:
            date = parsedate_to_datetime(headers["date"]) - timedelta(seconds=ahead)
            headers["date"] = format_datetime(date, usegmt=True)
        return answer

    bound = config.model_copy(update={"frontier_max_clock_skew": 10.0})
    async with opened(bound, shifted) as frontier:
        await frontier.add(urls(3))
        (claim,) = await frontier.claim(1, lease_seconds=60)
        ahead = seconds
        # An answer shows that the clock is wrong.
        await frontier.stats()
        verbs: list[Callable[[], Awaitable[Any]]] = [
            lambda: frontier.add(urls(5)),
            lambda: frontier.claim(),
            lambda: frontier.renew(claim, 60),
        ]
        for verb in verbs:
            if is_refused:
                with pytest.raises(ClockSkewError, match=r"clock is at least .* more than half of"):
                    await verb()
            else:
                await verb()
        # Finished items can still be settled.
        await frontier.complete(claim)


@on_dynamodb_local
async def test_claim_returns_its_leases_if_a_later_read_fails(config: DynamoDBConfig) -> None:
    """Another process has claimed some of the items first, and their new state cannot be read."""
    is_broken = False

    async def fails(operation: str, request: dict[str, Any], call: Any) -> Any:
        if is_broken and operation == "batch_get_item":
            raise EndpointConnectionError(endpoint_url="down")
        return await call(**request)

    quick = config.model_copy(update={"retry_attempts": 1})
    # The clock stands still, so that neither process learns of the other one.
    clock = ManualClock()
    async with opened(config, clock=clock) as faster, opened(quick, fails, clock) as frontier:
        await frontier.add(urls(20))
        # The process knows all items.
        (first,) = await frontier.claim(1)
        assert len(await faster.claim(5)) == 5
        is_broken = True
        claims = await frontier.claim(10)
        is_broken = False
        assert claims
        assert (await frontier.recount()).in_progress == 6 + len(claims)
        await frontier.complete([first, *claims])
        assert len(await claim_all(frontier)) == 14 - len(claims)


@on_dynamodb_local
async def test_claim_that_took_too_long_gives_its_items_back(
    config: DynamoDBConfig, backend: DynamoDBBackend
) -> None:
    clock = ManualClock()
    is_slow = False

    async def slow(operation: str, request: dict[str, Any], call: Any) -> Any:
        answer = await call(**request)
        if is_slow and operation == "batch_execute_statement":
            clock.advance(4.5)
        return answer

    async with opened(config, slow, clock) as frontier:
        await frontier.add(urls(3))
        is_slow = True
        # The lease would end half a second later, and clocks may differ by a second.
        assert await frontier.claim(1, lease_seconds=5) == []
        is_slow = False
        await frontier._queue.run.tasks.join()
        (item,) = [item for item in (await items(backend)).values() if item.attempt]
        assert (item.status, item.retry_count) == ("pending", 0)
        assert len(await frontier.claim(3, lease_seconds=5)) == 3
