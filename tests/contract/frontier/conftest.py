"""A queue on a clock that tests move, in each way of conditional batches."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig, Frontier
from ragcrawl_dynamo.testing import ManualClock
from tests.support.queues import QUICK


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def config(dynamodb_config: DynamoDBConfig, way: str) -> DynamoDBConfig:
    return dynamodb_config.model_copy(update={"conditional_batches": way, **QUICK})


@pytest_asyncio.fixture
async def backend(
    dynamodb_backend: DynamoDBBackend, config: DynamoDBConfig, clock: ManualClock
) -> AsyncIterator[DynamoDBBackend]:
    # dynamodb_backend deletes the tables at the end.
    async with DynamoDBBackend(config, clock=clock) as backend:
        yield backend


@pytest.fixture
def frontier(backend: DynamoDBBackend) -> Frontier:
    return backend.frontier("run", "site")
