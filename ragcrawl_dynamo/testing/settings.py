"""Settings for a local engine, and the deletion of the tables that tests created there."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from pydantic import SecretStr

from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._schema.tables import Tables
from ragcrawl_dynamo.config import DynamoDBConfig
from ragcrawl_dynamo.errors import TableNotFoundError

__all__ = ["drop_tables", "local_config"]


def local_config(endpoint_url: str, **overrides: Any) -> DynamoDBConfig:
    """Creates settings for a local engine, with invented credentials and an unused table prefix.

    Args:
        endpoint_url: The URL of the engine.
        **overrides: Values of other fields of DynamoDBConfig.
    """
    settings: dict[str, Any] = {
        "endpoint_url": endpoint_url,
        # Local engines keep the tables of regions apart: the environment must not choose one.
        "region": "us-east-1",
        "table_prefix": f"test_{uuid4().hex[:12]}_",
        "access_key_id": SecretStr("local"),
        "secret_access_key": SecretStr("local"),
        # An engine on this machine that does not answer was not started: tests say so in seconds.
        "retry_attempts": 8,
        # moto does not support PartiQL with parameters.
        "conditional_batches": "item",
    }
    return DynamoDBConfig(**{**settings, **overrides})


async def drop_tables(config: DynamoDBConfig) -> None:
    """Deletes the five tables of a configuration with all their items. Missing tables are ignored."""
    gateway = Gateway(config)
    await gateway.open()
    try:
        for table in Tables.of(config.table_prefix).all():
            try:
                await gateway.call("DeleteTable", {"TableName": table.name})
            except TableNotFoundError:
                continue
    finally:
        await gateway.close()
