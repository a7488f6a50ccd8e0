"""Lets each crawler crawl the same site with its default storage and with DynamoDB Local, in turns.

Units are measured with single requests, because DynamoDB Local reports none for PartiQL batches. Both write
the same. Requests and CPU are measured with PartiQL batches.

    python -m benchmarks.adapters.run [--rounds 3] [--pages 127] [--hosts 200] [--pages-of-host 5]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
from typing import Any

from benchmarks.adapters import broad, delays
from benchmarks.adapters.broad import crawl, create_tables
from benchmarks.bodies import ROOT
from benchmarks.machine import described, markdown
from ragcrawl_dynamo.testing import run_dynamodb_local
from tests.adapters.site import serve

# The crawlers, and their default storages.
CRAWLERS = {
    "ragcrawl": "DuckDB",
    "crawlee": "files",
    "scrapy": "queue in memory, items as JSON lines",
}


async def measure(endpoint: str, pages: int, rounds: int) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Returns the measurements of all crawls, by crawler and storage."""
    crawls: dict[str, dict[str, list[dict[str, Any]]]] = {
        name: {"own": [], "dynamodb": [], "units": []} for name in CRAWLERS
    }
    with serve(pages) as site, tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            for name, results in crawls.items():
                subfolder = tempfile.mkdtemp(dir=folder)
                results["own"].append(await crawl(name, [site.url], "own", subfolder))
                # ragcrawl's settings have no `conditional_batches`, and its adapter sends none.
                for storage, batches in (("dynamodb", "auto"), ("units", "item")):
                    prefix = f"{name}{number}{batches}_"
                    if name != "ragcrawl":
                        await create_tables(endpoint, prefix)
                    results[storage].append(
                        await crawl(name, [site.url], "dynamodb", endpoint, prefix, batches)
                    )
                for storage, runs in results.items():
                    # Scrapy's own filter lets the first page pass twice.
                    if runs[-1]["pages"] not in (pages, pages + 1):
                        raise SystemExit(f"{name} on {storage} crawled {runs[-1]['pages']} pages")
    return crawls


def rows(crawls: dict[str, dict[str, list[dict[str, Any]]]]) -> list[list[str]]:
    """Returns a table of medians."""

    def per_page(runs: list[dict[str, Any]], name: str) -> float:
        return float(statistics.median(run[name] / run["pages"] for run in runs))

    head = ["crawler", "storage", "requests", "read units", "write units", "of these in commits"]
    table = [[*head, "CPU, ms", "seconds in all"]]
    for name, default_storage in CRAWLERS.items():
        results = crawls[name]
        for storage, runs, units in (
            (default_storage, results["own"], None),
            ("DynamoDB", results["dynamodb"], results["units"]),
        ):
            table.append(
                [
                    name,
                    storage,
                    f"{per_page(runs, 'requests'):.2f}" if units else "-",
                    f"{per_page(units, 'read_units'):.2f}" if units else "-",
                    f"{per_page(units, 'write_units'):.2f}" if units else "-",
                    f"{per_page(units, 'commit_units'):.2f}" if units else "-",
                    f"{per_page(runs, 'cpu') * 1000:.1f}",
                    f"{statistics.median(run['seconds'] for run in runs):.1f}",
                ]
            )
    return table


def main(rounds: int, pages: int, hosts: int, pages_of_host: int) -> None:
    """Measures, and writes docs/adapters/costs.md."""
    with run_dynamodb_local(ROOT / ".dynamodb-local") as endpoint:
        crawls = asyncio.run(measure(endpoint, pages, rounds))
        broad_crawls = asyncio.run(
            broad.measure(endpoint, list(broad.STORAGES), hosts, pages_of_host, rounds)
        )
        measured_delays = asyncio.run(delays.measure(endpoint))
    text = [
        "# What a page costs each crawler",
        "",
        f"Written by `make bench-adapters` on {described()}. A site on this machine has {pages} pages with "
        "2 KB of text, every tenth one 60 KB. Each crawler stores it in its default storage, and in DynamoDB "
        f"Local. The figures are medians of {rounds} rounds. All columns except the last one are per page, "
        "from the link to the stored text. CPU is that of the crawler's process, which also fetches and "
        "parses. Write units in transactions are counted by AWS's rule.",
        "",
        *markdown(rows(crawls)),
        "",
        "A commit writes a page, its version and its change in one transaction, which costs twice the units. "
        "Most other write units are those of the queue: a link is added, leased and finished, and the first "
        "and the last of these writes change an index too. ragcrawl has its queue in memory, and saves a "
        "page and its version separately. [What it costs](../cost.md) has the bill of a million pages.",
        "",
        "## Many small hosts",
        "",
        f"The same spiders crawl {hosts} hosts with {pages_of_host} pages each; every host has its own "
        "address on this machine. They start with the first page of each host. The tables exist before the "
        "crawl. Crawlee runs 8 handlers at a time, because its automatic concurrency depends on how busy the "
        "machine is, and DynamoDB Local runs on the same machine. CPU and requests are per page.",
        "",
        *markdown(broad.rows(broad_crawls)),
        "",
        f"A crawl should take at most {broad.PROMISE:g} times the seconds that it takes with the crawler's "
        f"default storage. {' '.join(broad.verdicts(broad_crawls))}",
        "",
        *delays.text(measured_delays),
    ]
    (ROOT / "docs" / "adapters" / "costs.md").write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pages", type=int, default=127)
    parser.add_argument("--hosts", type=int, default=200)
    parser.add_argument("--pages-of-host", type=int, default=5)
    options = parser.parse_args()
    main(options.rounds, options.pages, options.hosts, options.pages_of_host)
