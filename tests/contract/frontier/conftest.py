"""A queue on a clock that tests move, in each way of conditional batches."""

from __future__ import annotations

import pytest

from ragcrawl_dynamo import DynamoDBConfig
from tests.support.queue_fixtures import backend, clock, frontier
from tests.support.queues import QUICK
from tests.support.tables import dynamodb_backend, dynamodb_config

__all__ = ["backend", "clock", "dynamodb_backend", "dynamodb_config", "frontier"]


@pytest.fixture
def config(dynamodb_config: DynamoDBConfig, way: str) -> DynamoDBConfig:
    return dynamodb_config.model_copy(update={"conditional_batches": way, **QUICK})
