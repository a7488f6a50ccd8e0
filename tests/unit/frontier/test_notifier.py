"""Work is announced after counts were stored and drained hosts have left; with fakes for the tables."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ragcrawl_dynamo._dynamodb.outcomes import Applied, Failed, Outcome, Refused
from ragcrawl_dynamo._frontier import notifier as module
from ragcrawl_dynamo._frontier.counters import Flushed
from ragcrawl_dynamo._frontier.notifier import Notifier
from ragcrawl_dynamo._frontier.work import Listed, Work
from ragcrawl_dynamo._schema.queue_order import queue_order, rank
from ragcrawl_dynamo._utils.tasks import Tasks
from ragcrawl_dynamo.errors import ThrottledError
from tests.support.fake_run import FakeRun
from tests.support.hosts import at, candidate, known, listed, names

BUSY = ThrottledError("busy", code="Busy", operation="UpdateItem", table=None)


def new_work(seconds: float = 0.0) -> Work:
    return Work(queue_order(rank(0.0, at(seconds))), is_changed=True)


class Flushing:
    """A run with drained hosts; `flushed` is what the next flush of counts returns."""

    def __init__(self, *hosts: str) -> None:
        self.run = FakeRun(buckets=1)
        self.run.tasks = Tasks()
        self.run.counters = cast("Any", SimpleNamespace(flush=self.flush, seconds_until_due=self.due))
        self.bench, self.store = self.run.view.bench, self.run.fake_hosts
        self.notifier = Notifier(self.run)
        self.flushed = Flushed()
        self.calls: list[tuple[Mapping[str, Listed], Container[str] | None]] = []
        self.during_flush: Callable[[], None] | None = None
        self.once: list[bool] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.seconds_until_due: float | None = None
        for name in hosts:
            host = self.bench.hosts[name] = known(host=name)
            self.bench.settle(host)

    async def flush(
        self,
        find_drained: Callable[[Iterable[str]], Mapping[str, Listed]],
        only: Container[str] | None,
        *,
        once: bool = False,
    ) -> Flushed:
        self.calls.append((find_drained(["a"]), only))
        self.once.append(once)
        await self.gate.wait()
        if self.during_flush is not None:
            self.during_flush()
        return self.flushed

    def due(self, monotonic: float) -> float | None:
        return self.seconds_until_due

    def add(self, host: str) -> None:
        """Adds an item to a host, as this process knows it."""
        self.run.offer(candidate("new", host=host))


async def test_host_that_has_left_the_list_is_forgotten() -> None:
    flushing = Flushing("a", "b")
    flushing.flushed.asleep = ["a"]
    await flushing.notifier.flush()
    assert flushing.calls == [({"a": Listed("a", listed())}, None)]
    assert (list(flushing.bench.hosts), flushing.store.announced) == (["b"], [])


async def test_host_that_got_an_item_while_it_left_the_list_is_announced() -> None:
    flushing = Flushing("a", "b")
    flushing.flushed.asleep = ["a", "b", "unknown"]
    flushing.during_flush = lambda: flushing.add("a")
    await flushing.notifier.flush()
    assert flushing.store.announced == [{"a": new_work()}]
    assert list(flushing.bench.hosts) == ["a"]


async def test_host_that_is_announced_again_keeps_its_known_items() -> None:
    flushing = Flushing("a")
    flushing.flushed.asleep = ["a"]
    flushing.during_flush = lambda: flushing.add("a")
    await flushing.notifier.flush()
    # The index may not show the item yet.
    assert names(flushing.bench.hosts["a"].ready) == ["new"]


async def test_host_that_has_open_items_and_is_not_listed_is_announced() -> None:
    flushing = Flushing()
    flushing.flushed.to_wake = ["a"]
    flushing.run.view.changed.clear()
    await flushing.notifier.flush()
    assert flushing.store.announced == [{"a": new_work()}]
    # Claims that wait try again.
    assert flushing.run.view.changed.is_set()


async def test_queue_of_an_idle_host_that_has_open_items_by_its_counts_is_read_again() -> None:
    flushing = Flushing("a", "b")
    flushing.flushed.open = ["a", "unknown"]
    await flushing.notifier.flush()
    assert [host.is_all for host in flushing.bench.hosts.values()] == [False, True]
    assert flushing.store.announced == []


async def test_idle_drained_hosts_leave_the_list_with_a_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LEAVING_AT_ONCE", 3)
    flushing = Flushing(*"abcd")
    outcomes: dict[str, Outcome] = {"a": Applied({}), "b": Refused(), "c": Failed(BUSY), "d": Applied({})}
    flushing.store.move_outcomes |= outcomes
    await flushing.notifier.flush()
    assert flushing.store.moves == []
    flushing.run.clock.advance(1)
    await flushing.notifier.flush()
    assert flushing.store.moves == [(Listed(host, listed()), None) for host in "abc"]
    # Those whose counts say that items are open stay.
    assert list(flushing.bench.hosts) == ["b", "c", "d"]
    await flushing.notifier.flush()
    assert list(flushing.bench.hosts) == ["b", "c"]


async def test_item_that_came_while_an_idle_host_left_the_list_is_announced() -> None:
    flushing = Flushing("a")
    flushing.store.move_outcomes["a"] = Applied({})
    flushing.store.during_move = lambda: flushing.add("a")
    await flushing.notifier.flush()
    flushing.run.clock.advance(1)
    await flushing.notifier.flush()
    assert flushing.store.announced == [{"a": new_work(1)}]
    assert list(flushing.bench.hosts) == ["a"]


async def test_flush_of_stores_the_counts_of_the_hosts_that_have_some() -> None:
    flushing = Flushing("a")
    await flushing.notifier.flush_of({"a"})
    flushing.run.view.unwritten_counts.by_host["a"] = Counter(pending=1)
    await flushing.notifier.flush_of({"b"})
    assert flushing.calls == []
    await flushing.notifier.flush_of({"a", "b"})
    assert [only for _, only in flushing.calls] == [{"a", "b"}]
    # Idle hosts leave only when all counts are stored.
    flushing.run.clock.advance(5)
    await flushing.notifier.flush_of({"a"})
    flushing.run.clock.advance(5)
    await flushing.notifier.flush_of({"a"})
    assert flushing.store.moves == []


async def test_work_that_could_not_be_announced_is_announced_by_the_next_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flushing = Flushing()

    async def fail(*arguments: object) -> None:
        raise BUSY

    flushing.flushed.to_wake = ["a"]
    with monkeypatch.context() as patched:
        patched.setattr(flushing.store, "announce", fail)
        with pytest.raises(ThrottledError):
            await flushing.notifier.flush()
    await flushing.notifier.announce_left()
    await flushing.notifier.announce_left()
    assert flushing.store.announced == [{"a": new_work()}]


async def test_flush_if_due_waits_for_nothing_and_runs_once_at_a_time(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushing = Flushing()
    flushing.gate.clear()
    flushing.notifier.flush_if_due()
    assert flushing.calls == []
    flushing.seconds_until_due = 0.0
    for _ in range(3):
        flushing.notifier.flush_if_due()
        await asyncio.sleep(0)
    assert (len(flushing.calls), flushing.once) == (1, [True])

    async def busy(work: object, counts: object) -> None:
        raise BUSY

    # What it cannot announce is announced by the next call.
    monkeypatch.setattr(flushing.store, "announce", busy)
    flushing.flushed.to_wake = ["a"]
    flushing.gate.set()
    await flushing.run.tasks.join()
    assert "the counts of hosts could not be stored" in caplog.text
    assert "a" in flushing.run.view.unannounced
    flushing.notifier.flush_if_due()
    await flushing.run.tasks.join()
    assert len(flushing.calls) == 2
    with pytest.raises(ThrottledError):
        await flushing.notifier.close()


async def test_counts_are_stored_when_it_is_time_even_if_the_process_does_nothing_else() -> None:
    flushing = Flushing()
    flushing.seconds_until_due = 0.4
    for _ in range(2):
        flushing.notifier.flush_if_due()
    await flushing.run.clock.wait_for_sleeper()
    flushing.run.clock.advance(0.3)
    await asyncio.sleep(0)
    flushing.seconds_until_due = 0.0
    assert flushing.calls == []
    flushing.run.clock.advance(0.1)
    for _ in range(4):
        await asyncio.sleep(0)
    assert len(flushing.calls) == 1
    # Counts that come while others are stored follow a second later.
    flushing.gate.clear()
    flushing.notifier.flush_if_due()
    await asyncio.sleep(0)
    flushing.notifier.flush_if_due()
    await flushing.run.clock.wait_for_sleeper()
    flushing.gate.set()
    await flushing.run.tasks.join()
    assert len(flushing.calls) == 2
    flushing.run.clock.advance(1.0)
    for _ in range(4):
        await asyncio.sleep(0)
    assert len(flushing.calls) == 3


async def test_close_stores_the_counts_at_once_and_leaves_no_reminder() -> None:
    flushing = Flushing()
    flushing.seconds_until_due = 0.4
    flushing.notifier.flush_if_due()
    await flushing.notifier.close()
    assert len(flushing.calls) == 1
    flushing.run.clock.advance(1.0)
    await asyncio.sleep(0)
    assert len(flushing.calls) == 1


async def test_flush_that_a_caller_waits_for_stores_throttled_counts_too() -> None:
    flushing = Flushing()
    flushing.run.view.unwritten_counts.by_host["a"] = Counter(pending=1)
    await flushing.notifier.flush()
    await flushing.notifier.flush_of({"a"})
    assert flushing.once == [False, False]


async def test_waiting_ends_when_this_process_learns_of_work_or_after_some_seconds() -> None:
    flushing = Flushing()
    changed = flushing.run.view.changed
    changed.clear()
    waiting = asyncio.create_task(flushing.notifier.wait_for_change(5.0))
    await flushing.run.clock.wait_for_sleeper()
    flushing.run.clock.advance(4.9)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not waiting.done()
    flushing.run.clock.advance(0.1)
    await waiting
    waiting = asyncio.create_task(flushing.notifier.wait_for_change(5.0))
    await flushing.run.clock.wait_for_sleeper()
    changed.set()
    await waiting
