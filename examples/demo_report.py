"""What the demo says of its passes: how fast they were, what they cost, and what a user gains."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

from ragcrawl_dynamo import CrawlStats, OperationMetrics

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
        """Adds up what a backend has counted.

        Args:
            metrics: What `backend.metrics()` returns.
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
        """Their price."""
        return (self.reads * DOLLARS_A_MILLION_READS + self.writes * DOLLARS_A_MILLION_WRITES) / 1e6


@dataclass(frozen=True)
class Pass:
    """One crawl of the site.

    Attributes:
        name: Its number, and what happened before it.
        seconds: How long it took.
        stats: The stats of its run.
        bodies: How many bodies it stored.
        feed: What the change feed said afterwards.
        changes: How many changes these were.
        units: What all processes consumed.
    """

    name: str
    seconds: float
    stats: CrawlStats
    bodies: int
    feed: str
    changes: int
    units: Units


def table_of_passes(passes: Sequence[Pass]) -> Table:
    """Lists what each pass found, and how fast it was."""
    table = Table("pass", "s", "pages/s", "new", "changed", "unchanged", "bodies", "the change feed says")
    for each in passes:
        stats = each.stats
        speed = (f"{each.seconds:.1f}", f"{stats.pages_crawled / each.seconds:.0f}")
        counts = (stats.pages_new, stats.pages_changed, stats.pages_unchanged, each.bodies)
        table.add_row(each.name, *speed, *map(str, counts), each.feed)
    return table


def gains(passes: Sequence[Pass], engine: str) -> list[str]:
    """Says what a user gains, a sentence a line."""
    pages = sum(each.stats.pages_crawled for each in passes)
    seconds = sum(each.seconds for each in passes)
    lines = [f"{pages:,} pages in {seconds:.1f} s, {pages / seconds:.0f} pages/s"]
    for each in passes:
        crawled, unchanged = each.stats.pages_crawled, each.stats.pages_unchanged
        if unchanged:
            work = f"bodies stored: {each.bodies:,}, pages to embed again: {each.changes:,}"
            lines.append(f"pass {each.name}: {unchanged:,} of {crawled:,} pages unchanged, {work}")
    if engine != "moto":
        lines += [f"1,000 pages as in pass {each.name}: {_cost(each)}" for each in passes]
    return [*lines, NOTES[engine]]


def _cost(each: Pass) -> str:
    thousands = each.stats.pages_crawled / 1000
    writes, reads = each.units.writes / thousands, each.units.reads / thousands
    cents = 100 * each.units.dollars / thousands
    return f"{writes:,.0f} write units, {reads:,.0f} read units, {cents:.2f} cents"
