"""Runs all scenarios of the queue, and prints the results; see `benchmarks.frontier`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable, Sequence

from benchmarks.frontier import contention, costs, order, proof, speed
from benchmarks.frontier.measure import ROOT, RUN, SITE, Lab, Row, add_from_elsewhere, console, drain, page
from benchmarks.machine import described, markdown
from ragcrawl_dynamo import DynamoDBBackend
from ragcrawl_dynamo.testing import run_dynamodb_local

SCENARIOS: dict[str, Callable[[Lab], Awaitable[list[Row]]]] = {
    "claims": order.claims_of_many_hosts,
    "one-and-many": speed.one_host_and_many,
    "many-hosts": speed.many_hosts,
    "urgent": order.urgent_first,
    "urgent-elsewhere": order.urgent_from_elsewhere,
    "turns": order.hosts_in_turn,
    "finished": proof.drained_hosts,
    "memory": proof.memory,
    "life": costs.life_of_an_item,
    "cycle": costs.claim_to_commit,
    "eight": contention.eight_at_once,
    "crawled-page": contention.crawled_page,
    "helpers": contention.helpers_at_the_end,
}


async def main(lab: Lab, names: Sequence[str]) -> None:
    """Measures the scenarios, and prints each as it ends and all of them at the end."""
    load = os.getloadavg()[0]
    started = time.monotonic()
    await _warm_up(lab)
    rows: list[Row] = []
    for name in names:
        began = time.monotonic()
        for row in await SCENARIOS[name](lab):
            rows.append(row)
            console.print(
                f"{name}: {row.scenario}: {row.measured} ({row.promised}) {row.verdict}", highlight=False
            )
        console.print(f"  {time.monotonic() - began:.0f} s", style="dim")
    scale = "" if lab.scale == 1 else f", at {lab.scale:g} of the full size"
    console.print(
        f"\n{described()}, DynamoDB Local {engine_version()} in memory on the same machine, load {load:.1f} "
        f"before the start{scale}; {time.monotonic() - started:.0f} s in all\n",
        soft_wrap=True,
        highlight=False,
    )
    head = ["scenario", "promised", "measured", ""]
    table = [[row.scenario, row.promised, row.measured, row.verdict] for row in rows]
    console.print("\n".join(markdown([head, *table])), soft_wrap=True, highlight=False, markup=False)
    missed = sum(row.met is False for row in rows)
    promised = sum(row.met is not None for row in rows)
    console.print(f"\n{promised - missed} of {promised} promises met")


async def _warm_up(lab: Lab) -> None:
    """Lets the engine compile the code that it runs often."""
    async with lab.tables() as config:
        await add_from_elsewhere(config, (page(i % 10, i) for i in range(1000)))
        async with DynamoDBBackend(config) as backend:
            await drain(backend.frontier(SITE, RUN), 50, limit=20)


def engine_version() -> str:
    """Returns the version of DynamoDB Local, by its release notes."""
    notes = (ROOT / ".dynamodb-local" / "README.txt").read_text()
    version = re.search(r"^\d{4}-\d\d-\d\d \((\S+)\)", notes, re.MULTILINE)
    return version[1] if version else "(unknown version)"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure what the frontier promises, on DynamoDB Local.")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=SCENARIOS,
        default=list(SCENARIOS),
        metavar="NAME",
        help=", ".join(SCENARIOS),
    )
    parser.add_argument(
        "--scale", type=float, default=1.0, help="the share of the full numbers of links and hosts"
    )
    parser.add_argument("--limit", type=float, default=400.0, help="seconds after which a worker is stopped")
    args = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    with run_dynamodb_local(ROOT / ".dynamodb-local") as url:
        asyncio.run(main(Lab(url, args.scale, args.limit), args.only))
