"""Kills workers all the time while they crawl a made-up web; their own ledger proves that the queue is right.

Worker processes share one run on DynamoDB Local. Each page is known by its number, has links to others, and
lies on one of many hosts, some of which have a delay or a maximum in flight. Handlers fail at random. Every
second a random worker is killed by SIGKILL and replaced. Workers write what they do into files, line by line,
before and after they do it. At the end the table must agree with these: no page is lost, none was held twice
at a time, and no host was ever over its limits.

    python -m benchmarks.stress_frontier                     # 200 large hosts, then 2,000 small ones
    python -m benchmarks.stress_frontier --links 600 --seed 1
    python -m benchmarks.stress_frontier --hosts 2000 --limited 0.5
"""

import argparse
import asyncio
import json
import logging
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from ragcrawl_dynamo import Claim, DynamoDBBackend, DynamoDBConfig, FrontierStats
from ragcrawl_dynamo.testing import drop_tables, local_config, run_dynamodb_local

ROOT = Path(__file__).parent.parent
RUN, SITE = "stress", "site"

# A limited host has one of these limits.
DELAY = 0.4
MAX_IN_FLIGHT = 2

LEASE_SECONDS = 5.0
# All workers read one clock.
CLOCK_SKEW = 0.1

console = Console(width=100)


