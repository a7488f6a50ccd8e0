"""Provides a queue on a clock that tests move. Its users need a fixture `config`."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig, Frontier
from ragcrawl_dynamo.testing import ManualClock
from tests.support.clocked import clock

__all__ = ["backend", "clock", "frontier"]


@pytest_asyncio.fixture
async def backend(config: DynamoDBConfig, clock: ManualClock) -> AsyncIterator[DynamoDBBackend]:
    async with DynamoDBBackend(config, clock=clock) as backend:
        yield backend


@pytest.fixture
def frontier(backend: DynamoDBBackend) -> Frontier:
    return backend.frontier("site", "run")
