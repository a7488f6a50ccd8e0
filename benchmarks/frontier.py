"""What the frontier's queue costs, and how often its workers get in each other's way, on DynamoDB Local.

Eight workers, each with a backend of its own as on eight machines, claim at once from one host and from 200;
then one worker crawls: claims 25 pages, adds the 30 links of each, of which 27 are known, and completes them.
Requests are those of PartiQL batches; capacity units those of the same writes as single requests, since the
engine reports none for PartiQL.

    python -m benchmarks.frontier
"""

import argparse
import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig, Frontier
from ragcrawl_dynamo.testing import drop_tables, local_config, run_dynamodb_local

ROOT = Path(__file__).parent.parent

WORKERS = 8
BATCH = 25
LINKS = 30
NEW_LINKS = 3

console = Console(width=110)


@dataclass(frozen=True)
class Contention:
    """What came of claims made at once."""

    hosts: int
    tried: int
    granted: int
    seconds: float

    @property
    def share(self) -> float:
        """Claim statements that succeeded."""
        return self.granted / self.tried


@dataclass(frozen=True)
class Cost:
    """What a crawled page costs on average."""

    requests: float
    read_units: float
    write_units: float


async def contend(config: DynamoDBConfig, hosts: int, links: int, limit: int = BATCH) -> Contention:
    """Lets eight workers empty a queue as fast as they can."""
    async with AsyncExitStack() as stack:
        backends = [await stack.enter_async_context(DynamoDBBackend(config)) for _ in range(WORKERS)]
        run_id = f"contend-{hosts}"
        frontiers = [backend.frontier(run_id, "site") for backend in backends]
        await frontiers[0].add(f"https://h{i % hosts}.example/{i}" for i in range(links))
        started = time.perf_counter()
        await asyncio.gather(*(empty(each, limit) for each in frontiers))
        seconds = time.perf_counter() - started
        tried, granted = (
            sum(
                (each._queue.scheduler.issuer.tried, each._queue.scheduler.issuer.granted)[i]
                for each in frontiers
            )
            for i in (0, 1)
        )
        stats = await frontiers[0].recount()
        assert stats.completed == links == granted, stats  # noqa: S101 # a figure of less would mean nothing
        return Contention(hosts, tried, granted, seconds)


async def empty(frontier: Frontier, limit: int) -> None:
    """Claims and completes until a claim finds nothing."""
    while claims := await frontier.claim(limit, wait_seconds=3):
        await frontier.complete(claims)


async def crawl(config: DynamoDBConfig, pages: int, hosts: int) -> Cost:
    """Claims batches of pages, adds their links, completes them."""
    async with DynamoDBBackend(config) as backend:
        frontier = backend.frontier(f"crawl-{hosts}", "site")

        def link(number: int) -> str:
            return f"https://h{number % hosts}.example/a/path/of/common/length/{number}.html"

        known = 200
        await frontier.add(link(i) for i in range(known))
        done = 0
        before = totals(backend)
        while done < pages:
            claims = await frontier.claim(BATCH)
            links = []
            for _ in claims:
                links += [link(known + i) for i in range(NEW_LINKS)]
                known += NEW_LINKS
                links += [link((known - 50 - 7 * i) % known) for i in range(LINKS - NEW_LINKS)]
            await frontier.add(links)
            await frontier.complete(claims)
            done += len(claims)
        requests, reads, writes = (
            after - first for after, first in zip(totals(backend), before, strict=True)
        )
        return Cost(requests / done, reads / done, writes / done)


def totals(backend: DynamoDBBackend) -> tuple[float, float, float]:
    """Requests, read units and write units so far."""
    counters = backend.metrics().values()
    return (
        sum(each.requests for each in counters),
        sum(each.read_units for each in counters),
        sum(each.write_units for each in counters),
    )


async def main(endpoint: str, links: int, pages: int) -> None:
    """Measures and prints."""
    batches = local_config(endpoint, conditional_batches="partiql")
    single = local_config(endpoint, conditional_batches="item")
    table = Table("eight workers at once", "claims sent", "succeeded", "share", "claimed a second")
    for hosts in (1, 200):
        result = await contend(batches, hosts, links)
        table.add_row(
            f"{hosts} host{'s' if hosts > 1 else ''}, {links:,} links",
            f"{result.tried:,}",
            f"{result.granted:,}",
            f"{result.share:.1%}",
            f"{result.granted / result.seconds:,.0f}",
        )
    console.print(table)
    table = Table("per crawled page, batches of 25", "requests", "read units", "write units")
    for hosts in (1, 20):
        cost = await crawl(batches, pages, hosts)
        units = await crawl(single, pages, hosts)
        table.add_row(
            f"{hosts} host{'s' if hosts > 1 else ''}, {LINKS} links of which {LINKS - NEW_LINKS} known",
            f"{cost.requests:.2f}",
            f"{units.read_units:.1f}",
            f"{units.write_units:.1f}",
        )
    console.print(table)
    for config in (batches, single):
        await drop_tables(config)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure the frontier on DynamoDB Local.")
    parser.add_argument("--links", type=int, default=20_000)
    parser.add_argument("--pages", type=int, default=500)
    args = parser.parse_args()
    with run_dynamodb_local(ROOT / ".dynamodb-local") as url:
        asyncio.run(main(url, args.links, args.pages))
