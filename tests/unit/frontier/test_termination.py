"""When a run counts as finished, and how its items are counted; with items in memory, in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from ragcrawl_dynamo import FrontierItem, FrontierStats, FrontierStatus
from ragcrawl_dynamo._dynamodb.outcomes import Refused
from ragcrawl_dynamo._dynamodb.values import Item
from ragcrawl_dynamo._frontier import termination as module
from ragcrawl_dynamo._frontier.notifier import Notifier
from ragcrawl_dynamo._frontier.tally import Tally
from ragcrawl_dynamo._frontier.termination import Termination
from ragcrawl_dynamo._frontier.work import Work
from ragcrawl_dynamo._schema.queue_order import queue_order, rank
from ragcrawl_dynamo._schema.records import RunControl, RunState
from tests.support.factories import make_item
from tests.support.hosts import at, listed
from tests.support.stored_run import BUSY, HOST, StoredRun, id_of

PENDING, IN_PROGRESS = FrontierStatus.PENDING, FrontierStatus.IN_PROGRESS
COMPLETED, FAILED = FrontierStatus.COMPLETED, FrontierStatus.FAILED
NOTHING = dict.fromkeys(("pending", "delayed", "in_progress", "completed", "failed", "skipped"), 0)


class Index:
    """The first items of queues, as the index shows them, by host and shard."""

    def __init__(self) -> None:
        self.first: dict[tuple[str, int], str] = {}
        self.asked: list[tuple[str, int]] = []

    async def first_id(self, host: str, shard: int) -> str | None:
        self.asked.append((host, shard))
        return self.first.get((host, shard))


class Ending:
    """A run whose items a scan reads in pages."""

    def __init__(self, buckets: int = 1, **control: Any) -> None:
        self.run = StoredRun()
        self.run.stored_hosts.buckets = buckets
        self.run.stored_hosts.lists = {bucket: [] for bucket in range(buckets)}
        self.run.controls.control = RunControl(run="run", site_id="site", **control)
        self.index = Index()
        self.run.queues = self.index  # type: ignore[assignment] # it has what is needed
        self.termination = Termination(self.run, Notifier(self.run))

    def page(self, *items: FrontierItem, is_queued: bool = True) -> None:
        """Adds a page to what a scan reads, with stored items."""
        for item in items:
            self.run.store.store(item, is_queued=is_queued and not item.status.is_final)
        self.run.store.pages.append([self.run.store.stored[item.item_id] for item in items])

    def counted(self, host: str, **counts: int) -> None:
        """Stores the counts of a host."""
        self.run.stored_hosts.counts[host] = {name: {"N": str(count)} for name, count in counts.items()}

    @property
    def is_verified(self) -> bool:
        """Whether the proof was begun."""
        return bool(self.run.controls.begun)


def item(item_id: str, status: FrontierStatus = PENDING, host: str = HOST, **fields: Any) -> FrontierItem:
    return make_item(item_id, status=status, domain=host, discovered_at=at(-60), **fields)


# Cheap answers.


async def test_run_that_is_proven_to_be_finished_is_not_read_again() -> None:
    ending = Ending(finished_by="proof", state=RunState.CANCELLED)
    assert await ending.termination.is_finished()
    assert (ending.run.store.scans, ending.is_verified) == ([], False)


async def test_cancelled_run_is_finished_without_a_proof() -> None:
    ending = Ending(state=RunState.CANCELLED)
    ending.page(item("a"))
    assert await ending.termination.is_finished()
    assert not ending.is_verified


async def test_run_without_a_control_is_proven_to_be_finished() -> None:
    ending = Ending()
    ending.run.controls.control = None
    assert await ending.termination.is_finished()
    assert ending.is_verified


async def test_run_is_not_read_as_long_as_a_remembered_item_is_open() -> None:
    ending = Ending()
    for stored in (item("a", IN_PROGRESS), item("b", COMPLETED)):
        ending.run.store.store(stored)
    ending.run.view.open_items = ["b", "a", "deleted"]
    assert not await ending.termination.is_finished()
    assert not ending.is_verified
    assert ending.index.asked == []
    # Those that have ended are forgotten.
    assert ending.run.view.open_items == ["a"]


async def test_run_is_not_read_as_long_as_the_index_shows_an_open_item() -> None:
    ending = Ending()
    ending.run.list_host("a", listed())
    ending.index.first["a", 0] = "i"
    ending.run.store.store(item("i"))
    assert not await ending.termination.is_finished()
    assert not ending.is_verified
    assert ending.run.view.open_items == ["i"]
    # The number of lists is known.
    assert ending.run.controls.known == 1


async def test_item_that_has_ended_is_not_open_though_the_index_shows_it() -> None:
    ending = Ending()
    ending.run.list_host("a", listed())
    ending.index.first["a", 0] = "i"
    ending.run.store.store(item("i", COMPLETED))
    assert await ending.termination.is_finished()
    assert ending.is_verified


async def test_hosts_that_wait_for_any_moment_are_looked_at() -> None:
    ending = Ending()
    ending.run.list_host("a", listed(ready_at=datetime(9999, 12, 31, tzinfo=UTC)))
    await ending.termination.is_finished()
    assert ending.index.asked == [("a", 0)]


async def test_every_shard_of_a_queue_is_looked_at() -> None:
    ending = Ending()
    ending.run.list_host("a", listed(shards=4))
    ending.index.first["a", 3] = "i"
    ending.run.store.store(item("i"))
    assert not await ending.termination.is_finished()
    assert ending.index.asked == [("a", shard) for shard in range(4)]


async def test_first_hosts_of_all_lists_are_looked_at_before_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_HOSTS_OF_LIST", 3)
    monkeypatch.setattr(module, "_HOSTS_LOOKED_AT", 5)
    ending = Ending(buckets=3)
    for bucket, hosts in enumerate(("abcd", "e", "fgh")):
        for age, host in enumerate(hosts):
            ending.run.list_host(host, listed(age=-age), bucket)
    await ending.termination.is_finished()
    assert [host for host, _ in ending.index.asked] == ["a", "e", "f", "b", "g"]
    assert [limit for _, limit, _ in ending.run.stored_hosts.reads] == [3, 3, 3]


async def test_an_item_that_several_shards_show_is_read_once() -> None:
    ending = Ending()
    ending.run.list_host("a", listed(shards=2))
    ending.index.first = {("a", 0): "i", ("a", 1): "i"}
    await ending.termination.is_finished()
    assert ending.run.store.reads == [["i"]]


async def test_only_so_many_remembered_items_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_OPEN_ITEMS_REMEMBERED", 2)
    ending = Ending()
    ending.run.view.open_items = ["a", "b", "c"]
    await ending.termination.is_finished()
    assert ending.run.store.reads == [["a", "b"]]


# The proof.


async def test_run_whose_items_are_all_final_is_finished_with_its_counts() -> None:
    ending = Ending()
    ending.page(item("a", COMPLETED), item("b", FAILED))
    ending.page(item("c", COMPLETED), item("d", FrontierStatus.SKIPPED))
    ending.run.clock.advance(5)
    assert await ending.termination.is_finished()
    assert ending.run.controls.begun == [at(5)]
    assert ending.run.controls.ended == [
        (ending.run.controls.verifying, {**NOTHING, "completed": 2, "failed": 1, "skipped": 1})
    ]
    # The whole run is read, but only what is needed of it.
    assert ending.run.store.scans == [((), ("status", "domain", "queue", "queue_order"))]


@pytest.mark.parametrize("status", [PENDING, IN_PROGRESS])
async def test_run_with_an_open_item_is_not_finished(status: FrontierStatus) -> None:
    ending = Ending()
    ending.page(item("a", COMPLETED))
    ending.page(item("b", status))
    assert not await ending.termination.is_finished()
    assert ending.run.controls.ended == [(ending.run.controls.verifying, None)]
    # The next call asks for this item first.
    assert ending.run.view.open_items == ["b"]
    assert ending.run.stored_counters.corrections == []


async def test_proof_of_another_process_is_not_disturbed() -> None:
    ending = Ending()
    ending.run.controls.verifying = None
    assert not await ending.termination.is_finished()
    assert (ending.run.store.scans, ending.run.controls.ended) == ([], [])


async def test_run_to_which_a_link_was_added_meanwhile_is_not_finished() -> None:
    ending = Ending()
    ending.page(item("a", COMPLETED))
    ending.run.controls.is_proof_kept = False
    assert not await ending.termination.is_finished()
    assert ending.run.stored_counters.corrections == []


async def test_proof_is_ended_if_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    ending = Ending()

    async def fail(*statuses: FrontierStatus, attributes: Sequence[str] | None = None) -> Any:
        raise BUSY
        yield

    monkeypatch.setattr(ending.run.store, "scan", fail)
    with pytest.raises(type(BUSY)):
        await ending.termination.is_finished()
    assert [counts for _, counts in ending.run.controls.ended] == [None]


async def test_proof_gives_signs_of_life() -> None:
    ending = Ending()
    for page in range(7):
        ending.page(item(f"i{page}", COMPLETED))
    pass_before_pages(ending, 10.0)
    assert await ending.termination.is_finished()
    # A sign is due after more than 20 s.
    assert ending.run.controls.kept == [
        (ending.run.controls.verifying, at(30)),
        (ending.run.controls.verifying, at(60)),
    ]


async def test_proof_that_another_process_has_ended_reads_no_further() -> None:
    ending = Ending()
    for page in range(3):
        ending.page(item(f"i{page}", COMPLETED))
    passed = pass_before_pages(ending, 25.0)
    ending.run.controls.is_kept = False
    assert not await ending.termination.is_finished()
    assert len(passed) == 1
    assert [counts for _, counts in ending.run.controls.ended] == [None]


def pass_before_pages(ending: Ending, seconds: float) -> list[None]:
    """Lets time pass before each page of a scan; returns a list that grows with the pages."""
    passed: list[None] = []
    pages = ending.run.store.pages

    class Pages(list[list[Item]]):
        def __iter__(self) -> Any:
            for page in pages:
                ending.run.clock.advance(seconds)
                passed.append(None)
                yield page

    ending.run.store.pages = Pages()
    return passed


async def test_work_of_open_items_is_announced() -> None:
    ending = Ending()
    ending.page(item("a"), item("b", IN_PROGRESS, "other", priority=1.0), item("c", COMPLETED, "done"))
    assert not await ending.termination.is_finished()
    (announced,) = ending.run.stored_hosts.announced
    assert announced == {
        HOST: Work(queue_order(rank(0.0, at(-60))), item_id="a"),
        "other": Work(queue_order(rank(1.0, at(-60))), item_id="b"),
    }


async def test_work_is_announced_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_HOSTS_AT_ONCE", 2)
    ending = Ending()
    for page in ("ab", "c", "d"):
        ending.page(*(item(f"i{host}", host=host) for host in page))
    await ending.termination.is_finished()
    assert [list(work) for work in ending.run.stored_hosts.announced] == [["a", "b"], ["c", "d"]]


async def test_only_so_many_open_items_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_OPEN_ITEMS_REMEMBERED", 2)
    ending = Ending()
    ending.page(item("a"), item("b"), item("c"))
    await ending.termination.is_finished()
    assert ending.run.view.open_items == ["a", "b"]


async def test_pending_item_that_is_in_no_queue_is_queued_and_announced() -> None:
    """It was saved as a plain record."""
    ending = Ending()
    ending.page(item("a", retry_count=2), is_queued=False)
    ending.run.clock.advance(5)
    assert not await ending.termination.is_finished()
    ((write,),) = ending.run.store.batches
    assert id_of(write) == "a"
    assert len(write.token.value["S"]) == 16
    assert ending.run.stored_counters.moves == [(HOST, None, "pending")]
    assert ending.run.stored_hosts.announced == [{HOST: Work(queue_order(rank(0.0, at(5))))}]


async def test_item_that_another_process_queues_meanwhile_is_announced_and_not_counted() -> None:
    ending = Ending()
    ending.page(item("a"), is_queued=False)
    ending.run.store.outcomes["a"] = Refused()
    await ending.termination.is_finished()
    assert ending.run.stored_counters.moves == []
    assert [list(work) for work in ending.run.stored_hosts.announced] == [[HOST]]


async def test_item_that_was_deleted_meanwhile_is_not_queued() -> None:
    ending = Ending()
    ending.page(item("a"), is_queued=False)
    ending.run.store.stored.clear()
    await ending.termination.is_finished()
    assert ending.run.store.batches == []


async def test_item_in_progress_that_is_in_no_queue_is_left_to_its_program() -> None:
    ending = Ending()
    ending.page(item("a", IN_PROGRESS), is_queued=False)
    assert not await ending.termination.is_finished()
    assert (ending.run.store.batches, ending.run.stored_hosts.announced) == ([], [])


# Counts.


async def test_stats_of_a_finished_run_are_those_of_the_proof() -> None:
    ending = Ending(finished_by="proof", final_counts={"completed": 7, "failed": 1})
    ending.run.stored_counters.stored = FrontierStats(completed=6)
    assert await ending.termination.stats() == FrontierStats(completed=7, failed=1)


@pytest.mark.parametrize("has_control", [True, False])
async def test_stats_of_a_running_run_are_the_stored_counts(has_control: bool) -> None:
    ending = Ending(final_counts={"completed": 7})
    if not has_control:
        ending.run.controls.control = None
    ending.run.stored_counters.stored = FrontierStats(pending=-1, completed=6)
    assert await ending.termination.stats() == FrontierStats(completed=6)


async def test_recount_counts_all_items_and_corrects_the_stored_counts() -> None:
    ending = Ending()
    ending.page(item("a"), item("b", COMPLETED), item("c", COMPLETED, "other"))
    ending.page(item("d", scheduled_at=at(60)))
    ending.run.stored_counters.stored = FrontierStats(pending=3, completed=2)
    ending.counted(HOST, pending=3, completed=1)
    ending.counted("other", completed=1)
    assert await ending.termination.recount() == FrontierStats(pending=1, delayed=1, completed=2)
    assert ending.run.stored_counters.corrections == [
        ({"pending": -2, "delayed": 1}, {}),
        ({}, {HOST: {"pending": -2, "delayed": 1}}),
    ]
    assert ending.run.store.scans == [((), ("status", "domain", "queue", "queue_order"))]
    # No item was added meanwhile, but that is no proof.
    assert not ending.is_verified


async def test_counts_of_hosts_are_corrected_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_HOSTS_AT_ONCE", 2)
    ending = Ending()
    for host in "abcde":
        ending.counted(host, pending=1)
    await ending.termination.recount()
    assert [list(hosts) for _, hosts in ending.run.stored_counters.corrections] == [
        [],
        ["a", "b"],
        ["c", "d"],
        ["e"],
    ]
    # They do not add up in memory.
    assert ending.run.stored_counters.flushes == [None, None, None]


async def test_stored_counts_are_subtracted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_HOSTS_AT_ONCE", 2)
    parts: list[list[str]] = []
    subtract: Callable[[Tally, Mapping[str, Any]], None] = Tally.subtract_stored

    def note(tally: Tally, by_host: Mapping[str, Any]) -> None:
        parts.append(list(by_host))
        subtract(tally, by_host)

    monkeypatch.setattr(Tally, "subtract_stored", note)
    ending = Ending()
    for host in "abcde":
        ending.counted(host, pending=1)
    await ending.termination.recount()
    assert parts == [["a", "b"], ["c", "d"], ["e"]]


async def test_proof_corrects_the_stored_counts() -> None:
    ending = Ending()
    ending.page(item("a", COMPLETED))
    ending.run.stored_counters.stored = FrontierStats(pending=1)
    ending.counted(HOST, pending=1)
    assert await ending.termination.is_finished()
    difference = {"pending": -1, "completed": 1}
    assert ending.run.stored_counters.corrections == [(difference, {}), ({}, {HOST: difference})]


async def test_counts_that_are_right_are_not_corrected() -> None:
    ending = Ending()
    ending.page(item("a", COMPLETED))
    ending.run.stored_counters.stored = FrontierStats(completed=1)
    ending.counted(HOST, completed=1)
    await ending.termination.recount()
    assert ending.run.stored_counters.corrections == [({}, {})]


async def test_recount_of_a_finished_run_proves_the_end_again() -> None:
    ending = Ending(finished_by="proof", final_counts={"completed": 1})
    ending.page(item("a", COMPLETED))
    assert await ending.termination.recount() == FrontierStats(completed=1)
    assert ending.is_verified
    assert len(ending.run.store.scans) == 1


async def test_recount_of_a_run_that_is_not_finished_after_all_counts_its_items() -> None:
    ending = Ending(finished_by="proof", final_counts={"completed": 1})
    ending.page(item("a"))
    assert await ending.termination.recount() == FrontierStats(pending=1)
    assert len(ending.run.store.scans) == 2
