"""Runs a process that opens a store and forks, and reads on while the child tries to use that store."""

from __future__ import annotations

import asyncio
import gc
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from ragcrawl_dynamo import DynamoDBConfig, Frontier, Store
from tests.support.factories import make_page, make_run, make_site, make_version

NAMES = [f"p{i}" for i in range(40)]

# Each opens connections, reads, writes, or answers from memory.
CALLS: dict[str, Callable[[Store, Frontier], Awaitable[Any]]] = {
    "initialize": lambda store, _: store.initialize(),
    "health_check": lambda store, _: store.health_check(),
    "describe_tables": lambda store, _: store.describe_tables(),
    "migrate": lambda store, _: store.migrate(),
    "save_site": lambda store, _: store.save_site(make_site()),
    "list_sites": lambda store, _: store.list_sites(),
    "start_run": lambda store, _: store.start_run(make_run()),
    "save_page": lambda store, _: store.save_page(make_page("p1")),
    "save_pages_bulk": lambda store, _: store.save_pages_bulk([make_page("p1")]),
    "get_page": lambda store, _: store.get_page("site", "p1"),
    "get_pages_bulk": lambda store, _: store.get_pages_bulk("site", ["p1"]),
    "count_pages": lambda store, _: store.count_pages("site"),
    "save_version": lambda store, _: store.save_version(make_version(markdown="text " * 20_000)),
    "commit_page": lambda store, _: store.commit_page(make_page("p1"), make_version(page_id="p1")),
    "list_changes": lambda store, _: store.list_changes("site"),
    "frontier.add": lambda _, frontier: frontier.add(["https://a.example/more"]),
    "frontier.claim": lambda _, frontier: frontier.claim(1),
    "frontier.stats": lambda _, frontier: frontier.stats(),
    "frontier.is_finished": lambda _, frontier: frontier.is_finished(),
}


def fork(config: DynamoDBConfig, report: Path) -> None:
    """Opens a store, forks, and writes the results of parent and child."""
    loop = asyncio.new_event_loop()
    opened = [loop.run_until_complete(_open(Store(config)))]
    child = os.fork()
    if child == 0:
        try:
            report.with_suffix(".child").write_text(json.dumps(_in_child(loop, opened)))
        finally:
            os._exit(0)
    store, _ = opened[0]
    wrong = _read_until_ended(loop, store, child)
    retries = sum(counters.retries for counters in store.metrics().values())
    loop.run_until_complete(store.close())
    loop.close()
    report.write_text(json.dumps({"wrong": wrong, "retries": retries}))


async def _open(store: Store) -> tuple[Store, Frontier]:
    await store.initialize()
    # At the same time, so that several connections are open.
    await asyncio.gather(*(store.save_pages_bulk([make_page(name)]) for name in NAMES))
    frontier = store.frontier("site", "run")
    await frontier.add([f"https://a.example/{name}" for name in NAMES])
    assert await frontier.claim(1)
    return store, frontier


def _in_child(loop: asyncio.AbstractEventLoop, opened: list[tuple[Store, Frontier]]) -> dict[str, Any]:
    raised = {name: asyncio.run(_name_of_error(call(*opened[0]))) for name, call in CALLS.items()}
    raised["get_page in the loop of the parent"] = loop.run_until_complete(
        _name_of_error(opened[0][0].get_page("site", "p1"))
    )
    # The child would take all answers that come on connections of both processes.
    loop.run_until_complete(asyncio.sleep(0.5))
    closed = asyncio.run(_name_of_error(opened[0][0].close()))
    config = opened[0][0].config
    # Forgets the connections, as a process does that replaces its store.
    opened.clear()
    gc.collect()
    return {"raised": raised, "close": closed, "read": asyncio.run(_read_with(Store(config)))}


async def _name_of_error(call: Awaitable[Any]) -> str | None:
    try:
        async with asyncio.timeout(10):
            await call
    except Exception as error:
        return type(error).__name__
    return None


async def _read_with(store: Store) -> int:
    async with store:
        return await _wrong(store, NAMES)


def _read_until_ended(loop: asyncio.AbstractEventLoop, store: Store, child: int) -> int:
    """Reads pages until a process has ended; returns how many were wrong."""
    wrong = 0
    while not os.waitpid(child, os.WNOHANG)[0]:
        wrong += loop.run_until_complete(_wrong(store, NAMES))
    return wrong + loop.run_until_complete(_wrong(store, NAMES))


async def _wrong(store: Store, names: list[str]) -> int:
    async with asyncio.timeout(20):
        pages = [await store.get_page("site", name) for name in names]
    return sum(page is None or page.page_id != name for page, name in zip(pages, names, strict=True))
