"""initialize() waits for tables that are busy, and refuses tables that cannot become usable."""

import asyncio
from typing import Any

import pytest

from ragcrawl_dynamo import (
    DeadlineExceededError,
    DynamoDBBackend,
    SchemaMismatchError,
    TableUnusableError,
)
from ragcrawl_dynamo._schema import waiting
from tests.support.fake_tables import FakeTables
from tests.support.fakes import FAST, client_error

QUICK = FAST.model_copy(update={"table_timeout": 1.0})

FOREIGN = {
    "IndexName": "of_somebody_else",
    "IndexStatus": "CREATING",
    "Backfilling": True,
    "KeySchema": [{"AttributeName": "url", "KeyType": "HASH"}],
    "Projection": {"ProjectionType": "ALL"},
}


async def initialize(tables: FakeTables, **options: Any) -> None:
    backend = DynamoDBBackend(QUICK, client_factory=tables.client.factory)
    await backend.initialize(**options)
    await backend.close()


@pytest.mark.parametrize("create_tables", [True, False])
async def test_initialize_accepts_a_table_that_is_updating(create_tables: bool) -> None:
    tables = FakeTables(QUICK)
    tables.descriptions["pages"]["TableStatus"] = "UPDATING"
    await initialize(tables, create_tables=create_tables)
    assert len(tables.sent("describe_table")) == 5


@pytest.mark.parametrize("status", ["CREATING", "DELETING"])
async def test_initialize_accepts_a_table_with_a_foreign_index_that_is_built(status: str) -> None:
    tables = FakeTables(QUICK)
    tables.descriptions["pages"]["TableStatus"] = "UPDATING"
    tables.descriptions["pages"]["GlobalSecondaryIndexes"].append({**FOREIGN, "IndexStatus": status})
    await initialize(tables)
    assert len(tables.sent("describe_table")) == 5


async def test_initialize_accepts_an_index_whose_throughput_is_updating() -> None:
    tables = FakeTables(QUICK)
    tables.descriptions["pages"]["GlobalSecondaryIndexes"][0]["IndexStatus"] = "UPDATING"
    await initialize(tables)
    assert len(tables.sent("describe_table")) == 5


@pytest.mark.parametrize("create_tables", [True, False])
@pytest.mark.parametrize("table_status", ["ACTIVE", "UPDATING"])
async def test_initialize_waits_for_an_index_of_its_own_that_is_built(
    table_status: str, create_tables: bool
) -> None:
    tables = FakeTables(QUICK)
    pages = tables.descriptions["pages"]
    pages["TableStatus"] = table_status
    pages["GlobalSecondaryIndexes"][0] |= {"IndexStatus": "CREATING", "Backfilling": True}
    seen = 0

    def built_at_the_third_look(operation: str, request: Any) -> None:
        nonlocal seen
        seen += operation == "describe_table" and request["TableName"].endswith("pages")
        if seen == 3:
            pages["GlobalSecondaryIndexes"][0]["IndexStatus"] = "ACTIVE"

    tables.on_request = built_at_the_third_look
    await initialize(tables, create_tables=create_tables)
    assert seen == 3


async def test_initialize_without_create_tables_waits_for_a_table_that_is_created() -> None:
    tables = FakeTables(QUICK)
    tables.descriptions["pages"]["TableStatus"] = "CREATING"

    def created_at_the_second_look(operation: str, request: Any) -> None:
        if len(tables.sent("describe_table")) > 5:
            tables.descriptions["pages"]["TableStatus"] = "ACTIVE"

    tables.on_request = created_at_the_second_look
    await initialize(tables, create_tables=False)
    assert len(tables.sent("describe_table")) == 6


@pytest.mark.parametrize("create_tables", [True, False])
async def test_initialize_ends_at_table_timeout_if_its_own_index_is_not_built(create_tables: bool) -> None:
    tables = FakeTables(QUICK)
    tables.descriptions["pages"]["GlobalSecondaryIndexes"][0]["IndexStatus"] = "CREATING"
    with pytest.raises(
        DeadlineExceededError, match=r"ragcrawl_pages: not active within table_timeout = 1\.0 s"
    ):
        await initialize(tables, create_tables=create_tables)


