"""Chooses the next host and its next item; the module under test is pure, moments and seconds are passed."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragcrawl_dynamo._frontier.candidates import Candidate
from ragcrawl_dynamo._frontier.host_candidates import CANDIDATE_SECONDS, OWN_CANDIDATE_SECONDS, HostCandidates
from ragcrawl_dynamo._frontier.work import Listed
from ragcrawl_dynamo._frontier.workbench import Choice, Workbench
from ragcrawl_dynamo._schema.queue_order import split_place
from tests.support.factories import START
from tests.support.hosts import at, candidate, known, listed, names, record


def workbench(*hosts: HostCandidates) -> Workbench:
    bench = Workbench("me")
    bench.supply(0, START)
    for host in hosts:
        bench.hosts[host.host] = host
        bench.settle(host)
    return bench


def choose(bench: Workbench, wanted: int = 99, now: datetime = START, monotonic: float = 0.0) -> Choice:
    return bench.choose(wanted, now, monotonic)


def note_empty_look(bench: Workbench, host: HostCandidates, seconds: float) -> None:
    """Notes that a host's queue was read and has shown nothing new."""
    host.note_look([], is_all=True, now=at(seconds), distance=lambda _: 0)
    host.looked_at = 0.0
    bench.settle(host)


def looks(choice: Choice) -> list[str]:
    return [host.host for host in choice.looks]


def host_with(
    *items: str, host: str, priority: float = 0.0, age: float = 0.0, **fields: Any
) -> HostCandidates:
    """A host whose whole queue is known; each of its items is a bit younger than the one before."""
    items_by_age = (candidate(name, priority, age - i / 1000, host) for i, name in enumerate(items))
    return known(*items_by_age, host=host, **fields)


# Which host is next.


def test_choose_takes_the_best_priority_of_all_hosts() -> None:
    bench = workbench(
        host_with("a0", "a1", host="a", priority=1, age=50),
        host_with("b0", "b1", host="b", priority=2),
        host_with("c0", host="c", age=99),
    )
    choice = choose(bench)
    assert names(choice.candidates) == ["b0", "b1", "a0", "a1", "c0"]
    assert choice.looks == []
    assert choose(bench).candidates == []


def test_choose_takes_no_more_than_wanted() -> None:
    bench = workbench(host_with("a0", "a1", "a2", host="a"))
    assert names(choose(bench, 2).candidates) == ["a0", "a1"]
    assert names(choose(bench, 2).candidates) == ["a2"]


@pytest.mark.parametrize("limits", [{"delay": 3}, {"max_in_flight": 1}])
def test_a_host_whose_room_is_taken_is_not_looked_into_until_the_claim_has_ended(
    limits: dict[str, Any],
) -> None:
    # A read of its queue would change nothing, and the claim would choose the host for a look forever.
    bench = workbench(host := host_with("a0", host="a", record=record("a", **limits)))
    assert names(choose(bench).candidates) == ["a0"]
    host.is_all = False
    bench.settle(host)  # as after each change of the host: a new item, or the end of another lease
    assert choose(bench) == Choice([], [])
    bench.end_claim({"a"})
    assert looks(choose(bench)) == ["a"]


def test_choose_gives_hosts_of_one_priority_their_turns() -> None:
    bench = workbench(
        host_with("a0", "a1", "a2", host="a", age=9),
        host_with("b0", "b1", "b2", host="b", age=5),
        host_with("c0", host="c", age=1),
    )
    # The oldest item decides among hosts that were never served.
    assert names(choose(bench, 4).candidates) == ["a0", "b0", "c0", "a1"]
    # A turn is kept from one claim to the next.
    assert names(choose(bench, 3).candidates) == ["b1", "a2", "b2"]


def test_choose_serves_a_host_with_a_better_item_out_of_turn() -> None:
    bench = workbench(host_with("a0", host="a"), host_with("b0", "b1", host="b", age=5))
    assert names(choose(bench, 1).candidates) == ["b0"]
    bench.hosts["b"].offer(candidate("urgent", priority=1, host="b"))
    bench.settle(bench.hosts["b"])
    assert names(choose(bench, 2).candidates) == ["urgent", "a0"]


def test_choose_begins_with_the_share_of_this_process() -> None:
    bench = workbench(
        host_with("foreign0", "foreign1", host="a", age=99, is_own=False),
        host_with("own0", "own1", host="b"),
        host_with("urgent", host="c", priority=1, is_own=False),
    )
    # The priority counts more than the share, the share more than turns.
    assert names(choose(bench).candidates) == ["urgent", "own0", "own1", "foreign0", "foreign1"]


def test_choose_orders_foreign_hosts_in_another_way_in_each_process() -> None:
    orders = set()
    for process in ("1f40", "93ab", "c05e", "7d22"):
        bench = Workbench(process)
        for i in range(6):
            host = bench.hosts[f"h{i}"] = host_with(f"h{i}", host=f"h{i}", is_own=False)
            bench.settle(host)
        orders.add(tuple(names(choose(bench).candidates)))
    assert len(orders) == 4


# Limits.


def test_choose_takes_no_more_of_a_host_than_its_limits_allow() -> None:
    bench = workbench(
        host_with("a0", "a1", "a2", host="a", priority=5, record=record("a", max_in_flight=2)),
        host_with("b0", "b1", host="b", record=record("b", delay=3)),
    )
    assert names(choose(bench).candidates) == ["a0", "a1", "b0"]
    # The leases are not reserved yet. Until that is done, nothing more of these hosts is chosen.
    assert choose(bench).candidates == []
    bench.end_claim(["a", "b"])
    assert names(choose(bench).candidates) == ["a2", "b1"]


