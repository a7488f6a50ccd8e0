"""Which lists of hosts are read, and when; with lists in memory, in virtual time."""

from __future__ import annotations

import pytest

from ragcrawl_dynamo._frontier import host_lists as module
from ragcrawl_dynamo._frontier.host_lists import HostLists
from tests.support.factories import START
from tests.support.fake_run import FakeRun
from tests.support.hosts import at, candidate, listed, record


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAGE", 3)
    monkeypatch.setattr(module, "_HEAD", 2)


def run_with(*counts: int, share: tuple[int, ...] = (0, 1, 2, 3)) -> tuple[FakeRun, HostLists]:
    """A run with a number of hosts in each bucket. The hosts of bucket 0 are the oldest."""
    run = FakeRun(buckets=len(counts))
    run.set_share(*share)
    for bucket, count in enumerate(counts):
        for i in range(count):
            run.list_host(f"b{bucket}h{i}", listed(0, 100 - 10 * bucket - i), bucket)
    return run, HostLists(run)


def taken_reads(run: FakeRun) -> list[tuple[int, int, str | None]]:
    reads, run.fake_hosts.reads = run.fake_hosts.reads, []
    return reads


async def test_refill_reads_all_own_lists_and_the_heads_of_the_others_at_first() -> None:
    run, lists = run_with(4, 1, 4, 0, share=(0, 1))
    await lists.refill(1, START)
    assert taken_reads(run) == [(0, 3, None), (1, 3, None), (2, 2, None), (3, 2, None)]
    assert {host.host: host.is_own for host in run.view.bench.hosts.values()} == {
        "b0h0": True,
        "b0h1": True,
        "b0h2": True,
        "b1h0": True,
        "b2h0": False,
        "b2h1": False,
    }
    # Enough is known.
    await lists.refill(6, START)
    assert taken_reads(run) == []


async def test_refill_reads_own_lists_to_their_end_before_those_of_others() -> None:
    run, lists = run_with(7, 1, 4, 0, share=(0, 1))
    await lists.refill(8, START)
    taken_reads(run)
    await lists.refill(10, START)
    assert taken_reads(run) == [(0, 3, "b0h5")]
    # Own lists are read to their end; those of others from the beginning.
    await lists.refill(99, START)
    assert taken_reads(run) == [(2, 3, None), (3, 3, None), (2, 3, "b2h2")]
    assert len(run.view.bench.hosts) == 12
    await lists.refill(99, START)
    assert taken_reads(run) == []


async def test_refill_continues_with_the_lists_whose_next_host_is_the_best() -> None:
    run, lists = run_with(*[6] * 6, share=tuple(range(6)))
    await lists.refill(18, START)
    taken_reads(run)
    await lists.refill(19, START)
    assert [bucket for bucket, _, _ in taken_reads(run)] == [0, 1, 2, 3]
    await lists.refill(31, START)
    assert [bucket for bucket, _, _ in taken_reads(run)] == [4, 5]


async def test_heads_of_all_lists_are_read_once_a_second() -> None:
    run, lists = run_with(4, 1, 4, share=(0, 1))
    await lists.refill(1, START)
    taken_reads(run)
    run.clock.advance(0.9)
    await lists.refill(1, run.clock.now())
    assert taken_reads(run) == []
    run.list_host("urgent", listed(9), 2)
    run.clock.advance(0.1)
    await lists.refill(1, run.clock.now())
    # A list of one page is read again; of those that are longer or not own, only the head.
    assert taken_reads(run) == [(0, 2, None), (1, 3, None), (2, 2, None)]
    assert "urgent" in run.view.bench.hosts


async def test_list_of_several_pages_is_read_again_later_the_longer_it_is() -> None:
    run, lists = run_with(70)
    await lists.refill(99, START)
    assert len(taken_reads(run)) == 24
    for seconds, count in ((1.0, 1), (0.1, 0), (0.15, 24)):
        run.clock.advance(seconds)
        await lists.refill(99, run.clock.now())
        assert len(taken_reads(run)) == count


async def test_list_that_is_being_read_is_continued() -> None:
    run, lists = run_with(7)
    await lists.refill(1, START)
    taken_reads(run)
    run.clock.advance(5)
    await lists.refill(4, run.clock.now())
    assert taken_reads(run) == [(0, 2, None), (0, 3, "b0h2")]


async def test_hosts_that_will_have_work_soon_are_seen_too() -> None:
    run, lists = run_with(0)
    run.list_host("soon", listed(ready_at=at(2)))
    run.list_host("later", listed(ready_at=at(2.1)))
    await lists.refill(1, START)
    assert list(run.view.bench.hosts) == ["soon"]
    assert run.view.bench.next_moment() == at(2)


async def test_host_that_its_list_does_not_show_is_forgotten_after_the_lag_of_the_index() -> None:
    run, lists = run_with(2, 1)
    await lists.refill(99, START)
    for bucket in (0, 1):
        run.fake_hosts.lists[bucket].clear()
    waits = run.view.bench.hosts["b0h1"]
    waits.wait(candidate("i", host="b0h1"), at(60))
    run.clock.advance(2)
    await lists.refill(99, run.clock.now())
    assert run.view.bench.hosts.keys() == {"b0h0", "b0h1", "b1h0"}
    run.clock.advance(1)
    run.view.bench.see("b1h0", listed(), 1, run.clock.monotonic() - 2, is_own=True)
    await lists.refill(99, run.clock.now())
    # One was seen meanwhile, and of another one a lease runs.
    assert run.view.bench.hosts.keys() == {"b0h1", "b1h0"}
    # The index was late: the host has not left the list.
    run.list_host("b0h0", listed(0, 100), 0)
    run.clock.advance(1)
    await lists.refill(99, run.clock.now())
    assert "b0h0" in run.view.bench.hosts


