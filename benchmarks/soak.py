"""Calls all methods while a fifth of all requests is hit by faults, and compares the results with a ledger.

Every request goes through a proxy that drops connections before and after the engine applied the request,
loses and damages answers, throttles, and leaves parts of batches undone. Each task keeps its own ledger.
After an acknowledged write it allows one state of the record. After a failure that leaves open whether the
write was applied, it allows two. All reads during the soak, and a last comparison without faults, must agree
with it.

    python -m benchmarks.soak                              # 100,000 operations, some ten minutes
    python -m benchmarks.soak --operations 3000 --seed 1
"""

import argparse
import asyncio
import logging
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ragcrawl_dynamo import (
    ChangeKind,
    Claim,
    CommitOutcome,
    ConflictError,
    CrawlRun,
    DeadlineExceededError,
    DynamoDBBackend,
    EndpointUnreachableError,
    FrontierItem,
    LeaseLostError,
    Page,
    PageVersion,
    PartialBatchError,
    RagcrawlDynamoError,
    RunStatus,
    ServerFaultError,
    ServiceError,
    Site,
    ThrottledError,
)
from ragcrawl_dynamo._changes.change import SETTLE_SECONDS
from ragcrawl_dynamo.testing import drop_tables, local_config, run_dynamodb_local
from tests.support.faults import Faults, faulty

ROOT = Path(__file__).parent.parent
RUN, SHARED = "soak", "shared"

# The number of records of each kind that a task has.
RECORDS = 6
LEASE_SECONDS = 8.0

# The errors in which transient faults may end, once the retries are used up.
PASSING = (DeadlineExceededError, EndpointUnreachableError, ServerFaultError, ThrottledError)
# The errors that leave open whether a write was applied.
UNCLEAR = (ServiceError, PartialBatchError, asyncio.CancelledError)

console = Console(width=110)


