"""Sequence numbers that a reader of a shard gives up."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from ragcrawl_dynamo._changes.change import VOID, LogEntry, LogPosition
from ragcrawl_dynamo._changes.log import ChangeLog
from ragcrawl_dynamo._changes.shard_reader import ShardPart, ShardReader
from ragcrawl_dynamo._changes.shards import ShardRecord
from ragcrawl_dynamo._dynamodb.values import moment_text
from ragcrawl_dynamo._schema.tables import Tables
from ragcrawl_dynamo.testing import ManualClock
from tests.support.factories import START
from tests.support.fakes import client_error, open_gateway, scripted
from tests.support.request_parts import condition_of

PAGES = Tables.of("t_").pages


@pytest.mark.parametrize(("retention_days", "seconds"), [(7, 7 * 86_400), (None, None)])
async def test_a_number_that_is_given_up_is_kept_as_long_as_the_entries_of_its_shard(
    retention_days: int | None, seconds: int | None
) -> None:
    """The setting of the reader does not matter; it is 30 days here."""
    record = ShardRecord("s1", "somebody", 1, None, moment_text(START), retention_days)
    voids: list[dict[str, Any]] = []
    second = LogEntry(LogPosition("s1", 2), "changed", "page", 1, START - timedelta(minutes=1))

    def answer(operation: str, request: dict[str, Any]) -> Any:
        if operation == "put_item":
            voids.append(request["Item"])
            return {}
        return {"Items": [*voids, dict(second.item("site", retention_days))]}

    clock = ManualClock()
    async with open_gateway(answer) as (gateway, _):
        reader = ShardReader(gateway, PAGES, ChangeLog(gateway, PAGES, clock))
        part = await reader.read("site", record, 1, 100, START)
    assert [entry.kind for entry in part.entries] == [VOID, "changed"]
    expires_at = int(voids[0]["expires_at"]["N"]) if "expires_at" in voids[0] else None
    assert expires_at == (None if seconds is None else int(clock.now().timestamp()) + seconds)


# Reads of a shard.


class Reader:
    """A reader of a shard whose requests are answered by a script."""

    def __init__(self, *answers: Any, next_number: int | None = None, first: int = 1) -> None:
        self.record = ShardRecord("s1", "somebody", first, next_number, moment_text(START), 30)
        self.clock = ManualClock(START + timedelta(seconds=1))
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self._answers = answers

    async def read(self, first: int = 1, limit: int = 5) -> ShardPart:
        async with open_gateway(scripted(*self._answers)) as (gateway, client):
            self.requests = client.requests
            reader = ShardReader(gateway, PAGES, ChangeLog(gateway, PAGES, self.clock))
            return await reader.read("site", self.record, first, limit, START)

    async def present(self) -> int:
        async with open_gateway(scripted(*self._answers)) as (gateway, client):
            self.requests = client.requests
            reader = ShardReader(gateway, PAGES, ChangeLog(gateway, PAGES, self.clock))
            return await reader.present("site", self.record, START)

    def given_up(self) -> list[int]:
        """The sequence numbers that the reader used itself."""
        puts = [request["Item"] for operation, request in self.requests if operation == "put_item"]
        return sorted(int(item["page_id"]["S"]) for item in puts)


def logged(number: int, age: float = 0.0) -> LogEntry:
    """An entry that was logged so many seconds ago."""
    return LogEntry(LogPosition("s1", number), "changed", "page", 1, START - timedelta(seconds=age))


def page_of(*entries: LogEntry, is_last: bool = True) -> Any:
    """The answer to a query with these entries."""
    items = [dict(entry.item("site", 30)) for entry in entries]
    return {"Items": items} if is_last else {"Items": items, "LastEvaluatedKey": key_of(items[-1])}


def key_of(item: dict[str, Any]) -> Any:
    return {name: item[name] for name in ("site_id", "page_id")}


async def test_read_of_a_shard_begins_with_the_first_number_that_is_not_read() -> None:
    reader = Reader(page_of(logged(7), logged(8)))
    assert await reader.read(7) == ShardPart("s1", 7, [logged(7), logged(8)], is_end=True)
    ((operation, request),) = reader.requests
    assert operation == "query"
    condition = condition_of(request, "KeyConditionExpression")
    assert condition == "(site_id = #site#s1) AND (page_id >= 000000000007)"
    assert request["ScanIndexForward"]
    assert request["ConsistentRead"]


@pytest.mark.parametrize(("limit", "read"), [(1, 100), (100, 100), (101, 101)])
async def test_read_of_a_shard_asks_for_a_hundred_entries_or_more(limit: int, read: int) -> None:
    reader = Reader(page_of())
    await reader.read(limit=limit)
    assert reader.requests[0][1]["Limit"] == read


async def test_read_of_a_shard_that_was_left_asks_for_nothing_beyond_its_last_entry() -> None:
    reader = Reader(next_number=7)
    assert await reader.read(7) == ShardPart("s1", 7, [], is_end=True)
    assert reader.requests == []


async def test_read_of_a_shard_that_was_left_asks_for_the_entries_before_its_end() -> None:
    reader = Reader(page_of(logged(6)), next_number=7)
    assert len((await reader.read(6)).entries) == 1


async def test_read_of_a_shard_is_not_at_the_end_if_there_are_more_entries() -> None:
    part = await Reader(page_of(logged(1), is_last=False)).read()
    assert (numbers(part), part.is_end) == ([1], False)


async def test_read_of_a_shard_is_at_the_end_before_a_commit_that_is_under_way() -> None:
    part = await Reader(page_of(logged(1), logged(3, age=9.9), is_last=False)).read()
    assert (numbers(part), part.is_end) == ([1], True)


async def test_read_of_a_shard_is_not_at_the_end_before_a_number_that_can_be_given_up() -> None:
    reader = Reader(page_of(logged(1), logged(3, age=10)))
    part = await reader.read()
    assert (numbers(part), part.is_end) == ([1], False)
    # The next read does it.
    assert reader.given_up() == []


async def test_read_of_a_shard_gives_up_what_stops_it_and_reads_again() -> None:
    late = logged(4, age=10)
    voids = [LogEntry(LogPosition("s1", number), VOID, "", 0, START) for number in (1, 2, 3)]
    reader = Reader(page_of(late), {}, {}, {}, page_of(*voids, late))
    assert numbers(await reader.read()) == [1, 2, 3, 4]
    assert reader.given_up() == [1, 2, 3]
    put = reader.requests[1][1]
    assert put["TableName"] == "t_pages"
    assert (put["Item"]["kind"], put["Item"]["site_id"]) == ({"S": VOID}, {"S": "#site#s1"})
    # Only if no commit has used the number meanwhile.
    assert put["ConditionExpression"] == "attribute_not_exists(#0)"
    assert put["ExpressionAttributeNames"] == {"#0": "page_id"}
    # The clock of this process, as the answers of DynamoDB correct it.
    assert put["Item"]["at"] == {"S": moment_text(START + timedelta(seconds=1))}


async def test_read_of_a_shard_takes_the_entry_of_a_commit_that_was_only_late() -> None:
    late = logged(2, age=10)
    refused = client_error("ConditionalCheckFailedException", Item=dict(logged(1).item("site", 30)))
    reader = Reader(page_of(late), refused, page_of(logged(1), late))
    assert numbers(await reader.read()) == [1, 2]


async def test_read_of_a_shard_without_entries_is_at_the_end() -> None:
    assert await Reader(page_of()).read() == ShardPart("s1", 1, [], is_end=True)


# Readers that begin.


async def test_a_reader_that_begins_reads_back_to_an_entry_below_which_nothing_can_be_open() -> None:
    hour = 3600
    pages = [
        page_of(logged(9), logged(8, age=hour - 1), is_last=False),
        page_of(logged(6, age=hour), logged(5, age=hour), is_last=False),
    ]
    reader = Reader(*pages)
    assert await reader.present() == 7
    first, second = (request for _, request in reader.requests)
    assert not first["ScanIndexForward"]
    assert first["ExpressionAttributeValues"] == {":0": {"S": "#site#s1"}}
    assert "ExclusiveStartKey" not in first
    assert second["ExclusiveStartKey"] == pages[0]["LastEvaluatedKey"]


async def test_a_reader_that_begins_reads_all_entries_of_a_young_shard() -> None:
    reader = Reader(page_of(logged(9), logged(8), is_last=False), page_of(logged(7)), first=7)
    assert await reader.present() == 10


async def test_a_reader_that_begins_reads_an_empty_shard_from_where_its_holder_began() -> None:
    assert await Reader(page_of(), first=41).present() == 41


def numbers(part: ShardPart) -> list[int]:
    return [entry.position.sequence_number for entry in part.entries]
