"""Crawls on a simulated AWS with many faults; a ledger proves that the queue and the change feed were right.

Worker processes share one run after the other, as in `benchmarks.stress_frontier`, whose ledger this is.
They commit their pages through a proxy (`tests.support.aws`). It shows indexes late and torn, answers
some reads from the past, lets requests conflict, fail and lose their answers, and throttles all keys to a
hundredth for a minute. Workers are killed, and stand still, at random. Meanwhile another process asks
whether the run is finished, and follows the changes. At the end nothing may be lost or held twice, no
item may be a dead letter before as many of its handlers have begun as attempts are allowed, the reader of
changes must have seen every page, and `is_finished` must never have been wrong or have raised. In every third
run the indexes are not late: its pages a second are compared.

    python -m benchmarks.soak_aws                          # 20 minutes
    python -m benchmarks.soak_aws --minutes 2 --seed 1
"""

import argparse
import asyncio
import json
import logging
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.stress_frontier import (
    HELD_TWICE,
    LEASE_SECONDS,
    LOST,
    MISCOUNTED,
    OVER_LIMIT,
    ROOT,
    RUN,
    SITE,
    Fates,
    Log,
    Outcome,
    Treatment,
    Violation,
    Web,
    check,
    drive,
    inspect,
    prepare,
    read_events,
    settings,
    start_process,
)
from ragcrawl_dynamo import (
    Claim,
    CrawlRun,
    DeadlineExceededError,
    DynamoDBBackend,
    DynamoDBConfig,
    Page,
    PageVersion,
    Site,
    ThrottledError,
)
from ragcrawl_dynamo._changes.change import SETTLE_SECONDS
from ragcrawl_dynamo.testing import drop_tables, local_config, run_dynamodb_local
from tests.support.aws import Lag, Limits, Settings, rough
from tests.support.aws.process import RunningAWS, run_simulated_aws

# Hosts are few enough for each to have a queue, and limited ones do not decide how long a run takes.
HOSTS, LIMITED = 200, 0.2

MAX_ATTEMPTS = 5

# A run without lag passes the same copies of the indexes, so that the two differ in nothing else.
NO_LAG = Lag(0.001, 0.001)

# Pages a second are those of the first so many hundredths of a run: its last pages wait for each other.
STEADY = 90

# Every so many rounds the indexes are not late, so that a busy machine does not decide the comparison.
EXACT_EVERY = 3

MISSED, EARLY, RAISED, UNDESERVED = "missed change", "finished early", "is_finished raised", "dead letter"

console = Console(width=110)


def soak_settings(endpoint: str, prefix: str) -> DynamoDBConfig:
    """Returns the settings of every process."""
    changes = {"frontier_max_attempts": MAX_ATTEMPTS, "frontier_retry_delay": 1.0}
    return settings(endpoint, prefix).model_copy(update=changes)


def work(endpoint: str, prefix: str, folder: str, web: Web, concurrency: int) -> None:
    """Runs a worker process, until the run is finished or the process is killed."""
    run_in_worker(Path(folder), crawl(soak_settings(endpoint, prefix), Path(folder), web, concurrency))


def run_in_worker(folder: Path, crawling: Coroutine[Any, Any, None]) -> None:
    """Runs a crawl in a worker process. If it fails, the error is noted, and the process ends with 1."""
    logging.basicConfig(level=logging.CRITICAL)
    try:
        asyncio.run(crawling)
    except Exception as error:  # what the supervisor of a real worker would see
        append(folder / "errors", f"{type(error).__name__}: {error}"[:300])
        sys.exit(1)


async def crawl(config: DynamoDBConfig, folder: Path, web: Web, concurrency: int) -> None:
    """Handles items by committing pages, and logs them."""
    log = Log(folder)
    chance = random.Random(f"{web.seed}/{os.getpid()}")  # noqa: S311 # a test load
    async with DynamoDBBackend(config) as backend:

        async def handle(claim: Claim) -> None:
            log.write("begin", claim)
            page = int(claim.item.url.rpartition("/")[2])
            try:
                await asyncio.sleep(chance.uniform(0.0, 0.05))
                if chance.random() < web.failures:
                    log.write("raised", claim)
                    raise RuntimeError("the page could not be read")
            finally:
                log.write("end", claim)
            while True:
                # A handler that does not want its item to fail for lack of capacity repeats its commit.
                try:
                    await backend.commit_page(*page_of(claim), claim=claim, discovered=web.links_of(page))
                except (ThrottledError, DeadlineExceededError):
                    continue
                except Exception:
                    log.write("raised", claim)
                    raise
                break
            log.write("committed", claim)

        worker = backend.frontier(SITE, RUN).worker(
            concurrency=concurrency, lease_seconds=LEASE_SECONDS, worker_id=f"worker-{os.getpid()}"
        )
        async with worker:
            await worker.run(handle)