@dataclass
class Report:
    """The findings of a soak.

    Attributes:
        operations: The number of operations, by method.
        failures: The number of errors that methods raised, by type.
        lost: Writes that were acknowledged and are not there, or are not read.
        doubled: Operations that happened more often than they were asked for.
        misreported: Results that cannot be true; also errors of types that no method may raise.
    """

    operations: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    misreported: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether nothing was lost, doubled or misreported."""
        return not (self.lost or self.doubled or self.misreported)


@dataclass
class Cell:
    """The states that one record may have: one where the last write was acknowledged."""

    allowed: list[Any] = field(default_factory=lambda: [None])

    def wrote(self, value: Any) -> None:
        """Notes an acknowledged write."""
        self.allowed = [value]

    def maybe_wrote(self, value: Any) -> None:
        """Notes a failed write, which may have been applied."""
        self.allowed.append(value)


@dataclass
class Sum:
    """A counter to which many add: the acknowledged amount, and an amount that may have been added too."""

    acknowledged: int = 0
    open: int = 0


@dataclass
class Shared:
    """The state that all tasks share.

    Attributes:
        report: The findings.
        crawled: A counter of the shared run's stats.
        added: Links that were acknowledged as added, or known.
        completed: By link, how often a completion was acknowledged, or may have been applied.
        committed: By page, the states that it may have: version and number of versions.
    """

    report: Report = field(default_factory=Report)
    crawled: Sum = field(default_factory=Sum)
    added: set[str] = field(default_factory=set)
    completed: Counter[str] = field(default_factory=Counter)
    maybe_completed: set[str] = field(default_factory=set)
    committed: dict[str, Cell] = field(default_factory=dict)


class Tester:
    """One task, which does operations on its own records, and on the shared queue and run."""

    def __init__(self, backend: DynamoDBBackend, shared: Shared, number: int, seed: int) -> None:
        self.backend = backend
        self.shared = shared
        self.report = shared.report
        self.name = f"t{number}"
        self.chance = random.Random(f"{seed}/{number}")  # noqa: S311 # reproducible on purpose
        self.count = 0
        self.pages = {f"{self.name}-{i}": Cell() for i in range(RECORDS)}
        self.versions: dict[str, Cell] = {}
        self.items = {f"i{i}": Cell() for i in range(RECORDS)}
        self.sites = Cell()
        self.run = Cell()
        self.claims: list[Claim] = []
        shared.committed |= {f"{self.name}-c{i}": Cell([(None, 0)]) for i in range(RECORDS)}
        self.methods: list[Callable[[], Awaitable[None]]] = [
            *[self.save_page] * 4,
            self.save_pages_bulk,
            *[self.get_page] * 4,
            self.get_page_by_url,
            self.list_pages,
            *[self.save_version] * 2,
            self.get_version,
            *[self.commit_page] * 5,
            self.get_current_version,
            self.save_site,
            self.save_run,
            *[self.add_run_stats] * 2,
            *[self.save_item] * 2,
            self.update_item,
            self.list_items,
            *[self.add_links] * 2,
            *[self.claim_links] * 4,
            self.renew,
            *[self.end_claim] * 4,
            self.look_at_queue,
            self.read_changes,
        ]

    async def work(self, operations: int) -> None:
        """Does operations, chosen at random."""
        for _ in range(operations):
            method = self.chance.choice(self.methods)
            self.count += 1
            self.report.operations[method.__name__] += 1
            try:
                await self._do(method)
            except (*PASSING, PartialBatchError, ConflictError, LeaseLostError) as error:
                self.report.failures[type(error).__name__] += 1
            except RagcrawlDynamoError as error:
                self.report.misreported.append(f"{method.__name__}: {error!r}")

    async def _do(self, method: Callable[[], Awaitable[None]]) -> None:
        await method()

    async def _write(self, pairs: list[tuple[Cell, Any]], call: Awaitable[Any]) -> Any:
        """Writes values, and notes the result in their cells."""
        try:
            result = await call
        except UNCLEAR:
            for cell, value in pairs:
                cell.maybe_wrote(value)
            raise
        for cell, value in pairs:
            cell.wrote(value)
        return result

    def _expect(self, what: str, cell: Cell, value: Any) -> None:
        if value not in cell.allowed:
            self.report.lost.append(f"{what} is {value!r}, not of {cell.allowed!r}")

    def _page(self, page_id: str) -> Page:
        url = f"https://{self.name}.example/{page_id}"
        return Page(page_id=page_id, site_id=self.name, url=url, depth=self.count, status_code=200)

    def _version(self, page_id: str, site_id: str) -> PageVersion:
        name = f"{self.count}"
        return PageVersion(
            version_id=name,
            page_id=page_id,
            site_id=site_id,
            run_id=RUN,
            markdown=f"# {name}\n\n" + self.chance.randbytes(self.chance.choice((10, 10, 3000))).hex(),
            content_hash=f"{page_id} {name}",
            url=f"https://{site_id}.example/{page_id}",
            status_code=200,
        )

    async def save_page(self) -> None:
        """Saves a page."""
        page = self._page(self.chance.choice(list(self.pages)))
        await self._write([(self.pages[page.page_id], page.depth)], self.backend.save_page(page))

    async def save_pages_bulk(self) -> None:
        """Saves all of the task's pages."""
        pages = [self._page(page_id) for page_id in self.pages]
        written = [(self.pages[page.page_id], page.depth) for page in pages]
        saved = await self._write(written, self.backend.save_pages_bulk(pages))
        if saved != len(pages):
            self.report.misreported.append(f"save_pages_bulk says {saved} of {len(pages)}")

    async def get_page(self) -> None:
        """Reads a page by key."""
        page_id = self.chance.choice(list(self.pages))
        page = await self.backend.get_page(self.name, page_id)
        self._expect(page_id, self.pages[page_id], None if page is None else page.depth)

    async def get_page_by_url(self) -> None:
        """Reads a page by URL."""
        page_id = self.chance.choice(list(self.pages))
        page = await self.backend.get_page_by_url(self.name, f"https://{self.name}.example/{page_id}")
        self._expect(page_id, self.pages[page_id], None if page is None else page.depth)

    async def list_pages(self) -> None:
        """Reads all of the task's pages in slices."""
        depths: dict[str, int] = {}
        cursor = None
        while True:
            part = await self.backend.list_pages(self.name, limit=4, cursor=cursor)
            depths |= {page.page_id: page.depth for page in part}
            if (cursor := part.cursor) is None:
                break
        for page_id, cell in self.pages.items():
            self._expect(f"{page_id} in list_pages", cell, depths.get(page_id))

    async def save_version(self) -> None:
        """Saves a version of a page that has many."""
        version = self._version(f"{self.name}-v", self.name)
        cell = self.versions.setdefault(version.version_id, Cell())
        call = self.backend.save_version(version, keep_unchanged=True)
        await self._write([(cell, version.markdown)], call)

    async def get_version(self) -> None:
        """Reads a version of that page."""
        if not self.versions:
            return
        name = self.chance.choice(list(self.versions))
        version = await self.backend.get_version(self.name, f"{self.name}-v", name)
        self._expect(f"version {name}", self.versions[name], None if version is None else version.markdown)

    async def commit_page(self) -> None:
        """Commits a page with new content."""
        page_id = f"{self.name}-c{self.chance.randrange(RECORDS)}"
        version = self._version(page_id, SHARED)
        page = Page(page_id=page_id, site_id=SHARED, url=version.url, status_code=200)
        cell = self.shared.committed[page_id]
        before = list(cell.allowed)
        after = [(version.version_id, count + 1) for _, count in before]
        try:
            result = await self.backend.commit_page(page, version)
        except UNCLEAR:
            cell.allowed += after
            raise
        cell.allowed = after
        expected = {CommitOutcome.CHANGED if count else CommitOutcome.CREATED for _, count in before}
        if result.outcome not in expected or result.version_id != version.version_id:
            self.report.misreported.append(f"commit of {page_id} was {result}, not of {expected}")

    async def get_current_version(self) -> None:
        """Reads a committed version."""
        page_id = f"{self.name}-c{self.chance.randrange(RECORDS)}"
        version = await self.backend.get_current_version(SHARED, page_id)
        version_id = None if version is None else version.version_id
        if version_id not in (allowed := [name for name, _ in self.shared.committed[page_id].allowed]):
            self.report.lost.append(f"current version of {page_id} is {version_id}, not of {allowed}")

    async def save_site(self) -> None:
        """Saves a site, and reads it."""
        site = Site(site_id=self.name, name=f"{self.count}", seeds=[])
        await self._write([(self.sites, site.name)], self.backend.save_site(site))
        saved = await self.backend.get_site(self.name)
        self._expect("site", self.sites, None if saved is None else saved.name)

    async def save_run(self) -> None:
        """Saves a run, and reads it."""
        run = CrawlRun(run_id=f"run {self.name}", site_id=self.name, frontier_size=self.count)
        await self._write([(self.run, run.frontier_size)], self.backend.save_run(run))
        saved = await self.backend.get_run(self.name, run.run_id)
        self._expect("run", self.run, None if saved is None else saved.frontier_size)

    async def add_run_stats(self) -> None:
        """Adds to the stats of the run that all share."""
        amount = self.chance.randrange(1, 10)
        try:
            await self.backend.add_run_stats(SHARED, RUN, pages_crawled=amount)
        except UNCLEAR:
            self.shared.crawled.open += amount
            raise
        self.shared.crawled.acknowledged += amount

    async def save_item(self) -> None:
        """Saves a frontier item as a record."""
        item_id = self.chance.choice(list(self.items))
        url = f"https://{self.name}.example/{item_id}"
        item = FrontierItem(
            item_id=item_id,
            run_id=self.name,
            site_id=self.name,
            url=url,
            normalized_url=url,
            url_hash=item_id,
            domain=f"{self.name}.example",
        )
        await self._write([(self.items[item_id], "pending")], self.backend.save_frontier_item(item))

    async def update_item(self) -> None:
        """Changes the status of a saved frontier item."""
        saved = [item_id for item_id, cell in self.items.items() if None not in cell.allowed]
        if not saved:
            return
        item_id, status = self.chance.choice(saved), self.chance.choice(("completed", "failed", "skipped"))
        call = self.backend.update_frontier_status(self.name, item_id, status)
        await self._write([(self.items[item_id], status)], call)

    async def list_items(self) -> None:
        """Reads all of the task's items."""
        statuses = {
            item.item_id: item.status.value for item in await self.backend.get_frontier_items(self.name)
        }
        for item_id, cell in self.items.items():
            self._expect(f"item {item_id}", cell, statuses.get(item_id))

    async def add_links(self) -> None:
        """Adds links to the queue that all share."""
        links = [f"https://h{i % 4}.example/{self.name}/{self.count}/{i}" for i in range(3)]
        results = await self.backend.frontier(SHARED, RUN).add(links)
        self.shared.added |= {result.url for result in results}

    async def claim_links(self) -> None:
        """Claims links, of this task and of others."""
        self.claims += await self.backend.frontier(SHARED, RUN).claim(2, lease_seconds=LEASE_SECONDS)

    async def renew(self) -> None:
        """Renews the task's leases."""
        if self.claims:
            await self.backend.frontier(SHARED, RUN).renew(self.claims, LEASE_SECONDS)

    async def end_claim(self) -> None:
        """Ends a lease in one of the possible ways."""
        if not self.claims:
            return
        frontier, claim = self.backend.frontier(SHARED, RUN), self.claims.pop()
        url = claim.item.url
        kind = self.chance.random()
        if kind < 0.1:
            await frontier.release([claim])
        elif kind < 0.2:
            await frontier.fail(claim, "injected", retry_in=0.1)
        else:
            try:
                await frontier.complete([claim])
            except (*UNCLEAR, LeaseLostError):
                self.shared.maybe_completed.add(url)
                raise
            self.shared.completed[url] += 1
            if self.shared.completed[url] > 1:
                self.report.doubled.append(f"{url} was completed twice")

    async def look_at_queue(self) -> None:
        """Asks for the counts, and whether the run is finished."""
        frontier = self.backend.frontier(SHARED, RUN)
        await frontier.stats()
        if self.claims and not self.claims[-1].ended and await frontier.is_finished():
            self.report.misreported.append("is_finished, though a lease is held")

    async def read_changes(self) -> None:
        """Reads changes as a consumer does."""
        async for _ in self.backend.iter_changes(SHARED, self.name):
            pass


