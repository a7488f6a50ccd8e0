"""Prints the report of the demo: its passes, their speed, costs and gains, and the stored site."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from rich.table import Table

from ragcrawl_dynamo import CrawlStats, OperationMetrics, PageVersion, StorageBackend

# AWS: "Amazon DynamoDB pricing", on demand, Standard table class, us-east-1, since 1 November 2024.
DOLLARS_A_MILLION_WRITES = 0.625
DOLLARS_A_MILLION_READS = 0.125

NOTES = {
    "moto": "moto invents capacity units: docs/cost.md says what a page costs.",
    "dynamodb-local": "Units as DynamoDB Local reports them, but 2 for a transactional write of 1 KB, as AWS "
    "documents it, where it reports 4. Prices on demand in us-east-1.",
    "aws": "Units as AWS reports them. Prices on demand in us-east-1.",
}


@dataclass(frozen=True)
class Units:
    """Capacity units."""

    reads: float = 0.0
    writes: float = 0.0

    @classmethod
    def of(cls, metrics: Mapping[tuple[str, str], OperationMetrics], engine: str) -> "Units":
        """Adds up the capacity units that a backend has counted.

        Args:
            metrics: The result of `backend.metrics()`.
            engine: "aws", "dynamodb-local" or "moto".
        """
        reads = writes = 0.0
        for (operation, _), counter in metrics.items():
            is_doubled = operation == "TransactWriteItems" and engine == "dynamodb-local"
            reads += counter.read_units
            writes += counter.write_units / (2 if is_doubled else 1)
        return cls(reads, writes)

    def __add__(self, other: "Units") -> "Units":
        return Units(self.reads + other.reads, self.writes + other.writes)

    def __sub__(self, other: "Units") -> "Units":
        return Units(self.reads - other.reads, self.writes - other.writes)

    @property
    def dollars(self) -> float:
        """The price of the units."""
        return (self.reads * DOLLARS_A_MILLION_READS + self.writes * DOLLARS_A_MILLION_WRITES) / 1e6


@dataclass(frozen=True)
class Pass:
    """One crawl of the site.

    Attributes:
        seconds: How long it took.
        stats: The stats of its run.
        bodies: How many bodies it stored.
        feed: A description of the change feed after the pass.
        changes: How many changes the feed had.
        units: The units that all processes consumed.
    """

    seconds: float
    stats: CrawlStats
    bodies: int
    feed: str
    changes: int
    units: Units


def table_of_passes(passes: Mapping[str, Pass]) -> Table:
    """Lists the results and the speed of each pass. The keys name the passes."""
    table = Table("pass", "s", "pages/s", "new", "changed", "unchanged", "bodies", "the change feed says")
    for name, crawl_pass in passes.items():
        stats = crawl_pass.stats
        speed = (f"{crawl_pass.seconds:.1f}", f"{stats.pages_crawled / crawl_pass.seconds:.0f}")
        counts = (stats.pages_new, stats.pages_changed, stats.pages_unchanged, crawl_pass.bodies)
        table.add_row(name, *speed, *map(str, counts), crawl_pass.feed)
    return table


def gains(passes: Mapping[str, Pass], engine: str) -> list[str]:
    """Returns the benefits for a user, one sentence for each."""
    pages = sum(crawl_pass.stats.pages_crawled for crawl_pass in passes.values())
    seconds = sum(crawl_pass.seconds for crawl_pass in passes.values())
    lines = [f"{pages:,} pages in {seconds:.1f} s, {pages / seconds:.0f} pages/s"]
    for name, crawl_pass in passes.items():
        crawled, unchanged = crawl_pass.stats.pages_crawled, crawl_pass.stats.pages_unchanged
        if unchanged:
            work = f"bodies stored: {crawl_pass.bodies:,}, pages to embed again: {crawl_pass.changes:,}"
            lines.append(f"pass {name}: {unchanged:,} of {crawled:,} pages unchanged, {work}")
    if engine != "moto":
        lines += [
            f"1,000 pages as in pass {name}: {_cost(crawl_pass)}" for name, crawl_pass in passes.items()
        ]
    return [*lines, NOTES[engine]]


def _cost(crawl_pass: Pass) -> str:
    thousands = crawl_pass.stats.pages_crawled / 1000
    writes, reads = crawl_pass.units.writes / thousands, crawl_pass.units.reads / thousands
    cents = 100 * crawl_pass.units.dollars / thousands
    return f"{writes:,.0f} write units, {reads:,.0f} read units, {cents:.2f} cents"


async def table_of_site(backend: StorageBackend, site_id: str) -> Table:
    """Lists the records of a site in the tables."""
    usage = await backend.get_content_usage(site_id)
    slowest: PageVersion | None = None
    async for version in backend.iter_versions(site_id):
        if slowest is None or (version.fetch_latency_ms or 0) > (slowest.fetch_latency_ms or 0):
            slowest = version
    run = await backend.get_latest_run(site_id)
    assert run is not None  # noqa: S101 # it was saved before
    table = Table("read back from the tables", "", show_header=True, header_style="bold")
    table.add_row("pages", f"{await backend.count_pages(site_id):,}")
    table.add_row("versions", f"{usage.versions:,}")
    table.add_row("raw bytes", f"{usage.raw_bytes:,}")
    table.add_row("stored bytes", f"{usage.stored_bytes:,}")
    # Computed by DynamoDB's rule for plain writes, because moto reports invented units.
    table.add_row("write units of a version", f"{usage.write_units / usage.versions:,.1f}")
    if slowest is not None:
        table.add_row("slowest page", f"{slowest.url} ({slowest.fetch_latency_ms:,.0f} ms)")
    table.add_row("latest run", f"{run.run_id}: {run.status}")
    for name, value in run.stats:
        if value:
            table.add_row(f"  {name}", f"{value:,.1f}" if isinstance(value, float) else f"{value}")
    items = await backend.get_frontier_items(run.run_id)
    workers = Counter(item.lease_owner for item in items)
    table.add_row("crawled by", ", ".join(f"{name}: {count}" for name, count in workers.items()))
    table.add_row("frontier items failed", f"{sum(item.status == 'failed' for item in items)}")
    return table


async def head_of_page(backend: StorageBackend, site_id: str, url: str) -> str:
    """Returns the first lines of a page's markdown."""
    page = await backend.get_page_by_url(site_id, url)
    version = None if page is None else await backend.get_current_version(site_id, page.page_id)
    if version is None:
        return f"{url} is not stored"
    lines = [line for line in version.markdown.splitlines() if line.strip()]
    return "\n  ".join([f"{url}, the head of its markdown:", *(line[:100] for line in lines[:12])])
