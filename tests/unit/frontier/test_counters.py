"""How counts are added up and stored; with writes that are scripted."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import pytest

from ragcrawl_dynamo._dynamodb.conditional_writes import ConditionalInsert, ConditionalUpdate
from ragcrawl_dynamo._dynamodb.expressions import AllOf, Compare
from ragcrawl_dynamo._dynamodb.outcomes import Applied, Failed, Outcome, Refused
from ragcrawl_dynamo._dynamodb.values import Item
from ragcrawl_dynamo._frontier.counters import Counters
from ragcrawl_dynamo._frontier.counts import NAMES, FrontierStats, UnwrittenCounts
from ragcrawl_dynamo._frontier.work import Listed
from ragcrawl_dynamo._schema.tables import FRONTIER
from ragcrawl_dynamo.errors import ThrottledError
from tests.support.fake_run import FakeHosts
from tests.support.fakes import open_gateway, scripted
from tests.support.hosts import listed
from tests.support.written import spelled

FAILED = Failed(ThrottledError("busy", code="Busy", operation="UpdateItem", table=None))
LISTED = Applied({"queue": {"S": "q"}, "pending": {"N": "5"}})
NOT_LISTED = Applied({"pending": {"N": "5"}})
EMPTY = Applied({"pending": {"N": "0"}, "completed": {"N": "9"}})

BUSY = ThrottledError("busy", code="Busy", operation="UpdateItem", table=None)


class Writes:
    """Gives each key its outcomes, one after the other; the last one again and again."""

    def __init__(self, **outcomes: list[Outcome]) -> None:
        self.outcomes: dict[str, list[Outcome]] = {"count": [LISTED], **outcomes}
        self.conditions: list[dict[Any, Any]] = []
        self.written: list[tuple[str, Counter[str], bool]] = []
        self.once: list[bool] = []
        self.inserted: list[Item] = []

    async def run(
        self, writes: Sequence[ConditionalInsert | ConditionalUpdate], *, once: bool = False
    ) -> list[Outcome]:
        self.once.append(once)
        return [self._outcome(write) for write in writes]

    def _outcome(self, write: ConditionalInsert | ConditionalUpdate) -> Outcome:
        if isinstance(write, ConditionalInsert):
            self.written.append(("new shard", Counter(), False))
            self.inserted.append(write.item)
            assert write.token.is_in(write.item)
            return Applied()
        name = write.key["item_id"].get("S", "")
        name = "count" if name.startswith("count#") else name.removeprefix("host#")
        amounts = {str(key): int(value["N"]) for key, value in write.update.increment.items()}
        self.written.append((name, Counter(amounts), "queue" in write.update.remove))
        # A write whose answer was lost is recognized by its token.
        assert write.update.put[write.token.path] == write.token.value
        if isinstance(write.condition, AllOf):
            compared = [part for part in write.condition.conditions if isinstance(part, Compare)]
            assert {part.operator for part in compared} == {"="}
            # The write is done once, and other updates of the record notice it.
            assert write.token.is_absent in write.condition.conditions
            assert "revision" in write.update.put
            self.conditions.append({part.path: part.value for part in compared})
        outcomes = self.outcomes[name]
        return outcomes.pop(0) if len(outcomes) > 1 else outcomes[0]


def counters_on(writes: Writes) -> tuple[Counters, UnwrittenCounts]:
    unwritten, nothing = UnwrittenCounts(), cast("Any", None)
    return Counters(nothing, nothing, cast("Any", writes), cast("Any", FakeHosts(1)), unwritten), unwritten


def drained(*names: str) -> Callable[[Iterable[str]], dict[str, Listed]]:
    """Says which hosts are drained."""
    return lambda hosts: {host: Listed(host, listed()) for host in hosts if host in names}


def test_moves_are_added_up_for_each_host_and_for_the_run() -> None:
    counters, unwritten = counters_on(Writes())
    counters.move("a", None, "pending")
    counters.move("a", "pending", "in_progress")
    counters.move("b", "in_progress", "in_progress")
    counters.move("b", "failed", None)
    assert unwritten.by_host == {"a": Counter(pending=0, in_progress=1), "b": Counter(failed=-1)}
    assert unwritten.total == Counter(pending=0, in_progress=1, failed=-1)


def test_counts_are_due_a_second_after_the_first_move() -> None:
    counters, _ = counters_on(Writes())
    assert counters.seconds_until_due(0.0) is None
    counters.move("a", None, "pending")
    assert [counters.seconds_until_due(seconds) for seconds in (5.0, 5.5, 6.0)] == [1.0, 0.5, 0.0]


def test_counts_of_the_run_are_due_if_the_hosts_were_stored_with_theirs() -> None:
    counters, unwritten = counters_on(Writes())
    counters.move("a", None, "pending")
    # An announcement stores the new host.
    del unwritten.by_host["a"]
    assert [counters.seconds_until_due(seconds) for seconds in (5.0, 6.0)] == [1.0, 0.0]


def test_counts_of_the_run_that_add_up_to_nothing_are_not_due() -> None:
    counters, unwritten = counters_on(Writes())
    counters.move("a", None, "pending")
    counters.move("a", "pending", None)
    unwritten.by_host.clear()
    assert counters.seconds_until_due(0.0) is None


def test_corrections_are_stored_with_the_next_counts() -> None:
    counters, unwritten = counters_on(Writes())
    counters.move("a", None, "pending")
    counters.correct(Counter(pending=3), [("a", Counter(pending=2)), ("b", Counter(completed=1))])
    assert unwritten.total == Counter(pending=4)
    assert unwritten.by_host == {"a": Counter(pending=3), "b": Counter(completed=1)}


async def test_flush_stores_the_amounts_once() -> None:
    writes = Writes(a=[LISTED], b=[EMPTY])
    counters, _ = counters_on(writes)
    await counters.flush(drained())
    assert writes.written == []
    counters.move("a", None, "pending")
    counters.move("b", "in_progress", "completed")
    flushed = await counters.flush(drained())
    assert writes.written == [
        ("count", Counter(pending=1, in_progress=-1, completed=1), False),
        ("a", Counter(pending=1), False),
        ("b", Counter(in_progress=-1, completed=1), False),
    ]
    assert (flushed.asleep, flushed.to_wake) == ([], [])
    await counters.flush(drained())
    assert len(writes.written) == 3


async def test_flush_counts_hosts_that_get_their_first_completed_item() -> None:
    two = Applied({"pending": {"N": "1"}, "completed": {"N": "2"}})
    writes = Writes(first=[two, Applied({"pending": {"N": "1"}, "completed": {"N": "3"}})], other=[EMPTY])
    counters, _ = counters_on(writes)
    for host in ("first", "first", "other"):
        counters.move(host, "in_progress", "completed")
    await counters.flush(drained())
    # Another process has counted the other host.
    assert (counters.take_new_hosts(), counters.take_new_hosts()) == (1, 0)
    counters.move("first", "in_progress", "completed")
    counters.move("other", "in_progress", "skipped")
    await counters.flush(drained())
    assert counters.take_new_hosts() == 0


def stored(**counts: int) -> Applied:
    return Applied({name: {"N": str(count)} for name, count in counts.items()})


async def test_first_completed_items_of_hosts_are_counted_until_they_are_taken() -> None:
    writes = Writes(a=[stored(completed=1)], b=[stored(completed=2)])
    counters, _ = counters_on(writes)
    for hosts in ("a", "bb"):
        for host in hosts:
            counters.move(host, "in_progress", "completed")
        await counters.flush(drained())
    assert counters.take_new_hosts() == 2


async def test_host_without_a_completed_item_is_not_counted() -> None:
    counters, _ = counters_on(Writes(a=[stored(pending=1, completed=0)]))
    counters.move("a", None, "pending")
    await counters.flush(drained())
    assert counters.take_new_hosts() == 0


async def test_flush_notices_a_single_open_item_of_a_host_that_is_not_listed() -> None:
    counters, _ = counters_on(Writes(a=[stored(delayed=1)]))
    counters.move("a", "in_progress", "delayed")
    assert (await counters.flush(drained())).to_wake == ["a"]


async def test_stats_of_the_run_are_the_sums_of_its_shards() -> None:
    none = {name: {"N": "0"} for name in NAMES}
    shards = [{**none, "pending": {"N": "3"}}, {**none, "pending": {"N": "-1"}, "failed": {"N": "2"}}]
    nothing = cast("Any", None)
    async with open_gateway(scripted({"Items": shards})) as (gateway, client):
        hosts = cast("Any", FakeHosts(1))
        counters = Counters(gateway, FRONTIER, nothing, hosts, UnwrittenCounts())
        assert await counters.stats() == FrontierStats(pending=2, failed=2)
    ((operation, request),) = client.requests
    assert (operation, request["ConsistentRead"]) == ("query", True)
    keys = "(run_id = #run) AND (begins_with(item_id, count#))"
    assert spelled(request, "KeyConditionExpression") == keys


async def test_flush_stores_a_correction_of_the_run_alone() -> None:
    writes = Writes()
    counters, _ = counters_on(writes)
    counters.correct(Counter(pending=3), [])
    await counters.flush(drained())
    assert writes.written == [("count", Counter(pending=3), False)]


async def test_flush_stores_the_shard_of_the_run_if_there_is_none() -> None:
    writes = Writes(a=[LISTED], count=[Refused(), LISTED])
    counters, unwritten = counters_on(writes)
    counters.move("a", None, "pending")
    await counters.flush(drained())
    assert [name for name, _, _ in writes.written] == ["count", "a", "new shard", "count"]
    assert not unwritten.total
    (shard,) = writes.inserted
    assert [shard[name] for name in NAMES] == [{"N": "0"}] * len(NAMES)
    assert shard["site_id"] == {"S": "site"}
    assert set(shard) == {"run_id", "item_id", "site_id", "made_by", *NAMES}
    assert set(writes.once) == {False}


async def test_flush_keeps_the_counts_of_the_run_if_its_shard_cannot_be_stored() -> None:
    writes = Writes(a=[LISTED], count=[Refused(), FAILED])
    counters, unwritten = counters_on(writes)
    counters.move("a", None, "pending")
    await counters.flush(drained())
    assert (unwritten.by_host, unwritten.total) == ({}, Counter(pending=1))


async def test_flush_keeps_counts_that_could_not_be_stored() -> None:
    writes = Writes(a=[FAILED], b=[LISTED], count=[FAILED])
    counters, unwritten = counters_on(writes)
    counters.move("a", None, "pending")
    counters.move("b", None, "pending")
    await counters.flush(drained())
    # A host is tried twice.
    assert [name for name, _, _ in writes.written] == ["count", "a", "b", "a"]
    assert unwritten.by_host == {"a": Counter(pending=1)}
    assert unwritten.total == Counter(pending=2)


async def test_flush_takes_a_drained_host_out_of_the_list() -> None:
    writes = Writes(a=[EMPTY], b=[EMPTY])
    counters, _ = counters_on(writes)
    for host in "ab":
        counters.move(host, "in_progress", "completed")
    flushed = await counters.flush(drained("a"))
    ended = Counter(in_progress=-1, completed=1)
    assert writes.written[1:] == [("a", ended, True), ("b", ended, False)]
    # It leaves only if nothing of it is open then, and nobody has moved it.
    none: Any = {"N": "0"}
    (condition,) = writes.conditions
    open_now = {"pending": none, "delayed": none, "in_progress": {"N": "1"}}
    assert condition == {"queue_order": {"S": listed()}, **open_now}
    assert (flushed.asleep, flushed.to_wake) == (["a"], [])


async def test_flush_counts_a_host_that_was_drained_and_is_not_any_more() -> None:
    writes = Writes(a=[Refused(), LISTED], b=[Refused(), NOT_LISTED])
    counters, unwritten = counters_on(writes)
    for host in "ab":
        counters.move(host, "in_progress", "completed")
    flushed = await counters.flush(drained(*"ab"))
    assert [is_removed for _, _, is_removed in writes.written] == [False, True, True, False, False]
    # One of them has left the list although an item of it is open.
    assert (flushed.asleep, flushed.to_wake) == ([], ["b"])
    assert not unwritten.by_host


@pytest.mark.parametrize(
    ("outcome", "to_wake", "is_open"),
    [(LISTED, [], ["a"]), (NOT_LISTED, ["a", "b"], []), (EMPTY, [], []), (Applied(), [], [])],
)
async def test_flush_notices_hosts_with_open_items_and_whether_they_are_listed(
    outcome: Outcome, to_wake: list[str], is_open: list[str]
) -> None:
    # It is known that the other host has open items.
    counters, unwritten = counters_on(Writes(a=[Refused(), outcome], b=[outcome]))
    for host in "ab":
        counters.move(host, "in_progress", "completed")
    flushed = await counters.flush(drained("a"))
    assert (flushed.asleep, sorted(flushed.to_wake), flushed.open) == ([], to_wake, is_open)
    assert not unwritten.by_host


async def test_flush_keeps_the_counts_of_a_host_that_is_not_stored_yet() -> None:
    writes = Writes(a=[Refused(), Refused(), LISTED])
    counters, unwritten = counters_on(writes)
    counters.move("a", None, "pending")
    flushed = await counters.flush(drained())
    assert (flushed.to_wake, unwritten.by_host) == ([], {"a": Counter(pending=1)})
    # Those of the run were stored.
    assert not unwritten.total
    await counters.flush(drained())
    assert not unwritten.by_host
    assert [amounts for name, amounts, _ in writes.written if name == "a"] == [Counter(pending=1)] * 3


async def test_flush_of_some_hosts_leaves_the_others_and_the_run() -> None:
    writes = Writes(a=[LISTED], b=[LISTED])
    counters, unwritten = counters_on(writes)
    for host in "ab":
        counters.move(host, None, "pending")
    await counters.flush(drained(), {"a", "unknown"})
    assert writes.written == [("a", Counter(pending=1), False)]
    assert unwritten.by_host == {"b": Counter(pending=1)}
    assert unwritten.total == Counter(pending=2)
    await counters.flush(drained(), {"a"})
    assert len(writes.written) == 1


async def test_counts_are_put_back_if_a_flush_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    writes = Writes(a=[LISTED])
    counters, unwritten = counters_on(writes)
    counters.move("a", None, "pending")

    async def fail(updates: object, *, once: bool) -> list[Outcome]:
        # It counts further meanwhile.
        counters.move("a", "pending", "in_progress")
        raise FAILED.error

    with monkeypatch.context() as patched:
        patched.setattr(writes, "run", fail)
        with pytest.raises(ThrottledError):
            await counters.flush(drained())
    counted = Counter(pending=0, in_progress=1)
    assert (unwritten.by_host, unwritten.total) == ({"a": counted}, counted)
    # The lock is free.
    await counters.flush(drained())
    assert not unwritten.by_host


async def test_flush_asks_which_hosts_are_drained_after_the_flush_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    writes = Writes(a=[EMPTY])
    counters, _ = counters_on(writes)
    is_stored, asked = asyncio.Event(), list[list[str]]()
    run = writes.run

    async def slow(updates: Sequence[ConditionalInsert | ConditionalUpdate], *, once: bool) -> list[Outcome]:
        await is_stored.wait()
        return await run(updates, once=once)

    def find(hosts: Iterable[str]) -> dict[str, Listed]:
        asked.append(list(hosts))
        return {}

    monkeypatch.setattr(writes, "run", slow)
    counters.move("a", None, "pending")
    first = asyncio.create_task(counters.flush(find))
    await asyncio.sleep(0)
    counters.move("a", "pending", "completed")
    second = asyncio.create_task(counters.flush(find))
    await asyncio.sleep(0)
    assert asked == [["a"]]
    is_stored.set()
    await asyncio.gather(first, second)
    assert asked == [["a"], ["a"]]


async def test_flush_in_the_background_sends_throttled_counts_once() -> None:
    writes = Writes(a=[Failed(BUSY, may_be_applied=False)], b=[EMPTY])
    counters, unwritten = counters_on(writes)
    counters.move("a", None, "pending")
    counters.move("b", None, "pending")
    await counters.flush(drained(), once=True)
    assert set(writes.once) == {True}
    assert unwritten.by_host == {"a": Counter(pending=1)}
