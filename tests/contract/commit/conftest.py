"""A backend on a clock that tests move."""

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


@pytest_asyncio.fixture
async def backend(dynamodb_config: DynamoDBConfig, clock: ManualClock) -> AsyncIterator[DynamoDBBackend]:
    async with DynamoDBBackend(dynamodb_config.model_copy(update=QUICK), clock=clock) as backend:
        yield backend


@pytest.fixture
def frontier(backend: DynamoDBBackend) -> Frontier:
    return backend.frontier("site", "run")
