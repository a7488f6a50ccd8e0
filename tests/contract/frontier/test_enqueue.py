"""Links into the queue."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from ragcrawl_dynamo import (
    DynamoDBBackend,
    DynamoDBConfig,
    Frontier,
    FrontierStatus,
    InvalidArgumentError,
    InvalidInputError,
    InvalidKeyError,
)
from ragcrawl_dynamo.testing import ManualClock
from tests.support.factories import make_item
from tests.support.queues import WAYS, items, url, urls

pytestmark = WAYS


async def test_frontier_add_adds_a_link_once_in_any_spelling(
    backend: DynamoDBBackend, frontier: Frontier
) -> None:
    results = await frontier.add(["https://A.example/?b=2&a=1#top", "https://a.example/?a=1&b=2", url(1)])
    assert [result.added for result in results] == [True, False, True]
    assert results[0].item_id == results[1].item_id
    assert [result.added for result in await frontier.add(urls(3))] == [True, False, True]
    stored = await items(backend)
    assert len(stored) == 4
    first = stored["https://A.example/?b=2&a=1#top"]
    assert (first.normalized_url, first.domain) == ("https://a.example/?a=1&b=2", "a.example")


async def test_frontier_add_stores_options_and_item_fields(
    backend: DynamoDBBackend, frontier: Frontier, clock: ManualClock
) -> None:
    later = clock.now() + timedelta(minutes=5)
    await frontier.add([url(1)], depth=3, referrer_url=url(0), priority=2.5, not_before=later)
    await frontier.add([make_item("own-id", url=url(2), depth=7, priority=-1, retry_count=9)])
    stored = await items(backend)
    one, two = stored[url(1)], stored[url(2)]
    assert (one.depth, one.referrer_url, one.priority, one.scheduled_at) == (3, url(0), 2.5, later)
    assert (two.depth, two.priority, two.retry_count) == (7, -1, 0)
    assert two.item_id != "own-id"


async def test_frontier_add_reports_invalid_links_and_adds_the_others(
    backend: DynamoDBBackend, frontier: Frontier
) -> None:
    odd: Any = 5
    links = [url(1), "http://[bad", "https://" + "h" * 600 + "/", odd, "https://x.example/\ud800", url(2)]
    results = await frontier.add(links)
    assert [result.added for result in results] == [True, False, False, False, False, True]
    assert isinstance(results[1].error, InvalidArgumentError)
    assert isinstance(results[2].error, InvalidKeyError)
    assert results[2].error.field == "domain"
    assert all(result.error is not None for result in results[1:5])
    assert set(await items(backend)) == {url(1), url(2)}


async def test_frontier_add_again_never_resets_progress(backend: DynamoDBBackend, frontier: Frontier) -> None:
    await frontier.add(urls(3))
    one, two, _ = await frontier.claim(3)
    await frontier.complete(one)
    await frontier.skip(two, "robots.txt")
    before = await items(backend)
    frontier._queue.run.view.clear()
    assert not any(result.added for result in await frontier.add(urls(3)))
    assert await items(backend) == before


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"depth": -1}, "depth"),
        ({"priority": float("nan")}, "priority"),
        ({"priority": "high"}, "priority"),
        ({"not_before": "tomorrow"}, "not_before"),
        ({"referrer_url": 5}, "referrer_url"),
    ],
)
async def test_frontier_add_refuses_an_option_outside_its_limits(
    frontier: Frontier, options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        await frontier.add([url(1)], **options)
    assert caught.value.field == field
    assert await frontier.claim() == []


async def test_frontier_add_refuses_a_single_string(frontier: Frontier) -> None:
    with pytest.raises(InvalidArgumentError, match="put a single value into a list"):
        await frontier.add(url(1))


async def test_frontier_add_takes_links_with_one_unique_key_as_one(
    backend: DynamoDBBackend, frontier: Frontier
) -> None:
    one, other = (
        frontier.link("https://a.example/form", unique_key=f"POST {number}", payload=f"a={number}")
        for number in (1, 2)
    )
    assert [result.added for result in await frontier.add([one, other, one])] == [True, True, False]
    assert [result.added for result in await frontier.add(["https://a.example/form"])] == [True]
    claims = await frontier.claim(5)
    claimed = [(claim.item.unique_key, claim.item.payload, claim.item.url) for claim in claims]
    assert claimed == [
        ("POST 1", "a=1", "https://a.example/form"),
        ("POST 2", "a=2", "https://a.example/form"),
        (None, None, "https://a.example/form"),
    ]
    assert {claim.item.domain for claim in claims} == {"a.example"}
    with pytest.raises(InvalidInputError, match="item"):
        await frontier.put_back(claims[0], payload="x" * 500_000)
    for fields in ({"payload": 5}, {"unique_key": ""}, {"pay": "a"}, {"depth": -1}):
        (name,) = fields
        with pytest.raises(InvalidArgumentError, match=name):
            frontier.link("https://a.example/", **fields)
    with pytest.raises(InvalidInputError, match="payload"):
        await frontier.complete(claims[0], payload=b"")  # type: ignore[arg-type] # that is what is tested
    await frontier.put_back(claims[0], payload="a=3", to_end=True)
    await frontier.put_back(claims[2])
    await frontier.put_back(claims[1], priority=1)
    again = await frontier.claim(5)
    assert [claim.item.payload for claim in again] == ["a=2", None, "a=3"]
    await frontier.complete(again[2], payload="a=4")
    assert {item.payload for item in await backend.get_frontier_items("run")} == {"a=2", None, "a=4"}


async def test_frontier_add_again_returns_the_status_of_the_link(
    frontier: Frontier, config: DynamoDBConfig
) -> None:
    await frontier.add(urls(2))
    (claim,) = await frontier.claim(1)
    await frontier.complete(claim)
    async with DynamoDBBackend(config) as other:
        results = await other.frontier("site", "run").add(urls(3))
    assert [result.status for result in results] == [FrontierStatus.COMPLETED, FrontierStatus.PENDING, None]
