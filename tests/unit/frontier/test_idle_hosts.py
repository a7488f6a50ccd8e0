"""Hosts that have nothing to claim are looked at again and moved; with lists in memory, in virtual time."""

from __future__ import annotations

from itertools import pairwise

import pytest

from ragcrawl_dynamo._dynamodb.outcomes import Applied, Failed, Refused
from ragcrawl_dynamo._frontier import idle_hosts as module
from ragcrawl_dynamo._frontier.host_lists import HostLists
from ragcrawl_dynamo._frontier.idle_hosts import IdleHosts
from ragcrawl_dynamo._frontier.queue_reader import QueueReader
from ragcrawl_dynamo._frontier.work import Work
from ragcrawl_dynamo._schema.queue_order import queue_order, rank, split_place
from ragcrawl_dynamo.errors import ThrottledError
from tests.support.factories import START
from tests.support.fake_run import FakeRun
from tests.support.hosts import HOST, at, candidate, listed, names, record

PLACE = split_place(listed())
THROTTLED = Failed(ThrottledError("busy", code="Busy", operation="UpdateItem", table=None))


class Idle:
    """A run with idle hosts, which are listed as having work, and whose pauses last for a minute."""

    def __init__(self, *hosts: str, order: str = listed()) -> None:  # text
        self.run = FakeRun(buckets=1)
        self.run.set_share(0)
        self.store, self.queues = self.run.fake_hosts, self.run.fake_queues
        reader = QueueReader(self.run)
        self.hosts = IdleHosts(self.run, HostLists(self.run), reader)
        self.bench = self.run.view.bench
        for host in hosts:
            self.run.list_host(host, order)
            self.bench.see(host, order, 0, 0.0, is_own=True)
            self.bench.hosts[host].is_all = True
            self.bench.hosts[host].looked_at = 0.0
            self.bench.hosts[host].empty_looks = 7
            self.bench.settle(self.bench.hosts[host])
            self.store.move_outcomes[host] = Refused()

    async def look_again(self, seconds: float = 0.0) -> bool:
        """Lets seconds pass and looks again."""
        self.run.clock.advance(seconds)
        self.queues.looks.clear()
        return await self.hosts.look_again(1, self.run.clock.now())


async def test_claim_that_waits_looks_again_once_a_second() -> None:
    idle = Idle()
    assert idle.hosts.is_due()
    await idle.look_again()
    assert not idle.hosts.is_due()
    idle.run.clock.advance(1)
    assert idle.hosts.is_due()
    await idle.look_again()
    idle.run.clock.advance(0.9)
    assert not idle.hosts.is_due()


async def test_host_is_not_looked_at_if_the_lists_show_work() -> None:
    idle = Idle("a")
    idle.run.list_host("b", listed())
    assert await idle.look_again()
    assert idle.queues.looks == []


async def test_item_that_moved_no_host_is_found() -> None:
    idle = Idle("a", "b")
    assert not await idle.look_again()
    idle.queues.shards["a", 0] = [candidate("new", host="a")]
    assert await idle.look_again(5)
    assert names(idle.bench.choose(1, idle.run.clock.now(), 5.0).candidates) == ["new"]
    assert idle.store.moves == []


async def test_hosts_that_were_not_looked_at_for_the_longest_time_come_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_LOOKS", 2)
    idle = Idle("a", "b", "c")
    for host, seconds in (("a", 3.0), ("b", 2.0), ("c", 1.0)):
        idle.bench.hosts[host].looked_at = seconds
    await idle.look_again(5)
    assert idle.queues.looks == ["c", "b"]


async def test_host_is_moved_once_it_had_nothing_for_a_second() -> None:
    idle = Idle("a")
    await idle.look_again()
    await idle.look_again(0.9)
    assert idle.store.moves == []
    idle.store.move_outcomes["a"] = Applied({})
    assert not await idle.look_again(0.1)
    assert [(move.host, move.order, place) for move, place in idle.store.moves] == [("a", listed(), None)]
    # It is looked at once more after the move.
    assert idle.queues.looks == ["a", "a"]
    assert idle.bench.hosts == {}


@pytest.mark.parametrize("has_limits", [False, True])
async def test_item_that_came_just_before_the_move_is_announced(has_limits: bool) -> None:
    idle = Idle("a", order=listed(has_limits=has_limits))
    limits = {"delay": 3.0} if has_limits else {}
    idle.store.records["a"] = record("a", place=PLACE, **limits)
    await idle.look_again()
    new = candidate("new", host="a")

    def move() -> None:
        idle.store.records["a"] = record("a", **limits)
        idle.queues.shards["a", 0] = [new]

    idle.store.during_move = move
    idle.store.move_outcomes["a"] = Applied({})
    assert await idle.look_again(1)
    assert idle.store.announced == [{"a": Work(new.order)}]


async def test_closed_host_is_not_moved_before_its_queue_was_read() -> None:
    idle = Idle("a", order=listed(has_limits=True))
    idle.bench.hosts["a"].record = record("a", delay=50, next_at=at(50), place=PLACE)
    idle.bench.settle(idle.bench.hosts["a"])
    idle.queues.shards["a", 0] = [candidate("new", host="a")]
    await idle.look_again()
    await idle.look_again(49)
    assert (idle.store.moves, idle.queues.looks) == ([], [])
    assert await idle.look_again(1)
    assert idle.queues.looks == ["a"]
    assert names(idle.bench.choose(1, at(50), 50.0).candidates) == ["new"]