def test_closed_host_comes_back_when_its_limits_allow_a_lease() -> None:
    bench = workbench(
        host_with("a0", host="a", record=record("a", delay=3, next_at=at(3))),
        host_with("b0", host="b", record=record("b", max_in_flight=1, slots={"t": at(5)})),
        host_with("c0", host="c", record=record("c", blocked_until=at(7))),
    )
    assert choose(bench, now=at(2.9)).candidates == []
    assert bench.next_moment() == at(3)
    assert names(choose(bench, now=at(3)).candidates) == ["a0"]
    assert bench.next_moment() == at(5)
    assert names(choose(bench, now=at(7)).candidates) == ["b0", "c0"]
    # Nothing is known of the last one any more: its queue is read again after its pause.
    assert bench.next_moment() == at(8)


def test_closed_host_does_not_hold_up_hosts_of_a_lower_priority() -> None:
    bench = workbench(
        host_with("a0", host="a", priority=5, record=record("a", blocked_until=at(60))),
        host_with("b0", host="b"),
    )
    assert names(choose(bench).candidates) == ["b0"]


def test_delayed_items_of_a_limited_host_wait_for_both_moments() -> None:
    host = known(host="a", record=record("a", delay=3, next_at=at(3)))
    host.wait(candidate("early", host="a"), at(1))
    bench = workbench(host)
    assert bench.next_moment() == at(3)
    late = known(host="b", record=record("b", delay=3, next_at=at(3)), empty_looks=7)
    late.wait(candidate("late", host="b"), at(9))
    assert workbench(late).next_moment() == at(9)


def test_waiting_item_is_not_passed_over_when_its_host_opens_sooner_than_it_should() -> None:
    host = host_with("a0", host="a", record=record("a", blocked_until=at(20)))
    host.wait(candidate("urgent", priority=1, host="a"), at(10))
    bench = workbench(host)
    assert choose(bench, now=at(12)).candidates == []
    host.record = None
    bench.settle(host)
    assert names(choose(bench, now=at(12)).candidates) == ["urgent", "a0"]


def test_host_is_not_lost_when_the_clock_is_set_back() -> None:
    bench = workbench(host_with("a0", host="a", record=record("a", blocked_until=at(10))))
    assert bench.supply(1, at(10)) == 1
    assert choose(bench, now=at(9)).candidates == []
    assert names(choose(bench, now=at(10)).candidates) == ["a0"]


# When a look is needed.


def test_host_that_was_never_looked_at_needs_a_look() -> None:
    bench = workbench()
    bench.see("a", listed(), 0, 0.0, is_own=True)
    choice = choose(bench)
    assert (choice.candidates, looks(choice)) == ([], ["a"])
    # It is not looked at twice at the same time.
    assert choose(bench) == Choice([], [])
    bench.hosts["a"].note_look([candidate("a0", host="a")], is_all=True, now=START, distance=lambda _: 0)
    bench.hosts["a"].looked_at = 0.0
    bench.settle(bench.hosts["a"])
    assert names(choose(bench).candidates) == ["a0"]


def test_host_that_has_shown_all_its_items_is_idle_not_looked_at() -> None:
    bench = workbench(host_with("a0", host="a"))
    assert names(choose(bench).candidates) == ["a0"]
    assert choose(bench) == Choice([], [])
    assert list(bench.idle) == ["a"]


def test_host_with_more_items_than_are_known_is_looked_at_when_they_are_used_up() -> None:
    bench = workbench(host_with("a0", host="a", is_all=False))
    choice = choose(bench)
    assert (names(choice.candidates), looks(choice)) == (["a0"], ["a"])


@pytest.mark.parametrize(("is_own", "kept"), [(True, OWN_CANDIDATE_SECONDS), (False, CANDIDATE_SECONDS)])
def test_candidates_are_kept_for_a_time(is_own: bool, kept: float) -> None:
    host = host_with("a0", "a1", host="a", is_own=is_own)
    bench = workbench(host)
    assert names(choose(bench, 1, monotonic=kept).candidates) == ["a0"]
    assert looks(choose(bench, 1, monotonic=kept + 0.1)) == ["a"]


def test_own_addition_is_chosen_without_a_look_unless_another_item_may_be_better() -> None:
    def bench_with(*, is_all: bool, order: str) -> Workbench:
        return workbench(
            host_with("new", host="a", priority=1, age=5, is_all=is_all, looked_at=None, order=order)
        )

    for order in (listed(1, 5), listed(1, 4), listed(0, 9)):
        assert names(choose(bench_with(is_all=False, order=order)).candidates) == ["new"]
    for order in (listed(1, 6), listed(2, 0)):
        assert looks(choose(bench_with(is_all=False, order=order))) == ["a"]
        # The host was new, so nobody else has added anything.
        assert names(choose(bench_with(is_all=True, order=order)).candidates) == ["new"]


def test_host_is_served_by_the_priority_that_the_list_shows_before_it_was_read() -> None:
    def bench_with(*, is_all: bool, looked_at: float | None) -> Workbench:
        return workbench(
            host_with("a0", host="a", is_all=is_all, looked_at=looked_at, order=listed(9)),
            host_with("b0", host="b", priority=5),
        )

    choice = choose(bench_with(is_all=False, looked_at=None))
    assert (choice.candidates, looks(choice)) == ([], ["a"])
    # Once all is known, the list shows no better item than those.
    for looked_at in (None, 0.0):
        assert names(choose(bench_with(is_all=True, looked_at=looked_at)).candidates) == ["b0", "a0"]
    assert names(choose(bench_with(is_all=False, looked_at=0.0), 1).candidates) == ["b0"]


