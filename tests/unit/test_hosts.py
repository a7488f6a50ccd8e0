"""A host's limits and turns, as pure values."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from ragcrawl_dynamo._schema.records import HostRecord
from ragcrawl_dynamo._frontier.host_updates import MAX_SHARDS, SECOND_LOOK, shards_for
from tests.factories import START


def host(**fields: Any) -> HostRecord:
    return HostRecord(**{"run": "run", "host": "a.example", "site_id": "site", **fields})


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def test_a_host_without_limits_gives_what_is_wanted() -> None:
    assert not host().is_limited
    assert host().allowance(START, 25) == 25


def test_a_delay_gives_one_lease_at_a_time() -> None:
    record = host(delay=3, work_at=START)
    assert record.is_limited
    assert record.allowance(START, 25) == 1
    record = record.reserved({"a": at(60)}, START, "me")
    assert (record.allowance(at(2.9), 25), record.allowance(at(3), 25)) == (0, 1)
    assert (record.due, record.reserver) == (at(3), "me")


def test_a_maximum_counts_leases_until_they_end_or_can_be_taken_over() -> None:
    record = host(max_in_flight=2, work_at=START).reserved({"a": at(10)}, START, "me")
    assert record.allowance(START, 25) == 1
    record = record.reserved({"b": at(20)}, START, "me")
    assert (record.allowance(at(9), 25), record.allowance(at(10), 25)) == (0, 1)
    assert record.due == at(10)
    assert record.freed(["a"]).due == START
    assert record.extended({"a": at(50)}).due == at(20)
    # Those that can be taken over are dropped with the next reservation.
    assert set(record.reserved({"c": at(90)}, at(15), "me").slots) == {"b", "c"}


def test_a_smaller_maximum_waits_for_as_many_leases_as_are_too_many() -> None:
    record = host(max_in_flight=1, work_at=START, slots={"a": at(10), "b": at(20), "c": at(30)})
    assert record.open_at == at(30)
    assert record.allowance(at(25), 5) == 0


def test_a_block_holds_whatever_else_is_allowed() -> None:
    record = host(blocked_until=at(60), work_at=START)
    assert (record.allowance(at(59), 5), record.allowance(at(60), 5)) == (0, 5)
    assert record.due == at(60)


def test_a_reservation_that_was_not_used_is_given_back() -> None:
    reserved = host(delay=3, max_in_flight=5, work_at=START).reserved({"a": at(60)}, START, "me")
    back = reserved.given_back(["a"], START)
    assert (back.slots, back.allowance(START, 5)) == ({}, 1)
    # Unless somebody else's lease began since.
    later = reserved.reserved({"b": at(60)}, at(3), "other").given_back(["a"], START)
    assert (set(later.slots), later.next_at) == ({"b"}, at(6))


def test_a_host_sleeps_after_two_looks_that_found_nothing() -> None:
    record = host(work_at=START)
    once = record.looked_empty(START, None)
    assert once.due == at(SECOND_LOOK)
    assert once.looked_empty(at(1), None).due is None
    assert once.looked_empty(at(1), at(50)).due == at(50)
    assert record.looked_empty(START, at(0.5)).due == at(0.5)


@pytest.mark.parametrize(
    "state", [{"work_at": None}, {"work_at": at(100)}, {"work_at": at(1), "empty_looks": 1}]
)
def test_work_wakes_a_host(state: dict[str, Any]) -> None:
    record = host(**state).woken(at(5))
    assert record.work_at is not None
    assert record.work_at <= at(5)
    # Its next look is a first one again.
    assert record.looked_empty(at(5), None).due == at(5 + SECOND_LOOK)


def test_waking_a_host_that_is_awake_changes_nothing() -> None:
    record = host(work_at=START, shards=4)
    assert record.woken(at(5), 2) == record
    assert record.woken(at(5), 8).shards == 8


def test_a_queue_is_split_by_its_length_in_powers_of_two() -> None:
    found = [shards_for(links) for links in (0, 1, 64, 65, 128, 129, 1000, 10**6)]
    assert found == [1, 1, 1, 2, 2, 4, 16, MAX_SHARDS]
