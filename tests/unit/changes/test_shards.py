"""Shards of the change log: taken over, recognized, left."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from ragcrawl_dynamo._changes.change import LATEST_HOURS, LogEntry, LogPosition
from ragcrawl_dynamo._changes.shards import ShardRecord, ShardStore, holder_token
from ragcrawl_dynamo._dynamodb.values import moment_text
from ragcrawl_dynamo._schema.keys import change_shard_key
from ragcrawl_dynamo._schema.tables import Tables
from tests.support.factories import START
from tests.support.fakes import client_error, open_gateway, scripted

PAGES = Tables.of("t_").pages


# The setting of the gateways here, as an item has it.
RETENTION: Any = {"N": "30"}


def record(
    shard: str = "s1", *, next_number: int | None = None, age: float = 0.0, retention: Any = RETENTION
) -> dict[str, Any]:
    item: dict[str, Any] = {
        **change_shard_key("site", shard),
        "holder": {"S": "somebody"},
        "first": {"N": "1"},
        "held_since": {"S": moment_text(START - timedelta(hours=age))},
        **({} if retention is None else {"retention_days": retention}),
    }
    return item if next_number is None else {**item, "next": {"N": f"{next_number}"}}


def listing(*items: Any) -> Any:
    return {"Items": list(items), "Count": len(items)}


def entry(number: int, age: float) -> dict[str, Any]:
    position = LogPosition("s1", number)
    return dict(LogEntry(position, "changed", "page", 1, START - timedelta(hours=age)).item("site", None))


def refused(**attributes: Any) -> Any:
    """The condition failed, since the record is as given."""
    return client_error("ConditionalCheckFailedException", Item={**record(), **attributes})


def test_a_record_is_read_from_its_item() -> None:
    held = ShardRecord("s1", "somebody", 1, None, moment_text(START), 30)
    assert ShardRecord.of(record(), 7) == held
    assert ShardRecord.of(record(next_number=9), 7).next == 9
    assert ShardRecord.of(record(retention={"NULL": True}), 7).retention_days is None


def test_a_record_of_an_older_version_has_the_retention_of_its_reader() -> None:
    for reader_retention in (7, None):
        assert ShardRecord.of(record(retention=None), reader_retention).retention_days == reader_retention


async def test_take_stores_the_retention_with_a_shard_that_an_older_version_made() -> None:
    old = record("s1", next_number=7, retention=None)
    async with open_gateway(scripted(listing(old), {})) as (gateway, client):
        assert await ShardStore(gateway, PAGES).take("site", holder_token(), START) == ("s1", 7)
    update = client.requests[-1][1]
    assert "retention_days" in update["ExpressionAttributeNames"].values()
    assert RETENTION in update["ExpressionAttributeValues"].values()


async def test_take_continues_a_shard_that_was_left() -> None:
    token = holder_token()
    async with open_gateway(scripted(listing(record("s1", next_number=7)), {})) as (gateway, client):
        assert await ShardStore(gateway, PAGES).take("site", token, START) == ("s1", 7)
    update = client.requests[-1][1]
    assert update["Key"] == change_shard_key("site", "s1")
    values = update["ExpressionAttributeValues"].values()
    assert all(value in values for value in ({"S": "somebody"}, {"N": "7"}, token.value))


async def test_take_continues_a_shard_that_was_not_used_for_long() -> None:
    old = record(age=LATEST_HOURS + 1)
    answers: tuple[Any, ...] = (listing(old), listing(entry(41, LATEST_HOURS)), {})
    async with open_gateway(scripted(*answers)) as (gateway, _):
        assert await ShardStore(gateway, PAGES).take("site", holder_token(), START) == ("s1", 42)


@pytest.mark.parametrize(
    "answers",
    [
        (listing(),),
        # It is held since a moment ago.
        (listing(record()),),
        # It is in use.
        (listing(record(age=2)), listing(entry(41, 0.9))),
        # All its entries have expired.
        (listing(record(age=2)), listing()),
        # Another process was faster.
        (listing(record(next_number=7)), refused()),
        # Its entries expire earlier, or never.
        (listing(record(next_number=7, retention={"N": "29"})),),
        (listing(record(next_number=7, retention={"NULL": True})),),
    ],
    ids=["none", "new", "in use", "expired", "taken", "shorter retention", "no expiry"],
)
async def test_take_creates_a_shard_if_it_can_take_over_none(answers: tuple[Any, ...]) -> None:
    token = holder_token()
    async with open_gateway(scripted(*answers, {})) as (gateway, client):
        shard, first = await ShardStore(gateway, PAGES).take("site", token, START)
    assert (shard != "s1", first) == (True, 1)
    operation, request = client.requests[-1]
    assert operation == "put_item"
    assert ShardRecord.of(request["Item"], None) == ShardRecord(
        shard, token.value["S"], 1, None, moment_text(START), 30
    )


async def test_take_recognizes_its_own_write_whose_answer_was_lost() -> None:
    token = holder_token()
    answers: tuple[Any, ...] = (
        listing(record(next_number=7)),
        client_error("InternalServerError", 500),
        refused(**token.attributes),
    )
    async with open_gateway(scripted(*answers)) as (gateway, _):
        assert await ShardStore(gateway, PAGES).take("site", token, START) == ("s1", 7)


async def test_take_does_not_recognize_another_take_of_the_same_process() -> None:
    earlier, token = holder_token(), holder_token()
    answers: tuple[Any, ...] = (listing(record(next_number=7)), refused(**earlier.attributes), {})
    async with open_gateway(scripted(*answers)) as (gateway, _):
        shard, _ = await ShardStore(gateway, PAGES).take("site", token, START)
        assert shard != "s1"


async def test_a_shard_is_held_as_long_as_its_record_has_the_token() -> None:
    token = holder_token()
    answers: tuple[Any, ...] = ({"Item": {**record(), **token.attributes}}, {"Item": record()}, {})
    async with open_gateway(scripted(*answers)) as (gateway, _):
        shards = ShardStore(gateway, PAGES)
        assert [await shards.is_held("site", "s1", token) for _ in answers] == [True, False, False]


async def test_leave_of_a_shard_that_another_process_took_changes_nothing_and_raises_nothing() -> None:
    token = holder_token()
    async with open_gateway(scripted(refused())) as (gateway, client):
        await ShardStore(gateway, PAGES).leave("site", "s1", token, 9)
    ((_, request),) = client.requests
    assert token.value in request["ExpressionAttributeValues"].values()
    assert request["ConditionExpression"]
