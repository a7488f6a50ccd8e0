"""Sequence numbers that a reader of a shard gives up."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from ragcrawl_dynamo._changes.change import VOID, LogEntry, LogPosition
from ragcrawl_dynamo._changes.log import ChangeLog
from ragcrawl_dynamo._changes.shard_reader import ShardReader
from ragcrawl_dynamo._changes.shards import ShardRecord
from ragcrawl_dynamo._dynamodb.values import moment_text
from ragcrawl_dynamo._schema.tables import Tables
from ragcrawl_dynamo.testing import ManualClock
from tests.support.factories import START
from tests.support.fakes import open_gateway

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
