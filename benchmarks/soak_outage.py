"""Crawls through outages; a ledger proves that nothing is lost, stored twice or fetched twice.

Worker processes crawl one made-up site on DynamoDB Local, through a proxy. At random, for up to 20 seconds at
a time, the proxy closes its port and cuts all connections, or the engine's process stands still (SIGSTOP), so
that what was sent to it is answered late or never. The engine keeps its data, in memory. Once, DynamoDB
throttles 19 of 20 requests for 30 seconds. The credentials of the workers, which they read from a file,
expire again and again: the proxy then refuses the old key. At the end every page must be stored once, every
worker must have ended by itself, and no page may be fetched a second time before the lease of the first fetch
has ended.

    python -m benchmarks.soak_outage                          # 3,000 links, a few minutes
    python -m benchmarks.soak_outage --links 400 --seed 1
    python -m benchmarks.soak_outage --expire-every 0         # with static credentials
"""

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from aiohttp import web
from rich.console import Console
from rich.table import Table

from benchmarks.soak_aws import create_site_and_run, lines, page_of, run_in_worker
from benchmarks.stress_frontier import ROOT, RUN, SITE, Log, Web, read_events, start_process
from ragcrawl_dynamo import Claim, DynamoDBBackend, DynamoDBConfig
from ragcrawl_dynamo.testing import drop_tables, local_config, run_dynamodb_local
from tests.support.faults import Faults, Port, error_answer, served

HOSTS = 40
LEASE_SECONDS = 60.0
LONGEST_OUTAGE, THROTTLED_SECONDS = 20.0, 30.0
# Seconds between two outages. Leases are renewed meanwhile.
SHORTEST_CALM, LONGEST_CALM = 6.0, 15.0
THROTTLED_SHARE = 0.95

REFUSED, HANGING, THROTTLED = "connections refused", "engine stands still", "throttled"

console = Console(width=110)


def soak_settings(endpoint: str, prefix: str, *, is_static: bool = True) -> DynamoDBConfig:
    """Returns the settings of every process: the package's defaults, which must be enough for an outage."""
    keys: dict[str, Any] = {} if is_static else {"access_key_id": None, "secret_access_key": None}
    return local_config(
        endpoint,
        table_prefix=prefix,
        conditional_batches="auto",
        retry_attempts=None,
        max_connections=20,
        **keys,
    )


def work(url: str, prefix: str, folder: str, pages: Web, concurrency: int) -> None:
    """Runs a worker process, until the run is finished. It ends with 1 if its worker gave up."""
    credentials = Path(folder) / "credentials"
    if credentials.exists():
        os.environ["AWS_SHARED_CREDENTIALS_FILE"] = str(credentials)
    config = soak_settings(url, prefix, is_static=not credentials.exists())
    run_in_worker(Path(folder), crawl(config, Path(folder), pages, concurrency))


async def crawl(config: DynamoDBConfig, folder: Path, pages: Web, concurrency: int) -> None:
    """Fetches pages and commits them, and logs both."""
    log = Log(folder)
    chance = random.Random(f"{pages.seed}/{os.getpid()}")  # noqa: S311 # a test load
    async with DynamoDBBackend(config) as backend:

        async def handle(claim: Claim) -> None:
            log.write("begin", claim)
            try:
                await asyncio.sleep(chance.uniform(0.1, 0.5))
                links = pages.links_of(int(claim.item.url.rpartition("/")[2]))
                await backend.commit_page(*page_of(claim), claim=claim, discovered=links)
                log.write("committed", claim)
            finally:
                # Says how long the lease lasted in the end.
                log.write("end", claim)

        worker = backend.frontier(SITE, RUN).worker(concurrency=concurrency, lease_seconds=LEASE_SECONDS)
        async with worker:
            await worker.run(handle)


