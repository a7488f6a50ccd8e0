"""The write units of leases: an item's place in the index is not written when it is leased."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest
import pytest_asyncio

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig
from ragcrawl_dynamo.testing import ManualClock
from tests.support.engines import on_dynamodb_local
from tests.support.queues import url, urls

pytestmark = on_dynamodb_local


@pytest_asyncio.fixture
async def counted(config: DynamoDBConfig) -> AsyncIterator[DynamoDBBackend]:
    """A process whose clock stands still, so that it gives no sign of life and writes no counts meanwhile."""
    single = config.model_copy(update={"conditional_batches": "item"})
    async with DynamoDBBackend(single, clock=ManualClock()) as backend:
        yield backend


async def write_units(backend: DynamoDBBackend, operation: Awaitable[Any]) -> float:
    before = sum(counters.write_units for counters in backend.metrics().values())
    await operation
    return sum(counters.write_units for counters in backend.metrics().values()) - before


@pytest.mark.parametrize("hosts", [1, 20])
async def test_write_units_of_claim_and_renew_are_one_each(counted: DynamoDBBackend, hosts: int) -> None:
    frontier = counted.frontier("site", "run")
    await frontier.add(link for i in range(hosts) for link in urls(40 // hosts, f"h{i}.example"))
    # The write units that a process uses once.
    claims = await frontier.claim(1)
    assert await write_units(counted, frontier.renew(claims, 120)) == 1

    async def claim() -> None:
        claims.extend(await frontier.claim(10))

    assert await write_units(counted, claim()) == 10
    assert len(claims) == 11
    assert await write_units(counted, frontier.renew(claims, 120)) == 11


async def test_write_units_of_a_lease_of_a_limited_host_are_one_more(counted: DynamoDBBackend) -> None:
    frontier = counted.frontier("site", "run")
    await frontier.set_host_max_in_flight("a.example", 5)
    await frontier.add([url(i) for i in range(10)])
    await frontier.claim(1)
    assert await write_units(counted, frontier.claim(1)) == 2


async def test_write_units_of_a_failed_item_are_three(counted: DynamoDBBackend) -> None:
    frontier = counted.frontier("site", "run")
    await frontier.add(urls(20, "a.example"))
    claim, *claims = await frontier.claim(11)
    # The first one stores when the host has an item to claim again.
    await frontier.fail(claim, "error", retry_in=60)

    async def fail() -> None:
        for claim in claims:
            await frontier.fail(claim, "error", retry_in=60)

    # The item, and its entry in the index, which is replaced.
    assert await write_units(counted, fail()) == 30


async def test_write_units_of_a_host_are_two_as_it_comes_and_two_as_it_goes(counted: DynamoDBBackend) -> None:
    async def life(run_id: str, hosts: int) -> tuple[float, float]:
        """The units of adding and of completing a link of each host, with what both cost in every run."""
        frontier = counted.frontier("site", run_id)
        links = [link for i in range(hosts) for link in urls(1, f"h{i}.example")]
        added = await write_units(counted, frontier.add(links))
        claims = await frontier.claim(hosts)

        async def drain() -> None:
            await frontier.complete(claims)
            await frontier.stats()

        return added, await write_units(counted, drain())

    one, three = await life("one", 1), await life("three", 3)
    # Two for an item, and two for its host.
    assert (three[0] - one[0], three[1] - one[1]) == (2 * 4, 2 * 4)
