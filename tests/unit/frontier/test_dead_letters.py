"""How dead letters are put back into the queue; with items in memory."""

from __future__ import annotations

from typing import Any

import pytest

from ragcrawl_dynamo import FrontierStatus, PartialBatchError
from ragcrawl_dynamo._dynamodb.conditional_writes import ConditionalUpdate
from ragcrawl_dynamo._dynamodb.outcomes import Failed, Refused
from ragcrawl_dynamo._frontier import dead_letters as module
from ragcrawl_dynamo._frontier.dead_letters import DeadLetters
from ragcrawl_dynamo._frontier.notifier import Notifier
from ragcrawl_dynamo._frontier.work import Work
from ragcrawl_dynamo._schema.queue_order import queue_order, rank
from tests.support.factories import make_item
from tests.support.hosts import at, known
from tests.support.stored_run import BUSY, HOST, StoredRun, id_of


class Letters:
    """A run whose dead letters a scan reads in the given pages."""

    def __init__(self, *pages: list[str]) -> None:
        self.run = StoredRun()
        self.run.view.bench.hosts[HOST] = known(host=HOST, order=None)
        for page in pages:
            for item_id in page:
                item = make_item(
                    item_id,
                    domain=HOST,
                    status=FrontierStatus.FAILED,
                    retry_count=5,
                    scheduled_at=at(90),
                    discovered_at=at(-60),
                )
                self.run.store.store(item, is_queued=False)
            self.run.store.pages.append([self.run.store.stored[item_id] for item_id in page])
        self.letters = DeadLetters(self.run, Notifier(self.run))


async def test_dead_letters_are_put_back_with_all_their_attempts() -> None:
    letters = Letters(["a", "b"], ["c"])
    assert await letters.letters.requeue() == 3
    assert letters.run.store.scans == [((FrontierStatus.FAILED,), None)]
    writes: list[Any] = [write for batch in letters.run.store.batches for write in batch]
    assert [id_of(write) for write in writes] == ["a", "b", "c"]
    assert all(isinstance(write, ConditionalUpdate) for write in writes)
    assert {write.update.put["retry_count"]["N"] for write in writes} == {"0"}
    # No two of them take each other for their own write.
    assert len({write.token.value["S"] for write in writes}) == 3
    assert len(writes[0].token.value["S"]) == 16


async def test_dead_letter_is_counted_announced_and_claimable_at_once() -> None:
    letters = Letters(["a"])
    await letters.letters.requeue()
    assert letters.run.stored_counters.moves == [(HOST, "failed", "pending")]
    order = queue_order(rank(0.0, at(-60)))
    assert letters.run.stored_hosts.announced == [{HOST: Work(order, is_changed=True)}]
    assert letters.run.ready() == ["a"]


async def test_dead_letter_that_another_process_puts_back_is_announced_and_not_counted() -> None:
    letters = Letters(["a", "b"])
    letters.run.store.outcomes["a"] = Refused()
    assert await letters.letters.requeue() == 1
    assert letters.run.stored_counters.moves == [(HOST, "failed", "pending")]
    assert [list(work) for work in letters.run.stored_hosts.announced] == [[HOST]]
    assert letters.run.ready() == ["b"]


async def test_dead_letters_that_may_not_be_back_are_named_and_announced() -> None:
    letters = Letters(["a", "b"], ["c"])
    letters.run.store.outcomes = {"a": Failed(BUSY), "c": Failed(BUSY)}
    with pytest.raises(PartialBatchError) as caught:
        await letters.letters.requeue()
    assert caught.value.saved == 1
    assert [(item.item_id, error) for item, error in caught.value.failures] == [("a", BUSY), ("c", BUSY)]
    assert [list(work) for work in letters.run.stored_hosts.announced] == [[HOST], [HOST]]


async def test_dead_letters_are_put_back_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", 2)
    letters = Letters(["a", "b", "c", "d", "e"])
    assert await letters.letters.requeue() == 5
    assert [[id_of(write) for write in batch] for batch in letters.run.store.batches] == [
        ["a", "b"],
        ["c", "d"],
        ["e"],
    ]


async def test_run_without_dead_letters_writes_nothing() -> None:
    letters = Letters()
    assert await letters.letters.requeue() == 0
    assert (letters.run.store.batches, letters.run.stored_hosts.announced) == ([], [])
