"""Positions in the change log: given out without a gap, freed, and looked for elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from ragcrawl_dynamo import ChangeKind, EndpointUnreachableError
from ragcrawl_dynamo._changes.change import VOID, LogPosition
from ragcrawl_dynamo._changes.log import ChangeLog, PendingEntry
from ragcrawl_dynamo._dynamodb.transactions import Refusal, Transaction
from ragcrawl_dynamo._dynamodb.write_token import WriteToken
from ragcrawl_dynamo._schema.tables import Tables
from ragcrawl_dynamo.testing import ManualClock
from tests.support.fakes import FAST, FakeClient, open_gateway

PAGES = Tables.of("t_").pages


class Shards:
    """The shard records of one site, as DynamoDB would keep them; it has nothing else."""

    def __init__(self) -> None:
        self.records: dict[str, dict[str, Any]] = {}
        self.takes: asyncio.Event | None = None
        self.error: Exception | None = None

    async def answer(self, operation: str, request: dict[str, Any]) -> Any:
        match operation:
            case "put_item":
                if self.error is not None:
                    raise self.error
                if self.takes is not None:
                    await self.takes.wait()
                self.records[request["Item"]["page_id"]["S"]] = request["Item"]
                return {}
            case "get_item":
                record = self.records.get(request["Key"]["page_id"]["S"])
                return {} if record is None else {"Item": record}
            case "query":
                return {"Items": list(self.records.values()), "Count": len(self.records)}
            case "update_item":
                return {"Attributes": {}}
        raise AssertionError(operation)


@asynccontextmanager
async def opened(shards: Shards, clock: ManualClock) -> AsyncIterator[tuple[ChangeLog, FakeClient]]:
    async with open_gateway(shards.answer) as (gateway, client):
        yield ChangeLog(gateway, PAGES, clock), client


async def append(log: ChangeLog) -> PendingEntry:
    entry = await log.append("site", "page", ChangeKind.CHANGED, None)
    assert entry is not None
    return entry


async def numbers(log: ChangeLog, count: int) -> list[int]:
    return [(await append(log)).position.sequence_number for _ in range(count)]


def refusal(reason: str, kind: str | None = None) -> Refusal:
    """A refusal in which the entry's write had that reason, and found an entry of that kind."""
    items: dict[str, Any] = {} if kind is None else {"change": {"kind": {"S": kind}}}
    return Refusal({"page": "ConditionalCheckFailed", "change": reason}, items)


async def test_append_gives_out_numbers_without_a_gap() -> None:
    async with opened(Shards(), ManualClock()) as (log, client):
        assert await numbers(log, 4) == [1, 2, 3, 4]
        # The first request lists the shards, the second one creates one.
        assert [operation for operation, _ in client.requests] == ["query", "put_item"]


async def test_append_returns_none_if_changes_are_not_logged() -> None:
    silent = FAST.model_copy(update={"change_feed": False})
    async with open_gateway(Shards().answer, silent) as (gateway, client):
        log = ChangeLog(gateway, PAGES, ManualClock())
        assert await log.append("site", "page", ChangeKind.CHANGED, None) is None
        assert client.requests == []


async def test_an_entry_is_added_to_a_transaction_on_the_condition_that_its_position_is_free() -> None:
    shards = Shards()
    async with opened(shards, ManualClock()) as (log, _):
        entry = await log.append("site", "a#b", ChangeKind.CREATED, 10**18)
        assert entry is not None
    (shard,) = (key.removeprefix("lane#") for key in shards.records)
    assert entry.position == LogPosition(shard, 1)
    assert entry.order == 10**18 + 1
    transaction = Transaction(WriteToken.new("revision"), "page")
    entry.add_to(transaction)
    put: Any = transaction._writes["change"]["Put"]
    assert (put["TableName"], put["ConditionExpression"]) == ("t_pages", "attribute_not_exists(#0)")
    assert put["ExpressionAttributeNames"] == {"#0": "page_id"}
    key = {"site_id": {"S": f"#site#{shard}"}, "page_id": {"S": "000000000001"}}
    written = {
        "kind": {"S": "created"},
        "changed_page": {"S": "a~1b"},
        "change_order": {"N": f"{entry.order}"},
    }
    assert {name: put["Item"][name] for name in (*key, *written)} == {**key, **written}


async def test_a_number_whose_position_was_free_is_used_again_within_a_minute() -> None:
    clock = ManualClock()
    async with opened(Shards(), clock) as (log, _):
        entries = [await append(log) for _ in range(3)]
        log.note_refusal("site", entries[1], refusal("None"))
        log.note_refusal("site", entries[0], refusal("TransactionConflict"))
        clock.advance(59)
        assert await numbers(log, 3) == [1, 2, 4]
        log.note_refusal("site", entries[2], refusal("None"))
        clock.advance(60)
        assert await numbers(log, 1) == [5]


async def test_a_number_that_a_reader_gave_up_is_not_used_again() -> None:
    async with opened(Shards(), ManualClock()) as (log, _):
        entry = await append(log)
        log.note_refusal("site", entry, refusal("ConditionalCheckFailed", VOID))
        second = await append(log)
        assert second.position == LogPosition(entry.position.shard, 2)