def test_limits_have_to_be_known_before_an_item_is_chosen() -> None:
    limited = host_with("a0", host="a", order=listed(has_limits=True))
    assert looks(choose(workbench(limited))) == ["a"]
    limited.record = record("a", delay=3)
    assert names(choose(workbench(limited)).candidates) == ["a0"]
    checked = host_with("b0", host="b", must_check=True)
    assert looks(choose(workbench(checked))) == ["b"]


def test_deep_queue_is_looked_at_again_before_items_of_other_shares() -> None:
    foreign = replace(candidate("foreign"), distance=1)
    for is_used, is_all, must_look in ((True, False, True), (False, False, False), (True, True, False)):
        host = known(foreign, is_all=is_all, is_used=is_used)
        assert bool(choose(workbench(host), 1).looks) == must_look
    both = known(foreign, replace(candidate("foreign, too"), distance=1), is_all=False)
    choice = choose(workbench(both))
    assert (names(choice.candidates), looks(choice)) == (["foreign"], [both.host])
    host = known(candidate("own"), is_all=False, is_used=True)
    assert names(choose(workbench(host), 1).candidates) == ["own"]


def test_host_that_is_not_listed_any_more_is_only_served_from_memory() -> None:
    assert names(choose(workbench(host_with("a0", host="a", order=None))).candidates) == ["a0"]
    empty = known(host="b", order=None, is_all=False)
    assert choose(workbench(empty)) == Choice([], [])


# A choice ends before a host that has to be looked at.


def test_host_whose_room_is_taken_does_not_hold_up_the_others() -> None:
    bench = workbench(
        host_with("a0", "a1", host="a", priority=2, record=record("a", max_in_flight=1)),
        host_with("b0", host="b", priority=1),
    )
    assert names(choose(bench, 1).candidates) == ["a0"]
    # A new item has put the host back before its lease is reserved.
    bench.settle(bench.hosts["a"])
    assert names(choose(bench, 1).candidates) == ["b0"]


def test_paused_host_is_served_from_the_moment_on_at_which_its_pause_ends() -> None:
    bench = workbench(host_with("a0", host="a"))
    bench.pause("a", at(5))
    assert choose(bench, now=at(4.9)).candidates == []
    assert names(choose(bench, now=at(5)).candidates) == ["a0"]
    assert bench.paused == {}


def test_shorter_pause_of_a_host_does_not_end_a_longer_one() -> None:
    bench = workbench(host_with("a0", host="a"))
    bench.pause("a", at(5))
    bench.pause("a", at(3))
    bench.pause("unknown", at(3))
    assert bench.next_moment() == at(5)


@pytest.mark.parametrize(("ready_at", "paused_until"), [(5, 9), (9, 5)])
def test_item_of_a_paused_host_waits_for_both_moments(ready_at: float, paused_until: float) -> None:
    host = known(host="a")
    host.wait(candidate("a0", host="a", ready_at=at(ready_at)), at(ready_at))
    host.order = listed(ready_at=at(ready_at))
    bench = workbench(host)
    bench.pause("a", at(paused_until))
    assert bench.next_moment() == at(9)


def test_nothing_is_chosen_past_a_host_that_has_to_be_looked_at() -> None:
    bench = workbench(
        host_with("a0", host="a", priority=3),
        known(host="b", is_all=False, order=listed(2)),
        host_with("c0", host="c", priority=1),
    )
    choice = choose(bench)
    assert (names(choice.candidates), looks(choice)) == (["a0"], ["b"])
    # The look shows nothing.
    bench.hosts["b"].is_all = True
    bench.settle(bench.hosts["b"])
    assert names(choose(bench).candidates) == ["c0"]


def test_hosts_of_one_priority_are_looked_at_together() -> None:
    bench = workbench(
        known(host="a", is_all=False, order=listed(2, 5)),
        host_with("b0", host="b", priority=2, age=4),
        known(host="c", is_all=False, order=listed(2, 3)),
        known(host="d", is_all=False, order=listed(1)),
    )
    choice = choose(bench)
    assert (choice.candidates, looks(choice)) == ([], ["a", "c"])
    for host in choice.looks:
        host.is_all = True
        bench.settle(host)
    # What came after them is back in its place.
    assert names(choose(bench, 1).candidates) == ["b0"]
    assert looks(choose(bench)) == ["d"]


def test_no_more_hosts_are_looked_at_than_items_are_wanted() -> None:
    bench = workbench(
        host_with("first", host="first", priority=1),
        *(known(host=f"h{i}", is_all=False, order=listed(0, i)) for i in range(9)),
    )
    choice = choose(bench, 4)
    assert (names(choice.candidates), looks(choice)) == (["first"], ["h8", "h7", "h6"])


def test_hosts_that_come_after_a_look_count_as_wanted_items() -> None:
    bench = workbench(
        known(host="a", is_all=False, order=listed(0, 9)),
        host_with("b0", host="b", age=8),
        known(host="c", is_all=False, order=listed(0, 7)),
    )
    assert looks(choose(bench, 2)) == ["a"]
    assert names(choose(bench, 1).candidates) == ["b0"]


# Hosts that wait, and idle hosts.