async def test_initialize_adds_a_missing_index_after_the_change_of_somebody_else() -> None:
    tables = FakeTables(QUICK)
    pages = tables.descriptions["pages"]
    (by_url,) = pages["GlobalSecondaryIndexes"]
    pages["GlobalSecondaryIndexes"] = [dict(FOREIGN)]
    looks = 0

    def in_turn(operation: str, request: Any) -> None:
        nonlocal looks
        looks += operation == "describe_table" and request["TableName"].endswith("pages")
        if looks == 3:
            pages["GlobalSecondaryIndexes"][0]["IndexStatus"] = "ACTIVE"
        if operation == "update_table":
            # Another process was faster by a moment.
            if len(tables.sent("update_table")) == 1:
                raise client_error("ResourceInUseException")
            pages["GlobalSecondaryIndexes"].append(by_url)

    tables.on_request = in_turn
    await initialize(tables, create_missing_indexes=True)
    updates = tables.sent("update_table")
    assert [update["GlobalSecondaryIndexUpdates"][0]["Create"]["IndexName"] for update in updates] == [
        "by_url"
    ] * 2
    assert looks >= 4


async def test_initialize_refuses_an_updating_table_without_its_index() -> None:
    tables = FakeTables(QUICK)
    tables.descriptions["pages"] |= {"TableStatus": "UPDATING", "GlobalSecondaryIndexes": []}
    with pytest.raises(SchemaMismatchError, match="global index by_url is missing"):
        await initialize(tables)


@pytest.mark.parametrize("create_tables", [True, False])
@pytest.mark.parametrize(
    ("status", "advice"),
    [
        ("INACCESSIBLE_ENCRYPTION_CREDENTIALS", "cannot use its KMS key: enable the key"),
        ("ARCHIVING", "when it is ARCHIVED, delete it, and restore it from the backup"),
        ("ARCHIVED", "delete it, and restore it from the backup that DynamoDB made, arn:backup"),
    ],
)
async def test_initialize_refuses_a_hopeless_table_at_once(
    status: str, advice: str, create_tables: bool
) -> None:
    tables = FakeTables(QUICK)
    tables.descriptions["versions"]["TableStatus"] = status
    if status == "ARCHIVED":
        tables.descriptions["versions"]["ArchivalSummary"] = {"ArchivalBackupArn": "arn:backup"}
    with pytest.raises(TableUnusableError, match=advice) as caught:
        await initialize(tables, create_tables=create_tables)
    assert (caught.value.table, caught.value.code) == ("ragcrawl_versions", status)
    assert f"the table has status {status}" in str(caught.value)
    assert len(tables.sent("describe_table")) <= 5


async def test_initialize_switches_features_on_when_the_table_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiting, "_PAUSE", 0.01)
    config = QUICK.model_copy(update={"point_in_time_recovery": True})
    tables = FakeTables(config)
    tables.time_to_live = {"TimeToLiveStatus": "DISABLED"}
    refused: set[tuple[str, str]] = set()

    def busy_once(operation: str, request: Any) -> None:
        change = operation, request["TableName"]
        if operation in ("update_time_to_live", "update_continuous_backups") and change not in refused:
            refused.add(change)
            raise client_error("ResourceInUseException")

    tables.on_request = busy_once
    async with DynamoDBBackend(config, client_factory=tables.client.factory):
        pass
    assert len(tables.sent("update_time_to_live")) == 2
    assert len(tables.sent("update_continuous_backups")) == 10


async def test_initialize_ends_at_table_timeout_if_a_table_stays_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiting, "_PAUSE", 0.01)
    config = QUICK.model_copy(update={"table_timeout": 0.2})
    tables = FakeTables(config)
    tables.time_to_live = {"TimeToLiveStatus": "DISABLED"}

    def busy(operation: str, request: Any) -> None:
        if operation == "update_time_to_live":
            raise client_error("ResourceInUseException")

    tables.on_request = busy
    backend = DynamoDBBackend(config, client_factory=tables.client.factory)
    with pytest.raises(DeadlineExceededError, match="not active within table_timeout"):
        async with asyncio.timeout(10):
            await backend.initialize()
