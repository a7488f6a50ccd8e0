"""A crawl by several processes on a bad day: late and torn indexes, stale reads, conflicts, lost answers."""

from __future__ import annotations

import asyncio
import time

import pytest

from ragcrawl_dynamo import Claim, DynamoDBConfig, FrontierStats
from tests.aws.test_feed import aws_clock
from tests.support.aws import Settings, rough
from tests.support.frontiers import opened

__all__ = ["aws_clock"]

pytestmark = pytest.mark.aws

HOSTS = 8
LINKS = 60


@pytest.fixture
def aws_settings() -> Settings:
    return rough(seed=4, longest_lag=2.0)


def url(page: int) -> str:
    return f"https://h{page % HOSTS}.example/{page}"


@pytest.mark.long
async def test_worker_crawls_each_link_once_and_is_finished_is_never_early(config: DynamoDBConfig) -> None:
    handled: list[int] = []
    finished_at: list[float] = []
    done_at = 0.0

    async with opened(config) as one, opened(config) as two, opened(config) as watcher:
        await one.add([url(0)])

        async def handle(claim: Claim) -> None:
            nonlocal done_at
            page = int(claim.item.url.rpartition("/")[2])
            await asyncio.sleep(0.01)
            children = range(3 * page + 1, 3 * page + 4)
            await one.add([url(child) for child in children if child < LINKS])
            handled.append(page)
            done_at = time.monotonic()

        async def watch() -> None:
            while not finished_at:
                if await watcher.is_finished():
                    finished_at.append(time.monotonic())
                await asyncio.sleep(0.2)

        async with one.worker(concurrency=4) as first, two.worker(concurrency=4) as second:
            work = asyncio.gather(first.run(handle), second.run(handle), watch())
            await asyncio.wait_for(work, 90)
        assert finished_at[0] >= done_at
        assert sorted(handled) == list(range(LINKS))
        assert await watcher.recount() == FrontierStats(completed=LINKS)
