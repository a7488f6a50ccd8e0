"""Storages of Crawlee that are opened by a storage client of this package."""

from __future__ import annotations

from collections.abc import AsyncIterator
from secrets import token_hex

import pytest
import pytest_asyncio
from crawlee import service_locator
from crawlee.storage_clients import MemoryStorageClient, StorageClient
from crawlee.storages import Dataset, KeyValueStore, RequestQueue

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig
from ragcrawl_dynamo.adapters.crawlee import DynamoDBStorageClient
from ragcrawl_dynamo.testing import local_config


@pytest_asyncio.fixture
async def client(
    dynamodb_backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> AsyncIterator[DynamoDBStorageClient]:
    async with DynamoDBStorageClient(dynamodb_config, site_id="site", run_id="run") as client:
        yield client
    # Crawlee keeps these by the id of their store, for as long as the process lives.
    KeyValueStore._autosaved_values.clear()


@pytest_asyncio.fixture
async def other_client(
    client: DynamoDBStorageClient, dynamodb_config: DynamoDBConfig
) -> AsyncIterator[DynamoDBStorageClient]:
    """The storage client of another process."""
    async with DynamoDBStorageClient(dynamodb_config, site_id="site", run_id="run") as other_client:
        yield other_client


@pytest_asyncio.fixture
async def queue(client: DynamoDBStorageClient) -> RequestQueue:
    return await RequestQueue.open(storage_client=client)


@pytest_asyncio.fixture
async def dataset(client: DynamoDBStorageClient) -> Dataset:
    return await Dataset.open(storage_client=client)


@pytest_asyncio.fixture
async def store(client: DynamoDBStorageClient) -> KeyValueStore:
    return await KeyValueStore.open(storage_client=client)


@pytest.fixture(scope="session")
def scenario_config(dynamodb_local_endpoint: str) -> DynamoDBConfig:
    """Settings of tables that all scenarios share: each has a site of its own."""
    return local_config(dynamodb_local_endpoint)


@pytest_asyncio.fixture(params=["memory", "dynamodb"])
async def either_client(
    request: pytest.FixtureRequest, scenario_config: DynamoDBConfig
) -> AsyncIterator[StorageClient]:
    """Crawlee's own storage client in memory, and then this package's. A scenario passes with both."""
    service_locator.storage_instance_manager.clear_cache()
    if request.param == "memory":
        yield MemoryStorageClient()
    else:
        async with DynamoDBStorageClient(scenario_config, site_id=token_hex(8), run_id="run") as client:
            yield client
    KeyValueStore._autosaved_values.clear()


@pytest_asyncio.fixture
async def either_queue(either_client: StorageClient) -> RequestQueue:
    return await RequestQueue.open(storage_client=either_client)


@pytest_asyncio.fixture
async def either_dataset(either_client: StorageClient) -> Dataset:
    return await Dataset.open(storage_client=either_client)


@pytest_asyncio.fixture
async def either_store(either_client: StorageClient) -> KeyValueStore:
    return await KeyValueStore.open(storage_client=either_client)
