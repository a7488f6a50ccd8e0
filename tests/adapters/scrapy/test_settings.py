"""Settings: as users write them, and as the command line passes them."""

from __future__ import annotations

import asyncio
import json
import sys
from types import SimpleNamespace
from typing import Any, cast

import pytest
from scrapy.settings import Settings

from ragcrawl_dynamo import DynamoDBConfig, InvalidArgumentError
from ragcrawl_dynamo.adapters.scrapy.settings import CrawlSettings
from tests.adapters.site import Site

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

RUN = {"RAGCRAWL_DYNAMO_RUN_ID": "monday"}


def read(values: dict[str, Any], **spider: Any) -> CrawlSettings:
    crawler = SimpleNamespace(settings=Settings(values), spider=SimpleNamespace(name="docs", **spider))
    return CrawlSettings.from_crawler(cast("Any", crawler))


async def test_scrapy_settings_name_the_run_id_that_is_missing(site: Site) -> None:
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


def test_scrapy_settings_are_read_from_text() -> None:
    settings = read(
        {
            "RAGCRAWL_DYNAMO_RUN_ID": 5,
            "RAGCRAWL_DYNAMO_CONFIG": '{"table_prefix": "a_", "frontier_max_attempts": 3}',
            "RAGCRAWL_DYNAMO_LEASE_SECONDS": "30",
            "RAGCRAWL_DYNAMO_ERROR_ATTEMPTS": "2",
            "RAGCRAWL_DYNAMO_HOST_DELAY": "0.5",
            "RAGCRAWL_DYNAMO_HOST_MAX_IN_FLIGHT": "4",
            "RAGCRAWL_DYNAMO_PREFETCH": "7",
        }
    )
    assert settings.config == DynamoDBConfig(table_prefix="a_", frontier_max_attempts=3)
    assert (settings.site_id, settings.run_id) == ("docs", "docs/5")
    numbers = (settings.lease_seconds, settings.error_attempts, settings.host_delay)
    assert (*numbers, settings.host_max_in_flight, settings.prefetch) == (30, 2, 0.5, 4, 7)


def test_scrapy_settings_have_defaults_from_those_of_scrapy() -> None:
    settings = read({**RUN, "CONCURRENT_REQUESTS": 5, "DOWNLOAD_DELAY": 0.25})
    assert (settings.lease_seconds, settings.error_attempts, settings.host_max_in_flight) == (60, 1, None)
    assert (settings.host_delay, settings.prefetch) == (0.25, 10)
    # None of them is a limit.
    assert read({**RUN, "CONCURRENT_REQUESTS": 0}).prefetch == 64
    assert read({**RUN, "CONCURRENT_REQUESTS": 100_000}).prefetch == 10_000
    assert read({**RUN, "DOWNLOAD_DELAY": 1}, download_delay=2).host_delay == 2


def test_scrapy_settings_take_the_delays_of_slots() -> None:
    slots = {"a.example": {"concurrency": 1, "delay": "0.5"}, "b.example": {"concurrency": 2}}
    assert read({**RUN, "DOWNLOAD_SLOTS": slots}).slot_delays == {"a.example": 0.5}
    with pytest.raises(
        InvalidArgumentError, match=r"DOWNLOAD_SLOTS\['a.example'\]\['delay'\]: must be a number"
    ):
        read({**RUN, "DOWNLOAD_SLOTS": {"a.example": {"delay": "long"}}})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("CONFIG", "{table_prefix", "must be a JSON object if it is text: Expecting property name"),
        ("CONFIG", "[1]", "must be a DynamoDBConfig, a dict or a JSON object, not list"),
        ("CONFIG", 5, "must be a DynamoDBConfig, a dict or a JSON object, not int"),
        ("CONFIG.table_prefx", {"table_prefx": "a_"}, "Extra inputs are not permitted"),
        ("CONFIG.frontier_max_attempts", '{"frontier_max_attempts": "x"}', "Input should be a valid integer"),
        ("LEASE_SECONDS", "a minute", "must be a number of seconds from 0 to 604,800, not 'a minute'"),
        ("ERROR_ATTEMPTS", 0, "must be a whole number from 1 to 1,000,000, not 0"),
        ("HOST_DELAY", "nan", "must be a number of seconds from 0 to 31,622,400, not nan"),
        ("HOST_DELAY", -1, "must be a number of seconds from 0 to 31,622,400, not -1"),
        ("HOST_MAX_IN_FLIGHT", "1.5", "must be a whole number from 1 to 1,000, not '1.5'"),
        ("PREFETCH", True, "must be a whole number from 1 to 10,000, not True"),
    ],
)
def test_scrapy_settings_name_the_setting_that_is_not_valid(name: str, value: Any, message: str) -> None:
    setting = f"RAGCRAWL_DYNAMO_{name.partition('.')[0]}"
    with pytest.raises(InvalidArgumentError) as caught:
        read({**RUN, setting: value})
    assert str(caught.value).startswith(f"RAGCRAWL_DYNAMO_{name}: {message}")
