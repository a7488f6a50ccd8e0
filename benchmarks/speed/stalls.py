"""How long operations block the event loop: a task that sleeps 1 ms records its longest delay (`make bench`).

While an operation blocks the loop, nothing else of the process runs: no other request, no lease is renewed.
"""

import argparse
import asyncio
import gc
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.console import Console

from benchmarks.machine import markdown
from benchmarks.speed.subject import make_pages
from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig, Page, PageVersion, Site
from ragcrawl_dynamo.testing import drop_tables, local_config, run_dynamodb_local

ROOT = Path(__file__).parent.parent.parent

# The longest stall that an operation may cause, in milliseconds.
LIMIT = 20.0

# The watcher sleeps so many seconds at a time.
_SLEEP = 0.001

_LARGE = 20_000_000
_ROUNDS = 3


@dataclass(frozen=True)
class Stall:
    """How long an operation blocks the event loop.

    Attributes:
        what: The description for the reader.
        longest: The milliseconds of its longest stall, the median of several rounds.
        without_collector: The same without the time in which Python's collector ran.
    """

    what: str
    longest: float
    without_collector: float


class Watcher:
    """A task that runs beside an operation, and measures its stalls.

    Python's collector stops a process now and then to walk through all objects; the more objects there are,
    the longer it takes. So stalls are counted with it and without it.

    Attributes:
        longest: Seconds of the longest stall.
        without_collector: Seconds of the longest stall, without the collector.
    """

    def __init__(self) -> None:
        self.longest = 0.0
        self.without_collector = 0.0
        self._collecting_since = 0.0
        self._collected = 0.0

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Watches the operations within its context; the collector leaves out the objects of the caller."""
        gc.collect()
        gc.freeze()
        gc.callbacks.append(self._count_collection)
        task = asyncio.create_task(self._watch())
        # It begins to sleep.
        await asyncio.sleep(0)
        try:
            yield
            await asyncio.sleep(0)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            gc.callbacks.remove(self._count_collection)
            gc.unfreeze()

    async def _watch(self) -> None:
        while True:
            due, collected = time.perf_counter() + _SLEEP, self._collected
            try:
                await asyncio.sleep(_SLEEP)
            finally:
                # If it is cancelled, the operation may have blocked the loop to its end.
                stall = time.perf_counter() - due
                self.longest = max(self.longest, stall)
                self.without_collector = max(self.without_collector, stall - (self._collected - collected))

    def _count_collection(self, phase: str, _: object) -> None:
        if phase == "start":
            self._collecting_since = time.perf_counter()
        else:
            self._collected += time.perf_counter() - self._collecting_since


def versions(count: int, markdown_of: Callable[[int], str], prefix: str) -> list[PageVersion]:
    """Versions of as many pages."""
    return [
        PageVersion(
            version_id=f"v{i}",
            page_id=f"{prefix}{i}",
            site_id="docs",
            run_id="run",
            url=f"https://docs.example.org/{prefix}{i}",
            status_code=200,
            content_hash=f"{prefix}{i}",
            markdown=markdown_of(i),
        )
        for i in range(count)
    ]


def incompressible(size: int, seed: int = 0) -> str:
    """Returns random hexadecimal text of about so many bytes, which compression can only halve."""
    return random.Random(seed).randbytes(size // 2).hex()  # noqa: S311 # reproducible on purpose


def page_of(version: PageVersion) -> Page:
    """Returns the page whose current version this is."""
    return Page(
        page_id=version.page_id,
        site_id=version.site_id,
        url=version.url,
        current_version_id=version.version_id,
        content_hash=version.content_hash,
        status_code=200,
    )


async def consume(values: AsyncIterator[object]) -> None:
    """Reads a listing to its end."""
    async for _ in values:
        pass


def operations(
    backend: DynamoDBBackend, number: int
) -> Iterator[tuple[str, Callable[[], Awaitable[object]]]]:
    """Yields the operations of one round in their order: later ones read what earlier ones wrote."""
    pages = [Page(**page) for page in make_pages(12_000)]
    yield "save_pages_bulk, 12,000 pages", lambda: backend.save_pages_bulk(pages)
    yield (
        "get_pages_bulk, 12,000 pages",
        lambda: backend.get_pages_bulk("docs", [page.page_id for page in pages]),
    )
    yield "iter_pages, 12,000 pages", lambda: consume(backend.iter_pages("docs"))
    yield (
        "tombstone_pages, 6,000 of 12,000 pages",
        lambda: backend.tombstone_pages(
            "docs", [page.page_id for page in pages[:6000]], allow_mass_deletion=True
        ),
    )
    (large,) = versions(1, lambda i: incompressible(_LARGE), f"large{number}-")
    yield "save_version, 20 MB that hardly compress", lambda: backend.save_version(large)
    yield "get_version, 20 MB", lambda: backend.get_version("docs", large.page_id, "v0")
    (plain,) = versions(1, lambda i: "All work and no play. " * (_LARGE // 22), f"plain{number}-")
    yield "commit_page, 20 MB that compress well", lambda: backend.commit_page(page_of(plain), plain)
    yield "get_version, 20 MB that compress well", lambda: backend.get_version("docs", plain.page_id, "v0")
    small = versions(1500, lambda i: f"# {number} {i}\n" + "word " * 200, "small-")
    yield "save_versions_bulk, 1,500 versions", lambda: backend.save_versions_bulk(small)
    bodies = versions(40, lambda i: incompressible(1_000_000, number * 1000 + i), "body-")
    yield "save_versions_bulk, 40 versions of 1 MB", lambda: backend.save_versions_bulk(bodies)
    current = [page_of(version) for version in (*small, *bodies)]
    yield "save_pages_bulk, 1,540 pages", lambda: backend.save_pages_bulk(current)
    yield "iter_versions, 1,540 versions", lambda: consume(backend.iter_versions("docs"))
    frontier = backend.frontier("docs", f"run{number}")
    links = [f"https://host{i % 500}.example/{i}" for i in range(50_000)]
    yield "frontier.add, 50,000 links", lambda: frontier.add(links)
    yield (
        "iter_changes, 6,000 changes",
        lambda: consume(backend.iter_changes("docs", f"c{number}", limit=1000)),
    )
    yield "delete_site", lambda: backend.delete_site("docs")


async def stalls_of(endpoint: str, rounds: int = _ROUNDS) -> list[Stall]:
    """Returns the longest stalls of all operations, on an engine."""
    config = local_config(endpoint, table_prefix="bench_stalls_", conditional_batches="partiql")
    try:
        return await _measure(config, rounds)
    finally:
        await drop_tables(config)


async def _measure(config: DynamoDBConfig, rounds: int) -> list[Stall]:
    watchers_of: dict[str, list[Watcher]] = {}
    for number in range(rounds):
        backend = DynamoDBBackend(config)
        watcher = Watcher()
        async with watcher.watching():
            await backend.initialize()
        watchers_of.setdefault("initialize", []).append(watcher)
        await backend.save_site(Site(site_id="docs", name="docs", seeds=["https://docs.example.org/"]))
        for what, operate in operations(backend, number):
            watcher = Watcher()
            async with watcher.watching():
                # It is freed later.
                result = await operate()
            del result
            watchers_of.setdefault(what, []).append(watcher)
        await backend.close()
    return [
        Stall(
            what,
            median(watcher.longest for watcher in watchers) * 1e3,
            median(watcher.without_collector for watcher in watchers) * 1e3,
        )
        for what, watchers in watchers_of.items()
    ]


def stalls_table(stalls: list[Stall]) -> list[str]:
    """Formats the stalls as a table."""
    head = ["", "longest stall, ms", "without Python's collector, ms", f"limit of {LIMIT:g} ms"]
    rows = [
        [
            stall.what,
            f"{stall.longest:.1f}",
            f"{stall.without_collector:.1f}",
            "kept" if stall.without_collector <= LIMIT else "**missed**",
        ]
        for stall in stalls
    ]
    return markdown([head, *rows])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="How long operations block the event loop.")
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    args = parser.parse_args()
    with run_dynamodb_local(ROOT / ".dynamodb-local") as url:
        measured = asyncio.run(stalls_of(url, args.rounds))
    Console(width=120).print("\n".join(stalls_table(measured)))
