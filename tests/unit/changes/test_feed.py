"""Entries of several shards, merged by time."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from ragcrawl_dynamo._changes.change import LogEntry, LogPosition
from ragcrawl_dynamo._changes.feed import merged, unread_since
from ragcrawl_dynamo._changes.shard_reader import ShardPart
from tests.support.factories import START


def part(shard: str, moments: list[int], first: int = 5, *, is_end: bool = True) -> ShardPart:
    """A part whose entries were logged at those seconds."""
    entries = [
        LogEntry(LogPosition(shard, first + i), "changed", "page", 1, START + timedelta(seconds=moment))
        for i, moment in enumerate(moments)
    ]
    return ShardPart(shard, first, entries, is_end=is_end)


@given(st.lists(st.lists(st.integers(0, 50), max_size=8), max_size=4), st.integers(1, 40))
def test_merged_keeps_the_order_of_each_shard_and_says_where_to_go_on(
    moments: list[list[int]], limit: int
) -> None:
    parts = [part(f"s{i}", seconds) for i, seconds in enumerate(moments)]
    entries, next_numbers = merged(parts, limit)
    assert len(entries) == min(limit, sum(map(len, moments)))
    for shard in parts:
        taken = [entry for entry in entries if entry.position.shard == shard.shard]
        assert taken == shard.entries[: len(taken)]
        assert next_numbers[shard.shard] == 5 + len(taken)


@given(st.lists(st.lists(st.integers(0, 50), max_size=8).map(sorted), max_size=4))
def test_merged_is_in_the_order_of_time_if_each_shard_is(moments: list[list[int]]) -> None:
    entries, _ = merged([part(f"s{i}", seconds) for i, seconds in enumerate(moments)], 100)
    logged = [entry.logged_at for entry in entries]
    assert logged == sorted(logged)
    assert len(logged) == sum(map(len, moments))


def unread(*parts: ShardPart, limit: int) -> float:
    """Since which second entries are left after the first `limit` ones; now is second 100."""
    _, next_numbers = merged(parts, limit)
    now, before = START + timedelta(seconds=100), START + timedelta(seconds=2)
    return (unread_since(parts, next_numbers, before, now) - START).total_seconds()


def test_cursor_is_as_old_as_the_oldest_entry_that_is_left() -> None:
    assert unread(part("a", [10, 20]), part("b", [15, 30]), limit=4) == 100
    assert unread(part("a", [10, 20]), part("b", [15, 30]), limit=3) == 30
    assert unread(part("a", [10, 20]), part("b", [15, 30]), limit=1) == 15
    # More entries of the shard were not read.
    assert unread(part("a", [10, 20], is_end=False), part("b", [30]), limit=3) == 20
    assert unread(part("a", [], is_end=False), part("b", [30]), limit=3) == 2
    # The clock of a writer is ahead.
    assert unread(part("a", [10, 200]), limit=1) == 100
