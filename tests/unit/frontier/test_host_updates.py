"""Updates of a host's record; the module under test is pure."""

from __future__ import annotations

from datetime import datetime

import pytest

from ragcrawl_dynamo._frontier.host_updates import (
    MAX_SHARDS,
    AnnounceWork,
    BlockHost,
    EndLeases,
    ExtendLeases,
    ReserveLeases,
    ReturnLeases,
    SetLimits,
    shards_for,
)
from ragcrawl_dynamo._frontier.work import Work, WorkByHost
from ragcrawl_dynamo._schema.queue_order import queue_order, rank, split_facts, split_order
from tests.support.factories import START
from tests.support.hosts import at, record

BETTER, SAME, WORSE = (queue_order(rank(priority, START)) for priority in (2, 1, 0))


def test_host_record_without_limits_allows_all_requested_leases() -> None:
    assert not record().is_limited
    assert not record().has_limits
    assert record().open_at is None
    assert record().allowance(START, 25) == 25


def test_host_record_delay_allows_one_lease_at_a_time() -> None:
    host = record(delay=3)
    assert host.is_limited
    assert host.allowance(START, 25) == 1
    host = ReserveLeases({"a": at(60)}, START).apply(host)
    assert (host.allowance(at(2.9), 25), host.allowance(at(3), 25)) == (0, 1)
    assert (host.open_at, host.slots) == (at(3), {})


def test_host_record_max_in_flight_counts_leases_until_they_end() -> None:
    host = ReserveLeases({"a": at(10)}, START).apply(record(max_in_flight=2))
    assert (host.allowance(START, 25), host.open_at) == (1, None)
    host = ReserveLeases({"b": at(20)}, START).apply(host)
    assert (host.allowance(at(9), 25), host.allowance(at(10), 25)) == (0, 1)
    assert (host.open_at, host.next_at) == (at(10), None)
    assert EndLeases(("a",)).apply(host).open_at is None
    assert ExtendLeases(("a",), at(50)).apply(host).open_at == at(20)
    # The next reservation drops leases that count as lost.
    assert set(ReserveLeases({"c": at(90)}, at(15)).apply(host).slots) == {"b", "c"}


def test_host_record_smaller_max_in_flight_waits_for_surplus_leases() -> None:
    host = record(max_in_flight=1, slots={"a": at(10), "b": at(20), "c": at(30)})
    assert host.open_at == at(30)
    assert host.allowance(at(25), 5) == 0
    assert host.allowance(at(30), 5) == 1


def test_host_record_block_overrides_other_limits() -> None:
    host = record(blocked_until=at(60), delay=3, next_at=at(5))
    assert (host.allowance(at(59), 5), host.allowance(at(60), 5)) == (0, 1)
    assert host.open_at == at(60)
    # A block alone is no reason to reserve leases, but to read the record.
    blocked = record(blocked_until=at(60))
    assert (blocked.is_limited, blocked.has_limits) == (False, True)


def test_host_record_delay_that_was_removed_has_no_effect() -> None:
    assert record(delay=0, next_at=at(60)).open_at is None


def test_host_record_gives_back_an_unused_reservation() -> None:
    reserved = ReserveLeases({"a": at(60)}, START).apply(record(delay=3, max_in_flight=5))
    back = ReturnLeases(("a",), START).apply(reserved)
    assert (back.slots, back.allowance(START, 5)) == ({}, 1)
    # A lease that began since keeps its slot, and its delay.
    later = ReturnLeases(("a",), START).apply(ReserveLeases({"b": at(60)}, at(3)).apply(reserved))
    assert (set(later.slots), later.next_at) == ({"b"}, at(6))


def test_extend_leases_counts_nothing_without_a_maximum() -> None:
    assert ExtendLeases(("a",), at(50)).apply(record(delay=3)).slots == {}
    # A lease that counted as lost counts again.
    assert ExtendLeases(("a",), at(50)).apply(record(max_in_flight=1)).slots == {"a": at(50)}


def test_announce_work_lists_a_host_that_is_not_listed() -> None:
    host = AnnounceWork(Work(WORSE)).apply(record())
    assert host.order is not None
    assert split_order(host.order) == split_order(WORSE)


@pytest.mark.parametrize(("place", "expected"), [(BETTER, BETTER), (SAME, SAME), (WORSE, SAME)])
def test_announce_work_moves_a_host_only_forward(place: str, expected: str) -> None:
    host = record(place=SAME, shards=4)
    announced = AnnounceWork(Work(place)).apply(host)
    assert announced.place == expected
    # An update that changes nothing is not written.
    assert (announced == host) == (place >= SAME)


def test_announce_work_moves_a_host_that_waits_forward() -> None:
    waits = record(place=queue_order(rank(5, START), at(60)))
    assert AnnounceWork(Work(WORSE)).apply(waits).place == WORSE
    earlier = queue_order(rank(0, START), at(30))
    assert AnnounceWork(Work(earlier)).apply(waits).place == earlier
    assert AnnounceWork(Work(queue_order(rank(9, START), at(90)))).apply(waits) == waits


