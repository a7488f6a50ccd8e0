"""Checks which items a claim returns: all open items, urgent items first, and the hosts in turn."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import datetime
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier

from benchmarks.frontier.measure import RUN, SITE, Lab, Row, add_from_elsewhere, drain, page
from ragcrawl_dynamo import Claim, DynamoDBBackend, DynamoDBConfig
from ragcrawl_dynamo.testing import local_config

URGENT = 10.0

# Seconds that four processes have to start, and to claim.
_PROCESS_SECONDS = 60.0


async def claims_of_many_hosts(lab: Lab) -> list[Row]:
    """Claims three times 50 items from a hundred hosts with one link each."""
    rows = []
    for who, adds_itself in (("the process that added them", True), ("another process", False)):
        async with lab.tables() as config, DynamoDBBackend(config) as backend:
            frontier = backend.frontier(SITE, RUN)
            links = [page(host) for host in range(100)]
            if adds_itself:
                await frontier.add(links)
            else:
                await add_from_elsewhere(config, links)
            sizes = [len(await frontier.claim(50)) for _ in range(3)]
        rows.append(
            Row(
                f"100 hosts with one link each, `claim(50)` three times by {who}",
                "50, 50, 0",
                ", ".join(map(str, sizes)),
                sizes == [50, 50, 0],
            )
        )
    return rows


async def urgent_first(lab: Lab) -> list[Row]:
    """Claims from 2,000 links of one host, every 20th urgent: which are among the first hundred."""
    rows = []
    for who, least, first_claims in (
        ("one process", 95, _by_one),
        ("four backends in turns of 10", 80, _by_four_in_turns),
        ("four processes at once, 10 at a time", 80, _by_four_at_once),
    ):
        async with lab.tables() as config:
            await _add_urgent(config)
            priorities = await first_claims(config)
        count = sum(priority == URGENT for priority in priorities[:100])
        rows.append(
            Row(
                f"2,000 links of one host, every 20th urgent; the first 100 claims of {who}",
                f"≥ {least} urgent",
                f"{count} urgent",
                count >= least,
            )
        )
    return rows


async def _add_urgent(config: DynamoDBConfig) -> None:
    async with DynamoDBBackend(config) as backend:
        frontier = backend.frontier(SITE, RUN)
        await frontier.add(
            frontier.link(page(0, i), priority=URGENT if i % 20 == 19 else 0.0) for i in range(2000)
        )
        await frontier.stats()


async def _by_one(config: DynamoDBConfig) -> list[float]:
    async with DynamoDBBackend(config) as backend:
        frontier = backend.frontier(SITE, RUN)
        return [claim.item.priority for _ in range(10) for claim in await frontier.claim(10)]


async def _by_four_in_turns(config: DynamoDBConfig) -> list[float]:
    async with AsyncExitStack() as stack:
        frontiers = [
            (await stack.enter_async_context(DynamoDBBackend(config))).frontier(SITE, RUN) for _ in range(4)
        ]
        return [claim.item.priority for turn in range(12) for claim in await frontiers[turn % 4].claim(10)]


async def _by_four_at_once(config: DynamoDBConfig) -> list[float]:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(4)
    results: Queue[list[tuple[datetime, float]]] = context.Queue()
    arguments = (str(config.endpoint_url), config.table_prefix, barrier, results)
    processes = [context.Process(target=claim_in_tens, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    parts = [await asyncio.to_thread(results.get, timeout=_PROCESS_SECONDS) for _ in processes]
    for process in processes:
        process.join()
    claims = sorted(claim for part in parts for claim in part)
    return [priority for _, priority in claims]


def claim_in_tens(
    endpoint: str, prefix: str, barrier: Barrier, results: Queue[list[tuple[datetime, float]]]
) -> None:
    """Claims 60 items in a process of its own; returns when each lease began, and each priority."""
    config = local_config(endpoint, table_prefix=prefix, conditional_batches="partiql")
    results.put(asyncio.run(_claim_in_tens(config, barrier)))


async def _claim_in_tens(config: DynamoDBConfig, barrier: Barrier) -> list[tuple[datetime, float]]:
    async with DynamoDBBackend(config) as backend:
        frontier = backend.frontier(SITE, RUN)
        await frontier.state()
        await asyncio.to_thread(barrier.wait, _PROCESS_SECONDS)
        items = [claim.item for _ in range(6) for claim in await frontier.claim(10)]
        return [(item.started_at, item.priority) for item in items if item.started_at is not None]


async def urgent_from_elsewhere(lab: Lab) -> list[Row]:
    """Measures how late an urgent link on a new host is claimed that another process has added."""
    concurrency, hosts, rounds = 10, 30, 3
    async with lab.tables() as config, DynamoDBBackend(config) as mine, DynamoDBBackend(config) as other:
        await add_from_elsewhere(config, (page(host, i) for i in range(250) for host in range(hosts)))
        waits = await _urgent_waits(mine, other, concurrency, rounds, lab.limit)
    claimed = ", ".join(f"{count} claims, {seconds:.1f} s" for count, seconds in waits)
    return [
        Row(
            f"an urgent link on a new host, added by another process while {hosts} hosts have work, "
            f"{rounds} times; concurrency {concurrency}, handlers of 20 ms",
            f"claimed within 2 s or {3 * concurrency} claims",
            (f"after {claimed}" if waits else "") + "; not claimed" * (len(waits) < rounds),
            len(waits) == rounds
            and all(count <= 3 * concurrency or seconds <= 2 for count, seconds in waits),
        )
    ]


async def _urgent_waits(
    mine: DynamoDBBackend, other: DynamoDBBackend, concurrency: int, rounds: int, limit: float
) -> list[tuple[int, float]]:
    """Returns for each urgent link how many claims and seconds passed until it was claimed."""
    handled = 0
    added: dict[str, tuple[int, float]] = {}
    waits: list[tuple[int, float]] = []
    is_claimed = asyncio.Event()

    def look(claim: Claim, moment: float) -> bool:
        nonlocal handled
        handled += 1
        if claim.item.url in added:
            count, since = added[claim.item.url]
            waits.append((handled - count, time.perf_counter() - since))
            is_claimed.set()
        return len(waits) == rounds

    async def add_now_and_then() -> None:
        frontier = other.frontier(SITE, RUN)
        for i in range(rounds):
            # The worker has reached its usual speed, and the other process adds at different parts of a
            # second.
            await asyncio.sleep(1.5 + 0.3 * i)
            url = page(900_000 + i)
            is_claimed.clear()
            await frontier.add([url], priority=URGENT)
            added[url] = (handled, time.perf_counter())
            await is_claimed.wait()

    adding = asyncio.create_task(add_now_and_then())
    await drain(
        mine.frontier(SITE, RUN),
        concurrency,
        limit=min(limit, 60.0),
        handler_seconds=0.02,
        on_claim=look,
    )
    adding.cancel()
    await asyncio.gather(adding, return_exceptions=True)
    return waits


async def hosts_in_turn(lab: Lab) -> list[Row]:
    """Claims from 20 hosts with 50 links each: how many of the first 300 claims each host has."""
    hosts, links = 20, 50
    orders: dict[str, Callable[[int], tuple[int, int]]] = {
        "added host by host": lambda i: (i // links, i % links),
        "added in turn": lambda i: (i % hosts, i // hosts),
    }
    rows = []
    for name, place in orders.items():
        async with lab.tables() as config, DynamoDBBackend(config) as backend:
            await add_from_elsewhere(config, (page(*place(i)) for i in range(hosts * links)))
            done = await drain(backend.frontier(SITE, RUN), 10, limit=lab.limit, stop_after=300)
        counts = Counter(claim.item.domain for claim in done.claims[:300])
        least, most = (min(counts.values()) if len(counts) == hosts else 0), max(counts.values())
        rows.append(
            Row(
                f"20 hosts with 50 links each, {name}, first 300 claims, concurrency 10",
                "13 to 17 of each host",
                f"{least} to {most}" + ("" if least else f", nothing of {hosts - len(counts)} hosts"),
                least >= 13 and most <= 17,
            )
        )
    return rows