def page_of(claim: Claim) -> tuple[Page, PageVersion]:
    """Returns the page of an item, whose content never changes."""
    url = claim.item.url
    text = f"# {url}\n\n" + sha256(url.encode()).hexdigest() * 20
    page = Page(page_id=claim.item.item_id, site_id=SITE, url=url, status_code=200)
    version = PageVersion(
        version_id="1",
        page_id=page.page_id,
        site_id=SITE,
        run_id=RUN,
        url=url,
        status_code=200,
        content_hash=text[-64:],
        markdown=text,
    )
    return page, version


def append(file: Path, line: str) -> None:
    """Appends a line to a file that several processes write."""
    with file.open("a") as opened:
        opened.write(line + "\n")


def watch(endpoint: str, prefix: str, folder: str) -> None:
    """Runs a process that is not killed: it asks whether the run is finished, and follows the changes."""
    logging.basicConfig(level=logging.CRITICAL)
    asyncio.run(follow(soak_settings(endpoint, prefix), Path(folder)))


async def follow(config: DynamoDBConfig, folder: Path) -> None:
    """Notes answers and changes until the file "stop" exists and all changes are read."""
    stop = folder / "stop"
    answers = folder / "answers"

    async def ask(backend: DynamoDBBackend) -> None:
        while not stop.exists():
            asked = time.time()
            try:
                says = str(await backend.frontier(SITE, RUN).is_finished())
            except Exception as error:  # that is what is looked for
                is_busy = isinstance(error, ThrottledError | DeadlineExceededError)
                says = "busy" if is_busy else f"{type(error).__name__}: {error}"[:300]
            append(answers, json.dumps({"asked": asked, "answered": time.time(), "says": says}))
            await asyncio.sleep(0.5)

    async def read(backend: DynamoDBBackend) -> None:
        cursor: str | None = None
        last_round = False
        while True:
            # A reader of a feed tries again.
            with suppress(ThrottledError, DeadlineExceededError):
                part = await backend.list_changes(SITE, cursor=cursor)
                cursor = part.cursor
                for change in part:
                    append(folder / "changes", f"{change.page.page_id} {change.page.current_version_id}")
                if part.is_end and last_round:
                    return
                if part.is_end and stop.exists():
                    # Numbers that killed workers took are given up after that.
                    await asyncio.sleep(SETTLE_SECONDS + 1)
                    last_round = True
            await asyncio.sleep(0.1)

    async with DynamoDBBackend(config) as backend:
        await asyncio.gather(ask(backend), read(backend))


