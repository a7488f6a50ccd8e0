"""Links that a redirect has led to, completed with the claim of another link."""

from __future__ import annotations

import pytest

from ragcrawl_dynamo import (
    DynamoDBBackend,
    Frontier,
    FrontierStats,
    FrontierStatus,
    InvalidInputError,
    LeaseLostError,
)
from ragcrawl_dynamo.testing import ManualClock
from tests.support.factories import make_page, make_version
from tests.support.queues import WAYS, items, url, urls

pytestmark = WAYS


async def statuses(backend: DynamoDBBackend) -> dict[str, str]:
    return {key: item.status.value for key, item in (await items(backend)).items()}


async def test_complete_also_completes_open_links_and_adds_new_ones(
    backend: DynamoDBBackend, frontier: Frontier, clock: ManualClock
) -> None:
    await frontier.add(urls(2))
    await frontier.add([url(2)], not_before=clock.now().replace(year=2999))
    (claim,) = await frontier.claim(1)
    await frontier.complete(claim, also=["https://A.example:443/1#x", url(2), url(3, "b.example"), url(0)])
    assert await statuses(backend) == dict.fromkeys([*urls(3), url(3, "b.example")], "completed")
    assert await frontier.stats() == FrontierStats(completed=4)
    assert (await frontier.stats("b.example")).completed == 1
    assert await frontier.claim() == []
    assert await frontier.is_finished()
    assert await frontier.stats() == FrontierStats(completed=4)
    assert [result.added for result in await frontier.add([url(3, "b.example")])] == [False]
    # Repeating the call changes nothing.
    await frontier.complete(claim, also=urls(3))
    assert await frontier.stats() == FrontierStats(completed=4)


async def test_complete_also_leaves_links_that_others_hold(
    backend: DynamoDBBackend, frontier: Frontier, clock: ManualClock
) -> None:
    await frontier.add(urls(3))
    one, two = await frontier.claim(2, lease_seconds=10)
    await frontier.complete(one, also=[url(1)])
    assert (await statuses(backend))[url(1)] == "in_progress"
    await frontier.renew(two, 10)
    # Once its lease is over, the link is nobody's.
    (three,) = await frontier.claim(1, lease_seconds=60)
    clock.advance(11.5)
    await frontier.complete(three, also=[url(1)])
    assert await statuses(backend) == dict.fromkeys(urls(3), "completed")
    with pytest.raises(LeaseLostError):
        await frontier.fail(two, "late")
    assert await frontier.stats() == FrontierStats(completed=3)
    assert await frontier.is_finished()


async def test_complete_also_keeps_links_that_are_final(backend: DynamoDBBackend, frontier: Frontier) -> None:
    await frontier.add(urls(3))
    one, two, three = await frontier.claim(3)
    await frontier.skip(one, "robots.txt")
    await frontier.fail(two, "gone", retry=False)
    before = await items(backend)
    await frontier.complete(three, also=urls(2))
    after = await items(backend)
    assert [after[key] for key in urls(2)] == [before[key] for key in urls(2)]
    assert after[url(2)].status is FrontierStatus.COMPLETED


async def test_complete_also_refuses_invalid_urls_before_anything_changes(
    backend: DynamoDBBackend, frontier: Frontier
) -> None:
    await frontier.add(urls(2))
    (claim,) = await frontier.claim(1)
    with pytest.raises(InvalidInputError, match="must be an absolute http or https URL"):
        await frontier.complete(claim, also=[url(1), "/about"])
    with pytest.raises(InvalidInputError, match="put a single value into a list"):
        await frontier.complete(claim, also=url(1))
    assert await statuses(backend) == {url(0): "in_progress", url(1): "pending"}


async def test_complete_also_does_nothing_after_a_lost_lease(
    backend: DynamoDBBackend, frontier: Frontier, clock: ManualClock
) -> None:
    await frontier.add(urls(2))
    (old,) = await frontier.claim(1, lease_seconds=10)
    clock.advance(11.5)
    assert len(await frontier.claim(2, lease_seconds=10)) == 2
    with pytest.raises(LeaseLostError):
        await frontier.complete(old, also=[url(7)])
    assert url(7) not in await statuses(backend)


async def test_commit_page_also_completes_links_of_a_redirect(
    backend: DynamoDBBackend, frontier: Frontier
) -> None:
    await frontier.add(urls(2))
    (claim,) = await frontier.claim(1)
    page = make_page(page_id=claim.item.item_id, url=url(0))
    version = make_version(page_id=page.page_id)
    also = [url(1), url(5)]
    await backend.commit_page(page, version, claim=claim, discovered=["6", "mailto:a@b"], also=also)
    assert await statuses(backend) == {
        **dict.fromkeys([url(0), url(1), url(5)], "completed"),
        url(6): "pending",
    }
    # The answer was lost: the caller commits again.
    await backend.commit_page(page, version, claim=claim, also=also)
    assert await frontier.stats() == FrontierStats(completed=3, pending=1)
    with pytest.raises(InvalidInputError, match="also: needs a claim or a version"):
        await backend.commit_page(page, also=also)


async def test_commit_page_of_a_cancelled_run_commits_without_links(
    backend: DynamoDBBackend, frontier: Frontier
) -> None:
    await frontier.add(urls(2))
    (claim,) = await frontier.claim(1)
    await frontier.cancel()
    page = make_page(page_id=claim.item.item_id, url=url(0))
    await backend.commit_page(page, make_version(page_id=page.page_id), claim=claim, discovered=urls(9))
    assert await statuses(backend) == {url(0): "completed", url(1): "pending"}