def test_host_that_is_listed_for_a_moment_is_looked_at_then() -> None:
    bench = workbench()
    bench.see("a", listed(ready_at=at(5)), 0, 0.0, is_own=True)
    assert choose(bench, now=at(4.9)) == Choice([], [])
    assert bench.next_moment() == at(5)
    assert bench.idle == {}
    assert looks(choose(bench, now=at(5))) == ["a"]
    # The look shows nothing.
    bench.hosts["a"].is_all = True
    bench.settle(bench.hosts["a"])
    assert choose(bench, now=at(5)) == Choice([], [])
    assert list(bench.idle) == ["a"]


def test_host_that_is_listed_for_a_moment_is_looked_at_then_though_all_was_known() -> None:
    host = known(host="a", order=listed(ready_at=at(5)))
    bench = workbench(host)
    assert bench.idle == {}
    assert choose(bench, now=at(4)) == Choice([], [])
    assert looks(choose(bench, now=at(5))) == ["a"]


def test_items_that_wait_come_when_their_moment_comes() -> None:
    host = known(host="a", empty_looks=7)
    host.wait(candidate("late", host="a"), at(5))
    bench = workbench(host)
    assert list(bench.idle) == ["a"]
    assert choose(bench, now=at(4.9)) == Choice([], [])
    assert bench.next_moment() == at(5)
    assert names(choose(bench, now=at(5)).candidates) == ["late"]


def test_waiting_item_that_is_better_comes_before_those_that_are_ready() -> None:
    host = host_with("a0", "a1", host="a")
    host.wait(candidate("urgent", priority=1, host="a"), at(5))
    bench = workbench(host)
    assert bench.next_moment() == at(5)
    assert names(choose(bench, 1, now=at(4)).candidates) == ["a0"]
    assert names(choose(bench, 2, now=at(5)).candidates) == ["urgent", "a1"]


def test_host_that_is_listed_earlier_than_its_items_wait_is_looked_at_at_the_earlier_moment() -> None:
    host = known(host="a", order=listed(ready_at=at(3)))
    host.wait(candidate("late", host="a"), at(9))
    bench = workbench(host)
    assert bench.next_moment() == at(3)
    assert looks(choose(bench, now=at(3))) == ["a"]


def test_host_is_not_looked_at_when_a_lease_ends_that_was_renewed() -> None:
    host = known(host="a", order=listed(ready_at=at(9)))
    host.wait(candidate("leased", host="a"), at(3))
    bench = workbench(host)
    host.wait(candidate("leased", host="a"), at(60))
    assert choose(bench, now=at(3)) == Choice([], [])
    assert (host.is_all, bench.next_moment()) == (True, at(9))


def test_host_is_not_looked_at_for_an_item_that_has_left_the_queue() -> None:
    host = known(host="a", empty_looks=7)
    host.wait(candidate("ended", host="a"), at(3))
    bench = workbench(host)
    host.end("ended")
    bench.settle(host)
    assert choose(bench, now=at(3)) == Choice([], [])
    assert host.is_drained


def test_host_that_is_not_listed_waits_for_its_items_only() -> None:
    host = known(host="a", order=None)
    host.wait(candidate("late", host="a"), at(9))
    bench = workbench(host)
    assert (bench.next_moment(), bench.idle) == (at(9), {})
    host.drop("late")
    bench.settle(host)
    assert bench.next_moment() is None


def test_idle_host_that_gets_an_item_is_idle_no_more() -> None:
    host = known(host="a", idle_since=4.0)
    bench = workbench(host)
    assert (list(bench.idle), host.idle_since) == (["a"], 4.0)
    host.offer(candidate("new", host="a"))
    bench.settle(host)
    assert (bench.idle, host.idle_since) == ({}, None)


def test_idle_host_stays_idle_while_it_is_looked_at_again_unless_others_have_changed_it() -> None:
    host = known(host="a", idle_since=4.0, leave_at=5.0)
    bench = workbench(host)
    assert looks(choose(bench, now=at(5))) == ["a"]
    bench.settle(host)
    assert (bench.idle, host.idle_since, host.leave_at) == ({}, 4.0, 5.0)
    note_empty_look(bench, host, 5)
    assert (list(bench.idle), host.idle_since, host.leave_at) == (["a"], 4.0, 5.0)
    bench.see("a", listed(mark="1"), 0, 0.0, is_own=True)
    assert (bench.idle, host.idle_since, host.leave_at) == ({}, None, None)
    # Nor was one idle that was moved to a later moment.
    moved = known(host="b", idle_since=4.0, leave_at=5.0)
    bench = workbench(moved)
    moved.order = listed(ready_at=at(30))
    bench.settle(moved)
    assert (bench.idle, moved.idle_since, moved.leave_at) == ({}, None, None)


def test_busy_process_looks_at_an_idle_host_again_after_longer_and_longer_pauses() -> None:
    idle = known(host="a", empty_looks=1)
    busy = host_with(*(f"b{i}" for i in range(300)), host="b")
    bench = workbench(idle, busy)
    looked_at = []
    for second in range(260):
        choice = choose(bench, 1, now=at(second))
        if choice.looks:
            looked_at.append(second)
            assert (names(choice.candidates), looks(choice)) == ([], ["a"])
            note_empty_look(bench, idle, second)
            choice = choose(bench, 1, now=at(second))
        assert [item.host for item in choice.candidates] == ["b"]
    assert [later - earlier for earlier, later in pairwise([0, *looked_at])] == [
        *(5, 5, 5, 8, 16, 32, 60, 60, 60),
    ]


