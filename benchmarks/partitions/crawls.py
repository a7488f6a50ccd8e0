"""Crawls made-up sites and says which keys take how many units a page."""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from benchmarks.partitions.kinds import RUN, SITE, host_of, kind_of
from benchmarks.partitions.units import ItemKey, Partition, PartitionUnits, Spent
from ragcrawl_dynamo import Claim, CrawlRun, DynamoDBBackend, DynamoDBConfig, Page, PageVersion, Site
from ragcrawl_dynamo.testing import drop_tables, local_config

# AWS: "Best practices for designing and using partition keys effectively in DynamoDB".
WRITES_A_SECOND = 1_000
READS_A_SECOND = 3_000

# Of each page: its links, most of which are known.
LINKS = 30

# Handlers of each process, and links that wait at first, so that all of them have work.
CONCURRENCY = 50
SEEDS = 200

# Seconds that a worker is watched that has nothing to claim.
WAITING_SECONDS = 10.0


@dataclass(frozen=True)
class Scenario:
    """A crawl to measure.

    Attributes:
        hosts: The number of hosts.
        links: The number of links, of all hosts together; one of each host is added before the crawl.
        pages: After how many of them the crawl is stopped.
        delay: Seconds between two leases of a host; 0 for none.
        processes: Backends of their own, as in so many processes.
    """

    hosts: int
    links: int
    pages: int
    delay: float
    processes: int

    def url(self, number: int) -> str:
        """Returns the URL of the page of that number."""
        return f"https://{host_of(number % self.hosts)}/a/path/of/common/length/{number}.html"


@dataclass(frozen=True)
class Kind:
    """The units that the keys of one kind took.

    Attributes:
        place: The table without its prefix, or "table/index".
        pattern: The pattern of the keys.
        values: How many of them were read or written.
        reads: The read units of all of them, a page.
        writes: The write units of all of them, a page.
        hottest_reads: The read units of the value that takes most of them, a page.
        hottest_writes: The write units of the value that takes most of them, a page.
    """

    place: str
    pattern: str
    values: int
    reads: float
    writes: float
    hottest_reads: float
    hottest_writes: float

    @property
    def ceiling(self) -> float:
        """The pages a second at which the hottest value takes all units of one partition."""
        return ceiling(self.hottest_reads, self.hottest_writes)


@dataclass(frozen=True)
class Measured:
    """The units that a scenario took.

    Attributes:
        scenario: The scenario.
        seconds: How long the crawl took.
        kinds: The partition key values by kind, those with the lowest ceiling first.
        items: The items by kind, likewise; their pattern is "partition key / sort key".
    """

    scenario: Scenario
    seconds: float
    kinds: list[Kind]
    items: list[Kind]

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Measured:
        """Restores a measurement from the output of `dataclasses.asdict`."""
        return cls(
            Scenario(**data["scenario"]),
            data["seconds"],
            [Kind(**kind) for kind in data["kinds"]],
            [Kind(**kind) for kind in data["items"]],
        )


def ceiling(reads: float, writes: float) -> float:
    """Returns how often a second one partition can give so many units."""
    return min(
        READS_A_SECOND / reads if reads else float("inf"),
        WRITES_A_SECOND / writes if writes else float("inf"),
    )


def by_kind(spent: Spent, pages: float) -> list[Kind]:
    """Groups the units of partition key values by the kind of key."""
    labels = {
        partition: (partition.place, kind_of(partition.value)) for partition in {*spent.reads, *spent.writes}
    }
    return _grouped(labels, spent.reads, spent.writes, pages)


def items_by_kind(spent: Spent, pages: float) -> list[Kind]:
    """Groups the units of items by the kind of key."""
    keys = {*spent.item_reads, *spent.item_writes}
    return _grouped(
        {key: (key.place, _label_of(key)) for key in keys}, spent.item_reads, spent.item_writes, pages
    )


def sizes_of(units: PartitionUnits) -> dict[str, float]:
    """Returns the mean bytes on disk of the items and index entries of each kind."""
    sizes_by_kind: defaultdict[str, list[int]] = defaultdict(list)
    for place, key, size in units.stored():
        sizes_by_kind[f"{place} {_label_of(key)}"].append(size)
    return {name: round(sum(sizes) / len(sizes), 1) for name, sizes in sorted(sizes_by_kind.items())}


