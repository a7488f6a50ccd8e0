"""How often one process reads the control of a run."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from ragcrawl_dynamo._frontier.control_reads import ControlReads
from ragcrawl_dynamo._schema.records import RunControl
from ragcrawl_dynamo._utils.tasks import Tasks


class Store:
    """A control whose reads take a moment; each read returns the value that was stored when it began."""

    def __init__(self, processes: int) -> None:
        self.count = processes
        self.stored = 0
        self.reads = 0
        self.control_reads = ControlReads(cast("Any", self), cast("Any", self), Tasks())

    async def read(self) -> RunControl:
        self.reads += 1
        control = RunControl(run="run", site_id="site", buckets=self.stored)
        await asyncio.sleep(0.003)
        return control


def value(control: RunControl | None) -> int:
    assert control is not None
    return control.buckets


async def test_following_read_begins_after_the_call() -> None:
    store = Store(processes=5)

    async def write_and_read(number: int) -> None:
        for _ in range(10):
            await asyncio.sleep(number / 10_000)
            store.stored += 1
            stored = store.stored
            assert value(await store.control_reads.following()) >= stored

    await asyncio.gather(*map(write_and_read, range(20)))
    # All calls that wait share the next read.
    assert store.reads < 60


async def test_reads_of_many_processes_are_rarer() -> None:
    store = Store(processes=50)
    loop = asyncio.get_running_loop()
    end = loop.time() + 0.4
    direct = 0

    async def add() -> None:
        nonlocal direct
        while loop.time() < end:
            if store.control_reads.may_begin():
                direct += 1
            await store.control_reads.following()

    await asyncio.gather(*(add() for _ in range(20)))
    # One in 50 ms: 8 in 0.4 s, and one for those that come at the end.
    assert 3 <= store.reads + direct <= 10


async def test_recent_control_is_read_again_after_the_interval() -> None:
    store = Store(processes=100)
    assert value(await store.control_reads.recent()) == 0
    store.stored = 1
    assert value(await store.control_reads.recent()) == 0
    await asyncio.sleep(0.11)
    assert value(await store.control_reads.recent()) == 1
    assert store.reads == 2


async def test_recent_control_of_one_process_is_read_for_each_claim() -> None:
    store = Store(processes=1)
    for number in range(5):
        store.stored = number
        assert value(await store.control_reads.recent()) == number


async def test_recent_control_is_read_again_after_this_process_has_changed_it() -> None:
    store = Store(processes=1000)
    await store.control_reads.recent()
    under_way = asyncio.ensure_future(store.control_reads.recent())
    store.control_reads.forget()
    reading = asyncio.ensure_future(store.control_reads.recent())
    await asyncio.sleep(0.001)
    store.stored = 1
    # A read that began before the change returns the old control.
    store.control_reads.forget()
    await asyncio.gather(under_way, reading)
    assert value(await store.control_reads.recent()) == 1
