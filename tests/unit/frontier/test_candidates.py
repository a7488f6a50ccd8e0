"""Chooses candidates by priority, age and share; the module under test is pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from ragcrawl_dynamo._frontier.candidates import Candidate, HostCandidates, choose, distant_bound
from ragcrawl_dynamo._frontier.item_store import ready_candidate
from tests.support.factories import START, make_item


def candidate(name: str, host: str = "a.example", priority: float = 0.0, age: float = 0.0) -> Candidate:
    item = make_item(name, domain=host, priority=priority, discovered_at=START - timedelta(seconds=age))
    return ready_candidate(item)


def known(*candidates: Candidate, is_all: bool = True, open_at: datetime = START) -> HostCandidates:
    return HostCandidates(START, list(candidates), is_all, is_limited=False, open_at=open_at)


def names(candidates: list[Candidate]) -> list[str]:
    return [chosen.item_id for chosen in candidates]


def test_choose_takes_the_highest_priority_of_all_hosts_then_the_oldest() -> None:
    hosts = {
        "a.example": known(candidate("urgent", priority=2), candidate("old", age=50)),
        "b.example": known(candidate("older", "b.example", age=60), candidate("young", "b.example")),
    }
    choice = choose(hosts, {"a.example": 9, "b.example": 9}, 3, 9)
    assert names(choice.candidates) == ["urgent", "older", "old"]
    assert not choice.held_back
    # Chosen candidates are removed from the lists.
    assert names(hosts["b.example"].candidates) == ["young"]


def test_choose_takes_no_more_of_a_host_than_it_allows() -> None:
    hosts = {
        "a.example": known(*(candidate(f"a{i}", priority=5) for i in range(5))),
        "b.example": known(candidate("b0", "b.example")),
        "c.example": known(candidate("c0", "c.example")),
    }
    choice = choose(hosts, {"a.example": 2, "b.example": 1}, 9, 9)
    assert names(choice.candidates) == ["a0", "a1", "b0"]


def test_choose_takes_few_of_what_other_processes_are_about_to_claim() -> None:
    near, far = candidate("near"), replace(candidate("far", "b.example"), distance=2)
    hosts = {"a.example": known(near), "b.example": known(far)}
    choice = choose(hosts, {"a.example": 1, "b.example": 1}, 2, 1)
    assert names(choice.candidates) == ["near"]
    assert choice.held_back
    assert names(choose(hosts, {"b.example": 1}, 2, 1).candidates) == ["far"]


def test_candidate_of_another_share_is_tried_from_the_other_end() -> None:
    old, young = candidate("old", age=50), candidate("young")
    assert old.claim_order < young.claim_order
    helper = [replace(item, distance=1) for item in (old, young)]
    assert helper[1].claim_order < helper[0].claim_order
    # The priority counts more than the share.
    assert replace(candidate("urgent", priority=1), distance=3).claim_order < old.claim_order


def test_distant_bound_doubles_with_each_attempt() -> None:
    far = [replace(candidate(f"i{i}"), distance=2) for i in range(12)]
    near = [replace(candidate(f"n{i}"), distance=1) for i in range(12)]
    assert [distant_bound([known(*far, *near)], 4, attempt) for attempt in range(3)] == [3, 6, 12]
    assert distant_bound([known(*near)], 4, 0) == 1


def test_host_candidates_offer_keeps_the_order() -> None:
    hosts = known(candidate("b", age=20), candidate("d", age=5), is_all=False)
    hosts.offer(candidate("c", age=10))
    # The queue may have unknown items that come before this one.
    hosts.offer(candidate("e", age=1))
    assert names(hosts.candidates) == ["b", "c", "d"]
    whole = known(candidate("b", age=20))
    whole.offer(candidate("e", age=1))
    assert names(whole.candidates) == ["b", "e"]
    empty = known()
    empty.offer(candidate("a"))
    assert empty.candidates == []


def test_host_candidates_supply_is_what_the_limits_allow() -> None:
    hosts = known(candidate("a"), candidate("b"), open_at=START)
    assert (hosts.supply(START), hosts.supply(START - timedelta(seconds=1))) == (2, 0)
    assert replace(hosts, is_limited=True).supply(START) == 1
