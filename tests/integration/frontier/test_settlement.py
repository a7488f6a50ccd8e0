"""Leases that two holders end."""

from __future__ import annotations

import asyncio

from ragcrawl_dynamo import DynamoDBConfig, FrontierStats, LeaseLostError
from ragcrawl_dynamo.testing import ManualClock
from tests.support.engines import on_dynamodb_local
from tests.support.frontiers import opened
from tests.support.queues import urls


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
            *(one.complete(each) for each in old),
            *(two.fail(each, "x", retry=False) for each in new),
            return_exceptions=True,
        )
        assert all(isinstance(each, LeaseLostError) for each in outcomes[:20])
        assert outcomes[20:] == [None] * 20
        assert await two.recount() == FrontierStats(failed=20)
