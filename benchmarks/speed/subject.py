"""Runs in the process of each peer: runs workloads on demand and measures them, without other code of ours.

A peer is a module with `open_peer(endpoint, table)`, an async context manager that yields an object with the
methods

    prepare(page) save(page) get(key) save_many(pages) get_many(keys) -> int list_all() -> int

A page is a plain dict of the entity's fields, datetimes included. `prepare` converts it to the form that the
peer takes, before anything is measured. A key is (site_id, page_id). A page with a body has "markdown"; a
peer that has `save_body(page)` and `get_body(key)` handles it by these. Commands come as JSON lines on stdin,
answers go as JSON lines to stdout.
"""

import asyncio
import gc
import importlib
import json
import random
import sys
import time
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

TASKS = 64
BODY_BYTES = 40_000


def make_pages(count: int) -> list[dict[str, Any]]:
    """Makes pages as a crawler has them."""
    start = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)
    return [
        {
            "page_id": f"p{i:06}",
            "site_id": "docs",
            "url": f"https://docs.example.org/en/library/module-{i:06}.html",
            "canonical_url": f"https://docs.example.org/library/module-{i:06}.html",
            "current_version_id": f"{i:032x}",
            "content_hash": f"{i:064x}",
            "etag": f'"{i:032x}"',
            "last_modified": "Sat, 31 Jan 2026 12:00:00 GMT",
            "first_seen": start,
            "last_seen": start + timedelta(seconds=i),
            "last_crawled": start + timedelta(seconds=i),
            "last_changed": start,
            "depth": i % 7,
            "referrer_url": "https://docs.example.org/en/library/index.html",
            "status_code": 200,
            "is_tombstone": False,
            "error_count": 0,
            "version_count": 3,
        }
        for i in range(count)
    ]


@cache
def make_body(number: int) -> str:
    """Makes 40 KB of Markdown, with words as frequent as in a language."""
    chance = random.Random(number)  # noqa: S311 # reproducible on purpose
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    words = ["".join(chance.choices(letters, range(26, 0, -1), k=2 + i % 9)) for i in range(2000)]
    often = [1 / (1 + i) for i in range(2000)]
    text = ""
    while len(text) < BODY_BYTES:
        text += "## " + " ".join(chance.choices(words, often, k=5)) + "\n\n"
        text += " ".join(chance.choices(words, often, k=90)) + ".\n\n"
    return text[:BODY_BYTES]


def make_bodies(count: int, seed: int) -> list[dict[str, Any]]:
    """Makes pages with bodies, thirty different ones; another seed makes other pages."""
    return [
        {**page, "site_id": "bodies", "page_id": f"{seed:04}{i:06}", "markdown": make_body(i % 30)}
        for i, page in enumerate(make_pages(count))
    ]


def as_text(page: dict[str, Any]) -> dict[str, Any]:
    """Returns the page with its datetimes as text, for peers that know no datetimes."""
    return {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in page.items()}


async def in_tasks(call: Any, values: list[Any]) -> None:
    """Runs 64 tasks, each of which handles its part of the values, one after the other."""

    async def work(part: list[Any]) -> None:
        for value in part:
            await call(value)

    await asyncio.gather(*(work(values[i::TASKS]) for i in range(TASKS)))


async def at_rate(call: Any, values: list[Any], rate: float, seed: int) -> list[float]:
    """Begins calls at random moments, `rate` a second on average; returns the seconds of each call."""
    loop = asyncio.get_running_loop()
    chance = random.Random(seed)  # noqa: S311 # reproducible on purpose
    took: list[float] = []

    async def one(value: Any, due: float) -> None:
        await call(value)
        # Measured from the moment at which the call was due: time that a busy loop makes it wait counts.
        took.append(loop.time() - due)

    tasks = []
    due = loop.time()
    for value in values:
        due += chance.expovariate(rate)
        if (pause := due - loop.time()) > 0:
            await asyncio.sleep(pause)
        tasks.append(asyncio.create_task(one(value, due)))
    await asyncio.gather(*tasks)
    return took


async def run(peer: Any, workload: str, count: int, seed: int) -> dict[str, Any]:
    """Runs one workload once."""
    # The reads get the records that the first round saved.
    of_round = seed if workload.startswith("save") else 0
    pages = make_bodies(count, of_round) if workload.endswith("bodies") else make_pages(count)
    keys = [(page["site_id"], page["page_id"]) for page in pages]
    records = [peer.prepare(page) for page in pages]
    took: list[float] = []
    gc.collect()
    gc.disable()
    cpu, wall = time.process_time(), time.perf_counter()
    if workload == "save, 64 tasks":
        await in_tasks(peer.save, records)
    elif workload == "save, alone":
        for record in records:
            await peer.save(record)
    elif workload == "save, 700 a second":
        took = await at_rate(peer.save, records, 700.0, seed)
    elif workload == "save in bulk":
        await peer.save_many(records)
    elif workload == "get, 64 tasks":
        await in_tasks(peer.get, keys)
    elif workload == "get in bulk":
        assert await peer.get_many(keys) == count
    elif workload == "save bodies":
        await in_tasks(getattr(peer, "save_body", peer.save), records)
    elif workload == "get bodies":
        await in_tasks(getattr(peer, "get_body", peer.get), keys)
    elif workload == "list":
        assert await peer.list_all() == count
    else:
        raise ValueError(workload)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    gc.enable()
    took.sort()
    latency = {"p50": took[len(took) // 2], "p99": took[int(len(took) * 0.99)]} if took else {}
    return {"cpu": cpu, "wall": wall, "items": count, **latency}


async def main(module: str, endpoint: str, table: str) -> None:
    """Opens the peer and serves commands."""
    sys.path.insert(0, str(__file__).rpartition("/")[0])
    peers = importlib.import_module(module)
    loop = asyncio.get_running_loop()
    async with peers.open_peer(endpoint, table) as peer:
        print(json.dumps({"ready": peers.versions()}), flush=True)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            command = json.loads(line)
            result = await run(peer, command["workload"], command["count"], command["seed"])
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
