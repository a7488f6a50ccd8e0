"""A frontier whose site and run are swapped raises at its first use, before it stores anything."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from ragcrawl_dynamo import DynamoDBBackend, Frontier, InvalidArgumentError
from tests.support.factories import make_run
from tests.support.queues import WAYS, urls

pytestmark = WAYS

USES: list[Callable[[Frontier], Awaitable[object]]] = [
    lambda frontier: frontier.add(urls(1)),
    lambda frontier: frontier.claim(),
    lambda frontier: frontier.pause(),
    lambda frontier: frontier.state(),
    lambda frontier: frontier.is_finished(),
]


@pytest.mark.parametrize("use", USES, ids=["add", "claim", "pause", "state", "is_finished"])
@pytest.mark.parametrize("known_by", ["run", "queue"])
async def test_swapped_ids_are_refused_at_the_first_use(
    backend: DynamoDBBackend, known_by: str, use: Callable[[Frontier], Awaitable[object]]
) -> None:
    if known_by == "run":
        await backend.save_run(make_run("monday", "docs"))
    else:
        await backend.frontier("docs", "monday").add(urls(1))
    swapped = backend.frontier("monday", "docs")
    for _ in range(2):
        with pytest.raises(InvalidArgumentError, match="'monday' is the id of a run of site 'docs'"):
            await use(swapped)
    assert await backend.get_frontier_items("docs") == []


async def test_a_run_with_the_id_of_its_site_is_no_swap(backend: DynamoDBBackend) -> None:
    await backend.save_run(make_run("docs", "docs"))
    frontier = backend.frontier("docs", "docs")
    await frontier.add(urls(2))
    assert len(await frontier.claim()) == 2


async def test_the_order_is_checked_at_the_first_use_only(
    backend: DynamoDBBackend,
) -> None:
    def reads_of_runs() -> int:
        return sum(
            counted.requests
            for (operation, table), counted in backend.metrics().items()
            if operation == "GetItem" and table.endswith("runs")
        )

    early = backend.frontier("docs", "monday")
    assert await early.claim() == []
    assert (reads := reads_of_runs()) > 0
    assert await early.claim() == []
    await early.add(urls(1))
    await early.stats()
    assert reads_of_runs() == reads
