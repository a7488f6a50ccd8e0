"""Settings of the queue that make waiting short."""

from __future__ import annotations

import pytest

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig
from tests.support.frontiers import BATCHES
from tests.support.tables import dynamodb_backend, dynamodb_config

__all__ = ["dynamodb_backend", "dynamodb_config"]


@pytest.fixture
def config(dynamodb_config: DynamoDBConfig, backend: DynamoDBBackend) -> DynamoDBConfig:
    """The tables of `backend`, with conditional writes in batches."""
    return dynamodb_config.model_copy(update=BATCHES)