@dataclass(frozen=True)
class Web:
    """A made-up site: its pages, their URLs, and their links.

    Attributes:
        links: The number of pages.
        hosts: The number of hosts over which the pages are spread.
        limited: The share of hosts that have a limit, in tenths: half of them a delay, the others a maximum.
        failures: The share of handlers that raise.
        seed: The seed of all random numbers.
    """

    links: int
    hosts: int
    limited: float
    failures: float
    seed: int

    def url(self, page: int) -> str:
        """Returns the URL of a page."""
        return f"https://h{page * 7919 % self.hosts}.example/{page}"

    def links_of(self, page: int) -> list[str]:
        """Returns a page's links: five to pages that no other page leads to first, ten to known ones."""
        first = [5 * page + i for i in range(1, 6)]
        rest = random.Random(f"{self.seed}/{page}")  # noqa: S311 # a test load
        others = [rest.randrange(min(self.links, 5 * page + 5)) for _ in range(10)]
        return [self.url(linked) for linked in (*first, *others) if linked < self.links]

    def limits(self, host: int) -> tuple[float, int | None]:
        """Returns the delay and the maximum in flight of a host."""
        if host % 10 >= round(10 * self.limited):
            return 0.0, None
        return (DELAY, None) if (host // 10 + host) % 2 else (0.0, MAX_IN_FLIGHT)


def settings(endpoint: str, prefix: str) -> DynamoDBConfig:
    """Returns the settings of every process. All of them use one table prefix."""
    return local_config(
        endpoint,
        table_prefix=prefix,
        conditional_batches="auto",
        frontier_max_clock_skew=CLOCK_SKEW,
        frontier_retry_delay=0.2,
        frontier_max_attempts=50,
        max_connections=20,
    )


class Log:
    """A file to which lines are appended at once, so that SIGKILL leaves the lines that were written."""

    def __init__(self, folder: Path) -> None:
        # The number of a dead process can be given again.
        self._file, _ = tempfile.mkstemp(".log", dir=folder)

    def write(self, event: str, claim: Claim) -> None:
        """Notes that something happens to a claim now."""
        line = {
            "event": event,
            "at": time.time(),
            "pid": os.getpid(),
            "item": claim.item.item_id,
            "host": claim.item.domain,
            "token": claim.token,
            "started_at": claim.item.started_at.timestamp() if claim.item.started_at else None,
            "expires_at": claim.expires_at.timestamp(),
        }
        os.write(self._file, json.dumps(line).encode() + b"\n")


def work(endpoint: str, prefix: str, folder: str, web: Web, concurrency: int) -> None:
    """Runs a worker process, until the run is finished or the process is killed."""
    logging.basicConfig(level=logging.ERROR)
    asyncio.run(crawl(settings(endpoint, prefix), Path(folder), web, concurrency))


async def crawl(config: DynamoDBConfig, folder: Path, web: Web, concurrency: int) -> None:
    """Handles items and logs them."""
    log = Log(folder)
    chance = random.Random(f"{web.seed}/{os.getpid()}")  # noqa: S311 # a test load
    async with DynamoDBBackend(config) as backend:
        frontier = backend.frontier(SITE, RUN)

        async def handle(claim: Claim) -> None:
            log.write("begin", claim)
            try:
                await asyncio.sleep(chance.uniform(0.0, 0.05))
                page = int(claim.item.url.rpartition("/")[2])
                await frontier.add(web.links_of(page), depth=claim.item.depth + 1)
                if chance.random() < web.failures:
                    raise RuntimeError("the page could not be read")
            finally:
                log.write("end", claim)

        name = f"worker-{os.getpid()}"
        async with frontier.worker(
            concurrency=concurrency, lease_seconds=LEASE_SECONDS, worker_id=name
        ) as worker:
            await worker.run(handle)


class Violation(NamedTuple):
    """A broken promise of the queue, as the log and the table show it."""

    kind: str
    what: str


LOST, HELD_TWICE, OVER_LIMIT, MISCOUNTED = "lost", "held twice", "over a limit", "counted wrongly"


@dataclass(frozen=True)
class Treatment:
    """How the workers are disturbed.

    Attributes:
        processes: The number of worker processes.
        concurrency: The number of handlers of each process.
        kill_every: Seconds between two kills.
        limit: Seconds after which the run is given up.
        freeze_every: Seconds between two workers that stand still for some seconds; None for none.
    """

    processes: int
    concurrency: int
    kill_every: float
    limit: float
    freeze_every: float | None = None


@dataclass
class Fates:
    """The disturbances that the workers went through.

    Attributes:
        seconds: How long the run took.
        deaths: When a process was killed, by its number.
        freezes: When a process began to stand still, by its number.
        errors: How many ended with an error.
    """

    seconds: float = 0.0
    deaths: dict[int, float] = field(default_factory=dict)
    freezes: defaultdict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    errors: int = 0


@dataclass
class Outcome:
    """The disturbances, and the contents of the tables after them."""

    fates: Fates
    stats: FrontierStats
    recounted: FrontierStats
    finished: bool
    items: dict[str, Any]
    events: list[dict[str, Any]]
    violations: list[Violation] = field(default_factory=list)


async def prepare(config: DynamoDBConfig, web: Web) -> None:
    """Sets the hosts' limits and adds the first page."""
    async with DynamoDBBackend(config) as backend:
        frontier = backend.frontier(SITE, RUN)

        async def limit(host: int) -> None:
            delay, most = web.limits(host)
            if delay:
                await frontier.set_host_delay(f"h{host}.example", delay)
            if most is not None:
                await frontier.set_host_max_in_flight(f"h{host}.example", most)

        for first in range(0, web.hosts, 20):
            await asyncio.gather(*map(limit, range(first, min(first + 20, web.hosts))))
        await frontier.add([web.url(0)])


async def inspect(config: DynamoDBConfig) -> tuple[FrontierStats, FrontierStats, bool, dict[str, Any]]:
    """Returns the counters before and after a recount, whether the run is finished, and all items."""
    async with DynamoDBBackend(config) as backend:
        frontier = backend.frontier(SITE, RUN)
        before = await frontier.stats()
        recounted = await frontier.recount()
        items: dict[str, Any] = {}
        cursor = None
        while True:
            part = await backend.get_frontier_items(RUN, limit=1000, cursor=cursor)
            items |= {item.item_id: item for item in part}
            if (cursor := part.cursor) is None:
                break
        return before, recounted, await frontier.is_finished(), items


def run(endpoint: str, web: Web, treatment: Treatment) -> Outcome:
    """Runs the workers to the end, and kills one now and then."""
    config = settings(endpoint, local_config(endpoint).table_prefix)
    asyncio.run(prepare(config, web))
    with tempfile.TemporaryDirectory() as folder:

        def start() -> ForkServerProcess:
            return start_process(work, endpoint, config.table_prefix, folder, web, treatment.concurrency)

        fates = drive(start, treatment, web.seed)
        events = read_events(Path(folder))
    stats, recounted, finished, items = asyncio.run(inspect(config))
    asyncio.run(drop_tables(config))
    return Outcome(fates, stats, recounted, finished, items, events)


def start_process(target: Callable[..., None], *arguments: Any) -> ForkServerProcess:
    """Runs a function in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ragcrawl_dynamo.testing", "rich.console", "rich.table"])
    process = context.Process(target=target, args=arguments)
    process.start()
    return process


def drive(
    start: Callable[[], ForkServerProcess],
    treatment: Treatment,
    seed: int,
    tick: Callable[[float], None] = lambda seconds: None,
) -> Fates:
    """Keeps workers running until one of them has ended, kills and freezes them, and waits for the others.

    Args:
        start: Starts a worker.
        treatment: How the workers are disturbed.
        seed: The seed of all random numbers.
        tick: Called again and again, with the seconds since the start.
    """
    chance = random.Random(seed)  # noqa: S311 # a test load
    fates = Fates()
    started = time.time()
    workers = [start() for _ in range(treatment.processes)]
    frozen: dict[int, float] = {}
    next_kill = started + treatment.kill_every
    next_freeze = started + (treatment.freeze_every or treatment.limit)
    while all(worker.exitcode != 0 for worker in workers) and time.time() < started + treatment.limit:
        time.sleep(0.02)
        now = time.time()
        tick(now - started)
        for i, worker in enumerate(workers):
            if worker.exitcode is not None and worker.exitcode != 0:
                fates.errors += 1
                workers[i] = start()
        for pid in [pid for pid, until in frozen.items() if until <= now]:
            del frozen[pid]
            os.kill(pid, signal.SIGCONT)
        if now >= next_kill:
            next_kill += treatment.kill_every
            victim = chance.randrange(treatment.processes)
            pid = number_of(workers[victim])
            os.kill(pid, signal.SIGKILL)
            workers[victim].join()
            fates.deaths[pid] = time.time()
            frozen.pop(pid, None)
            workers[victim] = start()
        if treatment.freeze_every is not None and now >= next_freeze:
            next_freeze += treatment.freeze_every
            pid = number_of(chance.choice(workers))
            fates.freezes[pid].append(now)
            os.kill(pid, signal.SIGSTOP)
            # Some wake while they hold their leases, some after others have them.
            frozen[pid] = now + chance.uniform(0.2, 2.0) * LEASE_SECONDS
    for pid in frozen:
        os.kill(pid, signal.SIGCONT)
    for worker in workers:
        worker.join(max(1.0, started + treatment.limit - time.time()))
        worker.kill()
    fates.seconds = time.time() - started
    return fates


def number_of(process: ForkServerProcess) -> int:
    """Returns the number of a process that was started."""
    assert process.pid is not None  # noqa: S101 # it was started
    return process.pid


def read_events(folder: Path) -> list[dict[str, Any]]:
    """Reads the events that the workers have logged."""
    # A line that SIGKILL has cut off has no end. The event that it should note has not happened yet.
    files = sorted(folder.glob("*.log"))
    lines = [line for file in files for line in file.read_bytes().split(b"\n")[:-1]]
    return [json.loads(line) for line in lines]


@dataclass(frozen=True)
class Held:
    """One lease, by its worker's log."""

    item: str
    host: str
    token: str
    begin: float
    end: float
    lease_began: float
    expires_at: float
    returned: bool


def leases(outcome: Outcome) -> list[Held]:
    """Returns every lease under which a handler ran, until the handler's end or its worker's death.

    A worker that stood still does not know that its leases are lost, and runs on for a moment: what it writes
    under them is refused.
    """
    fates = outcome.fates
    begins = {event["token"] + event["item"]: event for event in outcome.events if event["event"] == "begin"}
    ends = {event["token"] + event["item"]: event for event in outcome.events if event["event"] == "end"}

    def end(name: str, begin: dict[str, Any]) -> float:
        ended = ends[name]["at"] if name in ends else fates.deaths.get(begin["pid"], begin["at"])
        froze = [at for at in fates.freezes.get(begin["pid"], []) if begin["at"] <= at <= ended]
        return float(min([ended, *froze]))

    return [
        Held(
            item=event["item"],
            host=event["host"],
            token=event["token"],
            begin=event["at"],
            end=end(name, event),
            lease_began=event["started_at"],
            expires_at=event["expires_at"],
            returned=name in ends,
        )
        for name, event in begins.items()
    ]


def check(outcome: Outcome, web: Web) -> Counter[str]:
    """Compares the table with the log; returns each difference as a violation."""
    figures: Counter[str] = Counter()
    held = leases(outcome)
    by_item: defaultdict[str, list[Held]] = defaultdict(list)
    by_host: defaultdict[str, list[Held]] = defaultdict(list)
    for lease in held:
        by_item[lease.item].append(lease)
        by_host[lease.host].append(lease)

    def wrong(kind: str, what: str) -> None:
        outcome.violations.append(Violation(kind, what))

    if outcome.stats != outcome.recounted:
        wrong(MISCOUNTED, f"a recount differs from the counters of the finished run: {outcome.stats}")
    if not outcome.finished:
        wrong(LOST, "the run is not finished")
    expected = {web.url(page) for page in range(web.links)}
    urls = Counter(item.url for item in outcome.items.values())
    for url, count in urls.items():
        if count != 1:
            wrong(MISCOUNTED, f"{url} is in the queue {count} times")
    for url in expected - urls.keys():
        wrong(LOST, f"{url} is missing")
    for item in outcome.items.values():
        figures[item.status] += 1
        if not item.status.is_final:
            wrong(LOST, f"{item.url} is {item.status}")
        tokens = sorted(by_item[item.item_id], key=lambda lease: lease.token)
        last = f"{item.attempt:010}.{item.lease_token}"
        if item.status == "completed" and (not tokens or tokens[-1].token != last or not tokens[-1].returned):
            wrong(LOST, f"{item.url} was completed under a lease whose handler did not return")
        for before, after in pairwise(tokens):
            if after.begin < before.end:
                overlap, late = before.end - after.begin, before.end - before.expires_at
                seconds, how = before.end - before.begin, "returned" if before.returned else "was killed"
                wrong(
                    HELD_TWICE,
                    f"{item.url} was held twice for {overlap:.3f} s: the handler of lease {before.token} "
                    f"{how} after {seconds:.3f} s, {late:.3f} s after the first end of the lease",
                )
    for host, its_leases in by_host.items():
        delay, most = web.limits(int(host[1:].partition(".")[0]))
        if delay:
            began = sorted(lease.lease_began for lease in its_leases)
            gaps = [after - before for before, after in pairwise(began)]
            figures["delays kept"] += sum(gap >= delay for gap in gaps)
            for gap in gaps:
                if gap < delay:
                    wrong(OVER_LIMIT, f"{host}: leases began {gap:.3f} s apart")
        if most is not None:
            figures["leases of hosts with a maximum"] += len(its_leases)
            if (seen := most_at_once(its_leases)) > most:
                wrong(OVER_LIMIT, f"{host}: {seen} in flight")
    figures["leases"] = len(held)
    figures["leases of killed workers"] = sum(not lease.returned for lease in held)
    return figures


def most_at_once(its_leases: list[Held]) -> int:
    """Returns how many handlers ran at the same time, at most."""
    steps = sorted([(lease.begin, 1) for lease in its_leases] + [(lease.end, -1) for lease in its_leases])
    now = most = 0
    for _, step in steps:
        now += step
        most = max(most, now)
    return most


def stress(endpoint: str, web: Web, args: argparse.Namespace) -> bool:
    """Runs one web to its end and prints what happened; returns whether nothing was wrong."""
    treatment = Treatment(args.processes, args.concurrency, args.kill_every, args.limit)
    outcome = run(endpoint, web, treatment)
    figures = check(outcome, web)
    size = f"{web.links:,} links on {web.hosts:,} hosts, {web.limited:.0%} of them limited"
    table = Table(f"{args.processes} processes, {size}, seed {web.seed}", "")
    table.add_row("seconds", f"{outcome.fates.seconds:.0f}")
    table.add_row("workers killed", f"{len(outcome.fates.deaths)}")
    for name, figure in figures.items():
        table.add_row(name, f"{figure:,}")
    table.add_row("counted by stats(), recount()", f"{outcome.stats.total:,}, {outcome.recounted.total:,}")
    kinds = Counter(violation.kind for violation in outcome.violations)
    for kind in (LOST, HELD_TWICE, OVER_LIMIT, MISCOUNTED):
        table.add_row(kind, f"{kinds[kind]:,}")
    table.add_row("violations", f"{len(outcome.violations):,}")
    console.print(table)
    for violation in outcome.violations[:20]:
        console.print(f"{violation.kind}: {violation.what}")
    return not outcome.violations


def main() -> None:
    """Runs the stress test and prints its results; fails if anything is wrong."""
    parser = argparse.ArgumentParser(description="Stress the frontier on DynamoDB Local.")
    parser.add_argument("--links", type=int, help="20,000; without options, then 10,000 more")
    parser.add_argument("--hosts", type=int, help="200; without options, then 2,000")
    parser.add_argument("--limited", type=float, help="share of hosts with limits: 0.2, then 0.5")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--kill-every", type=float, default=1.0)
    parser.add_argument("--failures", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds after which it is given up")
    args = parser.parse_args()
    sizes = [(args.links or 20_000, args.hosts or 200, 0.2 if args.limited is None else args.limited)]
    if args.links is args.hosts is args.limited is None:
        sizes.append((10_000, 2_000, 0.5))
    with run_dynamodb_local(ROOT / ".dynamodb-local") as endpoint:
        results = [stress(endpoint, Web(*size, args.failures, args.seed), args) for size in sizes]
    if not all(results):
        sys.exit(1)


if __name__ == "__main__":
    main()
