"""Converts ragcrawl's settings of DynamoDB to those of this package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from ragcrawl_dynamo import DynamoDBConfig

if TYPE_CHECKING:
    from ragcrawl.config.storage_config import DynamoDBConfig as RagcrawlConfig


def backend_config(config: RagcrawlConfig) -> DynamoDBConfig:
    """Returns ragcrawl's settings as settings of the backend."""
    keys: dict[str, Any] = {}
    if config.aws_access_key_id is not None and config.aws_secret_access_key is not None:
        keys = {
            "access_key_id": SecretStr(config.aws_access_key_id),
            "secret_access_key": SecretStr(config.aws_secret_access_key),
        }
    return DynamoDBConfig(
        table_prefix=f"{config.table_prefix}_",
        region=config.region,
        endpoint_url=config.endpoint_url,
        profile=config.aws_profile,
        billing_mode=config.billing_mode,
        read_capacity=config.read_capacity_units,
        write_capacity=config.write_capacity_units,
        **keys,
    )