async def test_a_shard_that_another_process_uses_is_given_up_for_another() -> None:
    async with opened(Shards(), ManualClock()) as (log, _):
        entry, late = await append(log), await append(log)
        log.note_refusal("site", entry, refusal("ConditionalCheckFailed", "created"))
        following = await append(log)
        assert following.position.sequence_number == 1
        assert following.position.shard != entry.position.shard
        # A late refusal of the former shard does not concern the new one.
        log.note_refusal("site", late, refusal("None"))
        assert await numbers(log, 1) == [2]


async def test_a_shard_is_verified_once_a_minute_and_taken_anew_if_it_is_gone() -> None:
    clock, shards = ManualClock(), Shards()
    async with opened(shards, clock) as (log, client):
        first = await append(log)
        clock.advance(60)
        assert (await append(log)).position.shard == first.position.shard
        assert [operation for operation, _ in client.requests] == ["query", "put_item"]
        clock.advance(1)
        assert (await append(log)).position == LogPosition(first.position.shard, 3)
        assert client.requests[-1][0] == "get_item"
        # Somebody deleted the site.
        shards.records.clear()
        clock.advance(61)
        anew = await append(log)
        assert anew.position.shard != first.position.shard
        assert anew.position.sequence_number == 1


async def test_a_number_of_the_former_shard_that_is_freed_meanwhile_is_not_used_in_the_next() -> None:
    clock, shards = ManualClock(), Shards()
    async with opened(shards, clock) as (log, _):
        former = [await append(log) for _ in range(5)]
        shards.records.clear()
        clock.advance(61)
        shards.takes = asyncio.Event()
        taking = asyncio.create_task(append(log))
        await asyncio.sleep(0.01)
        log.note_refusal("site", former[4], refusal("None"))
        shards.takes.set()
        assert (await taking).position.sequence_number == 1
        assert await numbers(log, 1) == [2]


async def test_a_number_that_was_freed_in_the_former_shard_is_not_used_in_the_next() -> None:
    clock, shards = ManualClock(), Shards()
    async with opened(shards, clock) as (log, _):
        former = [await append(log) for _ in range(5)]
        clock.advance(61)
        log.note_refusal("site", former[4], refusal("None"))
        shards.records.clear()
        assert await numbers(log, 3) == [1, 2, 3]


async def test_close_leaves_each_shard_with_its_next_number() -> None:
    async with opened(Shards(), ManualClock()) as (log, client):
        await numbers(log, 3)
        await log.close()
        operation, request = client.requests[-1]
        assert operation == "update_item"
        assert {"N": "4"} in request["ExpressionAttributeValues"].values()
        await log.close()
        assert client.requests[-1][1] is request


@pytest.mark.parametrize("count", [256, 257])
async def test_a_process_leaves_the_shard_that_it_has_not_used_for_longest(count: int) -> None:
    async with opened(Shards(), ManualClock()) as (log, client):
        for i in range(count):
            await log.append(f"site{i}", "page", ChangeKind.CREATED, None)
        left = [request["Key"] for operation, request in client.requests if operation == "update_item"]
        assert [key["site_id"]["S"] for key in left] == ["#site0"] * (count - 256)


async def test_a_number_is_used_again_within_a_minute_however_long_the_process_runs() -> None:
    clock = ManualClock()
    clock.advance(10_000)
    async with opened(Shards(), clock) as (log, client):
        entry = await append(log)
        log.note_refusal("site", entry, refusal("None"))
        clock.advance(59)
        assert await numbers(log, 2) == [1, 2]
        # The shard was not verified again.
        assert [operation for operation, _ in client.requests] == ["query", "put_item"]


async def test_an_entry_expires_after_the_retention_of_changes() -> None:
    clock = ManualClock()
    async with opened(Shards(), clock) as (log, _):
        entry = await append(log)
    assert entry.item["expires_at"] == {"N": str(int(clock.now().timestamp()) + 30 * 86_400)}


async def test_the_time_of_changes_is_that_of_dynamodb() -> None:
    """A clock that is ahead would hide changes from readers that begin."""
    clock = ManualClock()
    async with open_gateway(Shards().answer) as (gateway, _):
        log = ChangeLog(gateway, PAGES, clock)
        gateway.server_clock.offset = 100.0
        assert log.now() == clock.now() - timedelta(seconds=100)


async def test_a_site_whose_shard_is_forgotten_gets_another_one() -> None:
    shards = Shards()
    async with opened(shards, ManualClock()) as (log, _):
        first = await append(log)
        await log.append("other", "page", ChangeKind.CHANGED, None)
        shards.records.clear()
        log.forget("site")
        anew = await append(log)
        assert anew.position.sequence_number == 1
        assert anew.position.shard != first.position.shard
        other = await log.append("other", "page", ChangeKind.CHANGED, None)
        assert other is not None
        assert other.position.sequence_number == 2
        # A site without a shard can be deleted too.
        log.forget("never changed")


async def test_close_leaves_no_shard_that_could_not_be_taken() -> None:
    clock, shards = ManualClock(), Shards()
    async with opened(shards, clock) as (log, client):
        await append(log)
        shards.records.clear()
        clock.advance(61)
        shards.error = OSError("no network")
        with pytest.raises(EndpointUnreachableError):
            await append(log)
        await log.close()
        assert "update_item" not in [operation for operation, _ in client.requests]
