"""The statistics of a run, while it is open and when it is completed."""

from __future__ import annotations

import asyncio

import pytest

from ragcrawl_dynamo import (
    CrawlStats,
    DynamoDBBackend,
    Frontier,
    FrontierStats,
    InvalidArgumentError,
    NotFoundError,
)
from ragcrawl_dynamo.testing import ManualClock
from tests.support.factories import make_page, make_run, make_site, make_version
from tests.support.queues import urls


async def test_complete_run_stores_the_stats_of_the_items(
    backend: DynamoDBBackend, frontier: Frontier, clock: ManualClock
) -> None:
    await backend.save_site(make_site())
    await backend.save_run(make_run())
    await backend.add_run_stats("site", "run", pages_crawled=77, domains_crawled=88)
    await backend.commit_page(make_page("p1", status_code=200), make_version("v0", "p1", content_hash="old"))
    await backend.commit_page(make_page("p2", status_code=200), make_version("v0", "p2", content_hash="x"))
    await backend.commit_page(make_page("p3", status_code=200), make_version("v0", "p3", content_hash="x"))
    await frontier.add(urls(6))
    claims = await frontier.claim(6)
    fetched: list[tuple[int, str | None]] = [(200, "new"), (200, "changed"), (304, None), (404, None)]
    for i, (claim, (status, content)) in enumerate(zip(claims, fetched, strict=False)):
        one = None
        if content is not None:
            one = make_version(
                f"v{i}", f"p{i}", content_hash=content, html="x" * 100, fetch_latency_ms=20.0 + i
            )
        await backend.commit_page(make_page(f"p{i}", status_code=status), one, claim=claim)
    await frontier.fail(claims[4], TimeoutError("slow"), retry=False)
    await frontier.skip(claims[5], "robots.txt")
    clock.advance(1)
    for _ in range(2):
        run = await backend.complete_run("site", "run")
        stats = run.stats
        assert (run.status, run.completed_at, run.frontier_size) == ("partial", clock.now(), 6)
        assert (stats.pages_discovered, stats.pages_crawled) == (6, 4)
        assert (stats.pages_failed, stats.pages_skipped) == (1, 1)
        counts = (stats.pages_new, stats.pages_changed, stats.pages_unchanged, stats.pages_deleted)
        assert counts == (1, 1, 1, 1)
        assert (stats.total_bytes_downloaded, stats.total_fetch_time_ms) == (200, 41.0)
        # Two of the four fetches have a time.
        assert stats.avg_fetch_latency_ms == 20.5
        assert stats.status_codes == {200: 2, 304: 1, 404: 1}
        assert (stats.errors_by_type, stats.errors_by_domain) == ({"TimeoutError": 1}, {"a.example": 1})
        assert (stats.domains_crawled, stats.domains_sample) == (1, ["a.example"])
    assert await backend.get_run("site", "run") == run
    site = await backend.get_site("site")
    assert site is not None
    assert (site.total_pages, site.total_runs, site.last_crawl_at) == (3, 1, clock.now())


async def test_complete_run_of_an_unfinished_run_is_partial(
    backend: DynamoDBBackend, frontier: Frontier
) -> None:
    await backend.save_run(make_run())
    assert (await backend.complete_run("site", "run")).status == "completed"
    # The frontier of a completed run can still be used.
    await frontier.add(urls(1))
    assert await frontier.stats() == FrontierStats(pending=1)
    assert (await backend.complete_run("site", "run")).status == "partial"
    assert (await backend.complete_run("site", "run", status="cancelled")).status == "cancelled"
    with pytest.raises(NotFoundError, match="save_run"):
        await backend.complete_run("site", "absent")
    with pytest.raises(InvalidArgumentError, match="status: must be one of completed"):
        await backend.complete_run("site", "run", status="running")


async def test_run_stats_follow_the_commits_of_an_open_run(
    backend: DynamoDBBackend, frontier: Frontier, clock: ManualClock
) -> None:
    await backend.save_run(make_run(status="running"))
    await frontier.add(urls(4))
    claims = await frontier.claim(4)

    async def commit(i: int) -> CrawlStats:
        one = make_version("v1", f"p{i}", html="x" * 10)
        await backend.commit_page(make_page(f"p{i}", status_code=200), one, claim=claims[i])
        return await stored_stats()

    async def stored_stats() -> CrawlStats:
        run = await backend.get_run("site", "run")
        assert run is not None
        return run.stats

    for i in range(3):
        clock.advance(0.3)
        assert (await commit(i)).pages_crawled == 0
    # They are written a second after the first commit, even if the process does nothing else.
    clock.advance(0.5)
    async with asyncio.timeout(10):
        while (stats := await stored_stats()).pages_crawled < 3:  # noqa: ASYNC110 # it polls a database
            await asyncio.sleep(0.01)
    assert (stats.pages_new, stats.total_bytes_downloaded) == (3, 30)
    assert stats.status_codes == {200: 3}
    await commit(3)
    completed = await backend.complete_run("site", "run")
    assert completed.stats.pages_crawled == 4
    # The statistics of a completed run do not change, even if a commit follows.
    clock.advance(5)
    await frontier.add(urls(1, first=9))
    await backend.commit_page(
        make_page("p9", status_code=200), make_version("v1", "p9"), claim=(await frontier.claim())[0]
    )
    assert await backend.get_run("site", "run") == completed
