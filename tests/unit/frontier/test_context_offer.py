"""Which items that a process has added or put back it offers to its own claims."""

from __future__ import annotations

from tests.support.hosts import HOST, at, candidate, known, names
from tests.support.stored_run import StoredRun


def offering(*priorities: float, is_all: bool) -> StoredRun:
    """Returns a run with a host that has items of these priorities."""
    run = StoredRun()
    items = [candidate(f"known {priority}", priority) for priority in priorities]
    run.view.bench.hosts[HOST] = known(*items, is_all=is_all)
    return run


def ready(run: StoredRun) -> list[str]:
    return names(run.view.bench.hosts[HOST].ready)


def test_item_is_offered_in_its_order_if_all_items_are_known() -> None:
    run = offering(3.0, 1.0, is_all=True)
    for priority in (2.0, 0.0):
        run.offer(candidate(f"new {priority}", priority))
    assert ready(run) == ["known 3.0", "new 2.0", "known 1.0", "new 0.0"]


def test_item_behind_those_that_are_known_is_not_offered_before_the_items_between_them() -> None:
    run = offering(3.0, 1.0, is_all=False)
    for priority in (2.0, 0.0):
        run.offer(candidate(f"new {priority}", priority))
    assert ready(run) == ["known 3.0", "new 2.0", "known 1.0"]


def test_item_of_a_host_without_known_items_is_not_offered_before_its_queue_is_read() -> None:
    run = offering(is_all=False)
    run.offer(candidate("new"))
    assert ready(run) == []


def test_item_that_waits_for_a_moment_is_offered_then() -> None:
    run = offering(1.0, is_all=True)
    run.offer(candidate("later", 2.0, ready_at=at(5)))
    run.offer(candidate("due", 2.0, ready_at=at(0)))
    assert ready(run) == ["due", "known 1.0"]
    assert run.waiting(HOST) == {"later": at(5)}


def test_item_that_has_ended_before_is_offered_again() -> None:
    run = offering(is_all=True)
    host = run.view.bench.hosts[HOST]
    host.end("again")
    run.offer(candidate("again"))
    assert (ready(run), list(host.ended)) == (["again"], [])


def test_item_of_a_host_that_is_not_known_is_left_to_the_index() -> None:
    run = StoredRun()
    run.offer(candidate("new"))
    assert run.view.bench.hosts == {}
