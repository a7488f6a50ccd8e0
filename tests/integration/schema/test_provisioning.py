"""Tables: created, checked, completed, raced for."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from ragcrawl_dynamo import (
    BackendClosedError,
    DeadlineExceededError,
    DynamoDBBackend,
    DynamoDBConfig,
    SchemaMismatchError,
    TableOptions,
)
from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.client import open_client
from ragcrawl_dynamo._dynamodb.codec import to_item
from ragcrawl_dynamo._schema.keys import schema_key
from ragcrawl_dynamo._schema.tables import Tables
from ragcrawl_dynamo.testing import drop_tables
from tests.support import initialize_worker, processes
from tests.support.engines import on_dynamodb_local, on_moto
from tests.support.factories import make_page, make_site
from tests.support.fakes import FAST, FakeClient, client_error, intercepting

NAMES = ("sites", "runs", "pages", "versions", "frontier")


@pytest_asyncio.fixture
async def config(dynamodb_config: DynamoDBConfig) -> AsyncIterator[DynamoDBConfig]:
    """Settings whose tables, if a test makes any, are deleted at its end."""
    yield dynamodb_config
    await drop_tables(dynamodb_config)


async def describe(config: DynamoDBConfig, name: str) -> Any:
    async with open_client(config) as client:
        return (await client.describe_table(TableName=config.table_prefix + name))["Table"]


async def create(config: DynamoDBConfig, name: str, change: Callable[[Any], Any]) -> None:
    """Makes one of the five tables, its definition changed before."""
    table = next(
        definition for definition in Tables.of(config.table_prefix).all() if definition.name.endswith(name)
    )
    request: Any = requests.create_table_request(table, config)
    change(request)
    keyed = [request, *request.get("GlobalSecondaryIndexes", []), *request.get("LocalSecondaryIndexes", [])]
    used = {key["AttributeName"] for table_or_index in keyed for key in table_or_index["KeySchema"]}
    types = {attribute["AttributeName"]: attribute for attribute in request["AttributeDefinitions"]}
    request["AttributeDefinitions"] = [
        types.get(attribute_name, {"AttributeName": attribute_name, "AttributeType": "S"})
        for attribute_name in sorted(used)
    ]
    async with open_client(config) as client:
        await client.create_table(**request)


async def test_initialize_creates_the_five_tables_with_keys_and_indexes(config: DynamoDBConfig) -> None:
    async with DynamoDBBackend(config):
        pass
    schemas = {}
    for name in NAMES:
        table = await describe(config, name)
        assert table["TableStatus"] == "ACTIVE"
        assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
        indexes = [*table.get("GlobalSecondaryIndexes", []), *table.get("LocalSecondaryIndexes", [])]
        assert all(index["Projection"]["ProjectionType"] == "KEYS_ONLY" for index in indexes)
        schemas[name] = [
            [key["AttributeName"] for key in table["KeySchema"]],
            {index["IndexName"]: [key["AttributeName"] for key in index["KeySchema"]] for index in indexes},
        ]
    assert schemas == {
        "sites": [["site_id"], {}],
        "runs": [
            ["site_id", "run_id"],
            {"by_run_id": ["run_id"], "by_created_at": ["site_id", "created_at"]},
        ],
        "pages": [["site_id", "page_id"], {"by_url": ["url_key", "site_id"]}],
        "versions": [["page_id", "version_key"], {"by_site": ["indexed_site", "page_id"]}],
        "frontier": [["run_id", "item_id"], {"by_queue": ["queue", "queue_order"]}],
    }


async def test_initialize_again_keeps_the_data(config: DynamoDBConfig) -> None:
    backend = DynamoDBBackend(config)
    await backend.initialize()
    site = make_site()
    await backend.save_site(site)
    await backend.initialize()
    await backend.close()
    async with DynamoDBBackend(config) as again:
        assert await again.get_site("site") == site


async def test_initialize_sets_provisioned_capacity_of_tables_and_indexes(config: DynamoDBConfig) -> None:
    changes = {"billing_mode": "PROVISIONED", "read_capacity": 3, "write_capacity": 4}
    async with DynamoDBBackend(config.model_copy(update=changes)):
        pass
    table = await describe(config, "pages")
    for provisioned in (table, table["GlobalSecondaryIndexes"][0]):
        assert provisioned["ProvisionedThroughput"]["ReadCapacityUnits"] == 3
        assert provisioned["ProvisionedThroughput"]["WriteCapacityUnits"] == 4


@on_dynamodb_local
async def test_initialize_by_eight_processes_at_once(config: DynamoDBConfig, tmp_path: Path) -> None:
    outputs = [tmp_path / f"{i}" for i in range(8)]
    together = processes.barrier(8)
    workers = [
        processes.start(
            initialize_worker.work,
            *(str(config.endpoint_url), config.table_prefix, f"page{i}", str(output), together),
        )
        for i, output in enumerate(outputs)
    ]
    codes = await asyncio.gather(*(processes.ended(worker) for worker in workers))
    assert [(code, output.read_text()) for code, output in zip(codes, outputs, strict=True)] == [(0, "")] * 8
    async with DynamoDBBackend(config) as backend:
        assert await backend.count_pages("site") == 8


def other_sort_key(request: Any) -> None:
    request["KeySchema"][1]["AttributeName"] = "url"


def numeric_key(request: Any) -> None:
    request["AttributeDefinitions"] = [{"AttributeName": "page_id", "AttributeType": "N"}]


def other_index_key(request: Any) -> None:
    request["GlobalSecondaryIndexes"][0]["KeySchema"][0]["AttributeName"] = "url"


def no_global_index(request: Any) -> None:
    del request["GlobalSecondaryIndexes"]


def no_local_index(request: Any) -> None:
    del request["LocalSecondaryIndexes"]


@pytest.mark.parametrize(
    ("name", "change", "difference"),
    [
        ("pages", other_sort_key, r"the key is site_id \(HASH\), url \(RANGE\), not site_id"),
        ("pages", numeric_key, "key attribute page_id has type N, not S"),
        ("pages", other_index_key, r"index by_url: the key is url \(HASH\)"),
        ("pages", no_global_index, r"global index by_url is missing.*create_missing_indexes=True"),
        (
            "runs",
            no_local_index,
            "local index by_created_at is missing, and can only be created with its table",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)  # fmt: skip
async def test_initialize_refuses_a_different_table_and_names_the_difference(
    config: DynamoDBConfig, name: str, change: Callable[[Any], Any], difference: str
) -> None:
    await create(config, name, change)
    backend = DynamoDBBackend(config)
    with pytest.raises(SchemaMismatchError, match=difference) as caught:
        await backend.initialize()
    assert caught.value.table == config.table_prefix + name
    assert len(caught.value.differences) == 1
    with pytest.raises(BackendClosedError):
        await backend.get_site("site")


@pytest.mark.long
async def test_create_missing_indexes_adds_an_index_that_finds_older_items(config: DynamoDBConfig) -> None:
    await create(config, "pages", no_global_index)
    table = Tables.of(config.table_prefix).pages
    page = make_page()
    async with open_client(config) as client:
        await client.put_item(TableName=table.name, Item=to_item(table, page))
    backend = DynamoDBBackend(config)
    await backend.initialize(create_missing_indexes=True)
    assert await backend.get_page_by_url("site", page.url) == page
    await backend.close()


@pytest.mark.long
async def test_create_missing_indexes_of_several_tables(config: DynamoDBConfig) -> None:
    await create(config, "pages", no_global_index)
    await create(config, "versions", no_global_index)
    backend = DynamoDBBackend(config)
    await backend.initialize(create_missing_indexes=True)
    await backend.initialize()
    await backend.close()


async def test_initialize_enables_time_to_live_once(config: DynamoDBConfig) -> None:
    expiring = config.model_copy(update={"frontier_ttl_days": 7})
    for _ in range(2):
        async with DynamoDBBackend(expiring):
            pass
    async with open_client(config) as client:
        answer = await client.describe_time_to_live(TableName=f"{config.table_prefix}frontier")
    assert answer["TimeToLiveDescription"] == {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires_at"}


async def test_initialize_refuses_time_to_live_on_another_attribute(config: DynamoDBConfig) -> None:
    await create(config, "frontier", lambda request: None)
    async with open_client(config) as client:
        await client.update_time_to_live(
            TableName=f"{config.table_prefix}frontier",
            TimeToLiveSpecification={"Enabled": True, "AttributeName": "other"},
        )
    with pytest.raises(SchemaMismatchError, match="time to live is on attribute other, not expires_at"):
        await DynamoDBBackend(config.model_copy(update={"frontier_ttl_days": 7})).initialize()


@on_moto
async def test_initialize_sets_point_in_time_recovery_tags_and_protection(config: DynamoDBConfig) -> None:
    changes = {"point_in_time_recovery": True, "tags": {"team": "crawl"}, "deletion_protection": True}
    for _ in range(2):
        async with DynamoDBBackend(config.model_copy(update=changes)):
            pass
    async with open_client(config) as client:
        for name in NAMES:
            full = config.table_prefix + name
            table = (await client.describe_table(TableName=full))["Table"]
            tags = await client.list_tags_of_resource(ResourceArn=table["TableArn"])
            backups = (await client.describe_continuous_backups(TableName=full))[
                "ContinuousBackupsDescription"
            ]
            assert backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED"
            assert tags["Tags"] == [{"Key": "team", "Value": "crawl"}]
            assert table["DeletionProtectionEnabled"] is True
            await client.update_table(TableName=full, DeletionProtectionEnabled=False)


OPTIONS = TableOptions(
    kms_key="alias/aws/dynamodb",
    table_class="STANDARD_INFREQUENT_ACCESS",
    stream_view="NEW_AND_OLD_IMAGES",
    on_demand_max_read=300,
    on_demand_max_write=200,
    warm_read=15_000,
    warm_write=5_000,
)


async def test_initialize_sets_the_options_of_the_tables_that_an_engine_knows(config: DynamoDBConfig) -> None:
    """Both engines ignore the others: a configuration for AWS works with them."""
    async with DynamoDBBackend(config.model_copy(update={"tables": OPTIONS})) as backend:
        await backend.save_site(make_site())
    for name in NAMES:
        table = await describe(config, name)
        assert table["StreamSpecification"] == {
            "StreamEnabled": True,
            "StreamViewType": "NEW_AND_OLD_IMAGES",
        }


async def test_describe_tables_finds_no_difference_after_initialize(config: DynamoDBConfig) -> None:
    provisioned = {"billing_mode": "PROVISIONED", "frontier_ttl_days": 7}
    for changes in ({}, provisioned):
        changed = config.model_copy(update=changes)
        async with DynamoDBBackend(changed) as backend:
            tables, _ = await backend.describe_tables()
            assert [table.differences for table in tables] == [()] * 5
        await drop_tables(config)


async def test_describe_tables_shows_tables_that_are_older_than_the_settings(config: DynamoDBConfig) -> None:
    async with DynamoDBBackend(config):
        pass
    changes = {"billing_mode": "PROVISIONED", "deletion_protection": True}
    tables, _ = await DynamoDBBackend(config.model_copy(update=changes)).describe_tables()
    for table in tables:
        assert table.differences == (
            f"{table.name}: billing_mode is PAY_PER_REQUEST, the settings say PROVISIONED",
            f"{table.name}: deletion_protection is off, the settings say on",
        )


@on_moto
async def test_initialize_sets_encryption_and_warm_throughput(config: DynamoDBConfig) -> None:
    async with DynamoDBBackend(config.model_copy(update={"tables": OPTIONS})):
        pass
    for name in NAMES:
        table = await describe(config, name)
        assert table["SSEDescription"]["SSEType"] == "KMS"
        for keyed in (table, *table.get("GlobalSecondaryIndexes", [])):
            assert keyed["WarmThroughput"]["ReadUnitsPerSecond"] == 15_000
            assert keyed["WarmThroughput"]["WriteUnitsPerSecond"] == 5_000


@on_dynamodb_local
async def test_initialize_warns_of_an_engine_without_backups(
    config: DynamoDBConfig, caplog: pytest.LogCaptureFixture
) -> None:
    async with DynamoDBBackend(config.model_copy(update={"point_in_time_recovery": True})) as backend:
        assert await backend.health_check()
    assert "this endpoint has no point-in-time recovery" in caplog.text


async def test_initialize_of_a_table_that_never_becomes_active_ends_at_table_timeout() -> None:
    def creating(operation: str, request: Any) -> Any:
        return {"Table": {"TableStatus": "CREATING"}}

    client = FakeClient(creating)
    backend = DynamoDBBackend(FAST.model_copy(update={"table_timeout": 0.2}), client_factory=client.factory)
    with pytest.raises(DeadlineExceededError, match=r"not active within table_timeout = 0\.2 s"):
        await backend.initialize()
    assert client.closed == 1


async def test_initialize_accepts_a_throttled_create_table_that_was_applied(config: DynamoDBConfig) -> None:
    async def throttled_once(operation: str, request: Any, call: Any) -> Any:
        answer = await call(**request)
        if operation == "create_table" and request["TableName"] not in refused:
            refused.add(request["TableName"])
            raise client_error("ThrottlingException")
        return answer

    refused: set[str] = set()
    quick = config.model_copy(update={"retry_base_delay": 0})
    async with DynamoDBBackend(quick, client_factory=intercepting(throttled_once)) as backend:
        assert await backend.health_check()
    assert len(refused) == 5


@on_dynamodb_local
async def test_initialize_waits_for_the_version_that_another_process_is_about_to_store(
    config: DynamoDBConfig,
) -> None:
    async with DynamoDBBackend(config) as creating, asyncio.TaskGroup() as tasks:
        store = creating._rooms.schema.store
        record = await store.read()
        assert record is not None
        gateway, table = store._gateway, store._table
        await gateway.call("DeleteItem", requests.delete_request(table, schema_key()))

        async def initialize() -> None:
            async with DynamoDBBackend(config):
                pass

        initializing = tasks.create_task(initialize())
        await asyncio.sleep(0.3)
        assert not initializing.done()
        await store._write(record, None)
