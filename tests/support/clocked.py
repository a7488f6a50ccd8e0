"""Provides a backend on a clock that tests move, with the settings of the plugin's fixture."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig
from ragcrawl_dynamo.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest_asyncio.fixture
async def backend(dynamodb_config: DynamoDBConfig, clock: ManualClock) -> AsyncIterator[DynamoDBBackend]:
    async with DynamoDBBackend(dynamodb_config, clock=clock) as backend:
        yield backend
