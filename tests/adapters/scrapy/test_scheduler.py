"""The scheduler: which requests are crawled, when, and how often."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise

import pytest

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig, FrontierStatus
from tests.adapters.scrapy.crawls import crawl, statuses
from tests.adapters.site import Site
from tests.support.engines import on_dynamodb_local

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


async def test_scrapy_scheduler_crawls_every_page_once(
    site: Site, dynamodb_backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    site.pages = 31
    stats = await crawl(dynamodb_config, "Plain", site.url)
    assert (stats["finish_reason"], stats["ragcrawl_dynamo/completed"]) == ("finished", 31)
    assert sorted(stats["seen"]) == sorted(site.urls)
    assert set(site.hits.values()) == {1}
    assert stats["dupefilter/filtered"] > 0
    assert await statuses(dynamodb_backend) == dict.fromkeys(site.urls, FrontierStatus.COMPLETED)
    pages = [page async for page in dynamodb_backend.iter_pages("site")]
    assert sorted(page.url for page in pages) == sorted(site.urls)
    versions = [version async for version in dynamodb_backend.iter_versions("site")]
    assert all("first edition" in version.markdown for version in versions)
    assert [version.extra for version in versions] == [{"rank": [1, None]}] * 31
    run = await dynamodb_backend.get_latest_run("site")
    assert run is not None
    assert (run.run_id, run.status, run.stats.pages_crawled) == ("site/run", "completed", 31)
    # The same run again has nothing to do; the next one has all.
    again = await crawl(dynamodb_config, "Plain", site.url)
    assert (again["finish_reason"], again["seen"]) == ("finished", [])
    later = await crawl(dynamodb_config, "Plain", site.url, RAGCRAWL_DYNAMO_RUN_ID="next")
    assert sorted(later["seen"]) == sorted(site.urls)
    assert {page.version_count async for page in dynamodb_backend.iter_pages("site")} == {1}


@on_dynamodb_local
async def test_scrapy_scheduler_takes_requests_of_all_kinds(
    site: Site, dynamodb_backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    stats = await crawl(dynamodb_config, "Odd", site.url)
    seen = sorted(map(json.dumps, stats["seen"]))
    moment = "datetime.datetime(2026, 7, 1, 12, 0)"
    rich = f"{{'a': (1, b'\\x00\\xff', {{2, 3}}), 4: {{'$x': {moment}}}, '$bytes': 'no bytes'}}"
    wanted: list[list[str]] = [
        ["0?rich", "Request", "GET", "", rich],
        ["0?lambda", "Request", "GET", "", "None"],
        ["0?object", "Request", "GET", "", "None"],
        *(["0?again", "Request", "GET", "", "None"] for _ in range(3)),
        *(["0?copied", "Request", "GET", "", "None"] for _ in range(2)),
        *(["0", "FormRequest", "POST", f"a={number}", "None"] for number in (1, 2)),
        # Refused by the network.
        ["refused"],
        ["0?after", "Request", "GET", "", "None"],
    ]
    assert seen == sorted(map(json.dumps, wanted))
    assert stats["ragcrawl_dynamo/in_memory"] == 2
    (dead,) = await dynamodb_backend.get_frontier_items("site/run", status=FrontierStatus.FAILED)
    assert dead.url == "http://localhost:9/refused"


@on_dynamodb_local
async def test_scrapy_scheduler_keeps_the_delay_of_a_host_over_two_spiders(
    site: Site, dynamodb_backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    site.pages = 15
    settings = {"RAGCRAWL_DYNAMO_HOST_DELAY": 0.3}
    await asyncio.gather(*(crawl(dynamodb_config, "Plain", site.url, **settings) for _ in range(2)))
    assert set(site.hits.values()) == {1}
    begun = sorted(
        item.started_at for item in await dynamodb_backend.get_frontier_items("site/run") if item.started_at
    )
    gaps = [(after - before).total_seconds() for before, after in pairwise(begun)]
    assert len(gaps) == 14
    assert min(gaps) >= 0.299


@on_dynamodb_local
async def test_scrapy_scheduler_keeps_the_debug_logs_of_the_dynamodb_client_away(
    site: Site, dynamodb_backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    site.pages = 1
    stats = await crawl(dynamodb_config, "Plain", site.url, LOG_LEVEL="DEBUG")
    assert "[scrapy.core.engine] DEBUG: Crawled (200)" in stats["log"]
    assert "[botocore" not in stats["log"]


@on_dynamodb_local
async def test_scrapy_scheduler_crawls_links_of_others_and_gives_up_what_is_not_a_request(
    site: Site, dynamodb_backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    site.pages = 3
    frontier = dynamodb_backend.frontier("site", "site/run")
    await frontier.add(
        [f"{site.url}?link", frontier.link(f"{site.url}?bad", payload='{"_class": "json.loads"}')]
    )
    stats = await crawl(dynamodb_config, "Plain", site.url)
    assert sorted(stats["seen"]) == sorted([*site.urls, f"{site.url}?link"])
    assert (stats["finish_reason"], stats["ragcrawl_dynamo/completed"]) == ("finished", 4)
    (dead,) = await dynamodb_backend.get_frontier_items("site/run", status=FrontierStatus.FAILED)
    assert dead.url == f"{site.url}?bad"
    assert (dead.last_error or "").startswith("is not a request: ")