class Unsteady(Faults):
    """A proxy that forwards requests, or refuses them as DynamoDB does.

    Attributes:
        throttled_share: The share of requests that are throttled.
        key: The access key that is valid; None for any.
    """

    def __init__(self, endpoint: str, seed: int) -> None:
        super().__init__(endpoint, 0.0, seed)
        self.throttled_share = 0.0
        self.key: str | None = None

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers one request of a worker."""
        if self.key is not None and f"Credential={self.key}/" not in request.headers.get("Authorization", ""):
            self.injected["requests with expired tokens"] += 1
            return error_answer(400, "ExpiredTokenException")
        if self._chance.random() < self.throttled_share:
            self.injected["throttled requests"] += 1
            return error_answer(400, "ThrottlingException")
        return await super().handle(request)


@dataclass
class Trouble:
    """The outages that the workers go through, until `is_over` is set.

    Attributes:
        proxy: The proxy.
        engine: The number of the engine's process.
        folder: The folder from which the workers read their credentials.
        expire_every: Seconds between two access keys; 0 for static ones.
        seed: The seed of all random numbers.
        outages: How many there were of each kind.
        seconds: How long the outages lasted, by kind.
        keys: How many access keys there were.
    """

    proxy: Unsteady
    engine: int
    folder: Path
    expire_every: float
    seed: int
    outages: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    keys: int = 0
    url: str = ""
    is_ready: threading.Event = field(default_factory=threading.Event)
    is_over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Runs the proxy in a thread of its own, and causes outages."""
        asyncio.run(self._run())

    async def _run(self) -> None:
        async with served(self.proxy) as port:
            self.url = port.url
            if self.expire_every:
                self._renew_key()
            self.is_ready.set()
            tasks = [asyncio.create_task(self._break(port)), asyncio.create_task(self._expire())]
            try:
                while not self.is_over.is_set():  # another thread sets it
                    await asyncio.sleep(0.1)
                    for task in tasks:
                        if task.done():
                            await task
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _break(self, port: Port) -> None:
        """Causes one outage after the other, and ends each one."""
        chance = random.Random(self.seed)  # noqa: S311 # a test load
        kinds = [REFUSED, HANGING, THROTTLED]
        while True:
            await asyncio.sleep(chance.uniform(SHORTEST_CALM, LONGEST_CALM))
            kind = kinds.pop(0) if kinds else chance.choice([REFUSED, HANGING])
            seconds = THROTTLED_SECONDS if kind == THROTTLED else chance.uniform(1.0, LONGEST_OUTAGE)
            self.outages[kind] += 1
            begun = time.monotonic()
            try:
                if kind == REFUSED:
                    await port.close()
                elif kind == HANGING:
                    os.kill(self.engine, signal.SIGSTOP)
                else:
                    self.proxy.throttled_share = THROTTLED_SHARE
                await asyncio.sleep(seconds)
            finally:
                if kind == REFUSED:
                    await port.open()
                os.kill(self.engine, signal.SIGCONT)
                self.proxy.throttled_share = 0.0
                self.seconds[kind] += round(time.monotonic() - begun)

    async def _expire(self) -> None:
        while self.expire_every:
            await asyncio.sleep(self.expire_every)
            self._renew_key()

    def _renew_key(self) -> None:
        """Writes another access key for the workers; the one before is not valid any more."""
        self.keys += 1
        key = f"KEY{self.keys}"
        new = self.folder / "new"
        new.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = secret\n")
        new.replace(self.folder / "credentials")
        self.proxy.key = key


@contextmanager
def trouble(engine: str, folder: Path, expire_every: float, seed: int) -> Iterator[Trouble]:
    """Causes outages until the context ends."""
    made = Trouble(Unsteady(engine, seed), engine_process(), folder, expire_every, seed)
    thread = threading.Thread(target=made.run)
    thread.start()
    try:
        assert made.is_ready.wait(30), "the proxy did not start"  # noqa: S101 # nothing works without it
        yield made
    finally:
        made.is_over.set()
        thread.join()


