"""The calls that docs/upgrading.md shows, before and after."""

from __future__ import annotations

import re
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from ragcrawl_dynamo import CrawlRun, InvalidArgumentError, RunStatus, Site, Store, connect
from ragcrawl_dynamo.testing import local_config

PAGE = (Path(__file__).parents[2] / "docs" / "upgrading.md").read_text()


def calls(sign: str) -> list[str]:
    """Returns the calls of a store in the page's diffs that were removed ("-") or added ("+")."""
    return re.findall(rf"^\{sign}await (store\..+)$", PAGE, re.MULTILINE)


@pytest_asyncio.fixture
async def store(moto_endpoint: str) -> AsyncIterator[Store]:
    async with connect(local_config(moto_endpoint)) as store:
        await store.save_site(Site(site_id="docs", name="Docs", seeds=[]))
        await store.save_run(CrawlRun(run_id="monday", site_id="docs", status=RunStatus.RUNNING))
        yield store


async def call(store: Store, text: str) -> Any:
    """Makes one of the page's calls."""
    return await eval(text, {"store": store})  # noqa: S307 # our own page


@pytest.mark.parametrize("text", calls("-"))
async def test_upgrading_shows_earlier_calls_that_warn_or_raise(store: Store, text: str) -> None:
    with pytest.raises((DeprecationWarning, InvalidArgumentError)):
        await call(store, text)


@pytest.mark.parametrize("text", calls("+"))
async def test_upgrading_shows_calls_that_work_without_a_warning(store: Store, text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        await call(store, text)


def test_upgrading_shows_each_call_before_and_after() -> None:
    assert len(calls("-")) == len(calls("+")) >= 7
