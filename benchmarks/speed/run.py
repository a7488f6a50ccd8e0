"""Runs all peers, each in a process of its own, and writes docs/benchmarks.md (`make bench`).

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
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console

from benchmarks import cycle, frontier
from benchmarks.bodies import fetch_corpus
from benchmarks.machine import described, markdown
from benchmarks.speed.stalls import Stall, stalls_of, stalls_table
from benchmarks.speed.subject import make_pages
from examples.demo_site import PAGE_PATH
from ragcrawl_dynamo import DynamoDBBackend, Page
from ragcrawl_dynamo._dynamodb.codec import to_item
from ragcrawl_dynamo._schema.tables import PAGES
from ragcrawl_dynamo.testing import drop_tables, local_config, run_dynamodb_local

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PEERS_PYTHON = ROOT / ".venv-speed/bin/python"
TABLE = "bench_pages"
OURS = "ours"
FRONTIER_PAGES = 500

# Name in the tables -> module, and whether it runs in the peers' environment.
PEERS = {
    OURS: ("peer_ours", False),
    "ours, uncoalesced": ("peer_ours_single", False),
    "aiodynamo": ("peer_aiodynamo", True),
    "pydynox": ("peer_pydynox", True),
    "aiopynamodb": ("peer_aiopynamodb", True),
    "pynamodb in threads": ("peer_pynamodb", True),
    "plain aioboto3": ("peer_aioboto3", False),
    "floor": ("peer_floor", False),
}

console = Console(width=120)


@dataclass(frozen=True)
class Workload:
    """A workload to measure.

    Attributes:
        name: The name by which the peers know the workload.
        what: The description for the reader.
        count: The number of items of a round.
        delay: The seconds that the canned endpoint takes for an answer.
        targets: By peer, the largest allowed ratio of our client CPU to that of the peer.
        without: The peers that do not run the workload.
        places: Whether it is measured on the canned endpoint, on DynamoDB Local, or on both.
    """

    name: str
    what: str
    count: int
    delay: float = 0.0
    targets: dict[str, float] = field(default_factory=dict)
    without: tuple[str, ...] = ("ours, uncoalesced",)
    places: tuple[str, ...] = ("canned", "engine")


WORKLOADS = (
    Workload(
        "save, 64 tasks",
        "64 tasks save single pages, each one after the other",
        1920,
        targets={"aiodynamo": 0.35, "plain aioboto3": 0.10},
        without=(),
    ),
    Workload(
        "save, 700 a second",
        "700 single saves a second, at random moments, on a 5 ms endpoint",
        2100,
        delay=0.005,
        targets={"aiodynamo": 0.5},
        without=("aiopynamodb", "pynamodb in threads", "plain aioboto3"),
        places=("canned",),
    ),
    Workload(
        "save, alone",
        "one task saves single pages",
        500,
        targets={"aiodynamo": 2.2},
        places=("canned",),
    ),
    Workload(
        "save in bulk",
        "5,000 pages in one call",
        5000,
        targets={"aiodynamo": 1.0, "plain aioboto3": 0.25},
    ),
    Workload("get, 64 tasks", "64 tasks get single pages", 1920, targets={"aiodynamo": 0.35}, without=()),
    Workload("get in bulk", "5,000 pages got at once", 5000),
    Workload("list", "5,000 pages listed", 5000, targets={"aiodynamo": 0.9, "plain aioboto3": 0.22}),
    Workload("save bodies", "64 tasks save versions with 40 KB of Markdown", 640, places=("engine",)),
    Workload("get bodies", "64 tasks get versions with 40 KB of Markdown", 640, places=("engine",)),
)


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


def table_of(workload: Workload, rounds: Rounds) -> list[str]:
    """Formats the results of a workload as a table."""
    has_latency = "p99" in rounds[0][OURS]
    head = ["", "CPU per item, µs", "items a second", "of aiodynamo's CPU (range)"]
    lines = [head + (["p50, ms", "p99, ms"] if has_latency else [])]
    for name in rounds[0]:
        measured = [figures[name] for figures in rounds]
        row = [
            name,
            f"{statistics.median(figures['cpu'] / figures['items'] for figures in measured) * 1e6:.1f}",
            f"{statistics.median(figures['items'] / figures['wall'] for figures in measured):,.0f}",
            "{:.2f} ({:.2f}-{:.2f})".format(*ratio(rounds, name, "aiodynamo")),
        ]
        if has_latency:
            row += [
                f"{statistics.median(figures[key] for figures in measured) * 1e3:.1f}"
                for key in ("p50", "p99")
            ]
        lines.append(row)
    order = {name: i for i, name in enumerate(PEERS)}
    body = sorted(lines[1:], key=lambda row: order[row[0]])
    return markdown([lines[0], *body])


def draw(script: str, data: Any, path: Path) -> None:
    """Draws a plot, by a script of this folder in the peers' environment, which has matplotlib."""
    subprocess.run(
        [str(PEERS_PYTHON), str(HERE / script), str(path)], input=json.dumps(data), text=True, check=True
    )


