"""Where a table differs from the settings, one line for each option."""

from collections.abc import Callable
from typing import Any

import pytest

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig, TableOptions
from ragcrawl_dynamo._schema.autoscaling import ScaledCapacity, scaled_capacities
from ragcrawl_dynamo._schema.drift import FoundTable, differences
from ragcrawl_dynamo._schema.tables import Tables
from tests.support.fake_tables import FakeTables
from tests.support.fakes import FAST, client_error

KEY = "arn:aws:kms:us-east-1:123456789012:key/0f9e8d7c-1234-5678-9abc-def012345678"
OTHER_KEY = "arn:aws:kms:us-east-1:123456789012:key/11111111-1234-5678-9abc-def012345678"

ON_DEMAND = FAST.model_copy(
    update={
        "deletion_protection": True,
        "point_in_time_recovery": True,
        "tables": TableOptions(
            kms_key=KEY,
            table_class="STANDARD_INFREQUENT_ACCESS",
            stream_view="NEW_IMAGE",
            on_demand_max_read=100,
            on_demand_max_write=50,
            warm_read=20_000,
            warm_write=8_000,
        ),
    }
)
PROVISIONED = FAST.model_copy(update={"billing_mode": "PROVISIONED", "tables": TableOptions(warm_read=50)})
SCALED = FAST.model_copy(
    update={
        "billing_mode": "PROVISIONED",
        "tables": TableOptions(autoscaling_max_read=50, autoscaling_max_write=20),
    }
)

Change = Callable[[Any], object]


async def drift(tables: FakeTables, config: DynamoDBConfig) -> list[str]:
    """The lines of all tables, without the prefix of their names."""
    described, _ = await DynamoDBBackend(config, client_factory=tables.client.factory).describe_tables()
    return [line.removeprefix("ragcrawl_") for table in described for line in table.differences]


def fake_tables(config: DynamoDBConfig) -> FakeTables:
    tables = FakeTables(config)
    tables.recovery = "ENABLED" if config.point_in_time_recovery else "DISABLED"
    # The frontier does not expire by default.
    tables.time_to_live = {"TimeToLiveStatus": "DISABLED"}
    return tables


UNEXPIRING = {"change_retention_days": None}


@pytest.mark.parametrize("config", [FAST, ON_DEMAND, PROVISIONED])
async def test_describe_tables_finds_no_difference_in_tables_of_the_same_settings(
    config: DynamoDBConfig,
) -> None:
    config = config.model_copy(update=UNEXPIRING)
    assert await drift(fake_tables(config), config) == []


def index(description: Any) -> Any:
    return description["GlobalSecondaryIndexes"][0]


@pytest.mark.parametrize(
    ("config", "change", "lines"),
    [
        (
            ON_DEMAND,
            lambda table: table.pop("BillingModeSummary"),
            ["pages: billing_mode is PROVISIONED, the settings say PAY_PER_REQUEST"],
        ),
        (
            PROVISIONED,
            lambda table: table.update(BillingModeSummary={"BillingMode": "PAY_PER_REQUEST"}),
            ["pages: billing_mode is PAY_PER_REQUEST, the settings say PROVISIONED"],
        ),
        (
            ON_DEMAND,
            lambda table: table.pop("SSEDescription"),
            [f"pages: tables.kms_key is not set, the settings say {KEY}"],
        ),
        (
            ON_DEMAND,
            lambda table: table["SSEDescription"].update(Status="DISABLED"),
            [f"pages: tables.kms_key is not set, the settings say {KEY}"],
        ),
        (
            ON_DEMAND,
            lambda table: table["SSEDescription"].update(KMSMasterKeyArn=OTHER_KEY),
            [f"pages: tables.kms_key is {OTHER_KEY}, the settings say {KEY}"],
        ),
        (
            FAST,
            lambda table: table.update(SSEDescription={"Status": "ENABLED", "KMSMasterKeyArn": KEY}),
            [f"pages: tables.kms_key is {KEY}, the settings say not set"],
        ),
        (
            ON_DEMAND,
            lambda table: table.pop("TableClassSummary"),
            ["pages: tables.table_class is STANDARD, the settings say STANDARD_INFREQUENT_ACCESS"],
        ),
        (
            ON_DEMAND,
            lambda table: table["StreamSpecification"].update(StreamViewType="KEYS_ONLY"),
            ["pages: tables.stream_view is KEYS_ONLY, the settings say NEW_IMAGE"],
        ),
        (
            ON_DEMAND,
            lambda table: table["StreamSpecification"].update(StreamEnabled=False),
            ["pages: tables.stream_view is not set, the settings say NEW_IMAGE"],
        ),
        (
            ON_DEMAND,
            lambda table: table.update(DeletionProtectionEnabled=False),
            ["pages: deletion_protection is off, the settings say on"],
        ),
        (
            ON_DEMAND,
            lambda table: table["OnDemandThroughput"].update(MaxReadRequestUnits=-1),
            ["pages: tables.on_demand_max_read is not set, the settings say 100"],
        ),
        (
            ON_DEMAND,
            lambda table: index(table)["OnDemandThroughput"].update(MaxWriteRequestUnits=4_000),
            ["pages, index by_url: tables.on_demand_max_write is 4,000, the settings say 50"],
        ),
        (
            ON_DEMAND,
            lambda table: index(table)["WarmThroughput"].update(ReadUnitsPerSecond=12_000),
            ["pages, index by_url: tables.warm_read is 12,000, the settings say 20,000"],
        ),
        # It has grown.
        (ON_DEMAND, lambda table: table["WarmThroughput"].update(ReadUnitsPerSecond=90_000), []),
        (
            PROVISIONED,
            lambda table: table["ProvisionedThroughput"].update(WriteCapacityUnits=1_000),
            ["pages: write_capacity is 1,000, the settings say 5"],
        ),
        (
            PROVISIONED,
            lambda table: index(table)["ProvisionedThroughput"].update(ReadCapacityUnits=1),
            ["pages, index by_url: read_capacity is 1, the settings say 5"],
        ),
        (
            FAST,
            lambda table: table.update(GlobalSecondaryIndexes=[]),
            ["pages: index by_url is missing, the settings say it is needed"],
        ),
        (
            FAST,
            lambda table: table["GlobalSecondaryIndexes"].append({**index(table), "IndexName": "by_title"}),
            ["pages: index by_title is there, the settings say it is not needed"],
        ),
        (
            FAST,
            lambda table: table.update(KeySchema=[{"AttributeName": "url", "KeyType": "HASH"}]),
            ["pages: the key is url (HASH), not site_id (HASH), page_id (RANGE)"],
        ),
    ],
)
async def test_describe_tables_shows_an_option_that_differs(
    config: DynamoDBConfig, change: Change, lines: list[str]
) -> None:
    config = config.model_copy(update=UNEXPIRING)
    tables = fake_tables(config)
    change(tables.descriptions["pages"])
    assert await drift(tables, config) == lines


