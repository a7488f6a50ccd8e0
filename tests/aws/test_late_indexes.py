"""The cost of late indexes for one process, and how long they hide the items of others; in virtual time."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig
from ragcrawl_dynamo.testing import ManualClock
from ragcrawl_dynamo.testing.conformance import StorageBackendConformance
from tests.support.aws import Lag, Settings
from tests.support.aws.copies import Clock
from tests.support.queues import url

# Seconds for which a page is crawled, and how many pages are crawled at the same time.
PAGE_SECONDS = 0.1
CONCURRENCY = 20

# AWS, on a usual day, and on a bad one.
LATE = Settings(seed=1, index_lag=Lag(0.2, 1.0), torn_moves=True)
VERY_LATE = Settings(seed=1, index_lag=Lag(0.1, 10.0), torn_moves=True)


@pytest.fixture
def aws_settings() -> Settings:
    return LATE


@dataclass
class Site:
    """A site to crawl.

    Attributes:
        seeds: The links to begin with.
        pages: How many pages there are in all.
        links_on: Returns the links on the n-th page.
        fails: The links whose first attempt fails.
    """

    seeds: Sequence[str]
    pages: int
    links_on: Callable[[int], Sequence[str]] = lambda number: ()
    fails: frozenset[str] = frozenset()


@dataclass
class Crawl:
    """A crawl by one process: how long it took from its first page on, and its claim statements."""

    seconds: float = 0.0
    tried: int = 0
    granted: int = 0
    pages: set[str] = field(default_factory=set)


async def crawl(config: DynamoDBConfig, clock: ManualClock, run_id: str, site: Site) -> Crawl:
    crawled = Crawl()
    async with DynamoDBBackend(config, clock=clock) as backend:
        frontier = backend.frontier("site", run_id)
        await frontier.add(site.seeds)
        failures = set(site.fails)
        while not (claims := await frontier.claim(CONCURRENCY)):
            clock.advance(PAGE_SECONDS)
        begun_at = clock.monotonic()
        while len(crawled.pages) < site.pages:
            clock.advance(PAGE_SECONDS)
            for claim in claims:
                if claim.item.url in failures:
                    failures.remove(claim.item.url)
                    await frontier.fail(claim, "busy", retry_in=0.5)
                    continue
                if links := site.links_on(len(crawled.pages)):
                    await frontier.add(links)
                crawled.pages.add(claim.item.url)
                await frontier.complete(claim)
            claims = await frontier.claim(CONCURRENCY)
            crawled.seconds = clock.monotonic() - begun_at
            assert crawled.seconds < 300, f"{len(crawled.pages)} of {site.pages} pages"
        issuer = frontier._queue.scheduler.issuer
        crawled.tried, crawled.granted = issuer.tried, issuer.granted
        assert await frontier.is_finished()
    return crawled


def discovered(number: int) -> list[str]:
    """The links on a page: one of a new host, and two of hosts that have others."""
    hosts = [f"new{number}.example", f"h{number % 7}.example", f"h{number % 5}.example"]
    return [url(number, host) for host in hosts] if number < 130 else []


FOUND = len({link for number in range(130) for link in discovered(number)})
MANY = [url(i, f"h{i % 20}.example") for i in range(400)]
SITES = {
    "one host": Site([url(i) for i in range(400)], 400),
    "many hosts": Site([url(i, f"h{i}.example") for i in range(400)], 400),
    "hosts that are found": Site([url(0)], 1 + FOUND, discovered),
    "pages that fail": Site(MANY, 400, fails=frozenset(MANY[::5])),
}


@pytest.mark.parametrize("name", SITES)
async def test_one_process_wastes_no_claims_and_little_time_on_a_late_index(
    config: DynamoDBConfig, dynamodb_config: DynamoDBConfig, clock: ManualClock, name: str
) -> None:
    late = await crawl(config, clock, "late", SITES[name])
    settings = config.model_copy(update={"endpoint_url": dynamodb_config.endpoint_url})
    on_time = await crawl(settings, clock, "on time", SITES[name])
    assert late.granted / late.tried >= 0.95
    assert on_time.seconds / late.seconds >= 0.7


@pytest.mark.parametrize("aws_settings", [VERY_LATE])
async def test_late_index_hides_no_item_of_another_process_for_more_than_a_minute(
    config: DynamoDBConfig, clock: ManualClock
) -> None:
    chance = random.Random(1)  # noqa: S311 # for the same hosts each time
    added: dict[str, float] = {}
    claimed: dict[str, float] = {}
    async with (
        DynamoDBBackend(config, clock=clock) as adder,
        DynamoDBBackend(config, clock=clock) as worker,
    ):
        frontier = worker.frontier("site", "run")
        for step in range(200):
            if step < 60:
                link = url(step, f"h{chance.randrange(8)}.example")
                added[link] = clock.monotonic()
                await adder.frontier("site", "run").add([link], priority=float(step % 3))
            for claim in await frontier.claim(5):
                assert claim.item.url not in claimed
                claimed[claim.item.url] = clock.monotonic()
                await frontier.complete(claim)
            if step % 5 == 0:
                assert await frontier.is_finished() == (claimed.keys() == added.keys())
            if step > 60 and len(claimed) == len(added):
                break
            clock.advance(1.0)
        assert claimed.keys() == added.keys()
        assert max(claimed[link] - added[link] for link in added) <= 60
        assert await frontier.is_finished()


class TestConformance(StorageBackendConformance):
    """Runs the conformance suite on indexes that lag as much as they can on AWS."""

    @pytest.fixture
    def aws_settings(self) -> Settings:
        return Settings(seed=1, index_lag=Lag(0.3, 0.6), torn_moves=True, read_lag=Lag(0.3, 0.6))

    @pytest.fixture
    def aws_clock(self) -> Clock:
        return time.monotonic

    @pytest_asyncio.fixture
    async def backend(self, config: DynamoDBConfig) -> AsyncIterator[DynamoDBBackend]:
        async with DynamoDBBackend(config) as backend:
            yield backend
