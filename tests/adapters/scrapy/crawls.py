"""Crawls of the tests: a spider in a process of its own, and the outcomes of its requests."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig, FrontierStatus


async def crawl(config: DynamoDBConfig, spider: str, url: str, **settings: Any) -> dict[str, Any]:
    """Runs a spider in a process of its own, and returns its stats."""
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
        output, log = (part.decode() for part in await process.communicate())
    assert process.returncode == 0, log[-5000:]
    stats: dict[str, Any] = json.loads(output)
    stats["log"] = log
    return stats


async def statuses(backend: DynamoDBBackend) -> dict[str, FrontierStatus]:
    return {item.url: item.status for item in await backend.get_frontier_items("site/run")}