def test_pause_of_an_idle_host_ends_early_for_an_item_that_waits_and_begins_anew_after_it() -> None:
    host = known(host="a", empty_looks=4)
    host.wait(candidate("late", host="a"), at(3))
    bench = workbench(host)
    assert bench.next_moment() == at(3)
    assert names(choose(bench, now=at(3)).candidates) == ["late"]
    assert bench.next_moment() == at(11)


def test_host_that_was_idle_before_the_first_choice_is_looked_at_then() -> None:
    bench = Workbench("me")
    bench.hosts["a"] = known(host="a", empty_looks=7)
    bench.settle(bench.hosts["a"])
    assert looks(choose(bench)) == ["a"]


def test_idle_host_that_is_doubted_is_looked_at_before_its_pause_is_over() -> None:
    bench = workbench(known(host="a", empty_looks=7), host_with("b0", host="b"))
    for host in ("a", "b", "unknown"):
        bench.doubt(host)
    choice = choose(bench)
    assert looks(choice) == ["a"]
    # One that is not idle is looked at when its items are used up.
    assert bench.hosts["b"].is_all


def test_drained_are_hosts_of_the_own_share_without_an_open_item() -> None:
    waits, used = known(host="waits"), known(host="used", is_all=False)
    waits.wait(candidate("late", host="waits"), at(9))
    bench = workbench(
        known(host="a"),
        known(host="b"),
        known(host="foreign", is_own=False),
        known(host="not listed", order=None),
        host_with("i", host="ready"),
        waits,
        used,
    )
    assert bench.drained([*bench.hosts, "unknown"]) == {name: Listed(name, listed()) for name in "ab"}
    assert bench.drained(["b"]) == {"b": Listed("b", listed())}


def test_drained_hosts_that_were_idle_for_a_second_are_due_to_leave() -> None:
    waits = known(host="waits")
    waits.wait(candidate("late", host="waits"), at(9))
    bench = workbench(*(known(host=name) for name in "abc"), known(host="foreign", is_own=False), waits)
    assert bench.idle_drained(9, 5.0) == []
    assert bench.idle_drained(9, 5.9) == []
    assert bench.idle_drained(2, 6.0) == [Listed(name, listed()) for name in "ab"]
    # Those that were not tried are tried the next time; the others after two seconds.
    assert [host.host for host in bench.idle_drained(9, 6.0)] == ["c"]
    assert bench.idle_drained(9, 7.9) == []
    assert [host.host for host in bench.idle_drained(9, 8.0)] == ["a", "b", "c"]


def test_settle_does_not_bring_back_a_host_that_was_forgotten() -> None:
    host = host_with("a0", host="a")
    bench = workbench(host)
    bench.remove("a", 0.0)
    bench.settle(host)
    assert choose(bench) == Choice([], [])
    idle = known(host="b")
    bench = workbench(idle)
    bench.remove("b", 0.0)
    bench.remove("b", 0.0)
    bench.settle(idle)
    assert (bench.idle, bench.hosts) == ({}, {})


def test_host_that_was_forgotten_and_is_seen_again_has_its_new_place() -> None:
    bench = workbench(host_with("b0", host="b", priority=1))
    bench.see("a", listed(2), 0, 0.0, is_own=True)
    bench.remove("a", 0.0)
    bench.see("a", listed(0), 0, 0.0, is_own=True)
    choice = choose(bench)
    assert (names(choice.candidates), looks(choice)) == (["b0"], ["a"])


# What is noted of hosts.


def test_see_forgets_a_host_whose_entry_has_changed() -> None:
    bench = workbench(host_with("a0", host="a", order=listed()))
    bench.see("a", listed(), 0, 7.0, is_own=True)
    assert (names(bench.hosts["a"].ready), bench.hosts["a"].seen_at) == (["a0"], 7.0)
    bench.see("a", listed(mark="1"), 0, 8.0, is_own=True)
    assert (bench.hosts["a"].ready, bench.hosts["a"].seen_at) == ([], 8.0)
    assert looks(choose(bench)) == ["a"]


def test_see_ignores_the_places_that_this_process_has_replaced() -> None:
    bench = workbench(host_with("a0", host="a", order=listed(9)))
    after = record("a", place=split_place(listed(8)))
    bench.note_update(after, listed(9), 1.0, is_own=True)
    host = bench.hosts["a"]
    for seconds, order, ready in (
        (2.0, listed(9), ["a0"]),
        (15.9, listed(9), ["a0"]),
        # Another process may have brought it back to that place.
        (16.0, listed(9), []),
    ):
        bench.see("a", order, 0, seconds, is_own=True)
        assert (names(host.ready), host.seen_at) == (ready, seconds)
    assert host.order == listed(9)
    # A place that the host has again is not past.
    for order in (listed(8), listed(9)):
        bench.note_update(record("a", place=split_place(order)), host.order, 17.0, is_own=True)
    bench.see("a", listed(8), 0, 18.0, is_own=True)
    assert (host.order, list(host.past_orders)) == (listed(9), [listed(8)])


def test_see_ignores_the_entry_of_a_host_that_this_process_has_taken_out_of_the_list() -> None:
    for seconds, is_ignored in ((14.9, True), (15.0, False)):
        bench = workbench(host_with("a0", host="a"))
        bench.remove("a", 0.0)
        bench.see("a", listed(), 0, seconds, is_own=True)
        assert (bench.hosts == {}) == is_ignored


