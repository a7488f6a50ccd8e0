"""Measures how often the workers of one run compete for the same items, and the cost of a crawled page.

Eight workers, each with a backend of its own as on eight machines, claim at once from one host and from 200.
Then one worker crawls: claims 25 pages, adds the 30 links of each, of which 27 are known, and completes them.
At the end of a run one of four workers still has leases on a few hosts, and the others help.

Requests are counted with PartiQL batches. Capacity units are measured with single requests, because the
engine reports none for PartiQL; the writes are the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from benchmarks.frontier.measure import RUN, SITE, Cost, Lab, Row, cost_of, page
from ragcrawl_dynamo import Claim, DynamoDBBackend, DynamoDBConfig, Frontier

WORKERS = 8
BATCH = 25
LINKS = 30
NEW_LINKS = 3

# At the end of a run: hosts with work, links of each, leases of the busy worker, and how fast it ends them.
LAST_HOSTS = 3
LAST_LINKS = 200
BUSY_LEASES = 300
BUSY_STEP = 10
BUSY_SECONDS = 0.1
HELPER_SECONDS = 0.005


@dataclass(frozen=True)
class Contention:
    """The result of claims that are made at the same time."""

    hosts: int
    tried: int
    granted: int
    seconds: float

    @property
    def share(self) -> float:
        """The share of claim statements that succeeded."""
        return self.granted / self.tried


def claim_statements(frontiers: Iterable[Frontier]) -> tuple[int, int]:
    """Returns how many claim statements were sent, and how many succeeded."""
    issuers = [frontier._queue.scheduler.issuer for frontier in frontiers]
    return sum(issuer.tried for issuer in issuers), sum(issuer.granted for issuer in issuers)


async def contend(config: DynamoDBConfig, hosts: int, links: int, limit: int = BATCH) -> Contention:
    """Lets eight workers empty a queue as fast as they can."""
    async with AsyncExitStack() as stack:
        backends = [await stack.enter_async_context(DynamoDBBackend(config)) for _ in range(WORKERS)]
        run_id = f"contend-{hosts}"
        frontiers = [backend.frontier(SITE, run_id) for backend in backends]
        await frontiers[0].add(f"https://h{i % hosts}.example/{i}" for i in range(links))
        started = time.perf_counter()
        await asyncio.gather(*(empty(frontier, limit) for frontier in frontiers))
        seconds = time.perf_counter() - started
        tried, granted = claim_statements(frontiers)
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
        frontier = backend.frontier(SITE, f"crawl-{hosts}")

        def link(number: int) -> str:
            return f"https://h{number % hosts}.example/a/path/of/common/length/{number}.html"

        known = 200
        done = 0
        await frontier.add(link(i) for i in range(known))

        async def work() -> None:
            nonlocal known, done
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

        whole = await cost_of(backend, work())
        return Cost(whole.requests / done, whole.read_units / done, whole.write_units / done)


def number_of(hosts: int) -> str:
    """Returns a number of hosts, in words."""
    return f"{hosts} host" + "s" * (hosts > 1)


async def eight_at_once(lab: Lab) -> list[Row]:
    """Measures eight workers that claim at the same time from one host, and from 200."""
    links = lab.size(20_000, 400)
    rows = []
    for hosts in (1, 200):
        async with lab.tables() as config:
            result = await contend(config, hosts, links)
        rows.append(
            Row(
                f"eight workers at once, {number_of(hosts)}, {links:,} links, claims of {BATCH}",
                "",
                f"{result.tried:,} claims sent, {result.granted:,} succeeded ({result.share:.1%}); "
                f"{result.granted / result.seconds:,.0f} claimed a second",
            )
        )
    return rows


async def crawled_page(lab: Lab) -> list[Row]:
    """Measures the cost of a page whose links are mostly known."""
    pages = lab.size(500, 2 * BATCH)
    rows = []
    for hosts in (1, 20):
        async with lab.tables() as config:
            cost = await crawl(config, pages, hosts)
        async with lab.tables("item") as config:
            units = await crawl(config, pages, hosts)
        rows.append(
            Row(
                f"a crawled page, batches of {BATCH}, {number_of(hosts)}, {LINKS} links of which "
                f"{LINKS - NEW_LINKS} known",
                "",
                f"{cost.requests:.2f} requests, {units.read_units:.1f} read units, "
                f"{units.write_units:.1f} write units",
            )
        )
    return rows


async def helpers_at_the_end(lab: Lab) -> list[Row]:
    """Measures four workers on three hosts, if one worker has leased half of the items and is slow."""
    links = LAST_HOSTS * LAST_LINKS
    async with lab.tables() as config, AsyncExitStack() as stack:
        frontiers = [
            (await stack.enter_async_context(DynamoDBBackend(config))).frontier(SITE, RUN) for _ in range(4)
        ]
        busy, *helpers = frontiers
        await busy.add(page(host, i) for i in range(LAST_LINKS) for host in range(LAST_HOSTS))
        claims: list[Claim] = []
        deadline = time.monotonic() + lab.limit
        while len(claims) < BUSY_LEASES and time.monotonic() < deadline:
            claims += await busy.claim(BUSY_LEASES - len(claims), wait_seconds=1)
        before = claim_statements(frontiers)
        started = time.perf_counter()
        helped = asyncio.gather(*(_help(helper) for helper in helpers))
        for first in range(0, len(claims), BUSY_STEP):
            await asyncio.sleep(BUSY_SECONDS)
            await busy.complete(claims[first : first + BUSY_STEP])
        ends = await helped
        finished = time.perf_counter() - started
        tried, granted = (
            after - first for after, first in zip(claim_statements(frontiers), before, strict=True)
        )
        stats = await busy.recount()
        assert stats.completed == links, stats  # noqa: S101 # a figure of less would mean nothing
    at_least = len(claims) / BUSY_STEP * BUSY_SECONDS
    return [
        Row(
            f"helpers at the end: {links} links of {LAST_HOSTS} hosts, {len(claims)} of them leased by one "
            f"worker, who takes {at_least:.0f} s to end them; three others, concurrency 10, handlers of "
            f"{HELPER_SECONDS * 1e3:.0f} ms",
            "",
            f"the helpers' last page after {max(ends) - started:.1f} s, the run finished after "
            f"{finished:.1f} s; {tried:,} claims sent, {tried - granted:,} refused",
        )
    ]


async def _help(frontier: Frontier) -> float:
    """Works until the run is finished; returns the moment of the last page."""
    last = time.perf_counter()

    async def handle(_: Claim) -> None:
        nonlocal last
        await asyncio.sleep(HELPER_SECONDS)
        last = time.perf_counter()

    async with frontier.worker(concurrency=10, grace_seconds=None) as worker:
        await worker.run(handle)
    return last