async def soak(endpoint: str, operations: int, tasks: int, share: float, seed: int) -> tuple[Report, Faults]:
    """Does all operations through the proxy, and then looks at the tables without it."""
    faults = Faults(endpoint, 0.0, seed)
    shared = Shared()
    async with faulty(faults) as proxy:
        config = local_config(
            proxy,
            conditional_batches="partiql",
            read_timeout=1.0,
            call_timeout=8.0,
            # So few that some operations fail, and their callers have to know.
            retry_attempts=3,
            retry_base_delay=0.01,
            retry_max_delay=0.2,
            frontier_retry_delay=0.1,
            frontier_max_attempts=1000,
        )
        async with DynamoDBBackend(config) as backend:
            await backend.save_run(CrawlRun(run_id=RUN, site_id=SHARED, status=RunStatus.RUNNING))
            cursor = await backend.get_change_cursor(SHARED)
            testers = [Tester(backend, shared, i, seed) for i in range(tasks)]
            faults.share = share
            await asyncio.gather(*(tester.work(-(-operations // tasks)) for tester in testers))
            faults.share = 0.0
    direct = config.model_copy(update={"endpoint_url": endpoint, "read_timeout": 10.0, "call_timeout": 60.0})
    async with DynamoDBBackend(direct) as backend:
        await look(backend, shared, testers, str(cursor))
    await drop_tables(direct)
    return shared.report, faults


async def look(backend: DynamoDBBackend, shared: Shared, testers: list[Tester], cursor: str) -> None:
    """Compares the tables with the ledgers."""
    report = shared.report
    for tester in testers:
        tester.backend = backend
        for check in (tester.list_pages, tester.list_items):
            await check()
        for name, cell in tester.versions.items():
            version = await backend.get_version(tester.name, f"{tester.name}-v", name)
            tester._expect(f"version {name}", cell, None if version is None else version.markdown)
    pages = {page.page_id: page async for page in backend.iter_pages(SHARED)}
    for page_id, cell in shared.committed.items():
        page = pages.get(page_id)
        state = (None, 0) if page is None else (page.current_version_id, page.version_count)
        if state not in cell.allowed:
            least, most = min(count for _, count in cell.allowed), max(count for _, count in cell.allowed)
            where = report.doubled if state[1] > most else report.lost
            where.append(f"commits of {page_id}: {state}, not of {least} to {most}: {cell.allowed}")
        kept = len(await backend.list_versions(SHARED, page_id, limit=1000, include_content=False))
        if kept != state[1]:
            report.doubled.append(f"{page_id} has {kept} versions, and counts {state[1]}")
    run = await backend.get_run(SHARED, RUN)
    crawled = shared.crawled
    total = 0 if run is None else run.stats.pages_crawled
    if total < crawled.acknowledged:
        report.lost.append(f"stats are {total}, {crawled.acknowledged} were acknowledged")
    if total > crawled.acknowledged + crawled.open:
        report.doubled.append(f"stats are {total}, at most {crawled.acknowledged + crawled.open} were added")
    await look_at_links(backend, shared)
    await look_at_changes(backend, pages, cursor, report)


async def look_at_links(backend: DynamoDBBackend, shared: Shared) -> None:
    """Compares the queue with the ledger, and crawls the remaining links."""
    report = shared.report
    frontier = backend.frontier(SHARED, RUN)
    items: dict[str, FrontierItem] = {}
    slice_cursor = None
    while True:
        part = await backend.get_frontier_items(RUN, limit=5000, cursor=slice_cursor)
        items |= {item.url: item for item in part}
        if (slice_cursor := part.cursor) is None:
            break
    report.lost += [f"{url} was added and is not there" for url in shared.added - items.keys()]
    for url, item in items.items():
        is_completed = item.status == "completed"
        if url in shared.completed and not is_completed:
            report.lost.append(f"{url} was completed and is {item.status}")
        if is_completed and url not in shared.completed and url not in shared.maybe_completed:
            report.misreported.append(f"{url} is completed, though nobody did it")
    while not await frontier.is_finished():
        claims = await frontier.claim(50, wait_seconds=5)
        doubled = [claim.item.url for claim in claims if claim.item.url in shared.completed]
        report.doubled += [f"{url} was completed and came again" for url in doubled]
        await frontier.complete(claims)
    stats = await frontier.stats()
    if stats.completed != len(items):
        report.lost.append(f"{stats.completed} of {len(items)} links were completed in the end")


async def look_at_changes(
    backend: DynamoDBBackend, pages: dict[str, Page], cursor: str, report: Report
) -> None:
    """Compares the changes that a reader gets with the pages."""
    # Commits that failed are not waited for any longer then.
    await asyncio.sleep(SETTLE_SECONDS)
    changed: dict[str, str | None] = {}
    part = await backend.list_changes(SHARED, cursor=cursor)
    while True:
        for change in part:
            assert change.kind is not ChangeKind.DELETED  # noqa: S101 # nobody deletes here
            changed[change.page.page_id] = change.page.current_version_id
        if part.is_end:
            break
        part = await backend.list_changes(SHARED, cursor=part.cursor)
    if changed != {page_id: page.current_version_id for page_id, page in pages.items()}:
        report.lost.append(f"changes of {len(changed)} pages were listed, of {len(pages)}")


def show(report: Report, faults: Faults, seconds: float) -> None:
    """Prints the figures."""
    table = Table("soak", "", show_header=True)
    table.add_row("operations", f"{report.operations.total():,} in {seconds:.0f} s")
    table.add_row("requests", f"{faults.requests.total():,}")
    injected = faults.injected.total()
    table.add_row("hit by a fault", f"{injected:,} ({injected / faults.requests.total():.0%})")
    for name, count in faults.injected.most_common():
        table.add_row(f"  {name}", f"{count:,}")
    table.add_row("operations that failed", f"{report.failures.total():,}")
    for name, count in report.failures.most_common():
        table.add_row(f"  {name}", f"{count:,}")
    add_findings(table, report)
    console.print(table)


def add_findings(table: Table, report: Report) -> None:
    """Adds a row for each kind of error: how many were found, and the first of them."""
    for name in ("lost", "doubled", "misreported"):
        findings = getattr(report, name)
        table.add_row(name, f"{len(findings)}")
        for finding in findings[:5]:
            table.add_row("", finding[:200])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="All methods under faults, on DynamoDB Local.")
    parser.add_argument("--operations", type=int, default=100_000)
    parser.add_argument("--tasks", type=int, default=64)
    parser.add_argument("--share", type=float, default=0.2, help="of the requests that are hit")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL)
    with run_dynamodb_local(ROOT / ".dynamodb-local") as url:
        started = time.perf_counter()
        result, injected_faults = asyncio.run(soak(url, args.operations, args.tasks, args.share, args.seed))
    show(result, injected_faults, time.perf_counter() - started)
    sys.exit(0 if result.is_clean else 1)
