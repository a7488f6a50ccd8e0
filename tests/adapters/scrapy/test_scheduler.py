"""Scrapy's spiders on the frontier: what they crawl, what fails, what is killed."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig, FrontierStatus, InvalidArgumentError
from ragcrawl_dynamo.adapters.scrapy.scheduler import _dumps, _loads, _record
from tests.adapters.processes import crawl_with_a_kill
from tests.adapters.site import Site
from tests.faults import Faults, faulty

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
ON_DYNAMODB_LOCAL = pytest.mark.parametrize("dynamodb_endpoint", ["dynamodb-local"], indirect=True)


async def crawl(config: DynamoDBConfig, spider: str, url: str, **settings: Any) -> dict[str, Any]:
    """The stats of a spider, run in a process of its own."""
    fields = config.model_dump(exclude={"access_key_id", "secret_access_key"}, exclude_defaults=True)
    defaults = {
        "RAGCRAWL_DYNAMO_CONFIG": {
            **fields,
            "access_key_id": "local",
            "secret_access_key": "local",
            "frontier_retry_delay": 0.2,
            "frontier_max_attempts": 3,
        },
        "RAGCRAWL_DYNAMO_SITE_ID": "site",
        "RAGCRAWL_DYNAMO_RUN_ID": "run",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.adapters.scrapy.spiders", spider),
        *(json.dumps({"start_urls": [url]}), json.dumps({**defaults, **settings})),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(120):
        output, log = (each.decode() for each in await process.communicate())
    assert process.returncode == 0, log[-5000:]
    stats: dict[str, Any] = json.loads(output)
    stats["log"] = log
    return stats


async def items(backend: DynamoDBBackend) -> dict[str, FrontierStatus]:
    return {item.url: item.status for item in await backend.get_frontier_items("site/run")}


async def test_a_plain_spider_crawls_each_page_once(
    site: Site, dynamodb_backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    site.pages = 31
    stats = await crawl(dynamodb_config, "Plain", site.url)
    assert (stats["finish_reason"], stats["ragcrawl_dynamo/completed"]) == ("finished", 31)
    assert sorted(stats["seen"]) == sorted(site.urls)
    assert set(site.hits.values()) == {1}
    assert stats["dupefilter/filtered"] > 0
    assert await items(dynamodb_backend) == dict.fromkeys(site.urls, FrontierStatus.COMPLETED)
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


async def test_what_fails_is_tried_again_later(
    site: Site, dynamodb_backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    site.pages = 15
    site.gone = {13}
    site.failing = {14}
    stats = await crawl(dynamodb_config, "Failing", site.url)
    wanted = dict.fromkeys(site.urls, FrontierStatus.COMPLETED)
    wanted[site.url[:-1] + "14"] = FrontierStatus.FAILED
    assert await items(dynamodb_backend) == wanted
    # Three attempts, each with a retry of Scrapy's own.
    assert site.hits["/p/14"] == 6
    assert site.hits["/p/7"] == 2
    assert site.hits["/p/6"] == 1
    assert stats["ragcrawl_dynamo/failed"] == 3 + len([1, 3, 5, 7, 9, 11])
    (dead,) = await dynamodb_backend.get_frontier_items("site/run", FrontierStatus.FAILED)
    assert dead.last_error == "HTTP 503"
    run = await dynamodb_backend.get_latest_run("site")
    assert run is not None
    assert run.status == "partial"


async def test_items_that_are_dropped_or_fail(
    site: Site, dynamodb_backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    site.pages = 5
    pipelines = {"tests.adapters.scrapy.spiders.Dropping": 100}
    stats = await crawl(dynamodb_config, "Plain", site.url, ITEM_PIPELINES=pipelines)
    assert (stats["item_dropped_count"], stats["ragcrawl_dynamo/failed"]) == (1, 1)
    assert await items(dynamodb_backend) == dict.fromkeys(site.urls, FrontierStatus.COMPLETED)
    pages = {page.url[-1] async for page in dynamodb_backend.iter_pages("site")}
    assert pages == {"0", "1", "3", "4"}


@ON_DYNAMODB_LOCAL
async def test_requests_of_all_kinds(
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
        # Refused by the network, three times.
        *(["refused"] for _ in range(3)),
        ["0?after", "Request", "GET", "", "None"],
    ]
    assert seen == sorted(map(json.dumps, wanted))
    assert stats["ragcrawl_dynamo/in_memory"] == 2
    (dead,) = await dynamodb_backend.get_frontier_items("site/run", FrontierStatus.FAILED)
    assert dead.url == "http://localhost:9/refused"


@ON_DYNAMODB_LOCAL
async def test_what_robots_forbid_is_skipped(
    site: Site, dynamodb_backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    site.pages = 7
    site.robots = "User-agent: *\nDisallow: /p/2\n"
    await crawl(dynamodb_config, "Plain", site.url, ROBOTSTXT_OBEY=True)
    found = await items(dynamodb_backend)
    assert found.pop(site.url[:-1] + "2") is FrontierStatus.SKIPPED
    assert set(found.values()) == {FrontierStatus.COMPLETED}
    assert site.hits["/p/2"] == 0


@ON_DYNAMODB_LOCAL
async def test_two_spiders_keep_the_delay_of_a_host_together(
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


@ON_DYNAMODB_LOCAL
async def test_two_processes_crawl_together_and_one_is_killed(
    site: Site, dynamodb_backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, dynamodb_endpoint: str
) -> None:
    site.seconds = 0.2
    arguments = (
        *(site.url, "--endpoint-url", dynamodb_endpoint, "--table-prefix", dynamodb_config.table_prefix),
        *("--lease-seconds", "6"),
    )

    async def half() -> bool:
        return await dynamodb_backend.count_pages("docs") >= site.pages // 2

    again = await crawl_with_a_kill("scrapy_crawl.py", site, arguments, half)
    assert again == "0 requests completed by this process\n"
    pages = [page async for page in dynamodb_backend.iter_pages("docs")]
    assert sorted(page.url for page in pages) == sorted(site.urls)
    assert {page.version_count for page in pages} == {1}
    stats = await dynamodb_backend.frontier("docs/monday", "docs").recount()
    assert (stats.completed, stats.total) == (site.pages, site.pages)


async def test_a_crawl_without_a_run_says_which_setting_is_missing(site: Site) -> None:
    process = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-m",
            "tests.adapters.scrapy.spiders",
            "Plain",
            json.dumps({"start_urls": [site.url]}),
        ),
        "{}",
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    _, log = await process.communicate()
    assert b"RAGCRAWL_DYNAMO_RUN_ID: must be set" in log


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
moments = st.datetimes() | st.datetimes(timezones=st.just(UTC))
keys = st.text() | st.integers() | st.binary() | st.sampled_from(["$bytes", "$tuple", "$dict", "$set"])
values = st.recursive(
    plain | moments,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(keys, inner)
        | st.sets(st.integers() | st.text())
    ),
    max_leaves=20,
)


@given(values)
def test_what_a_request_carries_comes_back_as_it_was(value: Any) -> None:
    again = _loads(_dumps(value))
    assert again == value
    assert repr(again) == repr(value) or isinstance(value, set | dict | list | tuple)


def test_what_is_no_data_is_refused() -> None:
    for value in (object(), {"a": [lambda: 0]}, {"a": type}):
        with pytest.raises(TypeError, match="can not be stored"):
            _dumps(value)


def test_an_item_that_can_not_be_a_page_names_the_field() -> None:
    with pytest.raises(InvalidArgumentError, match=r"item\.status_code"):
        _record({"url": "https://a.example/", "status_code": "many"}, "site", "run")
    with pytest.raises(InvalidArgumentError, match="item: is no JSON"):
        _record({"url": "https://a.example/", "at": datetime.now(UTC)}, "site", "run")
    page, version = _record({"url": "HTTPS://A.example", "title": "A", "x": 1, "html": None}, "site", "run")
    assert (page.url, version.title, version.extra) == ("https://a.example/", "A", {"x": 1})


@ON_DYNAMODB_LOCAL
async def test_faults_of_the_network_and_of_dynamodb_lose_nothing(
    site: Site, dynamodb_backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, dynamodb_endpoint: str
) -> None:
    faults = Faults(dynamodb_endpoint, 0.15, seed=7)
    async with faulty(faults) as proxy:
        changes = {"endpoint_url": proxy, "read_timeout": 0.5, "retry_base_delay": 0.01}
        await crawl(dynamodb_config.model_copy(update=changes), "Plain", site.url)
    assert sum(faults.injected.values()) > 30
    assert await items(dynamodb_backend) == dict.fromkeys(site.urls, FrontierStatus.COMPLETED)
    pages = [page async for page in dynamodb_backend.iter_pages("site")]
    assert sorted(page.url for page in pages) == sorted(site.urls)
    assert {page.version_count for page in pages} == {1}