async def test_host_that_this_process_has_listed_is_kept_until_its_list_shows_it() -> None:
    run, lists = run_with(0)
    new = record("new", place=listed()[:-4])
    run.view.bench.note_update(new, None, run.clock.monotonic(), is_own=True)
    for seconds, is_known in ((10, True), (5, True), (1, False)):
        run.clock.advance(seconds)
        await lists.refill(99, run.clock.now())
        assert ("new" in run.view.bench.hosts) == is_known


async def test_refresh_reads_lists_of_one_page_to_their_end_in_all_shares() -> None:
    run, lists = run_with(2, 4, 3, share=(0,))
    await lists.refill(1, START)
    assert taken_reads(run) == [(0, 3, None), (1, 2, None), (2, 2, None)]
    # The list that this claim has read to its end is left out.
    await lists.refresh(START)
    assert taken_reads(run) == [(1, 3, None), (2, 3, None), (1, 3, "b1h2")]
    # The next claim reads nothing before it looks again.
    await lists.refill(1, START)
    assert taken_reads(run) == []
    await lists.refresh(START)
    assert taken_reads(run) == [(0, 3, None), (1, 2, None), (2, 3, None)]


async def test_refresh_leaves_out_no_list_that_was_read_page_by_page() -> None:
    run, lists = run_with(4, 2)
    await lists.refill(99, START)
    assert taken_reads(run) == [(0, 3, None), (1, 3, None), (0, 3, "b0h2")]
    await lists.refresh(START)
    # Its beginning may have changed while the rest was read.
    assert taken_reads(run) == [(0, 2, None)]


async def test_refresh_goes_through_long_lists_again_page_by_page() -> None:
    run, lists = run_with(7)
    await lists.refill(1, START)
    assert taken_reads(run) == [(0, 3, None)]
    for expected in ([(0, 2, None), (0, 3, "b0h2")], [(0, 2, None), (0, 3, "b0h5")], [(0, 2, None)]):
        await lists.refresh(START)
        assert taken_reads(run) == expected
    run.clock.advance(1)
    await lists.refresh(run.clock.now())
    assert taken_reads(run) == [(0, 2, None), (0, 3, None)]


async def test_clear_lets_all_lists_be_read_again() -> None:
    run, lists = run_with(2)
    await lists.refill(1, START)
    taken_reads(run)
    lists.clear()
    await lists.refill(1, START)
    assert taken_reads(run) == [(0, 3, None)]


async def test_lists_are_as_many_as_the_run_has_once_that_is_known() -> None:
    run, lists = run_with(1, 1)
    run.fake_hosts.buckets = 1
    run.set_share(0)
    await lists.refill(1, START)
    run.fake_hosts.buckets = 2
    run.set_share(0, 1)
    taken_reads(run)
    await lists.refill(1, START)
    assert [bucket for bucket, _, _ in taken_reads(run)] == [0, 1]


async def test_lists_are_continued_by_their_next_host_not_by_their_number() -> None:
    run = FakeRun(buckets=6)
    run.set_share(*range(6))
    for bucket in range(6):
        for i in range(6):
            run.list_host(f"b{bucket}h{i}", listed(0, 100 + 10 * bucket - i), bucket)
    lists = HostLists(run)
    await lists.refill(18, START)
    taken_reads(run)
    await lists.refill(19, START)
    assert [bucket for bucket, _, _ in taken_reads(run)] == [5, 4, 3, 2]


async def test_list_of_one_page_is_read_once_a_second_however_many_hosts_are_missing() -> None:
    run, lists = run_with(2)
    await lists.refill(99, START)
    taken_reads(run)
    run.clock.advance(0.9)
    await lists.refill(99, run.clock.now())
    assert taken_reads(run) == []


async def test_heads_of_other_lists_show_hosts_that_will_have_work_soon() -> None:
    run, lists = run_with(0, 0, share=(0,))
    run.list_host("soon", listed(ready_at=at(2)), 1)
    await lists._refresh(lists._all(), START)
    assert list(run.view.bench.hosts) == ["soon"]


async def test_hosts_further_down_are_kept_while_a_list_is_read_again() -> None:
    run, lists = run_with(7, 1)
    await lists.refresh(START)
    await lists.refresh(START)
    await lists.refresh(START)
    assert len(run.view.bench.hosts) == 8
    for second in (10, 11, 12):
        # The list is read again page by page; that of the other bucket at once.
        run.clock.advance(10 if second == 10 else 0.1)
        await lists.refresh(run.clock.now())
        assert len(run.view.bench.hosts) == 8


async def test_pause_of_a_list_grows_with_its_pages_not_with_its_passes() -> None:
    run, lists = run_with(70)
    for _ in range(4):
        await lists.refill(99, run.clock.now())
        taken_reads(run)
        run.clock.advance(1.25)
    await lists.refill(99, run.clock.now())
    assert len(taken_reads(run)) >= 24
