"""Measures the recrawl query as a site grows, on DynamoDB Local: time, read units and memory.

It saves a site of so many pages, asks for the 1,000 pages to crawl next, and counts the pages. The memory is
the peak of the Python process beyond its memory before, by the allocator's count.

    python -m benchmarks.recrawl --pages 1000000
"""

import argparse
import asyncio
import random
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.frontier import totals
from benchmarks.machine import ROOT
from ragcrawl_dynamo import DynamoDBBackend, Page
from ragcrawl_dynamo.testing import local_config, run_dynamodb_local

console = Console(width=110)

STEPS = 10
LIMIT = 1000
CHUNK = 5000
START = datetime(2026, 1, 1, tzinfo=UTC)


def make_page(number: int, chance: random.Random) -> Page:
    """Makes a page with the fields of a crawled one, and with a hash as its id, as the frontier makes it."""
    url = f"https://docs.example.com/a/path/of/common/length/{number}.html"
    crawled = None if chance.random() < 0.001 else START + timedelta(seconds=chance.randrange(10**7))
    digest = sha256(url.encode()).hexdigest()
    return Page(
        page_id=digest[:32],
        site_id="site",
        url=url,
        current_version_id=digest[32:],
        content_hash=digest,
        etag=f'"{digest[:16]}"',
        last_crawled=crawled,
        last_changed=crawled,
        status_code=200,
        version_count=1,
    )


async def measure(backend: DynamoDBBackend, call: Callable[[], Awaitable[Any]]) -> tuple[Any, float, float]:
    """Returns a result, the seconds that it took, and the read units."""
    before = totals(backend)[1]
    started = time.perf_counter()
    result = await call()
    return result, time.perf_counter() - started, totals(backend)[1] - before


async def main(endpoint: str, pages: int) -> None:
    """Measures and prints."""
    chance = random.Random(1)  # noqa: S311 # reproducible on purpose
    table = Table("pages", "recrawl: s", "s per 100,000", "read units", "peak MB", "count: s", "read units")
    async with DynamoDBBackend(local_config(endpoint, call_timeout=300, read_timeout=60)) as backend:
        saved = 0
        for target in (pages // STEPS, pages):
            for first in track(
                range(saved, target, CHUNK), description=f"saving {target:,}", console=console
            ):
                await backend.save_pages_bulk(
                    make_page(i, chance) for i in range(first, min(target, first + CHUNK))
                )
            saved = target
            due, seconds, units = await measure(
                backend, lambda: backend.get_pages_needing_recrawl("site", limit=LIMIT)
            )
            moments = [page.last_crawled or START for page in due]
            assert len(due) == LIMIT and moments == sorted(moments)  # noqa: S101, PT018 # else a figure means nothing
            # In a call of its own: counting every allocation slows it down.
            tracemalloc.start()
            await backend.get_pages_needing_recrawl("site", limit=LIMIT)
            peak = tracemalloc.get_traced_memory()[1] / 1e6
            tracemalloc.stop()
            count, count_seconds, count_units = await measure(backend, lambda: backend.count_pages("site"))
            assert count == saved  # noqa: S101 # likewise
            table.add_row(
                f"{saved:,}",
                f"{seconds:.1f}",
                f"{seconds / saved * 100_000:.2f}",
                f"{units:,.0f}",
                f"{peak:.1f}",
                f"{count_seconds:.1f}",
                f"{count_units:,.0f}",
            )
    console.print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure the recrawl query on DynamoDB Local.")
    parser.add_argument("--pages", type=int, default=1_000_000)
    args = parser.parse_args()
    with run_dynamodb_local(ROOT / ".dynamodb-local") as url:
        asyncio.run(main(url, args.pages))
