"""Measures the memory of a backend under steady load, minute by minute.

Tasks save, read, commit and claim on records whose number does not grow. A tenth of the operations are
cancelled where they wait. Once a minute the blocks that Python has allocated (`sys.getallocatedblocks`, after
a collection) and the resident set are measured. The first minutes fill caches and pools.

    python -m benchmarks.memory                      # ten minutes
    python -m benchmarks.memory --minutes 1 --every 10
"""

import argparse
import asyncio
import gc
import logging
import random
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.cancel import cancelled_at, connections
from ragcrawl_dynamo import CrawlRun, DynamoDBBackend, Page, PageVersion, Site
from ragcrawl_dynamo.testing import drop_tables, local_config, run_dynamodb_local

ROOT = Path(__file__).parent.parent

TASKS = 32
PAGES = 200
HOSTS = 10
CANCELLED = 0.1

# The largest ratio of the last sample to the one after a third of the time. A leak of one block for each
# operation would exceed it.
GROWTH = 1.02

console = Console(width=110)


@dataclass(frozen=True)
class Sample:
    """The state of the process at one moment.

    Attributes:
        minutes: The minutes since the start.
        operations: The number of operations until then.
        blocks: The number of blocks that Python has allocated.
        resident: The resident memory in bytes.
        connections: The number of connections to the engine.
    """

    minutes: float
    operations: int
    blocks: int
    resident: int
    connections: int


class Load:
    """The calls that the tasks make all the time."""

    def __init__(self, backend: DynamoDBBackend, seed: int) -> None:
        self.backend = backend
        self.chance = random.Random(seed)  # noqa: S311 # reproducible on purpose
        self.operations = 0
        self.cancelled = 0
        self.is_over = False

    async def work(self) -> None:
        """Does operations until the time is over."""
        methods = [
            self.save,
            self.read,
            self.bulk,
            self.listing,
            self.crawl,
            self.crawl,
            self.stats,
            self.changes,
        ]
        while not self.is_over:
            await self._do(self.chance.choice(methods))
            self.operations += 1

    async def _do(self, method: Callable[[], Awaitable[None]]) -> None:
        at = self.chance.randint(1, 6) if self.chance.random() < CANCELLED else 0
        was_cancelled, _ = await cancelled_at(method(), at)
        self.cancelled += was_cancelled

    def _page(self, number: int) -> Page:
        return Page(page_id=f"p{number}", site_id="saved", url=f"https://h.example/{number}", status_code=200)

    async def save(self) -> None:
        """Saves a page."""
        await self.backend.save_page(self._page(self.chance.randrange(PAGES)))

    async def read(self) -> None:
        """Reads a page by key and by URL."""
        number = self.chance.randrange(PAGES)
        await self.backend.get_page("saved", f"p{number}")
        await self.backend.get_page_by_url("saved", f"https://h.example/{number}")

    async def bulk(self) -> None:
        """Saves many pages in one call."""
        await self.backend.save_pages_bulk([self._page(i) for i in range(60)])

    async def listing(self) -> None:
        """Lists the pages."""
        await self.backend.list_pages("saved", limit=50)

    async def crawl(self) -> None:
        """Claims a link, adds others, most of them known, and commits the page."""
        frontier = self.backend.frontier("site", "run")
        claims = await frontier.claim(1, lease_seconds=5)
        if not claims:
            await frontier.requeue_failed()
            await asyncio.sleep(0.05)
        for claim in claims:
            url = claim.item.url
            content_hash = str(self.chance.randrange(10**9))
            version = PageVersion(
                version_id=content_hash,
                page_id=claim.item.item_id,
                site_id="site",
                run_id="run",
                markdown=f"# {url}\n" + "text " * self.chance.randrange(1000, 1010),
                content_hash=content_hash,
                url=url,
                status_code=200,
            )
            page = Page(page_id=claim.item.item_id, site_id="site", url=url, status_code=200)
            await self.backend.commit_page(page, version, discovered=links())
            # So that it comes again: the queue does not grow.
            await frontier.fail(claim, "again", retry=False)

    async def stats(self) -> None:
        """Reads the counts of the queue, and the run."""
        await self.backend.frontier("site", "run").stats()
        await self.backend.get_run("site", "run")

    async def changes(self) -> None:
        """Reads a slice of changes."""
        await self.backend.list_changes("site", limit=50)


def links() -> list[str]:
    """Returns the links of every page."""
    return [f"https://h{i % HOSTS}.example/{i}" for i in range(PAGES)]


async def measure(endpoint: str, minutes: float, every: float) -> tuple[list[Sample], Load]:
    """Samples the process under load, every `every` seconds."""
    config = local_config(endpoint, frontier_max_attempts=1000)
    port = int(endpoint.rpartition(":")[2])
    samples: list[Sample] = []
    async with DynamoDBBackend(config) as backend:
        await backend.save_site(Site(site_id="site", name="site", seeds=[]))
        await backend.save_run(CrawlRun(run_id="run", site_id="site"))
        await backend.frontier("site", "run").add(links())
        load = Load(backend, 0)
        tasks = [asyncio.create_task(load.work()) for _ in range(TASKS)]
        started = time.monotonic()
        while time.monotonic() - started < 60 * minutes:
            await asyncio.sleep(every)
            gc.collect()
            samples.append(
                Sample(
                    (time.monotonic() - started) / 60,
                    load.operations,
                    sys.getallocatedblocks(),
                    resident_bytes(),
                    connections(port),
                )
            )
            if any(task.done() for task in tasks):
                break
        load.is_over = True
        await asyncio.gather(*tasks)
    await drop_tables(config)
    return samples, load


def resident_bytes() -> int:
    """Returns the resident memory of this process in bytes (Linux)."""
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * 4096


def show(samples: list[Sample], load: Load) -> bool:
    """Prints the samples; returns whether the process did not grow."""
    table = Table("minutes", "operations", "blocks", "resident, MB", "connections")
    for sample in samples:
        table.add_row(
            f"{sample.minutes:.1f}",
            f"{sample.operations:,}",
            f"{sample.blocks:,}",
            f"{sample.resident / 1e6:.1f}",
            f"{sample.connections}",
        )
    console.print(table)
    first, last = samples[len(samples) // 3], samples[-1]
    growth = last.blocks / first.blocks, last.resident / first.resident
    between = last.operations - first.operations
    console.print(
        f"{load.operations:,} operations, {load.cancelled:,} of them cancelled. Over the last "
        f"{between:,} the blocks grew by {growth[0] - 1:+.2%}, and the resident set by {growth[1] - 1:+.2%}"
    )
    return max(growth) <= GROWTH


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Memory under steady load, on DynamoDB Local.")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--every", type=float, default=60, help="seconds between samples")
    args = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL)
    with run_dynamodb_local(ROOT / ".dynamodb-local") as url:
        samples, load = asyncio.run(measure(url, args.minutes, args.every))
    sys.exit(0 if show(samples, load) else 1)
