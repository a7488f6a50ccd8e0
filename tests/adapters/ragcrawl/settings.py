"""ragcrawl's settings, as its users write them."""

from __future__ import annotations

from ragcrawl.config.storage_config import DynamoDBConfig, StorageConfig


def ragcrawl_config(storage: StorageConfig) -> DynamoDBConfig:
    """Returns ragcrawl's settings of DynamoDB."""
    assert isinstance(storage.backend, DynamoDBConfig)
    return storage.backend
