"""Measures all scenarios, prints the kinds of keys of each, and writes the measurements."""

from __future__ import annotations

import argparse
import asyncio
import logging
from itertools import product

from benchmarks.frontier.measure import console
from benchmarks.machine import ROOT, markdown
from benchmarks.partitions.crawls import Kind, Measured, Scenario, measure, measure_recovery, measure_waiting
from benchmarks.partitions.result import Measurements
from benchmarks.report import Origin, is_full, save
from ragcrawl_dynamo.testing import run_dynamodb_local

# Hosts, links, pages that are crawled, and seconds between two leases of a host, if there is a delay.
SIZES = ((1, 300, 300, 0.02), (300, 600, 600, 1.0), (10_000, 10_000, 800, 1.0))
PROCESSES = (1, 4)
WAITING_HOSTS = 300

# Kinds that are shown of each scenario.
SHOWN = 12


async def main(endpoint: str, scale: float) -> Measurements:
    """Measures and prints."""
    scenarios = []
    for (hosts, links, pages, seconds), delayed, processes in product(SIZES, (False, True), PROCESSES):
        crawled = max(100, round(pages * scale))
        delay = seconds if delayed else 0.0
        scenarios.append(Scenario(hosts, max(crawled, links), crawled, delay, processes))
    crawls = []
    sizes: dict[str, float] = {}
    for scenario in scenarios:
        measured, of_crawl = await measure(endpoint, scenario)
        crawls.append(measured)
        sizes |= of_crawl
        show(measured, title_of(measured))
    waiting = await measure_waiting(endpoint, WAITING_HOSTS)
    show(waiting, f"a worker that waits, {WAITING_HOSTS} hosts: units a second instead of a page")
    recovery = await measure_recovery(endpoint)
    console.print(recovery, highlight=False)
    return Measurements(crawls, waiting, recovery, sizes)


def title_of(measured: Measured) -> str:
    """Returns a description of a scenario."""
    scenario = measured.scenario
    delay = f"delay {scenario.delay:g} s" if scenario.delay else "no delay"
    rate = scenario.pages / measured.seconds
    return (
        f"{scenario.hosts:,} hosts, {scenario.pages:,} pages, {delay}, {scenario.processes} processes; "
        f"{rate:,.0f} pages/s here"
    )


def show(measured: Measured, title: str) -> None:
    """Prints the hottest kinds of keys of a scenario."""
    reads, writes = (sum(getattr(kind, name) for kind in measured.kinds) for name in ("reads", "writes"))
    console.print(f"\n{title}: {reads:.2f} read units, {writes:.2f} write units a page\n", highlight=False)
    for what, kinds in (("partition key", measured.kinds), ("one item", measured.items)):
        head = [what, "values", "read units", "write units", "of the hottest", "full at"]
        table = markdown([head, *(row(kind) for kind in kinds[:SHOWN])])
        console.print("\n".join(table) + "\n", soft_wrap=True, highlight=False, markup=False)


def row(kind: Kind) -> list[str]:
    """Returns the row of a kind of keys."""
    return [
        f"{kind.place} `{kind.pattern}`",
        f"{kind.values:,}",
        f"{kind.reads:.2f}",
        f"{kind.writes:.2f}",
        f"{kind.hottest_reads:.3f} read, {kind.hottest_writes:.3f} write",
        f"{kind.ceiling:,.0f}",
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Count capacity units by partition key value.")
    parser.add_argument("--scale", type=float, default=1.0, help="the share of the full numbers of pages")
    args = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    origin = Origin.here("make bench-partitions")
    with run_dynamodb_local(ROOT / ".dynamodb-local") as url:
        measurements = asyncio.run(main(url, args.scale))
    if is_full(parser, args):
        save("partitions", origin, measurements.to_figures())