def engine_process() -> int:
    """Returns the number of the Java process that this process has started."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    (number,) = [
        int(child) for child in children if Path(f"/proc/{child}/comm").read_text().strip() == "java"
    ]
    return number


@dataclass
class Ledger:
    """Compares what the workers noted with what is stored.

    Attributes:
        events: The events that the workers noted.
        errors: The errors with which workers ended.
        exit_codes: The exit codes of the processes.
        statuses: The statuses of the items, by URL.
        versions: How many versions of each page are stored, by URL.
        crawled: How many pages the run has counted.
    """

    events: list[dict[str, Any]]
    errors: list[str]
    exit_codes: list[int | None]
    statuses: dict[str, str] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    crawled: int = 0
    ended_leases: int = 0

    def violations(self, pages: Web) -> dict[str, list[str]]:
        """Compares the notes with the tables."""
        wanted = {pages.url(page) for page in range(pages.links)}
        wrong: dict[str, list[str]] = {
            "lost": sorted(
                url for url in wanted if self.statuses.get(url) != "completed" or url not in self.versions
            ),
            "doubled": sorted(url for url, count in self.versions.items() if count != 1),
            "fetched twice": self._fetched_twice(),
            # A worker that gave up has noted why.
            "workers that gave up": [
                *self.errors,
                *(f"exit code {code}" for code in self.exit_codes if code not in (0, 1)),
            ],
        }
        if self.crawled != pages.links:
            kind = "lost" if self.crawled < pages.links else "doubled"
            wrong[kind].append(f"the run has counted {self.crawled} pages of {pages.links}")
        committed = Counter(event["item"] for event in self.events if event["event"] == "committed")
        wrong["doubled"] += [
            f"{item} was committed {count} times" for item, count in committed.items() if count > 1
        ]
        return wrong

    def _fetched_twice(self) -> list[str]:
        """Returns the items that were fetched again while the lease of a fetch before ran."""
        wrong: list[str] = []
        begun: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        lasts: dict[str, float] = {}
        for event in sorted(self.events, key=lambda event: event["at"]):
            lasts[event["token"]] = max(lasts.get(event["token"], 0.0), event["expires_at"])
            if event["event"] == "begin":
                begun[event["item"]].append(event)
        for item, begins in begun.items():
            for earlier, later in pairwise(begins):
                if later["started_at"] < lasts[earlier["token"]]:
                    wrong.append(f"{item} again {later['at'] - earlier['at']:.1f} s later")
                else:
                    self.ended_leases += 1
        return wrong


async def look(config: DynamoDBConfig, ledger: Ledger) -> None:
    """Reads the tables, from the engine itself."""
    async with DynamoDBBackend(config) as backend:
        cursor = None
        while True:
            part = await backend.get_frontier_items(RUN, limit=1000, cursor=cursor)
            ledger.statuses |= {item.url: item.status for item in part}
            if (cursor := part.cursor) is None:
                break
        ledger.versions = {page.url: page.version_count async for page in backend.iter_pages(SITE)}
        ledger.crawled = (await backend.complete_run(SITE, RUN)).stats.pages_crawled


def soak(engine: str, args: argparse.Namespace) -> bool:
    """Crawls the site, prints what happened, and returns whether nothing was wrong."""
    pages = Web(args.links, HOSTS, 0.0, 0.0, args.seed)
    direct = soak_settings(engine, local_config(engine).table_prefix)
    asyncio.run(create_site_and_run(direct, pages))
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with trouble(engine, folder, args.expire_every, args.seed) as made:
            workers = [
                start_process(work, made.url, direct.table_prefix, name, pages, args.concurrency)
                for _ in range(args.processes)
            ]
            for worker in workers:
                worker.join(max(1.0, started + args.limit - time.monotonic()))
            seconds = time.monotonic() - started
            codes = [worker.exitcode for worker in workers]
            for worker in workers:
                worker.kill()
        ledger = Ledger(read_events(folder), lines(folder / "errors"), codes)
    asyncio.run(look(direct, ledger))
    asyncio.run(drop_tables(direct))
    return show(ledger, made, pages, seconds)


def show(ledger: Ledger, made: Trouble, pages: Web, seconds: float) -> bool:
    """Prints what happened; returns whether nothing was wrong."""
    wrong = ledger.violations(pages)
    table = Table("what", "how many", title=f"seed {pages.seed}")
    figures: dict[str, int] = {
        "links": pages.links,
        "seconds": round(seconds),
        **{f"times: {kind}": count for kind, count in made.outages.items()},
        **{f"seconds: {kind}": count for kind, count in made.seconds.items()},
        "access keys": made.keys,
        **made.proxy.injected,
        "fetches": sum(event["event"] == "begin" for event in ledger.events),
        "fetches after the lease of another one had ended": ledger.ended_leases,
        **{kind: len(what) for kind, what in wrong.items()},
    }
    for name, figure in figures.items():
        table.add_row(name, f"{figure:,}")
    console.print(table)
    for kind, what in wrong.items():
        for one in what[:10]:
            console.print(f"{kind}: {one}", soft_wrap=True)
    return not any(wrong.values())


def main() -> None:
    """Runs the soak and prints its results; fails if anything is wrong."""
    parser = argparse.ArgumentParser(description="Soak a crawl in outages.")
    parser.add_argument("--links", type=int, default=3000)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=6)
    parser.add_argument("--expire-every", type=float, default=20.0, help="seconds; 0 for static credentials")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--limit", type=float, default=1200.0, help="seconds after which it is given up")
    args = parser.parse_args()
    with run_dynamodb_local(ROOT / ".dynamodb-local") as engine:
        is_right = soak(engine, args)
    if not is_right:
        sys.exit(1)


if __name__ == "__main__":
    main()
