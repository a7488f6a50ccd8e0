"""The middleware: what happens to requests that fail or are refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from scrapy import Request
from scrapy.http import Response

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig, FrontierStatus
from ragcrawl_dynamo.adapters.scrapy.crawl import CLAIM_TOKEN
from ragcrawl_dynamo.adapters.scrapy.memory import CrawlMemory, Outcome, Settlement
from ragcrawl_dynamo.adapters.scrapy.middleware import FrontierMiddleware
from tests.adapters.scrapy.crawls import crawl, statuses
from tests.adapters.scrapy.test_memory import hold
from tests.adapters.site import Site
from tests.support.engines import on_dynamodb_local

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@on_dynamodb_local
async def test_scrapy_middleware_fails_requests_once_as_scrapy_does(
    site: Site, dynamodb_backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    site.pages = 7
    site.failing = {6}
    stats = await crawl(dynamodb_config, "Failing", site.url)
    # A callback that raises has yielded its items and its requests before.
    assert sorted(stats["seen"]) == sorted(site.urls - {f"{site.url[:-1]}6"})
    assert stats["item_scraped_count"] == 6
    status_of = await statuses(dynamodb_backend)
    failed = {url[-1] for url, status in status_of.items() if status is FrontierStatus.FAILED}
    assert (failed, len(status_of)) == ({"1", "3", "5", "6"}, 7)
    # With a retry of Scrapy's own.
    assert site.hits["/p/6"] == 2


async def test_scrapy_middleware_makes_failed_requests_be_tried_again_later_if_the_settings_say_so(
    site: Site, dynamodb_backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    site.pages = 15
    site.gone = {13}
    site.failing = {14}
    stats = await crawl(dynamodb_config, "Failing", site.url, RAGCRAWL_DYNAMO_ERROR_ATTEMPTS=2)
    wanted = dict.fromkeys(site.urls, FrontierStatus.COMPLETED)
    wanted[site.url[:-1] + "14"] = FrontierStatus.FAILED
    assert await statuses(dynamodb_backend) == wanted
    # Two attempts, each with a retry of Scrapy's own.
    assert site.hits["/p/14"] == 4
    assert site.hits["/p/7"] == 2
    assert site.hits["/p/6"] == 1
    assert stats["ragcrawl_dynamo/failed"] == 2 + len([1, 3, 5, 7, 9, 11])
    (dead,) = await dynamodb_backend.get_frontier_items("site/run", status=FrontierStatus.FAILED)
    assert dead.last_error == "HTTP 503"
    run = await dynamodb_backend.get_latest_run("site")
    assert run is not None
    assert run.status == "partial"


@on_dynamodb_local
async def test_scrapy_middleware_skips_requests_that_robots_txt_forbids(
    site: Site, dynamodb_backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    site.pages = 7
    site.robots = "User-agent: *\nDisallow: /p/2\n"
    await crawl(dynamodb_config, "Plain", site.url, ROBOTSTXT_OBEY=True)
    status_of = await statuses(dynamodb_backend)
    assert status_of.pop(site.url[:-1] + "2") is FrontierStatus.SKIPPED
    assert set(status_of.values()) == {FrontierStatus.COMPLETED}
    assert site.hits["/p/2"] == 0


def test_scrapy_middleware_notes_nothing_of_requests_with_a_copied_meta() -> None:
    """Such as those of media pipelines, and of callbacks that download more."""
    memory = CrawlMemory()
    claim, request = hold(memory, "page")
    request.meta[CLAIM_TOKEN] = claim.token
    middleware = FrontierMiddleware(cast("Any", SimpleNamespace(memory=memory)), {503})
    image = Request("https://a.example/image", meta=dict(request.meta))
    middleware.process_response(image, Response(image.url, status=503))
    middleware.process_exception(image, OSError("refused"))
    assert memory.is_downloading(claim.token)
    middleware.process_response(request, Response(request.url, status=503))
    memory.settle(claim.token)
    assert memory.to_settle == [Settlement(claim, Outcome("failed", "HTTP 503"))]
