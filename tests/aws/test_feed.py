"""The change feed on a simulated AWS: writers race, meet, lose answers and are killed."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig
from tests.integration.changes.test_feed import (
    impatient,
    test_list_changes_misses_nothing_when_writers_race_and_are_killed,
)
from tests.support.aws import Lag, Latency, Settings, SimulatedAWS
from tests.support.aws.copies import Clock

pytestmark = pytest.mark.aws

__all__ = ["impatient", "test_list_changes_misses_nothing_when_writers_race_and_are_killed"]


@pytest.fixture
def aws_settings() -> Settings:
    return Settings(
        seed=3,
        index_lag=Lag(0.1, 3.0),
        torn_moves=True,
        read_lag=Lag(0.05, 1.0),
        conflicts=0.02,
        errors_before=0.01,
        errors_after=0.02,
        cuts_after=0.02,
        latency=Latency(0.004, 0.5, 0.02),
    )


@pytest.fixture
def aws_clock() -> Clock:
    return time.monotonic


@pytest.fixture
def dynamodb_config(dynamodb_config: DynamoDBConfig, aws: SimulatedAWS) -> DynamoDBConfig:
    """Writers get the endpoint of the simulation too."""
    return dynamodb_config.model_copy(update={"endpoint_url": aws.url})


@pytest_asyncio.fixture
async def backend(dynamodb_config: DynamoDBConfig) -> AsyncIterator[DynamoDBBackend]:
    async with DynamoDBBackend(dynamodb_config) as backend:
        yield backend
