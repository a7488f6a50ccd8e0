"""The frontier's queue under concurrent processes and lost answers, on DynamoDB Local."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig, FrontierStats
from tests.support.engines import on_dynamodb_local, on_moto
from tests.support.fakes import Around
from tests.support.frontiers import BATCHES, opened
from tests.support.queues import items, urls


@on_dynamodb_local
async def test_capacity_units_of_a_link_from_add_to_complete(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    # The engine reports units for single requests only.
    single = dynamodb_config.model_copy(update={**BATCHES, "conditional_batches": "item"})
    async with DynamoDBBackend(single) as counted:
        frontier = counted.frontier("site", "run")
        await frontier.add(urls(100))

        def units() -> float:
            return sum(counters.write_units for counters in counted.metrics().values())

        before = units()
        await frontier.add(urls(10, first=100))
        # Two for each item, and one for the counts of the host, which another process may be about to drain.
        assert units() - before == 21
        before = units()
        claims = await frontier.claim(10)
        # One for the item, whose index entry stays; and a sign of life of the process.
        assert units() - before == 11
        before = units()
        await frontier.complete(claims)
        assert units() - before == 20


def losing(count: int, which: Callable[[str, dict[str, Any]], bool]) -> tuple[Around, list[str]]:
    """Lets the engine apply some requests, and loses its answers."""
    lost: list[str] = []

    async def around(operation: str, request: dict[str, Any], call: Any) -> Any:
        answer = await call(**request)
        if which(operation, request) and len(lost) < count:
            lost.append(operation)
            raise EndpointConnectionError(endpoint_url="lost")
        return answer

    return around, lost


@on_dynamodb_local
@pytest.mark.parametrize("way", ["partiql", "item"])
async def test_frontier_is_unaffected_by_lost_answers(
    config: DynamoDBConfig, backend: DynamoDBBackend, way: str
) -> None:
    single = config.model_copy(update={"conditional_batches": way})
    seen: Counter[str] = Counter()

    async def loses_every_third(operation: str, request: dict[str, Any], call: Any) -> Any:
        answer = await call(**request)
        seen[operation] += 1
        if seen[operation] % 3 == 1 and not operation.startswith("describe"):
            raise EndpointConnectionError(endpoint_url="lost")
        return answer

    async with opened(single, loses_every_third) as frontier:
        await frontier.set_host_max_in_flight("a.example", 4)
        assert all(result.added for result in await frontier.add(urls(60)))
        done = 0
        while claims := await frontier.claim(3):
            assert {claim.item.attempt for claim in claims} == {1}
            await frontier.renew(claims, 60)
            await frontier.complete(claims)
            done += len(claims)
        assert done == 60
        assert await frontier.is_finished()
        stats = await frontier.stats()
        assert stats == FrontierStats(completed=60) == await frontier.recount()
        assert [host.in_flight async for host in frontier.iter_hosts()] == [0]
    assert {item.attempt for item in (await items(backend)).values()} == {1}


@on_moto
async def test_frontier_on_an_engine_without_partiql_uses_single_requests(
    dynamodb_config: DynamoDBConfig, backend: DynamoDBBackend, caplog: pytest.LogCaptureFixture
) -> None:
    automatic = {"conditional_batches": "auto", "retry_attempts": 2, "retry_base_delay": 0.0}
    async with opened(dynamodb_config.model_copy(update=automatic)) as frontier:
        assert all(result.added for result in await frontier.add(urls(3)))
        await frontier.complete(await frontier.claim())
        assert await frontier.is_finished()
    assert caplog.text.count("PartiQL batches are denied or unsupported here") == 1
