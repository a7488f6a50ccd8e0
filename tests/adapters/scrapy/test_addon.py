"""The add-on: which settings it makes, and which it leaves as users made them."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from scrapy import Spider
from scrapy.commands.fetch import Command
from scrapy.dupefilters import BaseDupeFilter
from scrapy.settings import Settings

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig
from ragcrawl_dynamo.adapters.scrapy import (
    Addon,
    FrontierDupeFilter,
    FrontierMiddleware,
    FrontierScheduler,
    PagePipeline,
)
from tests.adapters.site import Site
from tests.support.engines import on_dynamodb_local

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

ROOM = "ragcrawl_dynamo.adapters.scrapy"


def with_addon(values: dict[str, Any], spidercls: type[Spider] = Spider, **early: Any) -> Settings:
    """Returns the settings of a project after the add-on; `early` are those of a command."""
    settings = Settings()
    settings.setdict(early, priority="command")
    settings.setdict(values, priority="project")
    Addon(cast("Any", SimpleNamespace(spidercls=spidercls))).update_settings(settings)
    return settings


def test_scrapy_addon_installs_all_components() -> None:
    settings = with_addon({})
    assert settings["SCHEDULER"] is FrontierScheduler
    assert settings["DUPEFILTER_CLASS"] is FrontierDupeFilter
    assert settings["ITEM_PIPELINES"] == {PagePipeline: 900}
    assert settings["DOWNLOADER_MIDDLEWARES"] == settings["SPIDER_MIDDLEWARES"] == {FrontierMiddleware: 1}


@pytest.mark.parametrize("order", [None, 300])
@pytest.mark.parametrize(
    ("setting", "component"),
    [
        ("ITEM_PIPELINES", PagePipeline),
        ("DOWNLOADER_MIDDLEWARES", FrontierMiddleware),
        ("SPIDER_MIDDLEWARES", FrontierMiddleware),
    ],
)
def test_scrapy_addon_leaves_components_where_the_project_has_put_them(
    setting: str, component: type, order: int | None
) -> None:
    for name in (component, f"{ROOM}.{component.__name__}", f"{component.__module__}.{component.__name__}"):
        assert dict(with_addon({setting: {name: order}})[setting]) == {name: order}


def test_scrapy_addon_leaves_another_scheduler_and_warns(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    scheduler = "scrapy.core.scheduler.Scheduler"
    settings = with_addon({"SCHEDULER": scheduler, "DUPEFILTER_CLASS": "scrapy.dupefilters.RFPDupeFilter"})
    assert (settings["SCHEDULER"], settings["DUPEFILTER_CLASS"]) == (
        scheduler,
        "scrapy.dupefilters.RFPDupeFilter",
    )
    assert f"SCHEDULER is {scheduler}, so that DynamoDB gets only the items" in caplog.text


def test_scrapy_addon_leaves_commands_that_look_at_single_pages_alone() -> None:
    """`scrapy fetch` would crawl the requests that wait in the run."""

    class Fetched(Spider):
        async def start(self) -> AsyncIterator[Any]:
            yield None

    Fetched.start.__module__ = Command.__module__
    for settings in (with_addon({}, Fetched), with_addon({}, DUPEFILTER_CLASS=BaseDupeFilter)):
        assert settings["SCHEDULER"] == "scrapy.core.scheduler.Scheduler"
        assert dict(settings["ITEM_PIPELINES"]) == {}


def jitter(settings: Settings) -> float:
    if "DOWNLOAD_DELAY_JITTER" in settings:
        return settings.getfloat("DOWNLOAD_DELAY_JITTER")
    return 0.5 * settings.getbool("RANDOMIZE_DOWNLOAD_DELAY")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"DOWNLOAD_DELAY": 1}, 0),
        ({"RAGCRAWL_DYNAMO_HOST_DELAY": "2"}, 0),
        # Each process keeps its own delay.
        ({"DOWNLOAD_DELAY": 1, "RAGCRAWL_DYNAMO_HOST_DELAY": "0.0"}, 0.5),
        ({"DOWNLOAD_DELAY": 1, "AUTOTHROTTLE_ENABLED": True}, 0.5),
        ({"DOWNLOAD_DELAY": 1, "DOWNLOAD_DELAY_JITTER": 0.2}, 0.2),
    ],
)
def test_scrapy_addon_stops_the_downloader_from_randomizing_delays_of_the_frontier(
    values: dict[str, Any], expected: float
) -> None:
    assert jitter(with_addon(values)) == expected


@on_dynamodb_local
@pytest.mark.parametrize("command", [("fetch",), ("shell", "-c", "print(response.text)")])
async def test_scrapy_addon_lets_commands_fetch_a_page_and_no_request_of_the_run(
    site: Site, dynamodb_backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, command: tuple[str, ...]
) -> None:
    await dynamodb_backend.frontier("default", "default/run").add([f"{site.url}?waits"])
    fields = dynamodb_config.model_dump(exclude={"access_key_id", "secret_access_key"}, exclude_defaults=True)
    settings = {
        "ADDONS": json.dumps({f"{ROOM}.Addon": 500}),
        "RAGCRAWL_DYNAMO_CONFIG": json.dumps(
            {**fields, "access_key_id": "local", "secret_access_key": "local"}
        ),
        "RAGCRAWL_DYNAMO_RUN_ID": "run",
        "TELNETCONSOLE_ENABLED": "0",
    }
    options = [part for name, value in settings.items() for part in ("-s", f"{name}={value}")]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "scrapy", *command, *options, site.url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        output, log = await process.communicate()
    assert process.returncode == 0, log.decode()[-5000:]
    assert b"<h1>Page 0</h1>" in output
    assert site.hits_by_url() == {site.url: 1}
