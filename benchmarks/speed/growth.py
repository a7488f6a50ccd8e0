"""Measures the same operations on 1,000, 10,000 and 100,000 pages and links (`make bench-growth`).

On DynamoDB Local, in whose memory all of it lies. docs/growth.md shows the medians of the time that an
operation takes, and this process's memory; an operation whose row is flat does not depend on what is there.
"""

import argparse
import asyncio
import gc
import random
import statistics
import time
from collections.abc import Awaitable, Callable
from hashlib import sha256

from benchmarks.machine import ROOT, markdown
from benchmarks.memory import resident_bytes
from benchmarks.report import Origin, Part, is_full, save
from ragcrawl_dynamo import CrawlRun, DynamoDBBackend, Page, PageVersion
from ragcrawl_dynamo.testing import drop_tables, local_config, run_dynamodb_local

HOSTS = 100

# How often each operation is timed; listings less often.
TIMES = 100


def url(number: int) -> str:
    """Returns a page's URL."""
    return f"https://h{number % HOSTS}.example/{number}"


def page_id(number: int) -> str:
    """Returns a page's id: a hash, as crawlers make them."""
    return sha256(url(number).encode()).hexdigest()[:32]


async def fill(backend: DynamoDBBackend, count: int) -> None:
    """Stores the pages of one site, and the links of one run."""
    await backend.save_run(CrawlRun(run_id="run", site_id="site"))
    for first in range(0, count, 5000):
        numbers = range(first, min(count, first + 5000))
        await backend.save_pages_bulk(
            Page(page_id=page_id(i), site_id="site", url=url(i), status_code=200) for i in numbers
        )
        await backend.frontier("site", "run").add([url(i) for i in numbers])


async def median(call: Callable[[int], Awaitable[object]], numbers: list[int]) -> float:
    """Returns the milliseconds of one call, as the median of calls one after the other."""
    took = []
    for number in numbers:
        started = time.perf_counter()
        await call(number)
        took.append(time.perf_counter() - started)
    return statistics.median(took) * 1e3


async def measure(endpoint: str, count: int) -> dict[str, float]:
    """Measures each operation on tables with so many pages and links."""
    config = local_config(endpoint, frontier_max_attempts=1000)
    chance = random.Random(count)  # noqa: S311 # reproducible on purpose
    async with DynamoDBBackend(config) as backend:
        await fill(backend, count)
        numbers = [chance.randrange(count) for _ in range(TIMES)]
        frontier = backend.frontier("site", "run")
        figures: dict[str, float] = {}

        async def commit(number: int) -> None:
            version = PageVersion(
                version_id=f"v{time.perf_counter_ns()}",
                page_id=page_id(number),
                site_id="site",
                run_id="run",
                markdown=f"# {number}",
                content_hash=f"{time.perf_counter_ns()}",
                url=url(number),
                status_code=200,
            )
            page = Page(page_id=page_id(number), site_id="site", url=url(number), status_code=200)
            await backend.commit_page(page, version)

        async def claim(_: int) -> None:
            await frontier.release(await frontier.claim(10))

        async def list_all(_: int) -> None:
            async for _page in backend.iter_pages("site"):
                pass

        figures["get_page, ms"] = await median(lambda i: backend.get_page("site", page_id(i)), numbers)
        figures["get_page_by_url, ms"] = await median(
            lambda i: backend.get_page_by_url("site", url(i)), numbers
        )
        figures["save_page, ms"] = await median(
            lambda i: backend.save_page(Page(page_id=page_id(i), site_id="site", url=url(i))), numbers
        )
        figures["commit_page, ms"] = await median(commit, numbers)
        figures["claim and release 10, ms"] = await median(claim, numbers)
        figures["add a known link, ms"] = await median(lambda i: frontier.add([url(i)]), numbers)
        figures["list 100 pages, ms"] = await median(lambda _: backend.list_pages("site", limit=100), numbers)
        gc.collect()
        before = resident_bytes()
        figures["list all, µs a page"] = await median(list_all, [0, 1, 2]) * 1e3 / count
        figures["memory of a listing, MB"] = max(0.0, (resident_bytes() - before) / 1e6)
        figures["memory in all, MB"] = resident_bytes() / 1e6
    await drop_tables(config)
    return figures


def medians(figures: dict[str, dict[str, float]]) -> list[str]:
    """Formats the figures as a table."""
    head = ["pages and links", *(f"{int(count):,}" for count in figures)]
    rows = [
        [name, *(f"{column[name]:.2f}" for column in figures.values())]
        for name in next(iter(figures.values()))
    ]
    return markdown([head, *rows])


PARTS: dict[str, Part] = {"medians": medians}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Measures the same operations on more and more pages and links."
    )
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10_000, 100_000])
    args = parser.parse_args()
    origin = Origin.here("make bench-growth")
    with run_dynamodb_local(ROOT / ".dynamodb-local") as local:
        columns = {str(count): asyncio.run(measure(local, count)) for count in args.counts}
    print("\n".join(medians(columns)))
    if is_full(parser, args):
        save("growth", origin, columns)
