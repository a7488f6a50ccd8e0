"""Updates of a host's record; the module under test is pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from ragcrawl_dynamo._frontier.host_updates import (
    MAX_SHARDS,
    SECOND_LOOK,
    AnnounceWork,
    EndLeases,
    ExtendLeases,
    NoteEmptyQueue,
    ReserveLeases,
    ReturnLeases,
    SetLimits,
    shards_for,
)
from ragcrawl_dynamo._schema.records import HostRecord
from tests.support.factories import START


def host(**fields: Any) -> HostRecord:
    return HostRecord(**{"run": "run", "host": "a.example", "site_id": "site", **fields})


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def test_host_record_without_limits_allows_what_is_asked() -> None:
    assert not host().is_limited
    assert host().allowance(START, 25) == 25


def test_host_record_delay_allows_one_lease_at_a_time() -> None:
    record = host(delay=3, work_at=START)
    assert record.is_limited
    assert record.allowance(START, 25) == 1
    record = ReserveLeases({"a": at(60)}, START, "me").apply(record)
    assert (record.allowance(at(2.9), 25), record.allowance(at(3), 25)) == (0, 1)
    assert (record.due, record.reserver) == (at(3), "me")


def test_host_record_max_in_flight_counts_leases_until_they_end() -> None:
    record = ReserveLeases({"a": at(10)}, START, "me").apply(host(max_in_flight=2, work_at=START))
    assert record.allowance(START, 25) == 1
    record = ReserveLeases({"b": at(20)}, START, "me").apply(record)
    assert (record.allowance(at(9), 25), record.allowance(at(10), 25)) == (0, 1)
    assert record.due == at(10)
    assert EndLeases(("a",)).apply(record).due == START
    assert ExtendLeases(("a",), at(50)).apply(record).due == at(20)
    # The next reservation drops leases that count as lost.
    assert set(ReserveLeases({"c": at(90)}, at(15), "me").apply(record).slots) == {"b", "c"}


def test_host_record_smaller_max_in_flight_waits_for_surplus_leases() -> None:
    record = host(max_in_flight=1, work_at=START, slots={"a": at(10), "b": at(20), "c": at(30)})
    assert record.open_at == at(30)
    assert record.allowance(at(25), 5) == 0


def test_host_record_block_overrides_other_limits() -> None:
    record = host(blocked_until=at(60), work_at=START)
    assert (record.allowance(at(59), 5), record.allowance(at(60), 5)) == (0, 5)
    assert record.due == at(60)


def test_host_record_gives_back_an_unused_reservation() -> None:
    reserved = ReserveLeases({"a": at(60)}, START, "me").apply(host(delay=3, max_in_flight=5, work_at=START))
    back = ReturnLeases(("a",), START).apply(reserved)
    assert (back.slots, back.allowance(START, 5)) == ({}, 1)
    # A lease that began since keeps its slot, and its delay.
    later = ReturnLeases(("a",), START).apply(ReserveLeases({"b": at(60)}, at(3), "other").apply(reserved))
    assert (set(later.slots), later.next_at) == ({"b"}, at(6))


def test_host_record_sleeps_after_two_empty_looks() -> None:
    record = host(work_at=START)
    once = NoteEmptyQueue(START, None).apply(record)
    assert once.due == at(SECOND_LOOK)
    assert NoteEmptyQueue(at(1), None).apply(once).due is None
    assert NoteEmptyQueue(at(1), at(50)).apply(once).due == at(50)
    assert NoteEmptyQueue(START, at(0.5)).apply(record).due == at(0.5)


@pytest.mark.parametrize(
    "state", [{"work_at": None}, {"work_at": at(100)}, {"work_at": at(1), "empty_looks": 1}]
)
def test_host_record_is_woken_by_work(state: dict[str, Any]) -> None:
    record = AnnounceWork(at(5)).apply(host(**state))
    assert record.work_at is not None
    assert record.work_at <= at(5)
    # After an announcement, the queue is trusted only after two empty looks again.
    assert NoteEmptyQueue(at(5), None).apply(record).due == at(5 + SECOND_LOOK)


def test_host_record_that_is_awake_is_not_changed_by_waking() -> None:
    record = host(work_at=START, shards=4)
    assert AnnounceWork(at(5), 2).apply(record) == record
    assert AnnounceWork(at(5), 8).apply(record).shards == 8


def test_shards_for_grows_in_powers_of_two() -> None:
    shards = [shards_for(links) for links in (0, 1, 64, 65, 128, 129, 1000, 10**6)]
    assert shards == [1, 1, 1, 2, 2, 4, 16, MAX_SHARDS]


def test_host_update_set_limits_leaves_everything_else() -> None:
    record = host(work_at=START, slots={"a": at(10)})
    limited = SetLimits({"delay": 2.0, "max_in_flight": 1}).apply(record)
    assert (limited.delay, limited.max_in_flight, limited.slots) == (2.0, 1, {"a": at(10)})
    assert limited.work_at == START


def test_host_update_shows_what_it_does_in_a_log() -> None:
    assert repr(EndLeases(("a",))) == "EndLeases(tokens=('a',))"
