"""Counts items by host and state, against sums in memory."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ragcrawl_dynamo._frontier.counts import NAMES
from ragcrawl_dynamo._frontier.tally import Tally

hosts = st.sampled_from(["", "a.example", "b.example", "ü.example"])
items = st.tuples(hosts, st.sampled_from(NAMES))
stored_counts = st.dictionaries(hosts, st.dictionaries(st.sampled_from(NAMES), st.integers(-3, 5)))


@given(st.lists(st.lists(items, max_size=6), max_size=4), stored_counts)
def test_tally_differences_are_counts_that_are_not_stored(
    pages: list[list[tuple[str, str]]], stored: dict[str, dict[str, int]]
) -> None:
    with Tally() as tally:
        for page in pages:
            tally.count(page)
        tally.subtract_stored({host: Counter(counts) for host, counts in stored.items()})
        differences = dict(tally.differences())
    counted: dict[str, Counter[str]] = {host: Counter() for host in stored}
    for host, state in (item for page in pages for item in page):
        counted.setdefault(host, Counter())[state] += 1
    expected = {
        host: {name: counted[host][name] - stored[host].get(name, 0) for name in NAMES} for host in stored
    }
    assert differences == {host: counts for host, counts in expected.items() if any(counts.values())}
    assert tally.total == Counter(state for page in pages for _, state in page)


def test_tally_is_the_same_in_any_order() -> None:
    results = []
    for is_stored_first in (True, False):
        with Tally() as tally:
            if is_stored_first:
                tally.subtract_stored({"a.example": Counter(pending=1)})
            tally.count([("a.example", "completed"), ("new.example", "pending")])
            if not is_stored_first:
                tally.subtract_stored({"a.example": Counter(pending=1)})
            results.append(dict(tally.differences()))
    # A host without a record has no stored counts to correct.
    assert results[0].keys() == {"a.example"}
    assert results[0] == results[1]
    assert {name: amount for name, amount in results[0]["a.example"].items() if amount} == {
        "pending": -1,
        "completed": 1,
    }


def test_tally_shows_no_host_whose_counts_are_right() -> None:
    with Tally() as tally:
        tally.count([("a.example", "pending")] * 2)
        tally.subtract_stored({"a.example": Counter(pending=2)})
        assert list(tally.differences()) == []
        assert tally.total == {"pending": 2}


def test_tally_counts_and_orders_hosts_by_a_state() -> None:
    with Tally() as tally:
        tally.count([("b", "completed"), ("a", "completed"), ("c", "completed"), ("c", "failed")])
        tally.count([("c", "completed"), ("d", "pending")])
        assert (tally.hosts_with("completed"), tally.hosts_with("failed")) == (3, 1)
        assert list(tally.most("completed", 2).items()) == [("c", 2), ("a", 1)]
        assert tally.most("skipped", 2) == {}