@dataclass
class Round:
    """One run of the queue, from its first link to its end.

    Attributes:
        web: The site that was crawled.
        outcome: The ledger and the tables.
        answers: The answers of `is_finished`, with their times.
        seen: The version of each page, as the reader of changes knows it.
        pages: The version of each page, as the table has it.
        errors: The errors with which workers ended.
        throttled: When it began to be throttled and when that ended, if it was.
        events: The events of the simulation, by kind.
        is_exact: Whether the indexes were not late.
    """

    web: Web
    outcome: Outcome
    answers: list[dict[str, Any]]
    seen: dict[str, str]
    pages: dict[str, str | None]
    errors: list[str]
    throttled: tuple[float, float] | None
    events: dict[str, int]
    is_exact: bool = False
    figures: Counter[str] = field(default_factory=Counter)

    @property
    def pages_per_second(self) -> float:
        """The pages a second until most were done, without the time in which all was throttled."""
        events = self.outcome.events
        ends: list[float] = sorted(event["at"] for event in events if event["event"] == "committed")
        begin: float = min(event["at"] for event in events)
        ends = ends[: len(ends) * STEADY // 100]
        if self.throttled is None:
            return len(ends) / (ends[-1] - begin)
        first, last = self.throttled
        last += 10
        outside = [at for at in ends if not first <= at <= last]
        return len(outside) / (ends[-1] - begin - max(0.0, min(last, ends[-1]) - first))

    def check(self) -> None:
        """Compares the notes with the tables; returns each difference as a violation."""
        self.figures = check(self.outcome, self.web)

        def wrong(kind: str, what: str) -> None:
            self.outcome.violations.append(Violation(kind, what))

        events = self.outcome.events
        commits = Counter(event["item"] for event in events if event["event"] == "committed")
        raised = {event["item"] for event in events if event["event"] == "raised"}
        begun = Counter(event["item"] for event in events if event["event"] == "begin")
        for item_id, count in commits.items():
            if count > 1:
                wrong(HELD_TWICE, f"{self.outcome.items[item_id].url} was committed {count} times")
        for item in self.outcome.items.values():
            # Every attempt that counted has begun, and its worker was killed or stood still.
            if item.status == "failed" and item.item_id not in raised and begun[item.item_id] < MAX_ATTEMPTS:
                wrong(
                    UNDESERVED,
                    f"{item.url}: no handler failed, {begun[item.item_id]} began, {item.attempt} leases, "
                    f"{item.last_error}",
                )
            if item.status == "completed" and item.item_id not in self.pages:
                wrong(LOST, f"{item.url} is completed, and has no page")
        for page_id, version_id in self.pages.items():
            if self.seen.get(page_id) != version_id:
                wrong(MISSED, f"{page_id}: {version_id} is stored, the reader saw {self.seen.get(page_id)}")
        last_begin = max(event["at"] for event in events if event["event"] == "begin")
        for answer in self.answers:
            self.figures[f"is_finished: {answer['says']}"[:60]] += 1
            if answer["says"] == "True" and answer["answered"] < last_begin:
                early = last_begin - answer["answered"]
                wrong(EARLY, f"is_finished was true {early:.3f} s before a handler began")
            elif answer["says"] not in ("True", "False", "busy"):
                wrong(RAISED, answer["says"])


class Throttle:
    """Takes 99 % of the capacity away for some time.

    Args:
        aws: The simulation.
        usual: The settings before and after.
        begin: Seconds after the first commits of a round: workers take a while to start.
        seconds: How long the capacity is reduced.
    """

    def __init__(self, aws: RunningAWS, usual: Settings, begin: float, seconds: float) -> None:
        self.aws = aws
        self.usual = usual
        self.begin = begin
        self.seconds = seconds
        self.since: float | None = None
        self.until: float | None = None
        self._first: float | None = None

    def __call__(self, elapsed: float) -> None:
        """Begins or ends the throttling when it is due."""
        full = Limits()
        if self._first is None:
            if self.aws.events().get("TransactWriteItems"):
                self._first = elapsed
            return
        elapsed -= self._first
        if self.since is None and elapsed >= self.begin:
            scarce = replace(full, read_units=full.read_units / 100, write_units=full.write_units / 100)
            self.aws.configure(replace(self.usual, limits=scarce))
            self.since = time.time()
        elif self.since is not None and self.until is None and elapsed >= self.begin + self.seconds:
            self.aws.configure(self.usual)
            self.until = time.time()

    @property
    def span(self) -> tuple[float, float] | None:
        """Returns from when to when it throttled; None if it did not."""
        return None if self.since is None else (self.since, self.until or time.time())


def play(
    engine: str, aws: RunningAWS, web: Web, treatment: Treatment, tick: Callable[[float], None]
) -> Round:
    """Runs one round through the simulation, and reads the results from the engine itself."""
    prefix = local_config(engine).table_prefix
    direct = soak_settings(engine, prefix)
    asyncio.run(create_site_and_run(soak_settings(aws.url, prefix), web))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def start() -> ForkServerProcess:
            return start_process(work, aws.url, prefix, name, web, treatment.concurrency)

        watcher = start_process(watch, aws.url, prefix, name)
        fates = drive(start, treatment, web.seed, tick)
        (folder / "stop").touch()
        watcher.join(120)
        assert watcher.exitcode == 0, "the reader of changes did not end"  # noqa: S101 # its work is the proof
        events = read_events(folder)
        answers = [json.loads(line) for line in lines(folder / "answers")]
        seen = dict(line.split(" ") for line in lines(folder / "changes"))
        errors = lines(folder / "errors")
    outcome, pages = asyncio.run(look(direct, fates, events))
    asyncio.run(drop_tables(soak_settings(aws.url, prefix)))
    span = tick.span if isinstance(tick, Throttle) else None
    return Round(web, outcome, answers, seen, pages, errors, span, aws.events())


def lines(file: Path) -> list[str]:
    """Returns the lines of a file, if there is one."""
    return file.read_text().splitlines() if file.exists() else []


async def create_site_and_run(config: DynamoDBConfig, web: Web) -> None:
    """Creates the site, the run, the limits of hosts and the first page."""
    async with DynamoDBBackend(config) as backend:
        await backend.save_site(Site(site_id=SITE, name="A made-up site", seeds=[web.url(0)]))
        await backend.save_run(CrawlRun(run_id=RUN, site_id=SITE))
    await prepare(config, web)


async def look(
    config: DynamoDBConfig, fates: Fates, events: list[dict[str, Any]]
) -> tuple[Outcome, dict[str, str | None]]:
    """Reads the tables after the crawl, and returns the outcome and the current version of each page."""
    stats, recounted, finished, items = await inspect(config)
    async with DynamoDBBackend(config) as backend:
        pages = {page.page_id: page.current_version_id async for page in backend.iter_pages(SITE)}
    return Outcome(fates, stats, recounted, finished, items, events), pages


def show(rounds: list[Round], seed: int) -> bool:
    """Prints what happened; returns whether nothing was wrong."""
    table = Table("round", *(f"{i + 1}{', no lag' * played.is_exact}" for i, played in enumerate(rounds)))

    def row(name: str, value: Callable[[Round], float]) -> None:
        table.add_row(name, *(f"{value(played):,}" for played in rounds))

    row("seconds", lambda played: round(played.outcome.fates.seconds))
    row("pages a second", lambda played: round(played.pages_per_second, 1))
    row("workers killed", lambda played: len(played.outcome.fates.deaths))
    row("workers frozen", lambda played: sum(map(len, played.outcome.fates.freezes.values())))
    row("workers that ended with an error", lambda played: played.outcome.fates.errors)
    for name in dict.fromkeys(name for played in rounds for name in played.figures):
        row(name, lambda played, name=name: played.figures[name])  # type: ignore[misc]
    for name in ("ThrottlingError", "TransactionConflict", "stale reads", "errors_after", "cuts_after"):
        row(name, lambda played, name=name: played.events.get(name, 0))  # type: ignore[misc]
    kinds = (LOST, HELD_TWICE, OVER_LIMIT, MISCOUNTED, MISSED, EARLY, RAISED, UNDESERVED)
    for kind in kinds:
        row(kind, lambda played, kind=kind: sum(it.kind == kind for it in played.outcome.violations))  # type: ignore[misc]
    console.print(f"seed {seed}", table)
    for i, played in enumerate(rounds, 1):
        for violation in played.outcome.violations[:20]:
            console.print(f"round {i}: {violation.kind}: {violation.what}", soft_wrap=True)
        for error, count in Counter(played.errors).most_common(5):
            console.print(f"round {i}: {count} workers ended with {error}", soft_wrap=True)
    return not any(played.outcome.violations for played in rounds)


def soak(engine: str, args: argparse.Namespace) -> bool:
    """Runs rounds until the time is over."""
    seconds = args.minutes * 60
    treatment = Treatment(args.processes, args.concurrency, args.kill_every, args.limit, args.freeze_every)
    late = replace(rough(args.seed, longest_lag=args.lag), limits=Limits())
    started = time.time()
    rounds: list[Round] = []
    while len(rounds) < 2 or time.time() - started < seconds:
        number = len(rounds)
        is_exact = number % EXACT_EVERY == 0 and not args.short
        usual = replace(late, index_lag=NO_LAG, torn_moves=False) if is_exact else late
        web = Web(args.links, HOSTS, LIMITED, args.failures, args.seed + number)
        with run_simulated_aws(engine, usual) as aws:
            # Once, for a minute, or for a part of a short soak.
            throttle = Throttle(aws, usual, min(20.0, seconds / 10), min(60.0, seconds / 6))
            is_throttled = number == 1 or args.short
            played = play(engine, aws, web, treatment, throttle if is_throttled else lambda elapsed: None)
        played.is_exact = is_exact
        played.check()
        rounds.append(played)
        if args.short:
            return show(rounds, args.seed)
        console.print(
            f"round {number + 1}: {played.outcome.fates.seconds:.0f} s, {played.pages_per_second:.1f} "
            f"pages/s, {len(played.outcome.violations)} violations"
        )
    is_right = show(rounds, args.seed)
    without, with_lag = [
        mean(played.pages_per_second for played in rounds if played.is_exact == is_exact)
        for is_exact in (True, False)
    ]
    ratio = with_lag / without
    console.print(f"pages/s with lag against without: {ratio:.2f} (must be 0.7 at least)")
    return is_right and ratio >= 0.7


def main() -> None:
    """Runs the soak and prints its results; fails if anything is wrong."""
    parser = argparse.ArgumentParser(description="Soak the queue and the change feed on a simulated AWS.")
    parser.add_argument("--minutes", type=float, default=20.0, help="rounds begin for so long")
    parser.add_argument("--links", type=int, default=4000, help="pages of a round")
    parser.add_argument("--lag", type=float, default=10.0, help="the longest lag of an index, in seconds")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--kill-every", type=float, default=8.0)
    parser.add_argument("--freeze-every", type=float, default=11.0)
    parser.add_argument("--failures", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--limit", type=float, default=900.0, help="seconds after which a round is given up")
    parser.add_argument("--short", action="store_true", help="one late round and no comparison, for a test")
    args = parser.parse_args()
    with run_dynamodb_local(ROOT / ".dynamodb-local") as engine:
        is_right = soak(engine, args)
    if not is_right:
        sys.exit(1)


if __name__ == "__main__":
    main()