def test_host_that_is_listed_again_is_known_with_the_items_that_this_process_has_ended() -> None:
    bench = workbench(host_with("a0", host="a"), host_with("b0", host="b"))
    for name in "ab":
        bench.hosts[name].end(f"{name}0")
        bench.remove(name, 0.0)
    bench.see("a", listed(mark="1"), 0, 1.0, is_own=False)
    host = bench.hosts["a"]
    assert (list(host.doubtful), host.is_own, looks(choose(bench))) == (["a0"], False, ["a"])
    # This process lists the other one again, and knows all of its items.
    bench.note_update(record("b", place=listed(mark="1")[:-5]), None, 1.0, is_own=True)
    assert (list(bench.hosts["b"].doubtful), bench.hosts["b"].is_all) == (["b0"], True)


def test_host_that_the_list_does_not_show_comes_back_with_its_old_entry() -> None:
    bench = workbench(host_with("a0", host="a"))
    bench.remove("a", 0.0, has_left=False)
    bench.see("a", listed(), 0, 1.0, is_own=True)
    assert looks(choose(bench)) == ["a"]


def test_hosts_that_have_left_are_remembered_for_the_lag_of_the_index() -> None:
    bench = workbench(*(host_with(host=f"h{i}") for i in range(40)))
    for i in range(40):
        bench.remove(f"h{i}", float(i))
    assert list(bench._left) == [f"h{i}" for i in range(25, 40)]


def test_see_lets_limits_be_read_again_that_the_list_does_not_show() -> None:
    limits = record("a", blocked_until=at(60))
    bench = workbench(host_with("a0", host="a", order=listed(has_limits=True), record=limits))
    bench.see("a", listed(), 0, 7.0, is_own=True)
    assert (bench.hosts["a"].record, looks(choose(bench))) == (None, ["a"])
    checked = workbench(host_with("b0", host="b", must_check=True))
    checked.see("b", listed(mark="1"), 0, 7.0, is_own=True)
    assert checked.hosts["b"].must_check


def test_see_notes_a_new_host_with_its_share() -> None:
    bench = workbench()
    bench.see("a", listed(), 3, 7.0, is_own=False)
    host = bench.hosts["a"]
    assert (host.bucket, host.is_own, host.order, host.seen_at) == (3, False, listed(), 7.0)


def test_see_notes_the_only_item_of_an_own_host_so_that_its_queue_is_not_read() -> None:
    bench = workbench()
    bench.see("a", listed(only_item="a0"), 0, 7.0, is_own=True)
    chosen = choose(bench)
    assert (names(chosen.candidates), chosen.looks) == (["a0"], [])
    (item,) = chosen.candidates
    assert (item.order, item.host, item.distance) == (split_place(listed()), "a", 0)
    # Nothing else is in the queue, as far as the list says.
    assert bench.hosts["a"].is_all
    bench.see("a", listed(mark="1"), 0, 8.0, is_own=True)
    assert looks(choose(bench)) == ["a"]


def test_see_notes_the_moment_of_an_only_item() -> None:
    bench = workbench()
    bench.see("a", listed(ready_at=at(9), only_item="a0"), 0, 7.0, is_own=True)
    assert (choose(bench), bench.next_moment()) == (Choice([], []), at(9))
    assert names(bench.choose(9, at(9), 9.0).candidates) == ["a0"]


def test_queue_of_a_host_with_an_only_item_is_read_in_other_shares_and_after_a_lease_was_forgotten() -> None:
    bench = workbench()
    bench.see("a", listed(only_item="a0"), 0, 7.0, is_own=False)
    assert looks(choose(bench)) == ["a"]
    host = host_with("b0", host="b", order=listed(mark="1"))
    bench = workbench(host)
    (item,) = choose(bench).candidates
    bench.end_claim(["b"])
    host.wait(item, at(30), is_own=True)
    bench.settle(host)
    # Another process has changed the host.
    bench.see("b", listed(only_item="b0"), 0, 7.0, is_own=True)
    assert looks(choose(bench)) == ["b"]


def test_limits_of_a_host_with_an_only_item_are_read_first() -> None:
    bench = workbench()
    order = listed(only_item="a0", has_limits=True)
    bench.see("a", order, 0, 7.0, is_own=True)
    assert looks(choose(bench)) == ["a"]
    limited = record("a", place=split_place(order), only_item="a0", delay=3)
    bench.note_update(limited, order, 7.0, is_own=True)
    assert names(choose(bench).candidates) == ["a0"]


def test_note_update_keeps_the_known_items_if_nobody_else_has_changed_the_host() -> None:
    place = split_place(listed())
    bench = workbench(host_with("a0", host="a", order=listed(9), must_check=True))
    after = record("a", place=place)
    bench.note_update(after, listed(9), 7.0, is_own=True)
    host = bench.hosts["a"]
    assert (names(host.ready), host.order, host.must_check, host.seen_at) == (["a0"], after.order, False, 7.0)
    bench.note_update(after, listed(9), 8.0, is_own=True)
    assert host.ready == []


def test_note_update_keeps_the_record_of_a_host_with_limits_only() -> None:
    bench = workbench(host_with("a0", host="a"))
    limited = record("a", place=split_place(listed()), delay=3)
    bench.note_update(limited, listed(), 7.0, is_own=True)
    assert bench.hosts["a"].record == limited
    blocked = record("a", place=split_place(listed()), blocked_until=at(9))
    bench.note_update(blocked, limited.order, 7.0, is_own=True)
    assert (bench.hosts["a"].record, bench.next_moment()) == (blocked, at(9))
    free = record("a", place=split_place(listed()))
    bench.note_update(free, blocked.order, 7.0, is_own=True)
    assert bench.hosts["a"].record is None
    assert names(choose(bench).candidates) == ["a0"]


