"""Hosts are read, and the results noted; with queues in memory, in virtual time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ragcrawl_dynamo._dynamodb.outcomes import Applied
from ragcrawl_dynamo._frontier.candidates import Candidate
from ragcrawl_dynamo._frontier.host_candidates import HostCandidates
from ragcrawl_dynamo._frontier.queue_reader import QueueReader
from ragcrawl_dynamo._frontier.work import Listed
from ragcrawl_dynamo._schema.queue_order import split_place
from ragcrawl_dynamo.errors import ThrottledError
from tests.support.factories import START
from tests.support.fake_run import FakeRun
from tests.support.hosts import HOST, at, candidate, known, leased, listed, names, record


def run_with(*hosts: HostCandidates, processes: int = 1) -> tuple[FakeRun, QueueReader]:
    run = FakeRun(processes=processes)
    for host in hosts:
        run.view.bench.hosts[host.host] = host
        run.view.bench.settle(host)
    return run, QueueReader(run)


def unread(**fields: Any) -> HostCandidates:
    return known(is_all=False, **{"looked_at": None, **fields})


async def test_look_reads_a_queue_to_its_end() -> None:
    host = unread(empty_looks=3)
    run, reader = run_with(host)
    run.clock.advance(7)
    run.fake_queues.shards[HOST, 0] = [candidate("b", age=1), candidate("a", age=2)]
    await reader.look([host], 1, START)
    assert (names(host.ready), host.is_all, host.looked_at, host.empty_looks) == (["a", "b"], True, 7.0, 0)
    assert names(run.view.bench.choose(9, START, 7.0).candidates) == ["a", "b"]


async def test_each_look_that_shows_nothing_makes_the_pause_longer() -> None:
    host = unread(empty_looks=3, distrusted=2)
    run, reader = run_with(host)
    await reader.look([host], 1, START)
    assert (host.is_all, host.empty_looks, host.distrusted) == (True, 4, 2)
    assert run.view.bench.next_moment() == at(8)
    # An item that waits cannot be claimed either, but the host has something.
    run.fake_queues.shards[HOST, 0] = [candidate("a", ready_at=at(9))]
    await reader.look([host], 1, START)
    assert (host.empty_looks, host.distrusted) == (5, 0)
    run.fake_queues.shards[HOST, 0] = [candidate("b")]
    await reader.look([host], 1, START)
    assert host.empty_looks == 0


async def test_look_reads_more_the_more_is_wanted_and_the_more_processes_there_are() -> None:
    for wanted, processes, count in ((1, 1, 50), (25, 1, 50), (40, 1, 80), (1, 2, 100)):
        host = unread()
        run, reader = run_with(host, processes=processes)
        run.fake_queues.shards[HOST, 0] = [candidate(f"i{i}", age=999 - i) for i in range(300)]
        await reader.look([host], wanted, START)
        assert (len(host.ready), host.is_all) == (count, False)


async def test_look_reads_past_items_known_to_be_leased_tried_or_ended() -> None:
    host = unread()
    host.wait(candidate("i0", age=999), at(9), is_own=True)
    host.end("i1")
    host.tried.add("i2")
    run, reader = run_with(host)
    run.fake_queues.shards[HOST, 0] = [candidate(f"i{i}", age=999 - i) for i in range(99)]
    await reader.look([host], 1, START)
    assert names(host.ready) == [f"i{i}" for i in range(3, 53)]


async def test_look_into_several_shards_keeps_only_items_that_no_unread_item_can_precede() -> None:
    host = unread(order=listed(shards=3))
    run, reader = run_with(host)
    shards = run.fake_queues.shards
    # The first shard is deep and old, so that the last items of the second one come after unread items.
    shards[HOST, 0] = [candidate(f"a{i}", age=999 - i) for i in range(60)]
    shards[HOST, 1] = [candidate(f"b{i}", age=990.5 - 2 * i) for i in range(60)]
    shards[HOST, 2] = [candidate("c0", age=970), candidate("c1", age=20), candidate("later", ready_at=at(9))]
    due = candidate("due", ready_at=START)
    run.fake_queues.due = [due]
    await reader.look([host], 1, START)
    everything = sorted((item for shard in shards.values() for item in shard), key=lambda item: item.rank)
    ready = [name for name in names(host.ready) if name != "due"]
    assert ready == names(everything)[: len(ready)]
    assert ready[-1] == "a49"
    assert "due" in names(host.ready)
    assert (host.is_all, host.waiting) == (False, {})


async def test_look_reads_the_limits_first_and_no_queue_of_a_closed_host() -> None:
    order = listed(has_limits=True)
    closed, free = unread(host="a", order=order), unread(host="b", order=order)
    run, reader = run_with(closed, free)
    run.fake_queues.shards["b", 0] = [candidate("b0", host="b")]
    run.fake_hosts.records = {
        "a": record("a", blocked_until=at(9), place=split_place(order)),
        "b": record("b", delay=3, place=split_place(order)),
    }
    await reader.look([closed, free], 1, START)
    assert run.fake_queues.looks == ["b"]
    assert (closed.record, free.record) == (run.fake_hosts.records["a"], run.fake_hosts.records["b"])
    assert run.view.bench.next_moment() == at(9)


async def test_look_reads_no_queue_of_a_limited_host_whose_only_item_is_known() -> None:
    order = listed(has_limits=True, only_item="a0")
    host = unread(host="a", order=order)
    host.expect_only_item()
    run, reader = run_with(host)
    run.fake_hosts.records = {"a": record("a", delay=3, place=split_place(order), only_item="a0", mark="")}
    await reader.look([host], 1, START)
    assert run.fake_queues.looks == []
    assert names(run.view.bench.choose(9, START, 0.0).candidates) == ["a0"]


async def test_look_reads_the_record_again_if_it_has_to_be_checked() -> None:
    host = unread(must_check=True)
    run, reader = run_with(host)
    run.fake_hosts.records = {HOST: record(place=host.order and split_place(host.order), mark="")}
    run.fake_queues.shards[HOST, 0] = [candidate("a")]
    await reader.look([host], 1, START)
    assert not host.must_check
    assert run.view.bench.choose(9, START, 0.0).looks == []


async def test_look_forgets_a_host_that_is_not_stored_any_more() -> None:
    host = unread(order=listed(has_limits=True))
    run, reader = run_with(host)
    await reader.look([host], 1, START)
    assert (run.view.bench.hosts, run.fake_queues.looks) == ({}, [])


async def test_look_at_a_host_that_is_not_listed_reads_nothing() -> None:
    host = unread(order=None, must_check=True)
    run, reader = run_with(host)
    await reader.look([host], 1, START)
    assert run.fake_queues.looks == []


async def test_look_reads_a_few_items_of_other_shares_by_key() -> None:
    host = unread(is_own=False)
    run, reader = run_with(host, processes=2)
    items = [candidate(f"i{i}", age=i) for i in range(9)]
    run.fake_queues.shards[HOST, 0] = items
    run.fake_queues.leases = {"i0": ("token", at(20)), "i1": ("token", at(-3))}
    await reader.look([host], 2, START)
    assert len(run.fake_queues.known) == 5
    # The lease of one runs; that of the other is over by more than the clocks differ.
    for name, is_ready in (("i0", False), ("i1", True)):
        if name in run.fake_queues.known:
            assert (name in names(host.ready)) == is_ready
    # Those in the share of this process are not read.
    host_in_share = unread(host="own")
    run.view.bench.hosts["own"] = host_in_share
    run.fake_queues.shards["own", 0] = [candidate("o", host="own")]
    await reader.look([host_in_share], 2, START)
    assert "o" not in run.fake_queues.known


async def test_look_moves_a_host_down_that_is_listed_with_a_higher_priority_than_it_has() -> None:
    host = unread(order=listed(2))
    run, reader = run_with(host)
    low = candidate("a", 1, 5)
    run.fake_queues.shards[HOST, 0] = [low, candidate("b")]
    run.fake_hosts.move_outcomes[HOST] = Applied({"queue_order": {"S": listed(1, 5)}})
    await reader.look([host], 1, START)
    assert run.fake_hosts.moves == [(Listed(HOST, listed(2)), low.order)]
    assert host.order == listed(1, 5)
    # The next look finds it in its place.
    await reader.look([host], 1, START)
    assert len(run.fake_hosts.moves) == 1


async def test_item_that_came_just_before_a_host_was_moved_down_is_found() -> None:
    host = unread(order=listed(2))
    run, reader = run_with(host)
    run.fake_queues.shards[HOST, 0] = [candidate("a", 1)]
    urgent = candidate("urgent", 2)
    run.fake_hosts.during_move = lambda: run.fake_queues.shards[HOST, 0].append(urgent)
    run.fake_hosts.move_outcomes[HOST] = Applied({"queue_order": {"S": listed(1)}})
    await reader.look([host], 1, START)
    assert names(host.ready) == ["urgent", "a"]


@pytest.mark.parametrize(
    ("fields", "items"),
    [
        ({"order": listed(1, 99)}, [candidate("a", 1)]),
        ({"order": listed(0)}, [candidate("a", 1)]),
        ({"order": listed(2), "is_own": False}, [candidate("a", 1)]),
        ({"order": listed(2)}, []),
        ({"order": listed(2)}, [candidate("a", 1, ready_at=START)]),
        ({"order": listed(2, ready_at=at(9))}, [candidate("a", 1)]),
    ],
)
async def test_look_does_not_move_other_hosts_down(fields: dict[str, Any], items: list[Candidate]) -> None:
    host = unread(**fields)
    run, reader = run_with(host)
    run.fake_queues.shards[HOST, 0] = items
    await reader.look([host], 1, START)
    assert run.fake_hosts.moves == []


async def test_look_reads_leases_by_key_that_were_forgotten() -> None:
    host = unread()
    host.wait(candidate("own"), at(60), is_own=True)
    host.wait(candidate("foreign"), at(60))
    host.forget()
    run, reader = run_with(host)
    run.fake_queues.shards[HOST, 0] = [candidate("foreign"), leased(candidate("own"))]
    run.fake_queues.leases = {"own": ("token", at(20))}
    await reader.look([host], 1, START)
    assert run.fake_queues.known == ["own"]
    assert (names(host.ready), host.waiting["own"].until) == (["foreign"], at(22))
    await reader.look([host], 1, START)
    assert run.fake_queues.known == ["own"]


async def test_item_that_is_in_doubt_is_read_by_key_once_as_soon_as_the_index_shows_it() -> None:
    host = unread(doubtful={"own": None})
    run, reader = run_with(host)
    await reader.look([host], 1, START)
    assert run.fake_queues.known == []
    run.fake_queues.shards[HOST, 0] = [candidate("own")]
    for _ in range(2):
        await reader.look([host], 1, START)
        assert (names(host.ready), run.fake_queues.known) == (["own"], ["own"])


async def test_item_that_this_process_has_put_back_is_not_tried_where_a_late_index_shows_it() -> None:
    host = unread()
    run, reader = run_with(host)
    now, before = candidate("a", ready_at=at(30)), candidate("a")
    host.wait(now, at(30))
    run.fake_queues.shards[HOST, 0] = [now]
    run.fake_queues.late[HOST, 0] = [before]
    await reader.look([host], 1, START)
    assert (host.ready, host.waiting["a"].until, run.fake_queues.known) == ([], at(30), ["a"])


async def test_item_that_this_process_has_ended_is_not_tried_after_its_host_has_changed() -> None:
    host = known(candidate("a"))
    run, reader = run_with(host)
    host.end("a")
    run.view.bench.see(HOST, listed(mark="1"), 0, 0.0, is_own=True)
    run.fake_queues.late[HOST, 0] = [candidate("a")]
    await reader.look([host], 1, START)
    assert (host.ready, run.fake_queues.known) == ([], ["a"])
    # Another process has put it back into the queue.
    run.view.bench.see(HOST, listed(mark="2"), 0, 0.0, is_own=True)
    run.fake_queues.shards[HOST, 0] = [candidate("a")]
    await reader.look([host], 1, START)
    assert names(host.ready) == ["a"]


async def test_learn_notes_the_new_state_of_items() -> None:
    host = known(
        *(candidate(name) for name in ("free", "leased", "over", "moved", "gone")), turn=5, last_turn=4
    )
    run, reader = run_with(host)
    moved = candidate("moved", ready_at=at(9))
    run.fake_queues.shards[HOST, 0] = [
        *(
            leased(candidate(name)) if name in ("leased", "over") else candidate(name)
            for name in ("free", "leased", "over")
        ),
        moved,
    ]
    run.fake_queues.leases = {"leased": ("token", at(-1.9)), "over": ("token", at(-2))}
    await reader.learn([*host.ready, candidate("i", host="unknown")])
    assert [(item.item_id, item.expired_token) for item in host.ready] == [("free", None), ("over", "token")]
    # A lease counts as over once the clocks cannot differ by so much.
    waiting = {name: (waits.until, waits.candidate) for name, waits in host.waiting.items()}
    assert waiting == {"leased": (at(0.1), leased(candidate("leased"))), "moved": (at(9), moved)}
    assert list(host.ended) == ["gone"]
    # Its turn is the one before: nothing was claimed.
    assert host.turn == 4


@pytest.mark.parametrize(("is_served", "is_free", "turn"), [(0, 0, 4), (0, 1, 4), (1, 0, 5), (1, 1, 4)])
async def test_host_whose_claim_was_refused_keeps_its_turn_unless_another_item_was_claimed(
    is_served: int, is_free: int, turn: int
) -> None:
    # A free item comes before those of other hosts: the one that was claimed may come after it.
    host = known(candidate("refused"), turn=5, last_turn=4, is_served=bool(is_served))
    run, reader = run_with(host)
    run.fake_queues.shards[HOST, 0] = [leased(candidate("refused"))]
    run.fake_queues.leases = {"refused": ("token", at(-9 if is_free else 9))}
    await reader.learn(host.ready)
    assert host.turn == turn


async def test_learn_takes_items_with_their_distance() -> None:
    host = known(is_own=False)
    run, reader = run_with(host, processes=2)
    run.fake_queues.shards[HOST, 0] = [candidate("a")]
    await reader.learn([replace(candidate("a"), distance=7)])
    assert [item.distance for item in host.ready] == [run.membership.distance("a")]


async def test_look_that_is_throttled_lets_the_host_wait_and_reads_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hot, cold = unread(host="hot"), unread(host="cold")
    run, reader = run_with(hot, cold)
    run.fake_queues.shards["cold", 0] = [candidate("a", host="cold")]
    look = run.fake_queues.look

    async def throttled(host: str, *others: Any) -> Any:
        if host == "hot":
            raise ThrottledError("busy", code="Busy", operation="Query", table=None)
        return await look(host, *others)

    monkeypatch.setattr(run.fake_queues, "look", throttled)
    await reader.look([hot, cold], 1, START)
    assert (names(cold.ready), list(run.view.bench.paused), hot.looked_at) == (["a"], ["hot"], None)


async def test_look_at_a_host_that_left_the_list_while_its_limits_were_read_reads_no_queue() -> None:
    host = unread(order=None, must_check=True)
    run, reader = run_with(host)
    run.fake_hosts.records = {HOST: record()}
    await reader.look([host], 1, START)
    assert run.fake_queues.looks == []


async def test_host_whose_place_was_not_replaced_is_not_read_again() -> None:
    # Another process has moved it meanwhile.
    host = unread(order=listed(priority=5), is_own=True)
    run, reader = run_with(host)
    run.fake_queues.shards[HOST, 0] = [candidate("a", priority=1)]
    await reader.look([host], 1, START)
    assert [(move.host, place) for move, place in run.fake_hosts.moves] == [
        (HOST, candidate("a", priority=1).order)
    ]
    assert run.fake_queues.looks == [HOST]


async def test_queues_of_items_that_cannot_be_read_are_read_again() -> None:
    host = known(candidate("a"))
    run, reader = run_with(host)
    run.fake_queues.error = ThrottledError("busy", code="Busy", operation="BatchGetItem", table=None)
    with pytest.raises(ThrottledError):
        await reader.learn([candidate("a"), candidate("b", host="unknown")])
    assert not host.is_all


async def test_learn_goes_on_after_items_of_unknown_hosts_and_those_that_have_ended() -> None:
    host = known(candidate("ended"))
    run, reader = run_with(host)
    run.fake_queues.shards[HOST, 0] = [candidate("free")]
    await reader.learn([candidate("x", host="unknown"), candidate("ended"), candidate("free")])
    assert (names(host.ready), list(host.ended)) == (["free"], ["ended"])


async def test_item_is_free_from_the_moment_on_at_which_all_clocks_say_that_its_lease_is_over() -> None:
    host = known(turn=5, last_turn=4, is_served=True)
    run, reader = run_with(host)
    run.fake_queues.shards[HOST, 0] = [leased(candidate("a"))]
    run.fake_queues.leases = {"a": ("token", at(-2))}
    await reader.learn([candidate("a")])
    assert (names(host.ready), host.turn) == (["a"], 4)


async def test_limits_of_other_hosts_are_noted_if_one_was_deleted() -> None:
    gone, limited = (unread(host=name, must_check=True) for name in "ab")
    run, reader = run_with(gone, limited)
    run.fake_hosts.records = {"b": record("b", delay=3, place=split_place(listed()))}
    await reader.look([gone, limited], 1, START)
    assert list(run.view.bench.hosts) == ["b"]
    assert limited.record is not None