def _label_of(key: ItemKey) -> str:
    """Returns the pattern of a primary key: that of the partition key, " / " and that of the sort key."""
    return f"{kind_of(key.value)} / {kind_of(key.sort)}".removesuffix(" / ")


def _grouped(labels: dict[Any, tuple[str, str]], reads: Any, writes: Any, pages: float) -> list[Kind]:
    keys: defaultdict[tuple[str, str], list[Partition | ItemKey]] = defaultdict(list)
    for key, label in labels.items():
        keys[label].append(key)
    kinds = []
    for (place, pattern), group in keys.items():
        of_reads = [reads.get(key, 0.0) / pages for key in group]
        of_writes = [writes.get(key, 0.0) / pages for key in group]
        totals = [round(sum(of_reads), 4), round(sum(of_writes), 4)]
        hottest = [round(max(of_reads), 4), round(max(of_writes), 4)]
        kinds.append(Kind(place, pattern, len(group), *totals, *hottest))
    return sorted(kinds, key=lambda kind: kind.ceiling)


class Crawl:
    """One crawl: its backends, and the pages that are known."""

    def __init__(self, scenario: Scenario, backends: list[DynamoDBBackend], units: PartitionUnits) -> None:
        self.scenario = scenario
        self.units = units
        self.backends = backends
        self.frontiers = [backend.frontier(SITE, RUN, host_delay=scenario.delay) for backend in backends]
        self.done = 0
        self._known = 0
        self._random = random.Random(7)  # noqa: S311 # not for secrets

    async def begin(self) -> None:
        """Saves site and run, and adds the first links."""
        backend = self.backends[0]
        await backend.save_site(Site(site_id=SITE, name="Measured", seeds=[]))
        await backend.save_run(CrawlRun(run_id=RUN, site_id=SITE))
        self.units.take()
        self._known = min(self.scenario.links, max(SEEDS, self.scenario.hosts))
        await self.frontiers[0].add(map(self.scenario.url, range(self._known)))
        await self.frontiers[0].stats()

    async def work(self, backend_number: int) -> None:
        """Works until the run is finished."""
        async with self.frontiers[backend_number].worker(
            concurrency=CONCURRENCY, grace_seconds=None
        ) as worker:

            async def handle(claim: Claim) -> None:
                page, version = _fetched(claim)
                await self.backends[backend_number].commit_page(
                    page, version, claim=claim, discovered=self._links()
                )
                self.done += 1
                if self.done >= self.scenario.pages:
                    worker.stop()

            await worker.run(handle)

    def _links(self) -> list[str]:
        """Returns the links of a page: a new one, while there are, and known ones."""
        known = self._known
        numbers = [self._random.randrange(known) for _ in range(LINKS - 1)]
        if known < self.scenario.links:
            self._known += 1
            numbers.append(known)
        return [self.scenario.url(number) for number in numbers]


def _fetched(claim: Claim) -> tuple[Page, PageVersion]:
    """Returns what a handler has fetched: a page with a small body."""
    url = claim.item.url
    digest = sha256(url.encode()).hexdigest()
    page_id, version_id = digest[:32], digest[32:]
    page = Page(page_id=page_id, site_id=SITE, url=url, status_code=200)
    version = PageVersion(
        version_id=version_id,
        page_id=page_id,
        site_id=SITE,
        run_id=RUN,
        url=url,
        status_code=200,
        content_hash=digest,
        markdown=f"# {digest}\n\n" + "A text that compresses well. " * 40,
    )
    return page, version


@asynccontextmanager
async def crawling(config: DynamoDBConfig, scenario: Scenario) -> AsyncIterator[Crawl]:
    """Opens the backends of a scenario."""
    units = PartitionUnits(config.table_prefix)
    async with AsyncExitStack() as stack:
        backends = [
            await stack.enter_async_context(DynamoDBBackend(config, on_request=units.observe))
            for _ in range(scenario.processes)
        ]
        yield Crawl(scenario, backends, units)


