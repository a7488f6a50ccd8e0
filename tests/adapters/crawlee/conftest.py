"""Storages of Crawlee that are opened by a storage client of this package."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
from crawlee.storages import Dataset, KeyValueStore, RequestQueue

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig
from ragcrawl_dynamo.adapters.crawlee import DynamoDBStorageClient


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
