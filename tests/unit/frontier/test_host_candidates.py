"""The knowledge of one process about the items of a host; the module under test is pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from ragcrawl_dynamo._frontier import host_candidates as module
from ragcrawl_dynamo._frontier.candidates import Candidate
from ragcrawl_dynamo._frontier.host_candidates import HostCandidates, Pace, pause_after
from tests.support.factories import START
from tests.support.hosts import at, candidate, known, leased, names, record


def look(host: HostCandidates, seen: Iterable[Candidate], *, is_all: bool = True, seconds: float = 0) -> None:
    host.note_look(seen, is_all=is_all, now=at(seconds), distance=lambda candidate: 0)


def test_candidate_order_is_by_priority_then_share_then_age() -> None:
    urgent, old, young = candidate("urgent", priority=1), candidate("old", age=50), candidate("young")
    assert urgent.claim_order < old.claim_order < young.claim_order
    foreign = [replace(item, distance=1) for item in (urgent, old, young)]
    # Another process begins with the old one of its share.
    assert foreign[0].claim_order < young.claim_order < foreign[2].claim_order < foreign[1].claim_order
    assert foreign[1].claim_order < replace(young, distance=2).claim_order


def test_candidate_state_is_the_one_it_is_counted_in() -> None:
    delayed = candidate("i", ready_at=START)
    states = [item.state for item in (candidate("i"), delayed, leased(delayed))]
    assert states == ["pending", "delayed", "in_progress"]


def test_offer_keeps_the_order_and_takes_each_item_once() -> None:
    host = known(candidate("c", age=10), candidate("a", priority=1), candidate("b", age=20))
    host.offer(candidate("b", age=5))
    assert names(host.ready) == ["a", "c", "b"]
    assert [host.take().item_id for _ in range(3)] == ["a", "c", "b"]


def test_offer_takes_back_an_item_that_waited_ended_or_was_tried() -> None:
    host = known(candidate("tried"))
    host.take()
    host.wait(candidate("waits"), at(9))
    host.end("ended")
    for name in ("tried", "waits", "ended"):
        host.offer(candidate(name))
    assert (host.tried, host.waiting, host.ended) == (set(), {}, {})
    assert len(host.ready) == 3


def test_is_before_last_tells_whether_nothing_unknown_comes_before_an_item() -> None:
    host = known(candidate("b", age=20), candidate("d", age=5), is_all=False)
    assert host.is_before_last(candidate("c", age=10))
    assert not host.is_before_last(candidate("e", age=1))
    assert not host.is_before_last(host.ready[-1])
    assert not known().is_before_last(candidate("a"))


def test_wake_offers_items_whose_moment_has_come() -> None:
    host = known()
    host.wait(candidate("a"), at(5))
    host.wait(candidate("b", priority=1), at(3))
    host.wait(candidate("c"), at(9))
    assert host.next_moment() == at(3)
    host.wake(at(2.9))
    assert host.ready == []
    host.wake(at(5))
    assert names(host.ready) == ["b", "a"]
    assert host.next_moment() == at(9)
    host.wake(at(9))
    assert (host.next_moment(), host.waiting) == (None, {})


def test_next_moment_may_be_too_early_after_an_item_is_dropped_but_never_too_late() -> None:
    host = known()
    host.wait(candidate("a"), at(3))
    host.wait(candidate("b"), at(9))
    host.drop("a")
    host.wake(at(3))
    assert (host.ready, host.next_moment()) == ([], at(9))
    host.drop("b")
    assert host.next_moment() is None


def test_wait_replaces_the_moment_of_an_item() -> None:
    host = known(candidate("a"))
    host.wait(candidate("a"), at(5))
    assert host.ready == []
    # A lease that is renewed ends later.
    host.wait(candidate("a"), at(50), is_own=True)
    host.wake(at(5))
    assert (host.ready, host.next_moment()) == ([], at(50))


def test_item_that_waits_again_has_not_ended() -> None:
    host = known()
    host.end("a")
    host.wait(candidate("a"), at(5))
    look(host, [candidate("a")])
    assert list(host.waiting) == ["a"]


def test_end_remembers_the_latest_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ENDED_REMEMBERED", 3)
    host = known(candidate("i3"))
    for i in range(4):
        host.end(f"i{i}")
    assert list(host.ended) == ["i1", "i2", "i3"]
    assert host.ready == []


def test_host_is_drained_once_nothing_is_known_of_it() -> None:
    assert known().is_drained
    assert not known(candidate("a")).is_drained
    assert not known(is_all=False).is_drained
    assert not known(order=None).is_drained
    claimed = known(candidate("a"))
    claimed.take()
    assert not claimed.is_drained
    host = known()
    host.wait(candidate("a"), at(9))
    assert not host.is_drained


def test_pause_grows_with_each_look_that_shows_nothing_up_to_a_minute() -> None:
    # Its item is being claimed.
    pauses = [known(empty_looks=looks, tried={"a"}).pause.total_seconds() for looks in range(9)]
    assert pauses == [1, 1, 2, 4, 8, 16, 32, 60, 60]
    assert known(empty_looks=10**6).pause.total_seconds() == 60


def test_pause_after_failures_is_bounded_however_many_there_are() -> None:
    assert [pause_after(times) for times in (0, 1, 2, 3, 7)] == [1, 1, 2, 4, 60]
    # As many as a run of some weeks has.
    assert pause_after(10**6) == 60


def test_pause_of_a_drained_host_is_long_enough_for_it_to_leave_the_list() -> None:
    pauses = [known(empty_looks=looks).pause.total_seconds() for looks in range(9)]
    assert pauses == [5, 5, 5, 5, 8, 16, 32, 60, 60]


def test_host_is_due_to_leave_a_second_after_it_was_first_asked_and_then_less_and_less_often() -> None:
    host = known()
    due = [tenth / 10 for tenth in range(1900) if host.is_due_to_leave(tenth / 10)]
    assert due == [1, 3, 7, 15, 31, 63, 123, 183]
    # It had an item meanwhile.
    host.leave_at = None
    assert [seconds for seconds in (200, 200.9, 201, 202, 203) if host.is_due_to_leave(seconds)] == [201, 203]


def test_has_room_as_long_as_the_record_allows_more_than_was_picked() -> None:
    host = known()
    assert host.has_room(START)
    host.record = record(max_in_flight=2, slots={"t": at(9)})
    assert host.has_room(START)
    host.picked = 1
    assert not host.has_room(START)
    assert host.has_room(at(9))
    host.record = record(delay=3)
    assert not host.has_room(START)
    host.end_claim()
    assert host.has_room(START)
    host.record = record(blocked_until=at(9))
    assert (host.has_room(at(8)), host.has_room(at(9))) == (False, True)


def test_end_claim_forgets_tried_items() -> None:
    host = known(candidate("a"))
    host.take()
    look(host, [candidate("a")])
    assert host.ready == []
    host.end_claim()
    look(host, [candidate("a")])
    assert names(host.ready) == ["a"]


def test_forget_drops_everything_that_another_process_may_have_changed() -> None:
    host = known(candidate("a"))
    host.wait(candidate("b"), at(9))
    host.end("c")
    host.forget()
    host.order = None
    assert (host.ready, host.waiting, host.ended, host.is_all) == ([], {}, {}, False)
    assert (host.looked_at, host.next_moment()) == (None, None)
    host.wait(candidate("d"), at(20))
    assert host.next_moment() == at(20)
    # An item that was known before is one more item.
    host.offer(candidate("a"))
    assert names(host.ready) == ["a"]


def test_forget_doubts_items_that_this_process_has_leased_or_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ENDED_REMEMBERED", 3)
    host = known()
    for name in ("a", "b", "c"):
        host.end(name)
    host.wait(candidate("own"), at(9), is_own=True)
    host.wait(candidate("foreign"), at(9))
    host.forget()
    assert list(host.doubtful) == ["b", "c", "own"]


def test_host_that_has_changed_is_looked_at_as_if_it_had_never_been_empty() -> None:
    host = known(empty_looks=7, distrusted=7)
    host.forget()
    look(host, [])
    # The index may not show the announced change yet.
    assert (host.pause.total_seconds(), host.distrusted) == (5, 0)


def test_pace_is_measured_over_a_second_or_longer() -> None:
    host = known()
    assert host.pace is None
    for tick in range(10):
        host.note_claimed(tick / 10)
    assert host.pace is not None
    assert host.pace.per_second == 0.0
    host.note_claimed(1.0)
    assert host.pace == Pace(1.0, 0, 11.0)
    host.note_claimed(5.0)
    assert host.pace.per_second == 0.25


def test_look_replaces_the_known_items() -> None:
    host = known(candidate("gone"), is_used=True)
    look(host, [candidate("b"), candidate("a", priority=1), candidate("d", ready_at=at(9))])
    assert names(host.ready) == ["a", "b"]
    assert {name: waiting.until for name, waiting in host.waiting.items()} == {"d": at(9)}
    assert (host.is_all, host.is_used) == (True, False)
    look(host, [candidate("b")], is_all=False)
    assert not host.is_all


def test_look_offers_items_whose_moment_has_come() -> None:
    host = known()
    look(host, [candidate("d", ready_at=at(9))], seconds=9)
    assert names(host.ready) == ["d"]
    assert host.waiting == {}


def test_look_gives_each_item_its_distance() -> None:
    host = known()
    seen = [candidate("a", age=9), candidate("b"), candidate("c", ready_at=at(9))]
    host.note_look(
        seen, is_all=False, now=START, distance=lambda item: {"a": 2, "b": 0, "c": 3}[item.item_id]
    )
    assert [(item.item_id, item.distance) for item in host.ready] == [("b", 0), ("a", 2)]
    assert host.waiting["c"].candidate.distance == 3


@pytest.mark.parametrize("is_all", [True, False])
def test_look_does_not_offer_items_that_this_process_has_tried_leased_or_ended(is_all: bool) -> None:
    host = known(candidate("tried"))
    host.take()
    host.end("ended")
    host.wait(candidate("leased"), at(60), is_own=True)
    seen = [candidate(name) for name in ("tried", "ended", "leased", "new", "new")]
    look(host, seen, is_all=is_all)
    assert names(host.ready) == ["new"]
    assert (host.waiting["leased"].until, host.waiting["leased"].is_own) == (at(60), True)


def test_look_shows_no_item_twice_while_the_index_moves_it() -> None:
    host = known()
    look(host, [candidate("a"), candidate("a", ready_at=at(9))])
    assert names(host.ready) == ["a"]
    assert host.waiting == {}


@pytest.mark.parametrize("is_all", [True, False])
def test_look_does_not_hide_an_item_that_can_be_claimed_sooner_than_was_known(is_all: bool) -> None:
    host = known()
    host.wait(candidate("a", ready_at=at(99)), at(99))
    look(host, [candidate("a")], is_all=is_all)
    assert (names(host.ready), host.waiting) == (["a"], {})
    # Either place may be the old one.
    assert list(host.doubtful) == ["a"]


def test_look_keeps_one_place_of_an_item_that_the_index_shows_in_two() -> None:
    host = known()
    look(host, [candidate("a", ready_at=at(5)), candidate("a", ready_at=at(3))], seconds=4)
    assert (names(host.ready), host.waiting) == (["a"], {})


def test_look_keeps_own_leases_that_the_index_does_not_show() -> None:
    for is_all in (True, False):
        host = known()
        host.wait(candidate("own"), at(60), is_own=True)
        host.wait(candidate("foreign"), at(50))
        look(host, [], is_all=is_all)
        # A foreign item may be further down, unless the queue was read to its end.
        assert set(host.waiting) == ({"own"} if is_all else {"own", "foreign"})
        assert host.next_moment() == (at(60) if is_all else at(50))


def test_look_keeps_the_lease_of_an_item_that_is_where_it_was() -> None:
    host = known()
    item = leased(candidate("a"))
    host.wait(item, at(60))
    look(host, [candidate("a")])
    assert (host.ready, host.waiting["a"].candidate, host.waiting["a"].is_own) == ([], item, False)
    # After a failure the item has another place, so its lease is over.
    for is_own in (True, False):
        host.wait(item, at(60), is_own=is_own)
        look(host, [candidate("a", ready_at=at(5))])
        assert (host.waiting["a"].until, host.waiting["a"].is_own) == (at(5), False)
    host.wait(item, at(60))
    look(host, [candidate("a", priority=1)])
    assert names(host.ready) == ["a"]
    assert host.waiting == {}


def test_look_keeps_the_token_of_an_expired_lease() -> None:
    host = known()
    host.wait(leased(candidate("a")), at(5))
    host.wake(at(5))
    look(host, [candidate("a"), candidate("b")], seconds=6)
    assert [item.expired_token for item in host.ready] == ["token", None]
    # With another place it is another life of the item.
    look(host, [candidate("a", priority=1)], seconds=6)
    assert [item.expired_token for item in host.ready] == [None]


def test_look_wakes_leases_that_have_ended_meanwhile() -> None:
    host = known()
    host.wait(leased(candidate("a")), at(5))
    look(host, [candidate("a")], seconds=5)
    assert [item.expired_token for item in host.ready] == ["token"]


def test_places_that_were_replaced_one_after_the_other_are_all_past() -> None:
    host = known(order="first")
    for seconds, order in enumerate(("second", "third", "fourth")):
        host.note_order(order, float(seconds))
    assert [host.is_past(order, 3.0) for order in ("first", "second", "third", "fourth")] == [
        True,
        True,
        True,
        False,
    ]


def test_look_keeps_own_leases_as_own_and_all_items_that_it_does_not_show() -> None:
    host = known()
    shown, other, late = (leased(candidate(name, age=9 - i)) for i, name in enumerate("abc"))
    for item in (shown, other, late):
        host.wait(item, at(30), is_own=True)
    # The index shows the first one.
    host.note_look([candidate("a", age=9)], is_all=True, now=at(0), distance=lambda _: 0)
    assert list(host.waiting) == ["a", "b", "c"]
    assert all(waits.is_own for waits in host.waiting.values())
    host.note_look([], is_all=True, now=at(0), distance=lambda _: 0)
    assert list(host.waiting) == ["a", "b", "c"]


def test_look_keeps_the_leases_that_it_does_not_show_as_they_are() -> None:
    host = known()
    host.wait(leased(candidate("a")), at(30), is_own=True)
    host.wait(leased(candidate("b")), at(30))
    for _ in range(2):
        host.note_look([], is_all=False, now=at(0), distance=lambda _: 0)
    assert {name: waits.is_own for name, waits in host.waiting.items()} == {"a": True, "b": False}
