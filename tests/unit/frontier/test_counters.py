"""How counts are added up and stored; with writes that are scripted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

import pytest

from ragcrawl_dynamo._dynamodb.conditional_writes import (
    Applied,
    ConditionalInsert,
    ConditionalUpdate,
    Failed,
    Outcome,
    Refused,
)
from ragcrawl_dynamo._dynamodb.expressions import AllOf, Compare
from ragcrawl_dynamo._frontier.counters import Counters
from ragcrawl_dynamo._frontier.counts import UnwrittenCounts
from ragcrawl_dynamo._frontier.host_store import Listed
from ragcrawl_dynamo.errors import ThrottledError
from tests.support.fake_run import FakeHosts
from tests.support.hosts import listed

FAILED = Failed(ThrottledError("busy", code="Busy", operation="UpdateItem", table=None))
LISTED = Applied({"queue": {"S": "q"}, "pending": {"N": "5"}})
NOT_LISTED = Applied({"pending": {"N": "5"}})
EMPTY = Applied({"pending": {"N": "0"}, "completed": {"N": "9"}})


class Writes:
    """Gives each key its outcomes, one after the other; the last one again and again."""

    def __init__(self, **outcomes: list[Outcome]) -> None:
        self.outcomes: dict[str, list[Outcome]] = {"count": [LISTED], **outcomes}
        self.conditions: list[dict[Any, Any]] = []
        self.written: list[tuple[str, Counter[str], bool]] = []

    async def run(self, writes: Sequence[ConditionalInsert | ConditionalUpdate]) -> list[Outcome]:
        return [self._outcome(write) for write in writes]

    def _outcome(self, write: ConditionalInsert | ConditionalUpdate) -> Outcome:
        if isinstance(write, ConditionalInsert):
            self.written.append(("new shard", Counter(), False))
            return Applied()
        name = write.key["item_id"].get("S", "")
        name = "count" if name.startswith("count#") else name.removeprefix("host#")
        amounts = {str(key): int(value["N"]) for key, value in write.update.increment.items()}
        self.written.append((name, Counter(amounts), "queue" in write.update.remove))
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
    assert not counters.is_due(0.0)
    counters.move("a", None, "pending")
    assert [counters.is_due(seconds) for seconds in (5.0, 5.9, 6.0)] == [False, False, True]


def test_corrections_are_stored_with_the_next_counts() -> None:
    counters, unwritten = counters_on(Writes())
    counters.move("a", None, "pending")
    counters.correct(Counter(pending=3), {"a": Counter(pending=2), "b": Counter(pending=0)})
    assert unwritten.total == Counter(pending=4)
    assert unwritten.by_host == {"a": Counter(pending=3)}


async def test_flush_stores_the_amounts_once() -> None:
    writes = Writes(a=[LISTED], b=[EMPTY])
    counters, _ = counters_on(writes)
    await counters.flush({})
    assert writes.written == []
    counters.move("a", None, "pending")
    counters.move("b", "in_progress", "completed")
    flushed = await counters.flush({})
    assert writes.written == [
        ("count", Counter(pending=1, in_progress=-1, completed=1), False),
        ("a", Counter(pending=1), False),
        ("b", Counter(in_progress=-1, completed=1), False),
    ]
    assert (flushed.asleep, flushed.to_wake) == ([], [])
    await counters.flush({})
    assert len(writes.written) == 3


async def test_flush_stores_a_correction_of_the_run_alone() -> None:
    writes = Writes()
    counters, _ = counters_on(writes)
    counters.correct(Counter(pending=3), {})
    await counters.flush({})
    assert writes.written == [("count", Counter(pending=3), False)]


async def test_flush_stores_the_shard_of_the_run_if_there_is_none() -> None:
    writes = Writes(a=[LISTED], count=[Refused(), LISTED])
    counters, unwritten = counters_on(writes)
    counters.move("a", None, "pending")
    await counters.flush({})
    assert [name for name, _, _ in writes.written] == ["count", "a", "new shard", "count"]
    assert not unwritten.total


async def test_flush_keeps_what_could_not_be_stored() -> None:
    writes = Writes(a=[FAILED], b=[LISTED], count=[FAILED])
    counters, unwritten = counters_on(writes)
    counters.move("a", None, "pending")
    counters.move("b", None, "pending")
    await counters.flush({})
    # A host is tried twice.
    assert [name for name, _, _ in writes.written] == ["count", "a", "b", "a"]
    assert unwritten.by_host == {"a": Counter(pending=1)}
    assert unwritten.total == Counter(pending=2)


async def test_flush_takes_a_drained_host_out_of_the_list() -> None:
    writes = Writes(a=[EMPTY], b=[EMPTY])
    counters, _ = counters_on(writes)
    for host in "ab":
        counters.move(host, "in_progress", "completed")
    flushed = await counters.flush({"a": Listed("a", listed())})
    assert [is_removed for _, _, is_removed in writes.written] == [False, True, False]
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
    flushed = await counters.flush({host: Listed(host, listed()) for host in "ab"})
    assert [is_removed for _, _, is_removed in writes.written] == [False, True, True, False, False]
    # One of them has left the list although an item of it is open.
    assert (flushed.asleep, flushed.to_wake) == ([], ["b"])
    assert not unwritten.by_host


@pytest.mark.parametrize(
    ("outcome", "is_missed"), [(LISTED, False), (NOT_LISTED, True), (EMPTY, False), (Refused(), False)]
)
async def test_flush_notices_hosts_that_are_not_listed_and_have_open_items(
    outcome: Outcome, is_missed: bool
) -> None:
    counters, unwritten = counters_on(Writes(a=[outcome]))
    counters.move("a", None, "pending")
    flushed = await counters.flush({})
    assert flushed.to_wake == (["a"] if is_missed else [])
    # A host that is not stored any more is not counted.
    assert not unwritten.by_host
