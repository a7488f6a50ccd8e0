"""A crawl while all partitions of a run take a small part of what they are sent."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from ragcrawl_dynamo import Claim, DynamoDBConfig
from tests.aws.test_feed import aws_clock
from tests.support.aws import Limits, Settings, SimulatedAWS
from tests.support.frontiers import opened

__all__ = ["aws_clock"]

pytestmark = pytest.mark.aws

LINKS = [f"https://h{i % 20}.example/{i}" for i in range(120)]


@pytest.fixture
def aws_settings() -> Settings:
    return Settings(seed=5, limits=Limits())


async def test_worker_crawls_each_link_once_while_its_run_is_throttled(
    config: DynamoDBConfig, aws: SimulatedAWS
) -> None:
    paced = config.model_copy(update={"retry_base_delay": 0.05, "retry_max_delay": 5.0})
    handled: list[str] = []

    async def handle(claim: Claim) -> None:
        assert claim.item.retry_count == 0
        handled.append(claim.item.url)

    async with opened(paced) as one, opened(paced) as two:
        await one.add(LINKS)

        async def throttle() -> None:
            # A page takes some four write units of the run's partition.
            aws.settings = replace(aws.settings, limits=Limits(read_units=30, write_units=10))
            await asyncio.sleep(5)
            aws.settings = replace(aws.settings, limits=Limits())

        async with (
            one.worker(concurrency=8, lease_seconds=20) as first,
            two.worker(concurrency=8, lease_seconds=20) as second,
        ):
            await asyncio.wait_for(asyncio.gather(first.run(handle), second.run(handle), throttle()), 90)
        assert aws.events["ThrottlingError"] > 20
        assert (first.lost, second.lost) == (0, 0)
        assert sorted(handled) == sorted(LINKS)
        stats = await one.recount()
        assert (stats.completed, stats.failed) == (len(LINKS), 0)
