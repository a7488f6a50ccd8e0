"""Backends with settings of their own, on tables of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig
from ragcrawl_dynamo.testing import drop_tables


@asynccontextmanager
async def fresh_backend(config: DynamoDBConfig, **options: Any) -> AsyncIterator[DynamoDBBackend]:
    """An initialized backend, whose tables are deleted at the end."""
    async with DynamoDBBackend(config, **options) as backend:
        yield backend
    await drop_tables(config)
