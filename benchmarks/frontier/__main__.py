"""Runs all scenarios of the queue, and prints the results; see `benchmarks.frontier`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict

from benchmarks.frontier import contention, costs, order, proof, speed
from benchmarks.frontier.measure import RUN, SITE, Lab, Row, add_from_elsewhere, console, drain, page
from benchmarks.frontier.page import results
from benchmarks.machine import ROOT
from benchmarks.report import Origin, is_full, save
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


async def main(lab: Lab, names: Sequence[str]) -> list[Row]:
    """Measures the scenarios, and prints each as it ends and all of them at the end."""
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
    console.print(f"\n{time.monotonic() - started:.0f} s in all\n")
    table = results({"rows": [asdict(row) for row in rows]})
    console.print("\n".join(table), soft_wrap=True, highlight=False, markup=False)
    missed = sum(row.met is False for row in rows)
    promised = sum(row.met is not None for row in rows)
    console.print(f"\n{promised - missed} of {promised} promises met")
    return rows


async def _warm_up(lab: Lab) -> None:
    """Lets the engine compile the code that it runs often."""
    async with lab.tables() as config:
        await add_from_elsewhere(config, (page(i % 10, i) for i in range(1000)))
        async with DynamoDBBackend(config) as backend:
            await drain(backend.frontier(SITE, RUN), 50, limit=20)


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
    origin = Origin.here("make bench-frontier")
    with run_dynamodb_local(ROOT / ".dynamodb-local") as url:
        rows = asyncio.run(main(Lab(url, args.scale, args.limit), args.only))
    if is_full(parser, args):
        save("frontier", origin, {"rows": [asdict(row) for row in rows]})
