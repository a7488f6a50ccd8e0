"""The settings of a store on an engine."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ragcrawl_dynamo import DynamoDBConfig, Store, connect
from tests.support.queues import QUICK
from tests.support.tables import dynamodb_backend, dynamodb_config

__all__ = ["dynamodb_backend", "dynamodb_config"]


@pytest.fixture
def config(dynamodb_config: DynamoDBConfig) -> DynamoDBConfig:
    return dynamodb_config.model_copy(update={**QUICK, "frontier_retry_delay": 0.01})


@pytest.fixture
async def store(config: DynamoDBConfig) -> AsyncIterator[Store]:
    async with connect(config) as opened:
        yield opened
