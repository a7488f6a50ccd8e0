"""Application Auto Scaling on moto, and on an engine that has none."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig, TableOptions
from ragcrawl_dynamo._dynamodb.client import open_scaling_client
from ragcrawl_dynamo.testing import drop_tables
from tests.support.engines import on_dynamodb_local, on_moto


@pytest_asyncio.fixture
async def config(dynamodb_config: DynamoDBConfig) -> AsyncIterator[DynamoDBConfig]:
    """Settings that scale capacities. The tables are deleted at the end of a test."""
    options = TableOptions(autoscaling_max_read=50, autoscaling_max_write=20)
    changes = {"billing_mode": "PROVISIONED", "tables": options}
    yield DynamoDBConfig.model_validate({**dict(dynamodb_config), **changes})
    await drop_tables(dynamodb_config)


@on_moto
async def test_initialize_lets_capacities_be_scaled(config: DynamoDBConfig) -> None:
    for _ in range(2):
        async with DynamoDBBackend(config):
            pass
    of_pages = [f"table/{config.table_prefix}pages", f"table/{config.table_prefix}pages/index/by_url"]
    async with open_scaling_client(config) as client:
        scaling: Any = client
        response = await scaling.describe_scalable_targets(ServiceNamespace="dynamodb", ResourceIds=of_pages)
        targets = {
            (target["ResourceId"], target["ScalableDimension"].rpartition(":")[2]): (
                target["MinCapacity"],
                target["MaxCapacity"],
            )
            for target in response["ScalableTargets"]
        }
        assert targets == {
            (resource, f"{way}CapacityUnits"): (5, largest)
            for resource in of_pages
            for way, largest in (("Read", 50), ("Write", 20))
        }
        policies = await scaling.describe_scaling_policies(
            ServiceNamespace="dynamodb", ResourceId=of_pages[1]
        )
        tracking = "TargetTrackingScalingPolicyConfiguration"
        # moto returns the policies of the table too.
        metrics = [
            policy[tracking]["PredefinedMetricSpecification"]["PredefinedMetricType"]
            for policy in policies["ScalingPolicies"]
            if policy["ResourceId"] == of_pages[1]
        ]
        assert sorted(metrics) == ["DynamoDBReadCapacityUtilization", "DynamoDBWriteCapacityUtilization"]


@on_moto
async def test_describe_tables_shows_a_capacity_that_is_scaled_otherwise(config: DynamoDBConfig) -> None:
    async with DynamoDBBackend(config) as backend:
        tables, _ = await backend.describe_tables()
        assert [table.differences for table in tables] == [()] * 5
    resource, dimension = f"table/{config.table_prefix}sites", "dynamodb:table:ReadCapacityUnits"
    async with open_scaling_client(config) as client:
        scaling: Any = client
        await scaling.register_scalable_target(
            ServiceNamespace="dynamodb",
            ResourceId=resource,
            ScalableDimension=dimension,
            MinCapacity=5,
            MaxCapacity=9,
        )
    tables, _ = await DynamoDBBackend(config).describe_tables()
    assert [line for table in tables for line in table.differences] == [
        f"{config.table_prefix}sites: auto scaling of ReadCapacityUnits is 5 to 9 at 70 %, "
        f"the settings say 5 to 50 at 70 %"
    ]


@on_dynamodb_local
async def test_initialize_warns_of_an_engine_without_auto_scaling(
    config: DynamoDBConfig, caplog: pytest.LogCaptureFixture
) -> None:
    async with DynamoDBBackend(config) as backend:
        assert await backend.health_check()
    assert "this endpoint has no auto scaling" in caplog.text
