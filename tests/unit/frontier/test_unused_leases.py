"""Gives back leases that no caller has received; with items in memory, in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from ragcrawl_dynamo._frontier import unused_leases as module
from ragcrawl_dynamo._frontier.claim import Claim
from ragcrawl_dynamo._frontier.item_store import Lease
from ragcrawl_dynamo._frontier.unused_leases import UnusedLeases
from ragcrawl_dynamo.errors import RagcrawlDynamoError, ThrottledError
from ragcrawl_dynamo.models import FrontierItem, FrontierStatus
from tests.support.factories import START, make_item
from tests.support.fake_run import FakeRun
from tests.support.hosts import at, candidate

BUSY = ThrottledError("busy", code="Busy", operation="UpdateItem", table=None)


class Unused:
    """A run whose items can be read, and whose claims can be released unless there is an `error`."""

    def __init__(self) -> None:
        self.run = FakeRun()
        self.run.items = cast("Any", self)
        self.stored: dict[str, FrontierItem] = {}
        self.released: list[str] = []
        self.reads: list[list[str]] = []
        self.error: RagcrawlDynamoError | None = None
        self.unused = UnusedLeases(self.run, self.release)

    async def read(self, item_ids: list[str]) -> dict[str, FrontierItem]:
        self.reads.append(item_ids)
        return {item_id: self.stored[item_id] for item_id in item_ids if item_id in self.stored}

    async def release(self, claims: list[Claim]) -> None:
        if self.error is not None:
            raise self.error
        for claim in claims:
            claim.ended = True
            self.released.append(claim.item.item_id)

    def store(self, item_id: str, token: str) -> None:
        in_progress = FrontierStatus.IN_PROGRESS
        self.stored[item_id] = make_item(item_id, lease_token=token, status=in_progress)

    async def pass_seconds(self, seconds: float) -> None:
        await settle()
        self.run.clock.advance(seconds)
        await settle()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def claim(item_id: str) -> Claim:
    return Claim(make_item(item_id, lease_token=item_id), "w", at(30))


def lease(token: str) -> Lease:
    return Lease(token, "w", START, at(30), at(32), 30.0)


async def test_unused_claims_are_released_again_until_it_works() -> None:
    unused = Unused()
    unused.error = BUSY
    unused.unused.give_back([claim("a"), claim("b")])
    await unused.pass_seconds(4)
    assert unused.released == []
    unused.error = None
    unused.unused.give_back([claim("c")])
    await unused.pass_seconds(8)
    assert unused.released == ["c", "a", "b"]
    await asyncio.wait_for(unused.unused._tasks.join(), 1)


async def test_unused_claims_are_forgotten_when_their_leases_are_over() -> None:
    unused = Unused()
    unused.error = BUSY
    unused.unused.give_back([claim("a")])
    for _ in range(5):
        await unused.pass_seconds(20)
    await asyncio.wait_for(unused.unused._tasks.join(), 1)


async def test_claim_that_was_applied_though_it_failed_is_counted_and_released() -> None:
    unused = Unused()
    unused.store("a", "mine")
    unused.store("b", "another")
    unused.unused.check([(candidate(name, host="h"), lease("mine")) for name in "ab"])
    await settle()
    assert unused.released == ["a"]
    assert unused.run.fake_counters.moves == [("h", "pending", "in_progress")]


async def test_claim_that_is_applied_late_is_released() -> None:
    unused = Unused()
    unused.unused.check([(candidate("a"), lease("mine"))])
    await settle()
    unused.store("a", "mine")
    await unused.pass_seconds(2)
    assert unused.released == ["a"]
    # It is not read again and again.
    unused.unused.check([(candidate("b"), lease("mine"))])
    for _ in range(3):
        await unused.pass_seconds(2)
    assert unused.reads == [["a"], ["a"], ["b"], ["b"]]
    await asyncio.wait_for(unused.unused._tasks.join(), 1)


async def test_close_tries_once_more_and_does_not_wait() -> None:
    unused = Unused()
    unused.error = BUSY
    unused.unused.give_back([claim("a")])
    await settle()
    unused.error = None
    await unused.unused.close()
    assert unused.released == ["a"]
    unused.error = BUSY
    unused.unused.give_back([claim("b")])
    await unused.unused.close()
    await asyncio.wait_for(unused.unused._tasks.join(), 1)


async def test_items_that_could_not_be_read_are_read_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    unused = Unused()
    unused.store("a", "mine")

    async def fail(item_ids: list[str]) -> dict[str, FrontierItem]:
        raise BUSY

    with monkeypatch.context() as patched:
        patched.setattr(unused, "read", fail)
        unused.unused.check([(candidate("a"), lease("mine"))])
        await settle()
    assert "1 claims failed, and their items could not be read" in caplog.text
    await unused.pass_seconds(2)
    assert unused.released == ["a"]


@pytest.mark.parametrize("status", [FrontierStatus.PENDING, FrontierStatus.FAILED])
async def test_lease_that_has_ended_already_is_not_released(status: FrontierStatus) -> None:
    unused = Unused()
    unused.store("a", "mine")
    unused.stored["a"].status = status
    unused.unused.check([(candidate("a"), lease("mine"))])
    for _ in range(3):
        await unused.pass_seconds(2)
    assert (unused.released, unused.run.fake_counters.moves, unused.reads) == ([], [], [["a"]])


async def test_nothing_is_done_for_no_claims() -> None:
    unused = Unused()
    unused.unused.check([])
    unused.unused.give_back([])
    await settle()
    assert unused.reads == []


async def test_pauses_grow_with_the_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    unused = Unused()
    unused.error = BUSY
    failures: list[int] = []

    def jitter(config: object, count: int) -> float:
        failures.append(count)
        return 1.0

    monkeypatch.setattr(module, "full_jitter", jitter)
    unused.unused.give_back([claim("a")])
    for _ in range(3):
        await unused.pass_seconds(1)
    assert failures == [1, 2, 3, 4]
    unused.error = None
    await unused.unused.close()


async def test_lease_that_ends_now_is_not_given_back_any_more() -> None:
    unused = Unused()
    unused.run.clock.advance(30)
    unused.error = BUSY
    unused.unused.give_back([claim("a")])
    await settle()
    # It was tried once.
    await asyncio.wait_for(unused.unused._tasks.join(), 1)
