"""The tests of an adapter run where its crawler is installed. `make test-adapters` makes the environments."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from importlib.util import find_spec

import pytest
import pytest_asyncio

from tests.adapters.site import Site, serve
from tests.support.aws import Limits, SimulatedAWS, rough, simulated_aws

# Failed assertions of the helpers then show the differing values.
pytest.register_assert_rewrite("tests.adapters.processes")

CRAWLERS = ("ragcrawl", "crawlee", "scrapy")

_missing = [name for name in CRAWLERS if find_spec(name) is None]
collect_ignore = [*_missing]
if len(_missing) == len(CRAWLERS):
    collect_ignore.append("test_docs.py")


@pytest.fixture
def site() -> Iterator[Site]:
    """A site with 63 pages, served by this machine."""
    with serve() as site:
        yield site


@pytest_asyncio.fixture
async def aws(dynamodb_local_endpoint: str) -> AsyncIterator[SimulatedAWS]:
    """A simulated AWS on a bad day: late and torn indexes, stale reads, conflicts, lost answers, throttling.

    A partition takes what a crawl needs in a second, and throttles what comes at once. With this seed, the
    answer to the write of a large body is lost early, so that its next attempt is throttled.
    """
    settings = replace(
        rough(seed=25, longest_lag=1.5),
        limits=Limits(read_units=200, write_units=30, burst_seconds=0.05),
        conflicts=0.03,
        errors_before=0.02,
        errors_after=0.02,
        cuts_after=0.02,
    )
    async with simulated_aws(dynamodb_local_endpoint, settings) as aws:
        yield aws