async def measure(endpoint: str, scenario: Scenario) -> tuple[Measured, dict[str, float]]:
    """Crawls all pages of a scenario; returns also the mean bytes of what is stored, by kind of key."""
    config = local_config(endpoint, conditional_batches="auto")
    try:
        async with crawling(config, scenario) as crawl:
            await crawl.begin()
            sizes = sizes_of(crawl.units)
            # Of the links that are added before, the crawl may leave many.
            added = crawl.units.take().scaled(min(1.0, scenario.pages / scenario.links))
            began = time.perf_counter()
            await asyncio.gather(*map(crawl.work, range(scenario.processes)))
            seconds = time.perf_counter() - began
            # A backend that is closed deletes its sign of life.
            sizes |= sizes_of(crawl.units)
        # With what is written when a backend is closed: the last counts and stats.
        spent = crawl.units.take() + added
        measured = Measured(
            scenario,
            round(seconds, 1),
            by_kind(spent, crawl.done),
            items_by_kind(spent, crawl.done),
        )
        return measured, sizes
    finally:
        await drop_tables(config)


async def measure_waiting(endpoint: str, hosts: int) -> Measured:
    """Watches a worker for whom no host is due; its "page" is a second."""
    scenario = Scenario(hosts, 2 * hosts, 2 * hosts, 3600.0, 1)
    config = local_config(endpoint, conditional_batches="auto")
    try:
        async with crawling(config, scenario) as crawl:
            await crawl.begin()
            (frontier,) = crawl.frontiers
            await frontier.add(map(scenario.url, range(2 * hosts)))
            while claims := await frontier.claim(100):
                await frontier.complete(claims)
            waiting = asyncio.create_task(crawl.work(0))
            # The first seconds also store the last counts.
            await asyncio.sleep(3)
            crawl.units.take()
            await asyncio.sleep(WAITING_SECONDS)
            spent = crawl.units.take()
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        return Measured(
            scenario, WAITING_SECONDS, by_kind(spent, WAITING_SECONDS), items_by_kind(spent, WAITING_SECONDS)
        )
    finally:
        await drop_tables(config)


@dataclass(frozen=True)
class Recovery:
    """How long work stands still after a process is killed, and after a pause.

    Attributes:
        lease_seconds: The leases of a process that is gone.
        clock_skew: The setting `frontier_max_clock_skew`.
        after_kill: Seconds from these leases' beginning until others have claimed all of their items.
        after_resume: Seconds from the end of a pause until a worker that waits has claimed an item.
    """

    lease_seconds: float
    clock_skew: float
    after_kill: float
    after_resume: float


async def measure_recovery(endpoint: str) -> Recovery:
    """Lets a process vanish that holds 50 leases, and then ends a pause."""
    config = local_config(endpoint, conditional_batches="auto")
    scenario = Scenario(20, 100, 100, 0.0, 1)
    try:
        async with DynamoDBBackend(config) as gone_backend, DynamoDBBackend(config) as backend:
            gone, frontier = gone_backend.frontier(SITE, RUN), backend.frontier(SITE, RUN)
            await gone.add(map(scenario.url, range(scenario.pages)))
            lease_seconds = 5.0
            began = time.perf_counter()
            lost = {claim.item.url for claim in await gone.claim(CONCURRENCY, lease_seconds=lease_seconds)}
            claimed: dict[str, float] = {}

            async def handle(claim: Claim) -> None:
                claimed[claim.item.url] = time.perf_counter()

            async def work() -> None:
                async with frontier.worker(concurrency=CONCURRENCY, grace_seconds=None) as worker:
                    await worker.run(handle)

            await work()
            after_kill = max(claimed[url] for url in lost) - began
            await gone.pause()
            late = scenario.url(scenario.pages)
            await gone.add([late])
            working = asyncio.create_task(work())
            await asyncio.sleep(3)
            began = time.perf_counter()
            await gone.resume()
            await working
        skew = config.frontier_max_clock_skew
        return Recovery(lease_seconds, skew, round(after_kill, 1), round(claimed[late] - began, 1))
    finally:
        await drop_tables(config)
