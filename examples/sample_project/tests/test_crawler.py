"""Tests the crawler on a local engine that the pytest plugin starts. Every test has its own tables."""

import pytest
from crawler import Response, crawl

from ragcrawl_dynamo import DynamoDBConfig, Store, connect
from ragcrawl_dynamo.testing import ManualClock

SITE = {
    "https://example.com/": Response(200, "home", ["https://example.com/a", "https://example.com/b"]),
    "https://example.com/a": Response(200, "a", ["https://example.com/"]),
    "https://example.com/b": Response(404),
}


async def fetch(url: str) -> Response:
    """Returns a page of SITE."""
    return SITE[url]


async def test_crawl_saves_every_page(dynamodb_backend: Store) -> None:
    """Every page is saved once."""
    summary = await crawl(dynamodb_backend, "example", ["https://example.com/"], fetch)
    assert summary.completed == 3
    pages = [page async for page in dynamodb_backend.iter_pages("example")]
    assert {page.url for page in pages} == {"https://example.com/", "https://example.com/a"}
    texts = [version.markdown async for version in dynamodb_backend.iter_versions("example")]
    assert sorted(texts) == ["a", "home"]


async def test_second_crawl_saves_new_content_only(dynamodb_backend: Store) -> None:
    """An unchanged page gets no second version."""
    for _ in range(2):
        await crawl(dynamodb_backend, "example", ["https://example.com/"], fetch)
    page = await dynamodb_backend.get_page_by_url("example", "https://example.com/")
    assert page is not None
    assert page.version_count == 1


async def test_failed_item_is_tried_again_later(dynamodb_config: DynamoDBConfig) -> None:
    """The test moves the clock: a failed item becomes due, and the lease of a killed worker expires."""
    clock = ManualClock()
    async with Store(dynamodb_config, clock=clock) as backend:
        frontier = backend.frontier("example", "monday")
        await frontier.add(["https://example.com/a"])
        (claim,) = await frontier.claim(1, lease_seconds=60)
        await frontier.fail(claim, "503")
        assert await frontier.claim(1) == []
        clock.advance(10)
        (again,) = await frontier.claim(1, lease_seconds=60)
        assert again.item.retry_count == 1
        # Suppose its worker is killed here.
        clock.advance(70)
        (third,) = await frontier.claim(1)
        assert third.token > again.token


@pytest.mark.parametrize("status", [500, 503])
async def test_failing_server_loses_no_page(dynamodb_config: DynamoDBConfig, status: int) -> None:
    """A page is fetched again after a server error."""
    answers = iter([Response(status), Response(200, "at last")])

    async def flaky(url: str) -> Response:
        return next(answers)

    async with connect(dynamodb_config, frontier_retry_delay=0.1) as store:
        summary = await crawl(store, "example", ["https://example.com/"], flaky)
        assert summary.retried == 1
        assert [version.markdown async for version in store.iter_versions("example")] == ["at last"]
