"""The requests with which a process takes and leaves shards of the change log."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from ragcrawl_dynamo._changes.change import LATEST_HOURS, LogEntry, LogPosition
from ragcrawl_dynamo._changes.shards import ShardStore, holder_token
from ragcrawl_dynamo._dynamodb.values import moment_text
from ragcrawl_dynamo._schema.keys import change_shard_key
from ragcrawl_dynamo._schema.tables import Tables
from tests.support.factories import START
from tests.support.fakes import FAST, open_gateway, scripted
from tests.support.request_parts import condition_of, removed_names, written_values

PAGES = Tables.of("t_").pages


def record(shard: str = "s1", *, next_number: int | None = None, age: float = 0.0) -> dict[str, Any]:
    """The record of a shard that was taken so many hours ago."""
    item: dict[str, Any] = {
        **change_shard_key("site", shard),
        "holder": {"S": "somebody"},
        "first": {"N": "1"},
        "held_since": {"S": moment_text(START - timedelta(hours=age))},
        "retention_days": {"N": "30"},
    }
    return item if next_number is None else {**item, "next": {"N": f"{next_number}"}}


def listing(*items: Any) -> Any:
    return {"Items": list(items), "Count": len(items)}


async def take(*answers: Any, days: int | None = 30) -> tuple[tuple[str, int], list[tuple[str, Any]]]:
    """Takes a shard; returns it, and the requests."""
    config = FAST.model_copy(update={"change_retention_days": days})
    async with open_gateway(scripted(*answers), config) as (gateway, client):
        taken = await ShardStore(gateway, PAGES).take("site", holder_token(), START)
    return taken, client.requests


async def test_take_looks_at_the_records_of_shards_only() -> None:
    """The cursors of consumers lie beside them."""
    _, requests = await take(listing(), {})
    condition = condition_of(requests[0][1], "KeyConditionExpression")
    assert condition == "(site_id = #site) AND (begins_with(page_id, lane#))"


async def test_take_prefers_a_shard_that_was_left_to_one_that_may_be_in_use() -> None:
    held = [record(f"held{i}", age=LATEST_HOURS + 1) for i in range(3)]
    taken, requests = await take(listing(*held, record("left", next_number=7)), {})
    assert taken == ("left", 7)
    assert [operation for operation, _ in requests] == ["query", "update_item"]


async def test_take_tries_three_shards_at_most() -> None:
    held = [record(f"held{i}", age=LATEST_HOURS + 1) for i in range(5)]
    _, requests = await take(listing(*held), listing(), listing(), listing(), {})
    assert [operation for operation, _ in requests] == ["query"] * 4 + ["put_item"]


async def test_take_leaves_a_shard_that_was_taken_an_hour_ago() -> None:
    _, requests = await take(listing(record(age=LATEST_HOURS)), {})
    assert [operation for operation, _ in requests] == ["query", "put_item"]


async def test_take_reads_the_last_entry_of_a_shard_only() -> None:
    last = LogEntry(LogPosition("s1", 41), "changed", "page", 1, START - timedelta(hours=LATEST_HOURS))
    old = record(age=LATEST_HOURS + 1)
    taken, requests = await take(listing(old), listing(dict(last.item("site", None))), {})
    assert taken == ("s1", 42)
    query = requests[1][1]
    assert condition_of(query, "KeyConditionExpression") == "(site_id = #site#s1)"
    assert (query["ScanIndexForward"], query["Limit"]) == (False, 1)
    assert condition_of(requests[2][1]) == "(holder = somebody) AND (attribute_not_exists(next))"


async def test_take_of_a_shard_that_was_left_removes_where_it_ended() -> None:
    """Readers of an old cursor would believe that nothing follows."""
    _, requests = await take(listing(record(next_number=7)), {})
    update = requests[1][1]
    assert removed_names(update) == ["next"]
    assert written_values(update)["first"] == {"N": "7"}
    assert condition_of(update) == "(holder = somebody) AND (next = 7)"


async def test_take_names_a_new_shard_by_eight_digits() -> None:
    (shard, _), _ = await take(listing(), {})
    assert len(shard) == 8


@pytest.mark.parametrize(("days", "stored"), [(7, {"N": "7"}), (None, {"NULL": True})])
async def test_take_stores_for_how_long_entries_are_kept(days: int | None, stored: Any) -> None:
    _, requests = await take(listing(), {}, days=days)
    assert requests[1][1]["Item"]["retention_days"] == stored


async def test_leave_stores_the_next_number_if_nobody_else_has_taken_the_shard() -> None:
    token = holder_token()
    async with open_gateway(scripted({})) as (gateway, client):
        await ShardStore(gateway, PAGES).leave("site", "s1", token, 9)
    ((_, update),) = client.requests
    assert written_values(update) == {"next": {"N": "9"}}
    assert condition_of(update) == f"holder = {token.value['S']}"
