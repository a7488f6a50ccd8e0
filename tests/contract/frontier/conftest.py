"""A queue on a clock that tests move, in each way of conditional batches."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig, Frontier
from ragcrawl_dynamo.testing import ManualClock
from tests.support.queues import QUICK
from tests.support.tables import dynamodb_backend, dynamodb_config

__all__ = ["dynamodb_backend", "dynamodb_config"]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def config(dynamodb_config: DynamoDBConfig, way: str) -> DynamoDBConfig:
    return dynamodb_config.model_copy(update={"conditional_batches": way, **QUICK})


@pytest_asyncio.fixture
async def backend(config: DynamoDBConfig, clock: ManualClock) -> AsyncIterator[DynamoDBBackend]:
    async with DynamoDBBackend(config, clock=clock) as backend:
        yield backend


@pytest.fixture
def frontier(backend: DynamoDBBackend) -> Frontier:
    return backend.frontier("run", "site")
