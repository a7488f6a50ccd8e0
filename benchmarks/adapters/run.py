"""Each crawler crawls the same site on its own default storage and on DynamoDB Local, in turns.

Units are those of single requests, since the engine reports none for PartiQL batches, whose writes are the
same; requests and CPU are those of PartiQL batches.

    python -m benchmarks.adapters.run [--rounds 3] [--pages 127]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
from typing import Any

from benchmarks.bodies import ROOT
from benchmarks.speed.run import described, markdown
from ragcrawl_dynamo.testing import run_dynamodb_local
from tests.adapters.site import serve

# Crawlers, with what their own default storage is.
CRAWLERS = {
    "ragcrawl": "DuckDB",
    "crawlee": "files",
    "scrapy": "queue in memory, items as JSON lines",
}


async def crawl(crawler: str, *args: str) -> dict[str, Any]:
    """What a crawl took, in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *(str(ROOT / f".venv-{crawler}/bin/python"), "-m", f"benchmarks.adapters.crawl_{crawler}", *args),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    if process.returncode:
        raise SystemExit(errors.decode()[-3000:])
    found: dict[str, Any] = json.loads(output.decode().splitlines()[-1])
    return found


async def measure(endpoint: str, pages: int, rounds: int) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Crawls by crawler and storage."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {
        name: {"own": [], "dynamodb": [], "units": []} for name in CRAWLERS
    }
    with serve(pages) as site, tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            for name, results in found.items():
                place = tempfile.mkdtemp(dir=folder)
                results["own"].append(await crawl(name, site.url, "own", place))
                # ragcrawl's settings do not choose the way of batches, of which it needs none.
                for kind, way in (("dynamodb", "auto"), ("units", "item")):
                    prefix = f"{name}{number}{way}_"
                    results[kind].append(await crawl(name, site.url, "dynamodb", endpoint, prefix, way))
                for kind in results:
                    # Scrapy asks for the first page once more, where it filters by itself.
                    if results[kind][-1]["pages"] not in (pages, pages + 1):
                        raise SystemExit(f"{name} on {kind} crawled {results[kind][-1]['pages']} pages")
    return found


def rows(found: dict[str, dict[str, list[dict[str, Any]]]]) -> list[list[str]]:
    """Medians, as a table."""

    def per_page(runs: list[dict[str, Any]], what: str) -> float:
        return float(statistics.median(each[what] / each["pages"] for each in runs))

    head = ["crawler", "storage", "requests", "read units", "write units", "of these in commits"]
    table = [[*head, "CPU, ms", "seconds in all"]]
    for name, own in CRAWLERS.items():
        results = found[name]
        for storage, runs, units in (
            (own, results["own"], None),
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
                    f"{statistics.median(each['seconds'] for each in runs):.1f}",
                ]
            )
    return table


def main(rounds: int, pages: int) -> None:
    """Measures, and writes the page."""
    with run_dynamodb_local(ROOT / ".dynamodb-local") as endpoint:
        found = asyncio.run(measure(endpoint, pages, rounds))
    text = [
        "# What a page costs each crawler",
        "",
        f"Written by `make bench-adapters` on {described()}. A site on this machine with {pages} pages "
        "of 2 KB of text, every tenth of them 60 KB, crawled into DynamoDB Local, and into what the "
        f"crawler uses by default; medians of {rounds} rounds. All columns but the last are for a page, "
        "from the link to the stored text; CPU is that of the crawler's process, fetching and parsing "
        "included. Write units in transactions are counted by AWS's rule.",
        "",
        *markdown(rows(found)),
        "",
        "A commit writes page, version and change in one transaction, which counts double. What is "
        "neither in commits nor a large body is the queue: a link is added, leased and finished, each of "
        "which changes its entry in the index too. ragcrawl has its queue in memory, and saves page and "
        "version one after the other. [What it costs](../cost.md) has the bill of a million pages.",
    ]
    (ROOT / "docs" / "adapters" / "costs.md").write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pages", type=int, default=127)
    options = parser.parse_args()
    main(options.rounds, options.pages)
