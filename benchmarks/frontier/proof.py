"""Measures the proof that a run is finished: requests, seconds and memory.

python -m benchmarks.frontier.proof ENDPOINT PREFIX recount     # in a process of its own
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from benchmarks.frontier.measure import (
    RUN,
    SITE,
    Lab,
    Row,
    add_from_elsewhere,
    batches,
    console,
    cost_of,
    page,
)
from benchmarks.machine import ROOT
from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig
from ragcrawl_dynamo._dynamodb.batching import BATCHES_IN_FLIGHT, chunks, write_batch
from ragcrawl_dynamo._dynamodb.conditional_writes import ConditionalInsert, Write
from ragcrawl_dynamo._dynamodb.outcomes import Applied, Outcome
from ragcrawl_dynamo._dynamodb.values import Item
from ragcrawl_dynamo._utils.concurrency import gather_bounded
from ragcrawl_dynamo.testing import local_config

MEGABYTE = 1e6
_BOUND = "≤ 20 MB, also at 200,000"


async def drained_hosts(lab: Lab) -> list[Row]:
    """Measures `is_finished` of a process that knows nothing, right after 10,000 hosts were drained."""
    hosts = lab.size(10_000, 300)
    async with lab.tables() as config:
        await add_from_elsewhere(config, (page(host) for host in range(hosts)))
        ended = await _claim_and_complete(config, hosts, lab.limit)
        if ended < hosts:
            measured = f"not measured: after {lab.limit:.0f} s only {ended:,} were drained"
            return [Row(f"`is_finished`, {hosts:,} drained hosts", "≤ 100 requests", measured, met=False)]
        async with DynamoDBBackend(config) as backend:
            answers: list[bool] = []

            async def ask() -> None:
                answers.append(await backend.frontier(SITE, RUN).is_finished())

            started = time.perf_counter()
            cost = await cost_of(backend, ask())
            seconds = time.perf_counter() - started
    return [
        Row(
            f"`is_finished`, {hosts:,} hosts drained just before by another process",
            "True, ≤ 100 requests",
            f"{answers[0]}, {cost.requests:.0f} requests, {seconds:.1f} s",
            answers[0] and cost.requests <= 100,
        )
    ]


async def _claim_and_complete(config: DynamoDBConfig, links: int, limit: float) -> int:
    """Claims and completes all items, for so many seconds at most; returns how many."""
    ended = 0
    async with DynamoDBBackend(config) as backend:
        frontier = backend.frontier(SITE, RUN)
        deadline = time.monotonic() + limit
        while ended < links and time.monotonic() < deadline:
            claims = await frontier.claim(500, wait_seconds=1)
            await frontier.complete(claims)
            ended += len(claims)
        await frontier.stats()
    return ended


async def memory(lab: Lab) -> list[Row]:
    """Measures the memory of `recount` and `is_finished` on finished runs of 20,000 and 200,000 hosts."""
    rows = []
    for full in (20_000, 200_000):
        hosts = lab.size(full, 1_000)
        async with lab.tables() as config:
            await fill(config, hosts)
            for method in ("recount", "is_finished"):
                scenario = f"memory of `{method}`, a drained run of {hosts:,} hosts with one link each"
                figures = await _in_own_process(config, method, lab.limit)
                if figures is None:
                    rows.append(Row(scenario, _BOUND, f"not measured: not done in {lab.limit:.0f} s", False))
                    continue
                assert figures["completed"] == hosts, figures  # noqa: S101 # a run that is drained
                peak = figures["peak"] / MEGABYTE
                measured = f"{peak:.1f} MB; {figures['requests']:,.0f} requests"
                rows.append(Row(scenario, _BOUND, measured, peak <= 20))
    return rows


async def fill(config: DynamoDBConfig, hosts: int) -> None:
    """Makes a run with one completed link on each host, faster than by crawling."""
    async with DynamoDBBackend(config) as backend, _unconditional_writes(backend):
        frontier = backend.frontier(SITE, RUN)
        for batch in batches((page(host) for host in range(hosts)), 20_000):
            await frontier.add(batch)
        await frontier.stats()
    console.print(f"  {hosts:,} hosts are stored")


@asynccontextmanager
async def _unconditional_writes(backend: DynamoDBBackend) -> AsyncIterator[None]:
    """Lets the frontiers of a backend write by BatchWriteItem."""
    frontiers = backend._rooms.frontiers
    services = frontiers.services
    frontiers.services = replace(services, writes=_CompletedItems(services))
    try:
        yield
    finally:
        frontiers.services = services


class _CompletedItems:
    """Stores added items as completed ones, and new hosts with their count; drops all updates."""

    def __init__(self, services: Any) -> None:
        self._gateway = services.gateway
        self._table = services.tables.frontier

    async def run(
        self, writes: Sequence[Write], *, once: bool = False, seconds: float | None = None
    ) -> list[Outcome]:
        """See ConditionalWrites."""
        items = [_completed(write.item) for write in writes if isinstance(write, ConditionalInsert)]
        puts: list[Any] = [{"PutRequest": {"Item": item}} for item in items]

        async def put(chunk: Sequence[Any]) -> None:
            if failures := await write_batch(self._gateway, self._table, chunk):
                raise next(iter(failures.values()))

        await gather_bounded(put, chunks(puts, 25), BATCHES_IN_FLIGHT)
        return [Applied({}) for _ in writes]


def _completed(item: Item) -> Item:
    """Returns an item as it is once its link, or the link of its host, is completed."""
    if "status" in item:
        final = {name: value for name, value in item.items() if name not in ("queue", "queue_order")}
        return {**final, "status": {"S": "completed"}}
    if "completed" in item:
        return {**item, "pending": {"N": "0"}, "completed": {"N": "1"}}
    return item


async def _in_own_process(config: DynamoDBConfig, method: str, limit: float) -> dict[str, float] | None:
    """Measures a method in a new process; returns None if it takes longer than `limit` seconds."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.frontier.proof"),
        *(str(config.endpoint_url), config.table_prefix, method),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(limit):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return None
    if process.returncode:
        raise RuntimeError(f"the process that measures {method} has failed: see its error above")
    figures: dict[str, float] = json.loads(output)
    return figures


async def measure(endpoint: str, prefix: str, method: str) -> dict[str, float]:
    """Calls a method of the frontier, and measures the peak of its memory."""
    config = local_config(endpoint, table_prefix=prefix, conditional_batches="partiql")
    async with DynamoDBBackend(config) as backend:
        frontier = backend.frontier(SITE, RUN)
        # Opens the connections.
        await frontier.state()
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        if method == "recount":
            cost = await cost_of(backend, frontier.recount())
        else:
            cost = await cost_of(backend, frontier.is_finished())
        peak = tracemalloc.get_traced_memory()[1] - before
        tracemalloc.stop()
        completed = (await frontier.stats()).completed
    return {"peak": peak, "requests": cost.requests, "completed": completed}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(*sys.argv[1:4]))))  # for the process that started it