def targets_of(workload: Workload, rounds: Rounds) -> Iterator[str]:
    """Yields a line for each target: the target, and the measured ratio."""
    for peer, most in workload.targets.items():
        median, least, highest = ratio(rounds, OURS, peer)
        verdict = "reached" if median <= most else "**missed**"
        measured = f"{median:.2f} ({least:.2f}-{highest:.2f})"
        yield f"| {workload.what} | ≤ {most:.2f} of {peer} | {measured} | {verdict} |"


def main(rounds: int, folder: Path) -> None:
    """Measures everything and writes the page and its plot."""
    versions: dict[str, str] = {}
    results: dict[str, dict[str, Rounds]] = {"canned": {}, "engine": {}}
    for workload in WORKLOADS:
        if "canned" in workload.places:
            console.print(f"{workload.name}, canned endpoint ...")
            with canned(workload.delay) as endpoint:
                results["canned"][workload.name] = measure(workload, endpoint, rounds, versions)
            console.print("\n".join(table_of(workload, results["canned"][workload.name])))
    with engine() as endpoint:
        for workload in WORKLOADS:
            if "engine" in workload.places:
                console.print(f"{workload.name}, DynamoDB Local ...")
                results["engine"][workload.name] = measure(workload, endpoint, max(3, rounds // 2), versions)
                console.print("\n".join(table_of(workload, results["engine"][workload.name])))
        console.print("frontier and whole cycle, DynamoDB Local ...")
        crawled = asyncio.run(crawl_costs(endpoint))
        console.print("\n".join(crawl_table(crawled)))
        console.print("stalls of the event loop, DynamoDB Local ...")
        stalls = asyncio.run(stalls_of(endpoint))
        console.print("\n".join(stalls_table(stalls)))
    write(folder, rounds, versions, results, crawled, stalls)


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


def crawl_table(costs: Iterable[CrawlCost]) -> list[str]:
    """Formats the costs as a table."""
    return [
        "| a page | requests | read units | write units | client CPU, ms |",
        "|---|---|---|---|---|",
        *(
            f"| {cost.what} | {cost.requests:.2f} | {cost.read_units:.1f} | {cost.write_units:.1f} "
            f"| {cost.cpu:.1f} |"
            for cost in costs
        ),
    ]


def write(
    folder: Path,
    rounds: int,
    versions: dict[str, str],
    results: dict[str, dict[str, Rounds]],
    crawled: tuple[CrawlCost, CrawlCost],
    stalls: list[Stall],
) -> None:
    """Writes the figures; docs/speed.md explains them."""
    text = [
        "# Benchmarks",
        "",
        f"Written by `make bench` on {described()}. [speed.md](speed.md) explains the figures.",
        "",
        f"Each peer is a process of its own on one core, the endpoint is on another. {rounds} shuffled "
        "rounds on the canned endpoint; ratios are medians of those within rounds, with their range. CPU is "
        "that of the whole client process, threads included. We take and return pydantic models, built "
        "within what is measured; peers take and return plain dicts, but for the two PynamoDBs. "
        + "; ".join(sorted(set(versions.values())))
        + ".",
        "",
        "## Targets",
        "",
        "| workload | target | measured | |",
        "|---|---|---|---|",
    ]
    for workload in WORKLOADS:
        if workload.name in results["canned"]:
            text += targets_of(workload, results["canned"][workload.name])
    for what, unit, limit, measured in (
        (crawled[0].what, "requests a page", 0.5, crawled[0].requests),
        (crawled[1].what, "write units a page", 30, crawled[1].write_units),
    ):
        verdict = "reached" if measured <= limit else "**missed**"
        text.append(f"| {what} | ≤ {limit} {unit} | {measured:.2f} | {verdict} |")
    text += ["", "![Client CPU per item](benchmarks.svg)"]
    for place, title in (("canned", "Canned endpoint"), ("engine", "DynamoDB Local")):
        text += ["", f"## {title}"]
        for workload in WORKLOADS:
            if workload.name in results[place]:
                text += ["", f"### {workload.what}", "", *table_of(workload, results[place][workload.name])]
    text += ["", "### The frontier, and a whole crawl", "", *crawl_table(crawled)]
    text += ["", "### Longest stalls of the event loop", "", *stalls_table(stalls)]
    (folder / "benchmarks.md").write_text("\n".join(text) + "\n")
    medians = {
        workload.what: {
            name: statistics.median(round_[name]["cpu"] / round_[name]["items"] for round_ in rounds_) * 1e6
            for name in PEERS
            if name in rounds_[0]
        }
        for workload in WORKLOADS
        if (rounds_ := results["canned"].get(workload.name) or results["engine"][workload.name])
    }
    draw("plot.py", medians, folder / "benchmarks.svg")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Speed against peers; writes docs/benchmarks.md.")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--folder", type=Path, default=ROOT / "docs")
    args = parser.parse_args()
    main(args.rounds, args.folder)
