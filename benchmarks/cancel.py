"""Cancels tasks at a random await, ten thousand times, and compares the tables with the soak's ledger.

Each operation runs as a task of its own. Many of them are cancelled where they wait for the nth time; n is
random, up to the number of awaits that the method was seen to need. A cancelled write may have been applied
or not. Every other write that was acknowledged, before or by other tasks, must be there. The process never
has more connections to the engine than the pool allows, and none at the end. Afterwards the backend still
sends as many requests at once as before.

    python -m benchmarks.cancel                                      # 10,000 cancellations, a minute or two
    python -m benchmarks.cancel --cancellations 500 --seed 1
"""

import argparse
import asyncio
import logging
import os
import sys
import time
import types
from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from benchmarks.soak import RUN, SHARED, Report, Shared, Tester, add_findings, look
from ragcrawl_dynamo import CrawlRun, DynamoDBBackend, RunStatus
from ragcrawl_dynamo.testing import drop_tables, local_config, run_dynamodb_local

ROOT = Path(__file__).parent.parent

# The share of operations that are cancelled. The others prove that they are not harmed.
SHARE = 0.6
# Seconds in which DynamoDB Local completes the requests that it has got, even if no client waits for them.
SETTLE_SECONDS = 0.05

console = Console(width=110)


@dataclass
class Interruptions:
    """Counts what the cancellations hit.

    Attributes:
        wanted: How many operations are to be cancelled.
        by_method: How many operations were cancelled, by method.
        awaits: By method, how many operations were cancelled at each await.
        needed: By method, the largest number of awaits that it was seen to need.
        most_connections: The largest number of connections to the engine at any time.
    """

    wanted: int
    by_method: Counter[str] = field(default_factory=Counter)
    awaits: dict[str, Counter[int]] = field(default_factory=dict)
    needed: Counter[str] = field(default_factory=Counter)
    most_connections: int = 0


@types.coroutine
def stepping(work: Any, on_await: Callable[[], None]) -> Generator[Any, Any, None]:
    """Awaits work, and tells each time before it waits for something."""
    value: Any = None
    thrown: BaseException | None = None
    while True:
        try:
            waits_for = work.send(value) if thrown is None else work.throw(thrown)
        except StopIteration:
            return
        on_await()
        value = thrown = None
        try:
            value = yield waits_for
        except BaseException as error:  # a cancellation too is the work's to see
            thrown = error


async def cancelled_at(work: Any, at: int) -> tuple[bool, int]:
    """Does work in a task of its own that is cancelled where it waits for the `at`th time, never if 0.

    Returns:
        Whether it was cancelled before it ended, and how often it waited.
    """
    count = 0

    def on_await() -> None:
        nonlocal count
        count += 1
        if count == at:
            task.cancel()

    async def run() -> None:
        await stepping(work, on_await)

    task = asyncio.create_task(run())
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
    return task.cancelled(), count


class CancelledTester(Tester):
    """A tester whose operations are cancelled."""

    interruptions: Interruptions
    port: int

    async def _do(self, method: Callable[[], Awaitable[None]]) -> None:
        name, noted = method.__name__, self.interruptions
        at = 0
        if self.chance.random() < SHARE:
            at = self.chance.randint(1, max(1, noted.needed[name]))
        was_cancelled, awaits = await cancelled_at(method(), at)
        noted.needed[name] = max(noted.needed[name], awaits)
        if not was_cancelled:
            return
        noted.by_method[name] += 1
        noted.awaits.setdefault(name, Counter())[at] += 1
        if noted.by_method.total() % 100 == 0:
            noted.most_connections = max(noted.most_connections, connections(self.port))
        await asyncio.sleep(SETTLE_SECONDS)

    async def work_until_all_are_cancelled(self) -> None:
        """Does operations until enough were cancelled, by all testers together."""
        while self.interruptions.by_method.total() < self.interruptions.wanted:
            await self.work(1)


def connections(port: int) -> int:
    """Returns the TCP connections of this process to a port of loopback that are not closed (Linux)."""
    lines = [
        *Path("/proc/net/tcp").read_text().splitlines()[1:],
        *Path("/proc/net/tcp6").read_text().splitlines()[1:],
    ]
    opened = {os.readlink(file) for file in Path("/proc/self/fd").iterdir() if file.is_symlink()}
    # The second is the remote address, the ninth the socket's number.
    rows = [line.split() for line in lines]
    return sum(row[2].endswith(f":{port:04X}") and f"socket:[{row[9]}]" in opened for row in rows)


async def cancel(endpoint: str, cancellations: int, tasks: int, seed: int) -> tuple[Report, Interruptions]:
    """Cancels so many operations, and looks at the tables."""
    shared, noted = Shared(), Interruptions(cancellations)
    config = local_config(endpoint, conditional_batches="partiql", frontier_max_attempts=1000)
    port = urlsplit(endpoint).port or 0
    async with DynamoDBBackend(config) as backend:
        await backend.save_run(CrawlRun(run_id=RUN, site_id=SHARED, status=RunStatus.RUNNING))
        cursor = await backend.get_change_cursor(SHARED)
        testers = [CancelledTester(backend, shared, i, seed) for i in range(tasks)]
        for tester in testers:
            tester.interruptions, tester.port = noted, port
        await asyncio.gather(*(tester.work_until_all_are_cancelled() for tester in testers))
        # All places are there again: as many requests as ever are in flight at once.
        await asyncio.gather(*(backend.get_page(SHARED, str(i)) for i in range(1000)))
        await look(backend, shared, list(testers), str(cursor))
    # The engine learns of closed connections a moment later.
    await asyncio.sleep(1)
    if left := connections(port):
        shared.report.misreported.append(f"{left} connections are open after close()")
    if noted.most_connections > config.max_connections:
        shared.report.misreported.append(f"{noted.most_connections} connections were open")
    await drop_tables(config)
    return shared.report, noted


def show(report: Report, noted: Interruptions, seconds: float) -> None:
    """Prints the figures."""
    table = Table("cancellation", "", show_header=True)
    table.add_row("operations", f"{report.operations.total():,} in {seconds:.0f} s")
    table.add_row("cancelled", f"{noted.by_method.total():,}")
    for name, count in noted.by_method.most_common():
        awaits = noted.awaits[name]
        table.add_row(f"  {name}", f"{count:,}, at {len(awaits)} different awaits of {noted.needed[name]}")
    table.add_row("connections at most", f"{noted.most_connections}")
    add_findings(table, report)
    console.print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Tasks cancelled at random awaits, on DynamoDB Local.")
    parser.add_argument("--cancellations", type=int, default=10_000)
    parser.add_argument("--tasks", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL)
    with run_dynamodb_local(ROOT / ".dynamodb-local") as url:
        started = time.perf_counter()
        result, done = asyncio.run(cancel(url, args.cancellations, args.tasks, args.seed))
    show(result, done, time.perf_counter() - started)
    sys.exit(0 if result.is_clean else 1)
