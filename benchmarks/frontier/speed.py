"""Measures how fast one worker empties a queue of one host and of many, and how fast links are added."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

from benchmarks.frontier.measure import (
    RUN,
    SITE,
    Cost,
    Drained,
    Lab,
    Row,
    add_from_elsewhere,
    console,
    cost_of,
    drain,
    page,
)
from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig

CONCURRENCY = 50
HOSTS = 50_000
ROUNDS = 3


async def one_host_and_many(lab: Lab) -> list[Row]:
    """Measures as many links of one host and of as many hosts: pages a second, and their ratio."""
    rows = []
    requests: list[float] = []
    for full in (400, 2000):
        links = lab.size(full, 40)
        of_one, of_many = [], []
        are_complete = True
        for _ in range(ROUNDS):
            one, cost = await _drained(lab, [page(0, i) for i in range(links)])
            of_one.append(one.pages_per_second)
            requests.append(cost.requests)
            many, _ = await _drained(lab, [page(host) for host in range(links)])
            of_many.append(many.pages_per_second)
            are_complete &= one.is_complete and many.is_complete
        # The speed of the machine drifts, so the compared runs follow each other directly.
        ratio = statistics.median(many / one for many, one in zip(of_many, of_one, strict=True))
        rows.append(
            Row(
                f"a worker, concurrency {CONCURRENCY}: {links:,} links of one host / of {links:,} hosts, "
                f"added by another process; median of {ROUNDS}",
                "ratio ≥ 0.6 (stretch 0.8)",
                f"{statistics.median(of_one):,.0f} / {statistics.median(of_many):,.0f} pages/s, "
                f"ratio {ratio:.2f}" + "; not all was crawled in a minute" * (not are_complete),
                are_complete and ratio >= 0.6,
            )
        )
    # The larger of the two runs.
    per_page = statistics.median(requests[ROUNDS:])
    rows.append(
        Row(
            f"one host, {links:,} links, concurrency {CONCURRENCY}",
            "≤ 0.3 requests a page",
            f"{per_page:.2f} requests a page, {statistics.median(of_one):,.0f} pages/s",
            per_page <= 0.3,
        )
    )
    return rows


async def _drained(lab: Lab, links: Sequence[str]) -> tuple[Drained, Cost]:
    """Drains links that another backend added; returns the worker's run, and the cost of a page."""
    async with lab.tables() as config:
        await add_from_elsewhere(config, links)
        return await _drained_by_one(config, min(lab.limit, 60.0))


async def _drained_by_one(config: DynamoDBConfig, limit: float) -> tuple[Drained, Cost]:
    done: list[Drained] = []

    async with DynamoDBBackend(config) as backend:

        async def work() -> None:
            done.append(await drain(backend.frontier(SITE, RUN), CONCURRENCY, limit=limit))

        whole = await cost_of(backend, work())
    pages = max(1, len(done[0].claims))
    return done[0], Cost(whole.requests / pages, whole.read_units / pages, whole.write_units / pages)


async def many_hosts(lab: Lab) -> list[Row]:
    """Adds links of 50,000 hosts; another process crawls them to the end."""
    hosts = lab.size(HOSTS, 500)
    async with lab.tables() as config:
        seconds = await _add_with_progress(config, hosts)
        added = Row(
            f"`add` of {hosts:,} links of as many hosts, from an iterator",
            f"≤ {35 * hosts / HOSTS:.0f} s" if hosts < HOSTS else "≤ 35 s",
            f"{seconds:.1f} s",
            seconds <= 35 * hosts / HOSTS,
        )
        done, cost = await _drained_by_one(config, lab.limit)
    parts = done.by_part(10)
    tenths = ", ".join(f"{part:.0f}" for part in parts)
    name = f"{hosts:,} hosts with one link each, drained by a worker that did not add them"
    stopped = "" if done.is_complete else f"; stopped after {len(done.moments):,} pages"
    return [
        added,
        Row(
            f"{name}, concurrency {CONCURRENCY}",
            "≥ 150 pages/s, in each tenth of the run",
            f"{done.pages_per_second:,.0f} pages/s, by tenth {tenths}{stopped}",
            done.is_complete and min(parts) >= 150,
        ),
        Row(f"{name}: requests a page", "≤ 1.5", f"{cost.requests:.2f}", cost.requests <= 1.5),
        *await _units_of_many_hosts(lab),
    ]


async def _add_with_progress(config: DynamoDBConfig, hosts: int) -> float:
    """Adds a link of each host, and prints how many are added; returns the seconds."""
    started = time.perf_counter()

    def show(count: int) -> None:
        if count % 5000 == 0:
            console.print(f"  {count:,} of {hosts:,} links added, {time.perf_counter() - started:.1f} s")

    async with DynamoDBBackend(config) as backend:
        frontier = backend.frontier(SITE, RUN)
        started = time.perf_counter()
        results = await frontier.add((page(host) for host in range(hosts)), on_progress=show)
        await frontier.stats()
        seconds = time.perf_counter() - started
    # The seconds of less would mean nothing.
    assert sum(result.added for result in results) == hosts  # noqa: S101 # not a test
    return seconds


async def _units_of_many_hosts(lab: Lab) -> list[Row]:
    """Returns the units of the same writes as single requests: the engine reports none for PartiQL."""
    hosts = lab.size(2_000, 200)
    async with lab.tables("item") as config:
        await add_from_elsewhere(config, (page(host) for host in range(hosts)))
        done, cost = await _drained_by_one(config, min(lab.limit, 120.0))
    name = f"the same on {hosts:,} hosts, with the proof of the end"
    stopped = "" if done.is_complete else f"; stopped after {len(done.moments):,} pages"
    return [
        Row(
            f"{name}: write units a page",
            "≤ 9",
            f"{cost.write_units:.1f}{stopped}",
            done.is_complete and cost.write_units <= 9,
        ),
        Row(
            f"{name}: read units a page",
            "≤ 1",
            f"{cost.read_units:.2f}{stopped}",
            done.is_complete and cost.read_units <= 1,
        ),
    ]
