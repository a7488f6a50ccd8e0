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
from benchmarks.machine import ROOT, markdown
from benchmarks.report import Origin, Part, is_full, save
from ragcrawl_dynamo.testing import run_dynamodb_local
from tests.adapters.site import serve

# The crawlers, and their default storages.
CRAWLERS = {
    "ragcrawl": "DuckDB",
    "crawlee": "files",
    "scrapy": "queue in memory, items as JSON lines",
}

UNITS = ("read_units", "write_units", "commit_units")


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


def medians(crawls: dict[str, dict[str, list[dict[str, Any]]]]) -> dict[str, dict[str, dict[str, float]]]:
    """Returns the medians of all crawls, by crawler and storage: of a page, and the seconds in all."""

    def per_page(runs: list[dict[str, Any]], name: str) -> float:
        return float(statistics.median(run[name] / run["pages"] for run in runs))

    def of_storage(runs: list[dict[str, Any]]) -> dict[str, float]:
        return {
            "cpu": per_page(runs, "cpu") * 1000,
            "seconds": statistics.median(run["seconds"] for run in runs),
        }

    return {
        name: {
            "own": of_storage(results["own"]),
            "dynamodb": {
                "requests": per_page(results["dynamodb"], "requests"),
                **{unit: per_page(results["units"], unit) for unit in UNITS},
                **of_storage(results["dynamodb"]),
            },
        }
        for name, results in crawls.items()
    }


def rows(crawls: dict[str, dict[str, dict[str, float]]]) -> list[list[str]]:
    """Returns a table of medians."""
    head = ["crawler", "storage", "requests", "read units", "write units", "of these in commits"]
    table = [[*head, "CPU, ms", "seconds in all"]]
    for name, storages in crawls.items():
        for storage, costs in storages.items():
            table.append(
                [
                    name,
                    CRAWLERS[name] if storage == "own" else "DynamoDB",
                    *(f"{costs[key]:.2f}" if key in costs else "-" for key in ("requests", *UNITS)),
                    f"{costs['cpu']:.1f}",
                    f"{costs['seconds']:.1f}",
                ]
            )
    return table


def measure_all(options: argparse.Namespace) -> dict[str, Any]:
    """Measures, and returns the figures for docs/adapters/costs.md."""
    with run_dynamodb_local(ROOT / ".dynamodb-local") as endpoint:
        crawls = asyncio.run(measure(endpoint, options.pages, options.rounds))
        hosts, pages_of_host = options.hosts, options.pages_of_host
        broad_crawls = asyncio.run(
            broad.measure(endpoint, list(broad.STORAGES), hosts, pages_of_host, options.rounds)
        )
        measured_delays = asyncio.run(delays.measure(endpoint))
    return {
        **vars(options),
        "crawls": medians(crawls),
        "broad": broad.medians(broad_crawls),
        "delays": [result._asdict() for result in measured_delays],
    }


def one_site(figures: dict[str, Any]) -> list[str]:
    """Formats the costs of a page of one site."""
    return [
        f"A site on this machine has {figures['pages']} pages with 2 KB of text, every tenth one 60 KB. Each "
        "crawler stores it in its default storage, and in DynamoDB Local. The figures are medians of "
        f"{figures['rounds']} rounds. All columns except the last one are per page, from the link to the "
        "stored text. CPU is that of the crawler's process, which also fetches and parses. Write units in "
        "transactions are counted by AWS's rule.",
        "",
        *markdown(rows(figures["crawls"])),
    ]


def many_hosts(figures: dict[str, Any]) -> list[str]:
    """Formats the costs of a page of many small hosts."""
    return [
        f"The same spiders crawl {figures['hosts']} hosts with {figures['pages_of_host']} pages each; every "
        "host has its own address on this machine. They start with the first page of each host. The tables "
        "exist before the crawl. Crawlee runs 8 handlers at a time, because its automatic concurrency "
        "depends on how busy the machine is, and DynamoDB Local runs on the same machine. CPU and requests "
        "are per page.",
        "",
        *markdown(broad.rows(figures["broad"])),
        "",
        f"A crawl should take at most {broad.PROMISE:g} times the seconds that it takes with the crawler's "
        f"default storage. {' '.join(broad.verdicts(figures['broad']))}",
    ]


def host_delays(figures: dict[str, Any]) -> list[str]:
    """Formats the delays between requests to a host."""
    return list(delays.text([delays.Measured(**result) for result in figures["delays"]]))


PARTS: dict[str, Part] = {"one-site": one_site, "many-hosts": many_hosts, "delays": host_delays}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pages", type=int, default=127)
    parser.add_argument("--hosts", type=int, default=200)
    parser.add_argument("--pages-of-host", type=int, default=5)
    options = parser.parse_args()
    origin = Origin.here("make bench-adapters")
    figures = measure_all(options)
    for part in PARTS.values():
        print("\n".join(part(figures)) + "\n")
    if is_full(parser, options):
        save("adapters", origin, figures)