async def test_item_that_came_just_before_the_move_and_waits_is_announced_too() -> None:
    idle = Idle("a")
    await idle.look_again()
    late = candidate("late", host="a", ready_at=at(30))
    idle.store.during_move = lambda: idle.queues.shards["a", 0].append(late)
    idle.store.move_outcomes["a"] = Applied({})
    assert not await idle.look_again(1)
    assert idle.store.announced == [{"a": Work(late.order)}]
    assert "a" in idle.bench.hosts


@pytest.mark.parametrize(("until", "moved_to"), [(30, 30), (900, 61)])
async def test_host_with_items_that_wait_moves_to_their_moment_within_a_minute(
    until: float, moved_to: float
) -> None:
    idle = Idle("a")
    items = [candidate("late", 0, 5, "a", at(until)), candidate("urgent", 1, 3, "a", at(until + 1))]
    idle.queues.shards["a", 0] = items
    await idle.look_again()
    place = queue_order(rank(1, at(-3)), at(moved_to))
    idle.store.move_outcomes["a"] = Applied({"queue_order": {"S": place + "U01#"}})
    assert not await idle.look_again(1)
    assert [place for _, place in idle.store.moves] == [place]
    host = idle.bench.hosts["a"]
    assert host.order == place + "U01#"
    assert idle.bench.next_moment() == at(min(until, moved_to))
    assert (idle.bench.idle, idle.store.announced) == ({}, [])


async def test_host_that_moved_to_a_moment_and_got_an_item_is_announced() -> None:
    idle = Idle("a")
    idle.queues.shards["a", 0] = [candidate("late", host="a", ready_at=at(30))]
    await idle.look_again()
    new = candidate("new", host="a")
    idle.store.during_move = lambda: idle.queues.shards["a", 0].append(new)
    idle.store.move_outcomes["a"] = Applied({"queue_order": {"S": listed(ready_at=at(30))}})
    assert await idle.look_again(1)
    assert idle.store.announced == [{"a": Work(new.order)}]


async def test_host_whose_counts_say_that_it_has_items_is_looked_at_less_and_less_often() -> None:
    idle = Idle("a")
    looked_at = []
    for second in range(124):
        await idle.look_again(1)
        if idle.queues.looks:
            looked_at.append(second)
    pauses = [later - earlier for earlier, later in pairwise(looked_at)]
    assert pauses == [1, 1, 2, 4, 8, 16, 32]
    # After a minute, a claim that has enough to choose from looks at it too.
    looks = [idle.bench.choose(1, at(looked_at[-1] + 1 + seconds), 0.0).looks for seconds in (59, 60)]
    assert looks == [[], [idle.bench.hosts["a"]]]


async def test_host_whose_counts_stay_wrong_for_days_is_looked_at_once_a_minute() -> None:
    idle = Idle("a")
    await idle.look_again(1)
    idle.bench.hosts["a"].distrusted = 5000
    await idle.look_again(1)
    assert not idle.queues.looks
    assert idle.bench.choose(1, at(62), 0.0).looks == [idle.bench.hosts["a"]]


async def test_host_whose_move_failed_is_moved_the_next_time() -> None:
    idle = Idle("a")
    await idle.look_again()
    idle.store.move_outcomes["a"] = THROTTLED
    await idle.look_again(1)
    await idle.look_again(0.1)
    assert len(idle.store.moves) == 2
    assert idle.bench.hosts["a"].distrusted == 0


async def test_host_that_another_process_has_moved_is_looked_at_again_at_once() -> None:
    idle = Idle("a")
    idle.queues.shards["a", 0] = [candidate("late", host="a", ready_at=at(30))]
    await idle.look_again()
    await idle.look_again(1)
    assert len(idle.store.moves) == 1
    await idle.look_again(0.1)
    assert idle.queues.looks == ["a"]


async def test_record_of_a_limited_host_is_read_again_after_its_move() -> None:
    order = listed(has_limits=True)
    idle = Idle("a", order=order)
    idle.store.records["a"] = record("a", place=PLACE, delay=3)
    idle.queues.shards["a", 0] = [candidate("late", host="a", ready_at=at(30))]
    await idle.look_again()
    moved = queue_order(rank(0, START), at(30))
    idle.store.during_move = lambda: idle.store.records.update(a=record("a", place=moved, delay=3))
    idle.store.move_outcomes["a"] = Applied({"queue_order": {"S": moved + "L01#"}})
    await idle.look_again(1)
    assert idle.bench.hosts["a"].record == idle.store.records["a"]
    assert list(idle.bench.hosts["a"].waiting) == ["late"]


async def test_idle_host_at_its_maximum_is_looked_at_once() -> None:
    idle = Idle("a", order=listed(has_limits=True))
    idle.bench.hosts["a"].record = record("a", max_in_flight=1, slots={"token": at(60)})
    idle.store.records["a"] = record("a", max_in_flight=1, place=PLACE)
    await idle.look_again()
    assert idle.queues.looks == ["a"]


async def test_hosts_at_their_maximum_are_read_again() -> None:
    idle = Idle()
    order = listed(has_limits=True)
    idle.bench.see(HOST, order, 0, 0.0, is_own=True)
    host = idle.bench.hosts[HOST]
    host.looked_at, host.is_all = 0.0, True
    host.record = record(max_in_flight=1, slots={"token": at(60)})
    host.offer(candidate("a"))
    idle.bench.settle(host)
    idle.run.list_host(HOST, order)
    idle.queues.shards[HOST, 0] = [candidate("a")]
    idle.store.records[HOST] = record(max_in_flight=1, place=PLACE)
    assert await idle.look_again()
    assert names(idle.bench.choose(1, START, 0.0).candidates) == ["a"]
