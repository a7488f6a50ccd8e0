"""Fixtures for tests on a simulated AWS: each test has its own simulation before DynamoDB Local."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from ragcrawl_dynamo import DynamoDBConfig
from ragcrawl_dynamo.testing import ManualClock
from tests.support.aws import Lag, Latency, Settings, SimulatedAWS, simulated_aws
from tests.support.aws.copies import Clock
from tests.support.queue_fixtures import backend, clock, frontier
from tests.support.queues import QUICK
from tests.support.tables import dynamodb_config

__all__ = ["backend", "clock", "dynamodb_config", "frontier"]


@pytest.fixture(scope="session")
def engine(dynamodb_local_endpoint: str) -> str:
    """The endpoint of the engine behind the simulation."""
    return dynamodb_local_endpoint


@pytest.fixture
def aws_settings() -> Settings:
    """A bad day: faults that a caller must not notice, often enough to occur in short tests."""
    return Settings(
        seed=1,
        read_lag=Lag(),
        conflicts=0.05,
        errors_before=0.02,
        errors_after=0.02,
        cuts_after=0.02,
        latency=Latency(0.002, 0.05, 0.02),
    )


@pytest.fixture
def aws_clock(clock: ManualClock) -> Clock:
    """The time of the simulation: that of the test."""
    return clock.monotonic


@pytest_asyncio.fixture
async def aws(engine: str, aws_settings: Settings, aws_clock: Clock) -> AsyncIterator[SimulatedAWS]:
    async with simulated_aws(engine, aws_settings, aws_clock) as aws:
        yield aws


@pytest.fixture
def dynamodb_endpoint(engine: str) -> str:
    """The endpoint of the tables that tests use one after the other."""
    return engine


@pytest.fixture
def config(aws: SimulatedAWS, dynamodb_config: DynamoDBConfig) -> DynamoDBConfig:
    """The same tables, as the simulation shows them."""
    changes = {"endpoint_url": aws.url, "conditional_batches": "auto", "retry_base_delay": 0.001, **QUICK}
    return dynamodb_config.model_copy(update=changes)
