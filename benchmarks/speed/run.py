"""Runs all peers, each in a process of its own, for docs/benchmarks.md (`make bench`).

Rounds are shuffled, and a ratio compares two peers within one round only: the machine drifts by half within
seconds. The clients share one core, one after the other; the endpoint has another.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console

from benchmarks import cycle, frontier
from benchmarks.bodies import fetch_corpus
from benchmarks.machine import ROOT
from benchmarks.report import Origin, is_full, save
from benchmarks.speed import page
from benchmarks.speed.page import HERE, PEERS_PYTHON, table_of
from benchmarks.speed.stalls import stalls_of
from benchmarks.speed.subject import make_pages
from benchmarks.speed.workloads import OURS, PEERS, PLACES, WORKLOADS, Workload
from examples.demo_site import PAGE_PATH
from ragcrawl_dynamo import DynamoDBBackend, Page
from ragcrawl_dynamo._dynamodb.codec import to_item
from ragcrawl_dynamo._schema.tables import PAGES
from ragcrawl_dynamo.testing import drop_tables, local_config, run_dynamodb_local

TABLE = "bench_pages"
FRONTIER_PAGES = 500

console = Console(width=120)


class Subject:
    """The process of a peer."""

    def __init__(self, module: str, python: str | Path, endpoint: str) -> None:
        self._process = subprocess.Popen(
            [str(python), str(HERE / "subject.py"), module, endpoint, TABLE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {0}),
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self.version: str = self._read()["ready"]

    def run(self, workload: Workload, seed: int) -> dict[str, float]:
        """Runs one round."""
        assert self._process.stdin is not None
        command = {"workload": workload.name, "count": workload.count, "seed": seed}
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        figures: dict[str, float] = self._read()
        return figures

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} has ended")
        return json.loads(line)


@contextmanager
def canned(delay: float) -> Iterator[str]:
    """Runs the canned endpoint in a process on the second core."""
    with tempfile.TemporaryDirectory() as folder:
        items, port = Path(folder, "items"), Path(folder, "port")
        lines = [orjson.dumps(to_item(PAGES, Page(**page))) for page in make_pages(5000)]
        items.write_bytes(b"\n".join(lines))
        process = subprocess.Popen(
            [sys.executable, str(HERE / "canned.py"), str(items), str(port), str(delay)],
            preexec_fn=lambda: os.sched_setaffinity(0, {1}),
        )
        try:
            while not (port.exists() and (number := port.read_text())):
                time.sleep(0.05)
            yield f"http://127.0.0.1:{number}"
        finally:
            process.kill()
            process.wait()


@contextmanager
def engine() -> Iterator[str]:
    """Runs DynamoDB Local on the second core, with the pages to read."""

    async def fill(endpoint: str) -> None:
        config = local_config(endpoint, table_prefix=TABLE.removesuffix("pages"))
        async with DynamoDBBackend(config) as backend:
            await backend.save_pages_bulk(Page(**page) for page in make_pages(5000))

    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {1})
    with run_dynamodb_local(ROOT / ".dynamodb-local") as endpoint:
        os.sched_setaffinity(0, before)
        asyncio.run(fill(endpoint))
        yield endpoint
        asyncio.run(drop_tables(local_config(endpoint, table_prefix=TABLE.removesuffix("pages"))))


Rounds = list[dict[str, dict[str, float]]]


def measure(workload: Workload, endpoint: str, rounds: int, versions: dict[str, str]) -> Rounds:
    """Runs so many rounds of a workload, and one to warm up."""
    with ExitStack() as stack:
        subjects = {}
        for name, (module, is_peer) in PEERS.items():
            if name not in workload.without:
                subject = Subject(module, PEERS_PYTHON if is_peer else sys.executable, endpoint)
                stack.callback(subject.close)
                subjects[name] = subject
                versions[name] = subject.version
        measured: Rounds = []
        for number in range(rounds + 1):
            names = list(subjects)
            random.shuffle(names)
            results = {name: subjects[name].run(workload, number) for name in names}
            if number:
                measured.append(results)
        return measured


def ratio(rounds: Rounds, one: str, other: str) -> tuple[float, float, float]:
    """Returns the median, least and greatest ratio of client CPU within rounds."""
    ratios = [results[one]["cpu"] / results[other]["cpu"] for results in rounds]
    return statistics.median(ratios), min(ratios), max(ratios)


def summary(rounds: Rounds) -> dict[str, dict[str, Any]]:
    """Returns the medians of each peer: microseconds and items a second, its ratio, and milliseconds."""
    summaries: dict[str, dict[str, Any]] = {}
    for name in rounds[0]:
        results = [by_peer[name] for by_peer in rounds]
        summaries[name] = {
            "cpu": statistics.median(result["cpu"] / result["items"] for result in results) * 1e6,
            "rate": statistics.median(result["items"] / result["wall"] for result in results),
            "ratio": ratio(rounds, name, "aiodynamo"),
        }
        for key in ("p50", "p99"):
            if key in results[0]:
                summaries[name][key] = statistics.median(result[key] for result in results) * 1e3
    return summaries


def main(rounds: int) -> dict[str, Any]:
    """Measures everything, prints it, and returns the figures for docs/benchmarks.md."""
    versions: dict[str, str] = {}
    measured: dict[str, dict[str, Any]] = {place: {} for place in PLACES}
    targets: dict[str, dict[str, tuple[float, float, float]]] = {}

    def run(workload: Workload, place: str, endpoint: str, rounds: int) -> None:
        console.print(f"{workload.name}, {PLACES[place]} ...")
        results = measure(workload, endpoint, rounds, versions)
        measured[place][workload.name] = summary(results)
        if place == workload.places[0]:
            targets[workload.name] = {peer: ratio(results, OURS, peer) for peer in workload.targets}
        console.print("\n".join(table_of(measured[place][workload.name])))

    for workload in WORKLOADS:
        if "canned" in workload.places:
            with canned(workload.delay) as endpoint:
                run(workload, "canned", endpoint, rounds)
    with engine() as endpoint:
        for workload in WORKLOADS:
            if "engine" in workload.places:
                run(workload, "engine", endpoint, max(3, rounds // 2))
        console.print("frontier and whole cycle, DynamoDB Local ...")
        crawls = [asdict(cost) for cost in asyncio.run(crawl_costs(endpoint))]
        console.print("stalls of the event loop, DynamoDB Local ...")
        stalls = [asdict(stall) for stall in asyncio.run(stalls_of(endpoint))]
    figures = {
        "rounds": rounds,
        "versions": sorted(set(versions.values())),
        "workloads": measured,
        "targets": targets,
        "crawls": crawls,
        "stalls": stalls,
    }
    console.print("\n".join([*page.crawls(figures), "", *page.stalls(figures)]))
    return figures


@dataclass(frozen=True)
class CrawlCost:
    """The cost of a page in the frontier, which no peer has, so that there is nothing to compare with.

    Attributes:
        what: The description for the reader.
        requests: The requests for a page, with PartiQL batches.
        read_units: The read units for a page.
        write_units: The write units for a page, by AWS's rule.
        cpu: The milliseconds of client CPU for a page, with PartiQL batches.
    """

    what: str
    requests: float
    read_units: float
    write_units: float
    cpu: float


async def crawl_costs(endpoint: str) -> tuple[CrawlCost, CrawlCost]:
    """Measures the frontier's methods alone, and a whole crawl; see `benchmarks.frontier` and `.cycle`."""
    batches = local_config(endpoint, table_prefix="bench_batches_", conditional_batches="partiql")
    single = local_config(endpoint, table_prefix="bench_single_", conditional_batches="item")
    pairs = await fetch_corpus()
    corpus = {page.url: (version, page) for version, page in pairs if PAGE_PATH.search(page.url)}

    before = time.process_time()
    verbs = await frontier.crawl(batches, FRONTIER_PAGES, 20)
    verbs_cpu = (time.process_time() - before) / FRONTIER_PAGES
    verbs_units = await frontier.crawl(single, FRONTIER_PAGES, 20)
    before = time.process_time()
    whole, _, _ = await cycle.cycle(batches, corpus, next(iter(corpus)), "run")
    whole_cpu = (time.process_time() - before) / len(corpus)
    whole_units, by_rule, _ = await cycle.cycle(single, corpus, next(iter(corpus)), "run")
    for config in (batches, single):
        await drop_tables(config)
    links = f"{frontier.LINKS} links of which {frontier.LINKS - frontier.NEW_LINKS} known"
    return (
        CrawlCost(
            f"frontier: claim, {links}, complete",
            verbs.requests,
            verbs_units.read_units,
            verbs_units.write_units,
            verbs_cpu * 1e3,
        ),
        CrawlCost(
            f"whole cycle: {len(corpus)} pages of Python's documentation, claim to commit",
            whole.requests,
            whole_units.read_units,
            by_rule,
            whole_cpu * 1e3,
        ),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Speed against peers; the figures of docs/benchmarks.md.")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    origin = Origin.here("make bench")
    figures = main(args.rounds)
    if is_full(parser, args):
        save("speed", origin, figures)
