"""When a run is finished."""

from __future__ import annotations

from ragcrawl_dynamo import DynamoDBBackend, Frontier
from ragcrawl_dynamo.testing import ManualClock
from tests.support.factories import make_item
from tests.support.queues import WAYS, url, urls

pytestmark = WAYS


async def test_is_finished_when_every_item_is_final(frontier: Frontier, clock: ManualClock) -> None:
    assert await frontier.is_finished()
    await frontier.add(urls(2))
    assert not await frontier.is_finished()
    one, two = await frontier.claim()
    await frontier.complete(one)
    assert not await frontier.is_finished()
    await frontier.fail(two, "x", retry_in=5)
    assert not await frontier.is_finished()
    clock.advance(6)
    (two,) = await frontier.claim()
    await frontier.skip(two, "x")
    assert await frontier.is_finished()
    await frontier.add([url(0), url(9)])
    assert not await frontier.is_finished()


async def test_is_finished_only_after_items_saved_as_records_are_done(
    backend: DynamoDBBackend, frontier: Frontier, clock: ManualClock
) -> None:
    await backend.save_frontier_item(make_item("record", url=url(1), domain="a.example"))
    assert not await frontier.is_finished()
    (claim,) = await frontier.claim()
    assert claim.item.item_id == "record"
    await frontier.complete(claim)
    assert await frontier.is_finished()
