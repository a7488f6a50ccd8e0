"""ragcrawl's settings of DynamoDB, and the backend that its factory creates for them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from ragcrawl.config.storage_config import StorageConfig
from ragcrawl.storage import create_storage_backend

from ragcrawl_dynamo.adapters.ragcrawl import RagcrawlBackend, install
from ragcrawl_dynamo.adapters.ragcrawl.settings import backend_config
from ragcrawl_dynamo.testing import drop_tables
from tests.adapters.ragcrawl.settings import ragcrawl_config

install()


@pytest_asyncio.fixture
async def storage(dynamodb_endpoint: str) -> AsyncIterator[StorageConfig]:
    """Settings as ragcrawl's users write them."""
    prefix = f"rag{time.time_ns()}"
    config = StorageConfig.dynamodb(
        table_prefix=prefix,
        endpoint_url=dynamodb_endpoint,
        aws_access_key_id="local",
        aws_secret_access_key="local",  # noqa: S106 # a local engine takes any
    )
    config.fail_if_unavailable = True
    yield config
    await drop_tables(backend_config(ragcrawl_config(config)))


@pytest.fixture
def store(storage: StorageConfig) -> Iterator[RagcrawlBackend]:
    backend = create_storage_backend(storage)
    assert isinstance(backend, RagcrawlBackend)
    backend.initialize()
    yield backend
    backend.close()
