"""Helps the tests of the frontier's queue: engines, settings and claims."""

from __future__ import annotations

from typing import Any

import pytest

from ragcrawl_dynamo import Claim, DynamoDBBackend, Frontier, FrontierItem

# The ways of conditional batches, each on the engines that have it.
WAYS = pytest.mark.parametrize(
    ("dynamodb_endpoint", "way"),
    [("moto", "item"), ("dynamodb-local", "item"), ("dynamodb-local", "partiql")],
    indirect=["dynamodb_endpoint"],
)

# Settings that make waiting short.
QUICK: dict[str, Any] = {
    "frontier_max_clock_skew": 1.0,
    "frontier_max_attempts": 3,
    "frontier_retry_delay": 4.0,
}


def url(number: int, host: str = "a.example") -> str:
    return f"https://{host}/{number}"


def urls(count: int, host: str = "a.example", first: int = 0) -> list[str]:
    return [url(i, host) for i in range(first, first + count)]


def names(claims: list[Claim]) -> list[str]:
    return [claim.item.url for claim in claims]


async def items(backend: DynamoDBBackend, run_id: str = "run") -> dict[str, FrontierItem]:
    return {item.url: item for item in await backend.get_frontier_items(run_id)}


async def claim_all(frontier: Frontier, **options: Any) -> list[Claim]:
    """Claims everything that can be claimed now."""
    claims: list[Claim] = []
    while part := await frontier.claim(50, **options):
        claims += part
    return claims


def requests(backend: DynamoDBBackend) -> int:
    return sum(counted.requests for counted in backend.metrics().values())