def test_note_update_notes_own_listed_hosts_only() -> None:
    bench = workbench()
    bench.note_update(record("a", place=split_place(listed())), None, 7.0, is_own=False)
    bench.note_update(record("b"), None, 7.0, is_own=True)
    assert bench.hosts == {}
    new, old = record("c", place=split_place(listed()), bucket=5), record("d", place=split_place(listed()))
    bench.note_update(new, None, 7.0, is_own=True)
    bench.note_update(old, old.order, 7.0, is_own=True)
    # The queue of a host that was not listed has only the items that this process adds.
    assert [(host.host, host.is_all, host.bucket) for host in bench.hosts.values()] == [
        ("c", True, 5),
        ("d", False, 0),
    ]


def test_give_back_restores_the_item_and_the_turn() -> None:
    bench = workbench(
        host_with("a0", "a1", host="a", age=9, record=record("a", delay=3)),
        host_with("b0", "b1", host="b", age=5),
    )
    first = choose(bench, 2).candidates
    assert names(first) == ["a0", "b0"]
    bench.give_back(first)
    assert bench.hosts["a"].picked == 0
    assert names(choose(bench, 2).candidates) == ["a0", "b0"]
    bench.end_claim(["a", "b"])
    second = choose(bench, 1).candidates
    assert names(second) == ["a1"]
    bench.give_back(second)
    # Of both, this one was served longer ago.
    assert [host.turn for host in bench.hosts.values()] == [3, 4]
    # A host that was forgotten meanwhile takes nothing back.
    bench.remove("b", 0.0)
    bench.give_back([candidate("b0", host="b")])
    assert list(bench.hosts) == ["a"]


@pytest.mark.parametrize("claimed", [[], ["a1"]])
def test_host_keeps_its_turn_if_none_of_its_candidates_was_claimed(claimed: list[str]) -> None:
    bench = workbench(host_with("a0", "a1", "a2", host="a", age=9), host_with("b0", host="b", age=5))
    host = bench.hosts["a"]
    host.turn = 7
    bench.settle(host)
    chosen = choose(bench).candidates
    assert names(chosen) == ["b0", "a0", "a1", "a2"]
    latest = host.turn
    for _ in claimed:
        host.note_claimed(0.0)
    bench.give_back(item for item in chosen if item.item_id not in claimed)
    assert host.turn == (latest if claimed else 7)
    assert (host.is_served, host.picked, host.tried) == (False, 0, set())


def test_end_claim_of_a_forgotten_host_does_nothing() -> None:
    bench = workbench(host_with("a0", host="a"))
    bench.end_claim(["b", "a"])
    assert list(bench.hosts) == ["a"]


def test_set_shares_reads_hosts_again_whose_share_has_changed() -> None:
    bench = workbench(
        host_with("a0", host="a", bucket=1),
        host_with("b0", host="b", bucket=2),
        host_with("c0", host="c", bucket=3, is_own=False),
    )
    bench.set_shares(frozenset({1, 3}))
    assert [host.is_own for host in bench.hosts.values()] == [True, False, True]
    assert [names(host.ready) for host in bench.hosts.values()] == [["a0"], [], []]
    choice = choose(bench)
    assert names(choice.candidates) == ["a0"] or looks(choice) == ["c"]


def test_recheck_limits_lets_records_be_read_again() -> None:
    bench = workbench(
        host_with("a0", host="a", record=record("a", blocked_until=at(60))), host_with("b0", host="b")
    )
    bench.recheck_limits(0.0)
    assert sorted(looks(choose(bench))) == ["a", "b"]
    assert bench.hosts["a"].record is None


def test_limits_that_the_lists_do_not_show_yet_are_read() -> None:
    for seconds, must_check in ((14.9, True), (15, False)):
        bench = workbench()
        bench.recheck_limits(1.0)
        bench.see("a", listed(), 0, 1 + seconds, is_own=True)
        assert bench.hosts["a"].must_check == must_check
        # An entry that has not changed since the record was read is no reason to read it again.
        bench.note_update(record("a", place=split_place(listed())), listed(), 1.0, is_own=True)
        bench.see("a", listed(), 0, 1.0, is_own=True)
        assert not bench.hosts["a"].must_check


def test_forget_full_forgets_the_records_of_hosts_at_their_maximum() -> None:
    full = {"slots": {"t": at(60)}, "max_in_flight": 1}
    bench = workbench(
        host_with("a0", host="a", record=record("a", **full)),
        host_with("b0", host="b", record=record("b", **full)),
        host_with("c0", host="c", record=record("c", max_in_flight=1)),
        host_with("d0", host="d", record=record("d", delay=3, next_at=at(9))),
        host_with("e0", host="e"),
    )
    assert [host.host for host in bench.forget_full(1, START)] == ["a"]
    assert [host.host for host in bench.forget_full(9, START)] == ["b"]
    assert [host.record is None for host in bench.hosts.values()] == [True, True, False, False, True]
    assert [host.must_check for host in bench.hosts.values()] == [True, True, False, False, False]
    assert bench.forget_full(9, at(60)) == []


# How much there is.


