"""Measures the seconds between two requests to a host, when a crawler has a delay for each host.

The site notes when requests come. A crawl begins with all of its pages, so that none waits for a link.

    python -m benchmarks.adapters.delays [--crawlers crawlee]

`make bench-adapters` measures the same for docs/adapters/costs.md.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple
from urllib.parse import urlsplit

from benchmarks.adapters.broad import create_tables
from benchmarks.adapters.soak import start
from benchmarks.adapters.soak_site import Hit, Job, served
from benchmarks.machine import ROOT, markdown
from ragcrawl_dynamo.testing import run_dynamodb_local

CRAWLERS = ("scrapy", "crawlee")

# Delays that are asked for, in seconds, and the requests to each host.
REQUESTS = {0.05: 41, 0.1: 41, 0.3: 31, 1.0: 16}

# Processes that share the crawl, and hosts of the site.
SHAPES = ((1, 1), (2, 3))

# What a measured delay may differ from the one asked for: a share of it, and seconds.
PROMISED_SHARE, PROMISED_SECONDS = 0.05, 0.02


class Measured(NamedTuple):
    """The delays of a crawl.

    Attributes:
        crawler: The crawler.
        processes: Processes that shared the crawl.
        hosts: Hosts of the site.
        asked: The delay that was asked for, in seconds.
        mean: The mean of the seconds between two requests to a host.
        median: Their median.
        shortest: The fewest of them.
        longest: The most of them.
    """

    crawler: str
    processes: int
    hosts: int
    asked: float
    mean: float
    median: float
    shortest: float
    longest: float

    @property
    def is_kept(self) -> bool:
        """Whether the mean differs by no more than is promised."""
        return abs(self.mean - self.asked) <= PROMISED_SHARE * self.asked + PROMISED_SECONDS


def gaps_of(hits: list[Hit]) -> list[float]:
    """Returns the seconds between two requests to the same host."""
    times: defaultdict[str, list[float]] = defaultdict(list)
    for hit in hits:
        times[urlsplit(hit.url).netloc].append(hit.at)
    return [later - earlier for of_host in times.values() for earlier, later in pairwise(of_host)]


async def measure_one(endpoint: str, crawler: str, processes: int, hosts: int, asked: float) -> Measured:
    """Crawls a site once."""
    prefix = f"delay-{crawler}-{processes}-{asked:g}_"
    await create_tables(endpoint, prefix)
    pages = REQUESTS[asked] * hosts
    with served(pages, hosts, 1, 0.0, 0.0) as site, tempfile.TemporaryDirectory() as folder:
        job = Job(sorted(site.urls), endpoint, prefix, folder, 1, 0.0, asked, 60.0)
        started = [await start(crawler, job) for _ in range(processes)]
        outputs = await asyncio.gather(*(process.communicate() for process in started))
        if {hit.url for hit in site.hits} != site.urls or len(site.hits) != pages:
            raise SystemExit("\n".join(output.decode()[-3000:] for output, _ in outputs))
        gaps = gaps_of(site.hits)
        of_gaps = (statistics.mean(gaps), statistics.median(gaps), min(gaps), max(gaps))
        return Measured(crawler, processes, hosts, asked, *of_gaps)


async def measure(endpoint: str, crawlers: tuple[str, ...] = CRAWLERS) -> list[Measured]:
    """Returns the delays of all crawls, one crawl after the other."""
    return [
        await measure_one(endpoint, crawler, processes, hosts, asked)
        for crawler in crawlers
        for processes, hosts in SHAPES
        for asked in REQUESTS
    ]


def rows(results: list[Measured]) -> list[list[str]]:
    """Returns a table of the delays, in seconds."""
    head = ["crawler", "processes", "hosts", "asked, s", "mean, s", "median, s", "shortest, s", "longest, s"]
    return [
        head,
        *(
            [
                *(result.crawler, str(result.processes), str(result.hosts), f"{result.asked:g}"),
                *(f"{seconds:.3f}" for seconds in result[4:]),
            ]
            for result in results
        ),
    ]


def verdict(results: list[Measured]) -> str:
    """Returns a sentence that says whether the promise is kept."""
    missed = [result for result in results if not result.is_kept]
    kept = f"{len(results) - len(missed)} of {len(results)} means keep this"
    names = (f"{result.crawler} with {result.processes} processes at {result.asked:g} s" for result in missed)
    return f"{kept}; **missed**: {', '.join(names)}." if missed else f"{kept}."


def text(results: list[Measured]) -> Iterator[str]:
    """Yields the lines of a section of documentation."""
    yield (
        "One process crawls one host, and two processes share a crawl of three hosts, with `DOWNLOAD_DELAY` "
        "in Scrapy and `host_delay` in Crawlee. The server notes when requests come, and the table shows the "
        "seconds between two requests to the same host."
    )
    yield ""
    yield from markdown(rows(results))
    yield ""
    yield (
        f"The mean should differ from the delay by at most {PROMISED_SHARE:.0%} and "
        f"{PROMISED_SECONDS * 1000:.0f} ms. {verdict(results)}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crawlers", nargs="+", choices=CRAWLERS, default=CRAWLERS)
    options = parser.parse_args()
    with run_dynamodb_local(ROOT / ".dynamodb-local") as local_endpoint:
        print("\n".join(text(asyncio.run(measure(local_endpoint, tuple(options.crawlers))))))
