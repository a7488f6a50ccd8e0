"""Leases that two holders end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from ragcrawl_dynamo import (
    DynamoDBBackend,
    DynamoDBConfig,
    FrontierStats,
    LeaseLostError,
    PartialBatchError,
)
from ragcrawl_dynamo.testing import ManualClock
from tests.support.engines import on_dynamodb_local
from tests.support.fakes import client_error
from tests.support.frontiers import opened
from tests.support.queues import url, urls


@on_dynamodb_local
async def test_settlement_by_two_holders_succeeds_for_one(config: DynamoDBConfig) -> None:
    clock = ManualClock()
    async with opened(config, clock=clock) as one, opened(config, clock=clock) as two:
        await one.add(urls(20))
        old = await one.claim(20, lease_seconds=5)
        clock.advance(7)
        new = await two.claim(20, lease_seconds=5)
        assert len(new) == 20
        outcomes = await asyncio.gather(
            *(one.complete(claim) for claim in old),
            *(two.fail(claim, "x", retry=False) for claim in new),
            return_exceptions=True,
        )
        assert all(isinstance(outcome, LeaseLostError) for outcome in outcomes[:20])
        assert outcomes[20:] == [False] * 20
        assert await two.recount() == FrontierStats(failed=20)


@on_dynamodb_local
async def test_frontier_put_back_that_fails_leaves_the_claim_as_it_was(config: DynamoDBConfig) -> None:
    """A later release stores the item's old priority and age, and no value that was never stored."""
    is_broken = False

    async def around(operation: str, request: dict[str, Any], call: Any) -> Any:
        if is_broken and operation == "batch_execute_statement":
            raise client_error("ValidationException")
        return await call(**request)

    async with opened(config, around) as frontier:
        await frontier.add([frontier.link(url(i), priority=5.0 - i) for i in range(3)])
        (first,) = await frontier.claim(1)
        before = first.item.model_copy()
        is_broken = True
        with pytest.raises(PartialBatchError):
            await frontier.put_back(first, priority=-1.0, payload="changed", to_end=True)
        is_broken = False
        assert first.item == before
        await frontier.release(first)
        assert [claim.item.url for claim in await frontier.claim(3)] == [url(0), url(1), url(2)]
        item = await frontier.get(url(0))
        assert item is not None
        assert (item.priority, item.payload, item.discovered_at) == (5.0, None, before.discovered_at)


@on_dynamodb_local
async def test_frontier_put_back_that_is_repeated_changes_the_claims_item(config: DynamoDBConfig) -> None:
    """The first call was applied, but all of its answers were lost."""
    is_broken = False

    async def around(operation: str, request: dict[str, Any], call: Any) -> Any:
        response = await call(**request)
        if is_broken and operation == "batch_execute_statement":
            raise client_error("InternalServerError", 500)
        return response

    async with opened(config.model_copy(update={"retry_attempts": 1}), around) as frontier:
        await frontier.add(urls(1))
        (claim,) = await frontier.claim(1)
        is_broken = True
        with pytest.raises(PartialBatchError):
            await frontier.put_back(claim, priority=7.0, payload="changed")
        is_broken = False
        await frontier.put_back(claim, priority=7.0, payload="changed")
        assert (claim.item.priority, claim.item.payload) == (7.0, "changed")


async def test_frontier_put_back_changes_the_claims_item_once_it_is_stored(backend: DynamoDBBackend) -> None:
    frontier = backend.frontier("site", "run")
    await frontier.add(urls(1))
    (claim,) = await frontier.claim(1)
    await frontier.put_back(claim, priority=7.0, payload="changed")
    item = await frontier.get(url(0))
    assert item is not None
    assert (claim.item.priority, claim.item.payload) == (item.priority, item.payload) == (7.0, "changed")


@on_dynamodb_local
@pytest.mark.parametrize("is_long", [False, True])
async def test_frontier_complete_is_tried_again_until_the_lease_ends(
    config: DynamoDBConfig, is_long: bool
) -> None:
    """An outage of three seconds, and one that is longer than the lease, which nobody renews."""
    is_out = False

    async def around(operation: str, request: dict[str, Any], call: Any) -> Any:
        if is_out:
            raise EndpointConnectionError(endpoint_url="off")
        return await call(**request)

    def end_outage() -> None:
        nonlocal is_out
        is_out = False

    loop = asyncio.get_running_loop()
    changes = {"retry_attempts": 1, "frontier_max_clock_skew": 0.5}
    async with opened(config.model_copy(update=changes), around) as frontier:
        await frontier.add(urls(1))
        (claim,) = await frontier.claim(1, lease_seconds=6)
        begun, is_out = loop.time(), True
        loop.call_later(8 if is_long else 3, end_outage)
        if is_long:
            with pytest.raises(PartialBatchError, match="off"):
                await frontier.complete(claim, also=[url(7)])
            assert 4 < loop.time() - begun < 6
            assert not claim.ended
        else:
            await frontier.complete(claim, also=[url(7)])
            assert claim.settled_as == "completed"
            assert await frontier.stats() == FrontierStats(completed=2)
        is_out = False