def test_announce_work_adds_shards_and_never_removes_any() -> None:
    host = record(place=SAME, shards=4)
    assert [AnnounceWork(Work(SAME, shards)).apply(host).shards for shards in (1, 4, 8)] == [4, 4, 8]


def test_announce_work_marks_the_host_if_others_have_to_notice() -> None:
    host = record(place=SAME)
    orders = {AnnounceWork(Work(WORSE, is_changed=True)).apply(host).order for _ in range(8)}
    assert host.order not in orders
    assert AnnounceWork(Work(WORSE)).apply(host).order == host.order


@pytest.mark.parametrize(
    ("listed_for", "announced", "expected"),
    [
        # A host that is not listed has no other item.
        (None, "a", "a"),
        (None, None, None),
        ("a", "a", "a"),
        ("a", "b", None),
        ("a", None, None),
        # It is not known how many items the host has.
        ("", "a", None),
        ("", None, None),
    ],
)
def test_announce_work_names_the_item_of_a_host_that_has_no_other(
    listed_for: str | None, announced: str | None, expected: str | None
) -> None:
    host = record() if listed_for is None else record(place=SAME, only_item=listed_for or None)
    for place in (SAME, BETTER):
        after = AnnounceWork(Work(place, item_id=announced)).apply(host)
        assert after.only_item == expected
        assert after.order is not None
        assert split_facts(after.order).only_item == (expected or "")
        if expected is not None:
            assert after.place == place


def test_set_limits_names_the_only_item_only_where_its_sort_key_is_the_place() -> None:
    waits = record(place=queue_order(rank(5, START), at(60)), only_item="a")
    assert SetLimits({"delay": 1.0}).apply(waits).only_item is None
    assert SetLimits({"delay": 1.0}).apply(record(place=SAME, only_item="a")).only_item == "a"


def test_set_limits_leaves_everything_else() -> None:
    host = record(place=SAME, slots={"a": at(10)}, shards=4)
    limited = SetLimits({"delay": 2.0, "max_in_flight": 1}).apply(host)
    assert (limited.delay, limited.max_in_flight, limited.slots) == (2.0, 1, {"a": at(10)})
    assert (limited.place, limited.shards) == (SAME, 4)
    assert limited.order is not None
    assert split_facts(limited.order).has_limits


def test_set_limits_marks_the_host_and_lists_it_as_ready() -> None:
    waits = record(place=queue_order(rank(5, START), at(60)), delay=60.0)
    weaker = SetLimits({"delay": 0.0}).apply(waits)
    assert weaker.place == queue_order(rank(5, START))
    assert weaker.mark != waits.mark
    assert SetLimits({"delay": 0.0}).apply(record()).place is None


@pytest.mark.parametrize("blocked_until", [None, at(-5), at(10), at(59)])
def test_block_host_blocks_it_until_the_moment(blocked_until: datetime | None) -> None:
    host = record(place=SAME, blocked_until=blocked_until)
    blocked = BlockHost(at(60)).apply(host)
    assert blocked.blocked_until == at(60)
    # As other limits are, so that other processes learn of it.
    assert blocked.mark != host.mark
    assert blocked.place == SAME


@pytest.mark.parametrize("seconds", [59.1, 60, 61, 3600])
def test_block_host_leaves_a_host_that_is_blocked_as_long_or_longer(seconds: float) -> None:
    host = record(place=SAME, blocked_until=at(seconds))
    assert BlockHost(at(60)).apply(host) is host


def test_work_of_one_host_is_merged() -> None:
    work = WorkByHost()
    work.note("a.example", Work(WORSE, 4))
    work.note("a.example", Work(BETTER, 2, is_changed=True))
    work.note("a.example", Work(SAME))
    work.note("b.example", Work(SAME))
    assert work == {"a.example": Work(BETTER, 4, is_changed=True), "b.example": Work(SAME)}


def test_work_of_several_items_names_none_of_them() -> None:
    one = Work(SAME, item_id="a")
    assert one.merged(one) == one
    for other in (Work(SAME, item_id="b"), Work(SAME), Work(WORSE, item_id="a"), Work(BETTER)):
        assert one.merged(other).item_id is None
        assert other.merged(one).item_id is None


def test_shards_for_is_a_power_of_two_above_the_rate() -> None:
    rates = (0, 1, 199.9, 200, 399, 400, 799, 800, 6399, 6400, 10**9)
    assert [shards_for(rate) for rate in rates] == [1, 1, 1, 2, 2, 4, 4, 8, 32, MAX_SHARDS, MAX_SHARDS]


def test_host_update_shows_its_changes_in_a_log() -> None:
    assert repr(EndLeases(("a",))) == "EndLeases(tokens=('a',))"


def test_delay_of_less_than_a_second_is_kept() -> None:
    host = ReserveLeases({"a": at(60)}, START).apply(record(delay=0.5))
    assert host.next_at == at(0.5)


def test_changed_work_gives_the_host_another_mark() -> None:
    marks = {AnnounceWork(Work(SAME, is_changed=True)).apply(record()).mark for _ in range(4)}
    assert len(marks) > 1
    assert all(marks)
    assert AnnounceWork(Work(SAME)).apply(record(mark="ff")).mark == "ff"
