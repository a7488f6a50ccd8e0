"""Counts of items by state."""

from __future__ import annotations

from collections import Counter

from ragcrawl_dynamo import FrontierStats
from ragcrawl_dynamo._frontier.counts import UnwrittenCounts, stats_of


def test_stats_sum_up_open_items_and_all_items() -> None:
    stats = FrontierStats(pending=1, delayed=2, in_progress=4, completed=8, failed=16, skipped=32)
    assert (stats.open, stats.total) == (7, 63)


def test_estimated_stats_have_no_negative_counts() -> None:
    counts = FrontierStats(pending=-1, delayed=2, in_progress=-3, completed=1)
    assert FrontierStats.estimated(counts) == FrontierStats(delayed=2, completed=1)


def test_stats_of_an_item_may_be_incomplete() -> None:
    item = {"host": {"S": "a"}, "pending": {"N": "2"}, "failed": {"N": "-1"}}
    assert stats_of(item) == FrontierStats(pending=2, failed=-1)


def test_unwritten_counts_of_some_hosts_are_taken_without_those_of_the_run() -> None:
    unwritten = UnwrittenCounts()
    unwritten.put_back({"a": Counter(pending=1), "b": Counter(failed=2)}, Counter(pending=3))
    assert unwritten.take({"a", "c"}) == ({"a": Counter(pending=1)}, Counter())
    assert unwritten.take(None) == ({"b": Counter(failed=2)}, Counter(pending=3))
    assert unwritten.is_empty


def test_unwritten_counts_that_come_after_all_were_taken_are_new() -> None:
    unwritten = UnwrittenCounts()
    unwritten.since = 5.0
    unwritten.take({"a"})
    assert unwritten.since == 5.0
    unwritten.take(None)
    assert unwritten.since is None


def test_unwritten_counts_that_were_put_back_are_added() -> None:
    unwritten = UnwrittenCounts()
    for _ in range(2):
        unwritten.put_back({"a": Counter(pending=1)}, Counter(pending=3))
    assert (unwritten.by_host, unwritten.total) == ({"a": Counter(pending=2)}, Counter(pending=6))


def test_unwritten_counts_are_empty_if_neither_hosts_nor_the_run_have_any() -> None:
    unwritten = UnwrittenCounts()
    assert unwritten.is_empty
    unwritten.total.update(pending=0)
    assert unwritten.is_empty
    unwritten.total.update(pending=1)
    assert not unwritten.is_empty
    unwritten.clear()
    unwritten.by_host["a"].update(pending=1)
    assert not unwritten.is_empty