@pytest.mark.parametrize("name", ["alias/crawl", "alias/aws/dynamodb", KEY.rpartition("/")[2]])
async def test_describe_tables_takes_any_key_for_an_alias_and_the_same_key_by_its_id(name: str) -> None:
    tables = TableOptions(kms_key=name)
    config = FAST.model_copy(update={**UNEXPIRING, "tables": tables})
    fakes = fake_tables(config)
    for description in fakes.descriptions.values():
        description["SSEDescription"]["KMSMasterKeyArn"] = KEY
    assert await drift(fakes, config) == []


async def test_describe_tables_shows_features_that_differ() -> None:
    tables = fake_tables(FAST)
    tables.recovery = "ENABLED"
    lines = await drift(tables, FAST)
    recovery = [line for line in lines if "point_in_time" in line]
    assert len(recovery) == 5
    assert recovery[0] == "sites: point_in_time_recovery is on, the settings say off"
    assert set(lines) - set(recovery) == {
        "pages: time to live (change_retention_days) is off, the settings say on by expires_at"
    }
    tables.time_to_live = {"TimeToLiveStatus": "ENABLED", "AttributeName": "other"}
    assert {line for line in await drift(tables, FAST) if "time to live" in line} == {
        "pages: time to live (change_retention_days) is on by other, the settings say on by expires_at",
        "frontier: time to live (frontier_ttl_days) is on by other, the settings say off",
    }


@pytest.mark.parametrize("code", ["AccessDeniedException", "UnknownOperationException"])
async def test_describe_tables_leaves_out_options_that_cannot_be_read(code: str) -> None:
    tables = fake_tables(FAST)

    def refuse(operation: str, request: Any) -> None:
        if operation in ("describe_time_to_live", "describe_continuous_backups"):
            raise client_error(code)

    tables.on_request = refuse
    assert await drift(tables, FAST.model_copy(update={"point_in_time_recovery": True})) == []
    described, _ = await DynamoDBBackend(FAST, client_factory=tables.client.factory).describe_tables()
    assert [table.time_to_live for table in described] == [None, None, "not known", None, "not known"]


async def test_describe_tables_sends_no_more_requests_about_a_hopeless_table() -> None:
    tables = fake_tables(FAST)
    tables.descriptions["pages"]["TableStatus"] = "ARCHIVED"
    await drift(tables, FAST)
    asked = {request["TableName"] for request in tables.sent("describe_continuous_backups")}
    assert "ragcrawl_pages" not in asked
    assert len(asked) == 4


def scaled_lines(change: Callable[[dict[Any, ScaledCapacity]], object], read_capacity: int = 5) -> list[str]:
    """The lines of the pages table whose capacities are scaled, after a change of the registered ones."""
    pages = Tables.of("").pages
    scaling = {capacity.key: capacity for capacity in scaled_capacities(pages, SCALED)}
    change(scaling)
    description = FakeTables(SCALED).descriptions["pages"]
    description["ProvisionedThroughput"] = {"ReadCapacityUnits": read_capacity, "WriteCapacityUnits": 20}
    return list(differences(pages, SCALED, FoundTable(description, None, None, scaling)))


def test_differences_of_scaled_capacities() -> None:
    table = ("table/pages", "dynamodb:table:ReadCapacityUnits")
    by_url = ("table/pages/index/by_url", "dynamodb:index:WriteCapacityUnits")
    assert scaled_lines(lambda scaling: None) == []
    # Auto scaling has set it.
    assert scaled_lines(lambda scaling: None, read_capacity=50) == []
    assert scaled_lines(lambda scaling: None, read_capacity=51) == [
        "pages: read_capacity is 51, the settings say 5 to 50"
    ]
    assert scaled_lines(lambda scaling: scaling.pop(by_url)) == [
        "pages, index by_url: auto scaling of WriteCapacityUnits is not set, the settings say 5 to 20 at 70 %"
    ]
    assert scaled_lines(lambda scaling: scaling.update({table: ScaledCapacity(*table, 5, 40, 70.0)})) == [
        "pages: auto scaling of ReadCapacityUnits is 5 to 40 at 70 %, the settings say 5 to 50 at 70 %"
    ]
    assert scaled_lines(lambda scaling: scaling.update({table: ScaledCapacity(*table, 5, 50, None)})) == [
        "pages: auto scaling of ReadCapacityUnits is 5 to 50 without a target, "
        "the settings say 5 to 50 at 70 %"
    ]
