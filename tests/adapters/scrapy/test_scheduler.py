"""The scheduler: which requests are crawled, when, and how often."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
import pytest_asyncio
from aiohttp import web

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig, FrontierStatus
from tests.adapters.scrapy.crawls import crawl, statuses
from tests.adapters.site import Site
from tests.support.engines import on_dynamodb_local
from tests.support.http_server import http_server

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
    assert stats["scheduler/unserializable"] == 2
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
    assert "[ragcrawl_dynamo._dynamodb.gateway] DEBUG" not in stats["log"]


@on_dynamodb_local
async def test_scrapy_scheduler_crawls_links_of_others_and_gives_up_items_that_are_no_requests(
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


class Redirects:
    """A site whose pages redirect.

    Attributes:
        url: Its URL.
        targets: The target of each path that redirects. With a cookie, a path redirects no more.
        pages: The HTML of each path.
        hits: Number of requests for each path.
    """

    def __init__(self) -> None:
        self.url = ""
        self.targets: dict[str, str] = {}
        self.pages: dict[str, str] = {}
        self.hits: Counter[str] = Counter()

    async def answer(self, request: web.Request) -> web.Response:
        path = request.path
        self.hits[path] += 1
        if path in self.targets and "visited" not in request.cookies:
            headers = {"Location": self.targets[path]}
            # The cookie comes with the last redirect of a chain.
            if self.targets[path] == "/start":
                headers["Set-Cookie"] = "visited=1; Path=/start"
            return web.Response(status=302, headers=headers)
        return web.Response(text=self.pages.get(path, "<p>text</p>"), content_type="text/html")


@pytest_asyncio.fixture
async def redirects() -> AsyncIterator[Redirects]:
    redirects = Redirects()
    async with http_server(redirects.answer) as redirects.url:
        yield redirects


@on_dynamodb_local
async def test_scrapy_scheduler_fetches_a_page_once_to_which_many_links_redirect(
    redirects: Redirects, dynamodb_backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    redirects.pages["/start"] = "".join(f"<a href=/r/{number}>r</a>" for number in range(20))
    redirects.targets = {f"/r/{number}": "/target" for number in range(20)}
    stats = await crawl(dynamodb_config, "Dropped", f"{redirects.url}/start", DUPEFILTER_DEBUG=True)
    assert redirects.hits == {"/start": 1, "/target": 1, **dict.fromkeys(redirects.targets, 1)}
    seen = [url for url in stats["seen"] if isinstance(url, str)]
    assert seen == [f"{redirects.url}/start", f"{redirects.url}/target"]
    status_of = await statuses(dynamodb_backend)
    assert len(status_of) == 22
    assert set(status_of.values()) == {FrontierStatus.COMPLETED}
    assert stats["seen"].count(["dropped", f"{redirects.url}/target"]) == 19
    assert stats["dupefilter/filtered"] == 19
    (target,) = (
        item for item in await dynamodb_backend.get_frontier_items("site/run") if item.url.endswith("/target")
    )
    assert '"redirect_times":1' in (target.payload or "")


@on_dynamodb_local
@pytest.mark.parametrize("chain", [["/start"], ["/start", "/login", "/welcome"]])
async def test_scrapy_scheduler_follows_a_start_request_that_redirects_back_to_itself_with_a_cookie(
    redirects: Redirects,
    dynamodb_backend: DynamoDBBackend,
    dynamodb_config: DynamoDBConfig,
    chain: list[str],
) -> None:
    redirects.targets = dict(pairwise([*chain, "/start"]))
    stats = await crawl(dynamodb_config, "Plain", f"{redirects.url}/start")
    assert redirects.hits == {**dict.fromkeys(chain, 1), "/start": 2}
    assert stats["seen"] == [f"{redirects.url}/start"]
    assert set((await statuses(dynamodb_backend)).values()) == {FrontierStatus.COMPLETED}


@on_dynamodb_local
async def test_scrapy_scheduler_ends_chains_of_redirects_as_scrapy_does(
    redirects: Redirects, dynamodb_backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    refresh = '<meta http-equiv="refresh" content="0; url=/refreshed">'
    redirects.pages |= {"/start": "<a href=/0>0</a><a href=/same>same</a><a href=/refresh>refresh</a>"}
    redirects.pages |= {"/refresh": f"<html><head>{refresh}</head></html>"}
    redirects.targets = {f"/{number}": f"/{number + 1}" for number in range(9)} | {"/same": "/same"}
    stats = await crawl(dynamodb_config, "Plain", f"{redirects.url}/start", REDIRECT_MAX_TIMES=3)
    # Scrapy filters a link that redirects to itself.
    fetched = ["/start", "/0", "/1", "/2", "/3", "/same", "/refresh", "/refreshed"]
    assert redirects.hits == dict.fromkeys(fetched, 1)
    assert sorted(stats["seen"]) == sorted(f"{redirects.url}{path}" for path in ("/start", "/refreshed"))
    wanted = {f"{redirects.url}{path}": FrontierStatus.COMPLETED for path in fetched}
    assert await statuses(dynamodb_backend) == wanted


@on_dynamodb_local
async def test_scrapy_scheduler_keeps_requests_in_memory_that_cannot_be_stored_and_filters_them(
    site: Site, dynamodb_backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    site.pages = 1
    stats = await crawl(dynamodb_config, "Unstorable", site.url)
    assert sorted(stats["seen"]) == ["data:,text", f"{site.url}?large", f"{site.url}?partial"]
    assert (stats["scheduler/unserializable"], stats["dupefilter/filtered"]) == (3, 3)
    assert stats["scheduler/enqueued/memory"] == 3
    assert stats["log"].count("Unable to serialize request: ") == 1
    assert await statuses(dynamodb_backend) == {site.url: FrontierStatus.COMPLETED}


@on_dynamodb_local
async def test_scrapy_scheduler_takes_no_error_of_a_fingerprinter_for_a_request_that_cannot_be_stored(
    site: Site, dynamodb_backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    site.pages = 1
    fingerprinter = "tests.adapters.scrapy.spiders.Fingerprinter"
    stats = await crawl(dynamodb_config, "Bad", site.url, REQUEST_FINGERPRINTER_CLASS=fingerprinter)
    assert stats["seen"] == [site.url, f"{site.url}?bad"]
    assert "ValueError: no fingerprint" in stats["log"]
    assert "scheduler/unserializable" not in stats


@on_dynamodb_local
async def test_scrapy_scheduler_logs_counts_and_signals_duplicates_as_scrapy_does(
    site: Site, dynamodb_backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    site.pages = 3
    adapter = await crawl(dynamodb_config, "Dropped", site.url, LOG_LEVEL="DEBUG")
    scrapy = await crawl(dynamodb_config, "Dropped", site.url, LOG_LEVEL="DEBUG", ADDONS={})
    assert sorted(map(json.dumps, adapter["seen"])) == sorted(map(json.dumps, scrapy["seen"]))
    for stat in ("dupefilter/filtered", "scheduler/enqueued", "scheduler/dequeued"):
        assert adapter[stat] == scrapy[stat], stat
    for stats in (adapter, scrapy):
        assert stats["log"].count("Filtered duplicate request") == 1


@on_dynamodb_local
@pytest.mark.parametrize(
    ("dupefilter", "seen"),
    [("scrapy.dupefilters.BaseDupeFilter", "0012"), ("tests.adapters.scrapy.spiders.WithoutTwo", "01")],
)
async def test_scrapy_scheduler_asks_the_duplicate_filter_of_the_project(
    site: Site,
    dynamodb_backend: DynamoDBBackend,
    dynamodb_config: DynamoDBConfig,
    dupefilter: str,
    seen: str,
) -> None:
    site.pages = 3
    for addons in ({"ragcrawl_dynamo.adapters.scrapy.Addon": 500}, {}):
        settings = {"ADDONS": addons, "DUPEFILTER_CLASS": dupefilter, "DEPTH_LIMIT": 1}
        stats = await crawl(dynamodb_config, "Dropped", site.url, **settings)
        urls = [url for url in stats["seen"] if isinstance(url, str)]
        assert sorted(url[-1] for url in urls) == sorted(seen)


@on_dynamodb_local
async def test_scrapy_scheduler_gives_the_delays_of_slots_to_the_frontier(
    site: Site, dynamodb_backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    site.pages = 3
    slots = {"localhost": {"delay": 0.2}, "other.example": {"delay": 5}}
    await crawl(dynamodb_config, "Plain", site.url, DOWNLOAD_SLOTS=slots)
    hosts = [host async for host in dynamodb_backend.frontier("site", "site/run").iter_hosts()]
    assert [host.delay for host in hosts] == [0.2]