def test_supply_counts_items_of_free_hosts_and_one_of_each_other_host() -> None:
    bench = workbench(
        host_with("a0", "a1", "a2", host="a"),
        host_with("b0", "b1", host="b", record=record("b", delay=3)),
        known(host="c", is_all=False),
        known(host="idle", empty_looks=7),
        host_with("d0", host="d", record=record("d", blocked_until=at(9))),
    )
    assert bench.supply(99, START) == 5
    assert bench.supply(4, START) == 4
    assert bench.supply(99, at(9)) == 6
    bench.remove("a", 0.0)
    assert bench.supply(99, at(9)) == 3
    # An entry that is out of date does not count.
    bench.settle(bench.hosts["c"])
    assert bench.supply(99, at(9)) == 3


def test_heaps_do_not_grow_with_the_number_of_changes() -> None:
    bench = workbench(
        host_with("a0", host="a"), host_with("b0", host="b", record=record("b", blocked_until=at(9)))
    )
    for settled in "ab":
        for _ in range(3000):
            bench.settle(bench.hosts[settled])
        # The entry of the other one is still there.
        assert len(bench._ready) + len(bench._later) <= 1009
        assert bench.supply(9, START) == 1
        assert bench.next_moment() == at(9)
    assert names(choose(bench, now=at(9)).candidates) == ["a0", "b0"]


# Against a model that sorts everything.

priorities = st.integers(0, 2)
host_names = st.sampled_from("abc")
steps = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), host_names, priorities, st.integers(0, 9)),
        st.tuples(st.just("wait"), host_names, priorities, st.integers(0, 9)),
        st.tuples(st.just("block"), host_names, st.just(0), st.integers(0, 9)),
        st.tuples(st.just("choose"), st.just(""), st.integers(1, 5), st.integers(0, 3)),
        st.tuples(st.just("pass"), st.just(""), st.just(0), st.integers(1, 5)),
    ),
    max_size=40,
)


class Model:
    """Hosts of which everything is known; sorts all of their items for each choice."""

    def __init__(self) -> None:
        self.items: dict[str, tuple[Candidate, float]] = {}
        self.open_at = dict.fromkeys("abc", 0.0)
        self.turns = dict.fromkeys("abc", 0)
        self.turn = 0

    def choose(self, wanted: int, now: float) -> list[str]:
        chosen: list[str] = []
        while len(chosen) < wanted:
            ready = [
                item for item, since in self.items.values() if since <= now and self.open_at[item.host] <= now
            ]
            if not ready:
                break
            best = {
                host: min((item for item in ready if item.host == host), key=lambda item: item.claim_order)
                for host in {item.host for item in ready}
            }
            first = min(
                best.values(),
                key=lambda item: (item.claim_order[0], item.host > "b", self.turns[item.host], item.rank),
            )
            self.turn += 1
            self.turns[first.host] = self.turn
            del self.items[first.item_id]
            chosen.append(first.item_id)
        return chosen


def choose_after_looks(bench: Workbench, wanted: int, now: float) -> list[Candidate]:
    """Chooses as a claim does. Idle hosts are looked at after their pauses, and have nothing new."""
    chosen: list[Candidate] = []
    while True:
        choice = choose(bench, wanted - len(chosen), at(now))
        chosen += choice.candidates
        if not choice.looks:
            return chosen
        for host in choice.looks:
            assert not host.ready
            host.is_all = True
            host.empty_looks += 1
            bench.settle(host)


@given(steps)
def test_choice_is_the_first_of_all_items_sorted(steps: list[tuple[str, str, int, int]]) -> None:
    model, now, is_under_way = Model(), 0.0, False
    # Hosts of other shares are ordered by a hash: one of them has no choice.
    bench = workbench(*(known(host=name, is_own=name <= "b") for name in "abc"))
    for number, (action, host, priority, amount) in enumerate(steps):
        if action == "offer" or action == "wait":
            # No two items are equally old.
            item = candidate(f"i{number}", priority, amount + number / 1000, host)
            since = now if action == "offer" else now + amount
            model.items[item.item_id] = item, since
            if since <= now:
                bench.hosts[host].offer(item)
            else:
                bench.hosts[host].wait(item, at(since))
            bench.settle(bench.hosts[host])
        elif action == "block":
            model.open_at[host] = now + amount
            bench.hosts[host].record = record(host, blocked_until=at(now + amount))
            bench.settle(bench.hosts[host])
        elif action == "pass":
            now += amount
        else:
            expected_back = dict(model.items), dict(model.turns)
            expected = model.choose(priority, now)
            chosen = choose_after_looks(bench, priority, now)
            assert names(chosen) == expected
            if amount:
                bench.end_claim("abc")
                is_under_way = False
            elif is_under_way or len({item.host for item in chosen}) < len(chosen):
                # A claim may choose several times before it ends.
                is_under_way = True
            else:
                # Given back, as if they had not been chosen.
                bench.give_back(chosen)
                model.items, model.turns = expected_back
    assert names(choose_after_looks(bench, 99, now)) == model.choose(99, now)
    # The next moment is that of an item, or that of a look at a host that is idle, or was never looked at.
    moments = [at(max(since, model.open_at[item.host])) for item, since in model.items.values()]
    looks = [max(at(now) + host.pause, at(model.open_at[host.host])) for host in bench.idle.values()]
    looks += [at(model.open_at[host.host]) for host in bench.hosts.values() if not host.is_all]
    moment = bench.next_moment()
    assert moment is None or at(now) < moment <= min(moments + looks)
    assert looks or moment == min(moments, default=None)
