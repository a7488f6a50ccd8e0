"""Settings that are missing."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

from tests.adapters.site import Site

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


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
