"""Helps all scenarios: their tables, the cost of their calls, a worker's run, and a row of the result."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any

from rich.console import Console

from ragcrawl_dynamo import Claim, DynamoDBBackend, DynamoDBConfig, Frontier, FrontierItem
from ragcrawl_dynamo.testing import drop_tables, local_config

RUN, SITE = "run", "site"

console = Console(width=130)


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        scenario: The scenario.
        promised: The promise of the queue for it; "" if there is none.
        measured: The result.
        met: Whether the promise was met; None if nothing is promised.
    """

    scenario: str
    promised: str
    measured: str
    met: bool | None = None

    @property
    def verdict(self) -> str:
        """Says whether the promise was met."""
        return {True: "met", False: "MISSED", None: ""}[self.met]


@dataclass(frozen=True)
class Lab:
    """The engine and the size of the scenarios.

    Attributes:
        endpoint: The URL of the engine.
        scale: The share of their full size.
        limit: Seconds after which a worker is stopped that has not emptied its queue.
    """

    endpoint: str
    scale: float
    limit: float

    def size(self, full: int, least: int = 1) -> int:
        """Returns the number of something at this scale."""
        return max(least, round(full * self.scale))

    @asynccontextmanager
    async def tables(
        self, conditional_batches: str = "partiql", **settings: Any
    ) -> AsyncIterator[DynamoDBConfig]:
        """Gives settings with tables of their own, which are deleted at the end."""
        config = local_config(self.endpoint, conditional_batches=conditional_batches, **settings)
        try:
            yield config
        finally:
            await drop_tables(config)


@dataclass(frozen=True)
class Cost:
    """The cost of a crawled page on average."""

    requests: float
    read_units: float
    write_units: float


def totals(backend: DynamoDBBackend) -> tuple[float, float, float]:
    """Returns the requests, read units and write units so far."""
    counters = backend.metrics().values()
    return (
        sum(counter.requests for counter in counters),
        sum(counter.read_units for counter in counters),
        sum(counter.write_units for counter in counters),
    )


async def cost_of(backend: DynamoDBBackend, work: Awaitable[object], pages: int = 1) -> Cost:
    """Does some work, and returns its cost for each of so many pages."""
    before = totals(backend)
    await work
    requests, reads, writes = (after - first for after, first in zip(totals(backend), before, strict=True))
    return Cost(requests / pages, reads / pages, writes / pages)


@dataclass
class Drained:
    """The work of a worker that has drained a queue.

    Attributes:
        claims: The items that it claimed, in this order.
        moments: When each handler began, in seconds since the worker was started.
        seconds: When the worker ended.
        is_complete: Whether the worker found the run finished; it was stopped otherwise.
    """

    claims: list[Claim] = field(default_factory=list)
    moments: list[float] = field(default_factory=list)
    seconds: float = 0.0
    is_complete: bool = False

    @property
    def pages_per_second(self) -> float:
        """The pages a second, from the start of the worker to its last page."""
        return len(self.moments) / self.moments[-1] if self.moments else 0.0

    def by_part(self, parts: int) -> list[float]:
        """Returns the pages a second in each of so many parts of the run, each with as many pages."""
        size = len(self.moments) // parts
        if not size:
            return []
        ends = [0.0, *(self.moments[size * (i + 1) - 1] for i in range(parts))]
        return [size / max(1e-6, after - before) for before, after in pairwise(ends)]


async def drain(
    frontier: Frontier,
    concurrency: int,
    *,
    limit: float,
    handler_seconds: float = 0.0,
    stop_after: int | None = None,
    on_claim: Callable[[Claim, float], bool] | None = None,
) -> Drained:
    """Runs a worker until the run is finished, `limit` seconds are over, or enough pages were handled.

    Args:
        frontier: The queue.
        concurrency: The concurrency of the worker.
        limit: Seconds after which the worker is stopped.
        handler_seconds: How long a handler takes.
        stop_after: The number of pages after which the worker is stopped.
        on_claim: Called with each claim and its moment as its handler begins; True stops the worker.
    """
    result = Drained()
    async with frontier.worker(concurrency=concurrency, grace_seconds=None) as worker:
        started = time.perf_counter()

        async def handle(claim: Claim) -> None:
            moment = time.perf_counter() - started
            result.claims.append(claim)
            result.moments.append(moment)
            if on_claim is not None and on_claim(claim, moment):
                worker.stop()
            if stop_after is not None and len(result.claims) >= stop_after:
                worker.stop()
            if handler_seconds:
                await asyncio.sleep(handler_seconds)

        timer = asyncio.get_running_loop().call_later(limit, worker.stop)
        await worker.run(handle)
        result.seconds = time.perf_counter() - started
        timer.cancel()
    result.is_complete = await frontier.is_finished()
    return result


def page(host: int, number: int = 0) -> str:
    """Returns the URL of a page of a host."""
    return f"https://h{host:06}.example/{number}.html"


def batches(links: Iterable[str], size: int) -> Iterator[list[str]]:
    """Splits links into lists of `size`, as they come."""
    rest = iter(links)
    while batch := list(islice(rest, size)):
        yield batch


async def add_from_elsewhere(config: DynamoDBConfig, links: Iterable[str | FrontierItem]) -> None:
    """Adds links by a backend of its own, as another process does."""
    async with DynamoDBBackend(config) as backend:
        frontier = backend.frontier(SITE, RUN)
        await frontier.add(links)
        # Stores the counts in memory, which may take longer than closing waits for them.
        await frontier.stats()
