"""Workers and lease keepers on a real queue."""

from __future__ import annotations

import asyncio

import pytest

from ragcrawl_dynamo import (
    Claim,
    DoNotRetry,
    DynamoDBBackend,
    DynamoDBConfig,
    Frontier,
    FrontierStats,
    FrontierStatus,
    LeaseKeeper,
    Skip,
)
from ragcrawl_dynamo.testing import ManualClock
from tests.support.factories import make_page
from tests.support.queues import WAYS, items, url, urls

pytestmark = WAYS


async def test_worker_handles_every_item_and_ends(backend: DynamoDBBackend, config: DynamoDBConfig) -> None:
    async with DynamoDBBackend(config.model_copy(update={"frontier_retry_delay": 0.1})) as timed:
        frontier = timed.frontier("site", "run")
        await frontier.add(urls(5))
        tried: list[str] = []

        async def handle(claim: Claim) -> None:
            tried.append(claim.item.url)
            if claim.item.url == url(1):
                raise ValueError("broken")
            if claim.item.url == url(2):
                await frontier.skip(claim, "not wanted")
            if claim.item.url == url(3):
                await frontier.add([url(9)])

        async with frontier.worker(concurrency=3, worker_id="w") as worker:
            summary = await asyncio.wait_for(worker.run(handle), 30)
        stored = await items(backend)
        assert sorted(tried) == sorted([*urls(5), url(9), url(1), url(1)])
        assert stored[url(1)].status == "failed"
        assert stored[url(1)].last_error == "ValueError: broken"
        assert stored[url(2)].status == "skipped"
        assert await frontier.stats() == FrontierStats(completed=4, failed=1, skipped=1)
        assert (summary.completed, summary.retried, summary.failed) == (4, 2, 1)
        assert (summary.skipped, summary.lost) == (1, 0)


async def test_worker_summary_counts_each_item_by_the_result_of_its_handler(
    backend: DynamoDBBackend, config: DynamoDBConfig, caplog: pytest.LogCaptureFixture
) -> None:
    async with DynamoDBBackend(config.model_copy(update={"frontier_retry_delay": 0.1})) as timed:
        frontier = timed.frontier("site", "run")
        await frontier.add(urls(9))
        failures: list[tuple[str, FrontierStatus | None]] = []

        async def handle(claim: Claim) -> None:
            number = int(claim.item.url.rpartition("/")[2])
            page = make_page(f"p{number}", url=claim.item.url)
            is_first = claim.item.attempt == 1
            match number:
                case 0:
                    raise Skip("robots.txt")
                case 1:
                    raise DoNotRetry("no HTML")
                case 2:
                    await frontier.skip(claim, "not wanted")
                case 3 if is_first:
                    await frontier.put_back(claim)
                case 4 if is_first:
                    await frontier.release(claim)
                case 5:
                    fetched = page.model_copy(update={"status_code": 503 if is_first else 404})
                    await timed.commit_page(fetched, claim=claim)
                case 6:
                    await timed.commit_page(page.model_copy(update={"status_code": 403}), claim=claim)
                case 7:
                    await timed.commit_page(page.model_copy(update={"last_error": "reset"}), claim=claim)

        async with frontier.worker(concurrency=3) as worker:
            summary = await asyncio.wait_for(
                worker.run(
                    handle, on_error=lambda claim, _: failures.append((claim.item.url, claim.settled_as))
                ),
                100,
            )
        stored = await items(backend)
        assert {url: item.status.value for url, item in stored.items()} == {
            **dict.fromkeys(urls(9), "completed"),
            **dict.fromkeys((url(0), url(2), url(6)), "skipped"),
            **dict.fromkeys((url(1), url(7)), "failed"),
        }
        errors = [stored[url(number)].last_error for number in (0, 1, 2, 6, 7)]
        assert errors == ["robots.txt", "no HTML", "not wanted", "HTTP 403", "reset"]
        assert (summary.completed, summary.skipped, summary.failed, summary.lost) == (4, 3, 2, 0)
        # Once each: put back, released, and a 503; and the two first attempts without an answer.
        assert summary.retried == 5
        assert await frontier.stats() == FrontierStats(completed=4, skipped=3, failed=2)
        assert failures == [(url(1), FrontierStatus.FAILED)]
    dead = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert dead == [
        f"the handler of {url(1)} has failed in attempt 1, it is given up: DoNotRetry('no HTML')",
        f"{url(7)} is given up after attempt 3",
    ]


async def test_worker_that_is_cancelled_releases_its_claims(
    backend: DynamoDBBackend, frontier: Frontier
) -> None:
    await frontier.add(urls(3))
    started = asyncio.Event()

    async def handle(claim: Claim) -> None:
        started.set()
        await asyncio.Event().wait()

    async def crawl() -> None:
        async with frontier.worker(concurrency=2) as worker:
            await worker.run(handle)

    crawling = asyncio.create_task(crawl())
    await started.wait()
    crawling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await crawling
    assert {item.status for item in (await items(backend)).values()} == {FrontierStatus.PENDING}
    assert len(await frontier.claim()) == 3


async def renewed(keeper: LeaseKeeper, clock: ManualClock) -> None:
    """Waits until a keeper has renewed the leases that are due, since the clock does not wait for it."""
    await clock.wait_for_sleeper()
    while keeper._renewing:  # noqa: ASYNC110 # no event tells
        await asyncio.sleep(0.001)


async def test_lease_keeper_renews_held_claims_and_reports_lost_ones(
    frontier: Frontier, clock: ManualClock
) -> None:
    lost: asyncio.Queue[Claim] = asyncio.Queue()
    await frontier.add(urls(3))
    async with frontier.keeper(lambda claim, _: lost.put_nowait(claim), lease_seconds=30) as keeper:
        held, ended, forgotten = await frontier.claim(3, lease_seconds=30)
        keeper.hold([held, ended])
        await frontier.complete(ended)
        # As it is while the answer is under way.
        ended.ended = False
        for _ in range(10):
            await renewed(keeper, clock)
            clock.advance(9)
        await renewed(keeper, clock)
        assert (keeper.held, lost.empty()) == ([held], True)
        (again,) = await frontier.claim(5)
        assert again.item.item_id == forgotten.item.item_id
        keeper.hold([forgotten])
        clock.advance(2)
        assert await lost.get() is forgotten
        assert keeper.held == [held]
    await frontier.complete([held, again])
