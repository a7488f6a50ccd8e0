"""Differences on purpose from Crawlee's own client in memory: the table in docs/adapters/crawlee.md."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import pytest
from crawlee import Request
from crawlee.storage_clients import MemoryStorageClient
from crawlee.storages import Dataset, KeyValueStore, RequestQueue

from ragcrawl_dynamo import InvalidKeyError
from tests.adapters.crawlee.requests import handle_all, url

if TYPE_CHECKING:
    from crawlee.storage_clients import StorageClient

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def is_memory(either_client: StorageClient) -> bool:
    return isinstance(either_client, MemoryStorageClient)


@pytest.mark.parametrize("kind", [RequestQueue, Dataset, KeyValueStore])
async def test_crawlee_storage_with_an_unknown_id(
    either_client: StorageClient, is_memory: bool, kind: Any
) -> None:
    if is_memory:
        assert (await kind.open(id="unknown", storage_client=either_client)).id == "unknown"
    else:
        with pytest.raises(ValueError, match="not found"):
            await kind.open(id="unknown", storage_client=either_client)


async def test_crawlee_forefront_of_a_pending_request(either_queue: RequestQueue, is_memory: bool) -> None:
    await either_queue.add_requests([url("a"), url("b")])
    await either_queue.add_request(url("b"), forefront=True)
    assert await handle_all(either_queue) == (["b", "a"] if is_memory else ["a", "b"])


async def test_crawlee_request_that_its_user_changes_after_adding_it(
    either_queue: RequestQueue, is_memory: bool
) -> None:
    request = Request.from_url(url(1))
    await either_queue.add_request(request)
    request.user_data["later"] = 1
    stored = await either_queue.fetch_next_request()
    assert stored is not None
    assert ("later" in stored.user_data) is is_memory


async def test_crawlee_items_and_values_that_json_does_not_have(
    either_client: StorageClient, is_memory: bool
) -> None:
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    item: Any = {"tuple": (1, 2), "moment": moment}
    expected = item if is_memory else {"tuple": [1, 2], "moment": "2026-01-02 00:00:00+00:00"}
    dataset = await Dataset.open(storage_client=either_client)
    await dataset.push_data(item)
    assert (await dataset.get_data()).items == [expected]
    store = await KeyValueStore.open(storage_client=either_client)
    await store.set_value("key", item)
    assert await store.get_value("key") == expected


async def test_crawlee_metadata_of_a_queue_and_of_a_value(
    either_client: StorageClient, is_memory: bool
) -> None:
    queue = await RequestQueue.open(storage_client=either_client)
    assert (await queue.get_metadata()).had_multiple_clients is not is_memory
    store = await KeyValueStore.open(storage_client=either_client)
    await store.set_value("key", "ä")
    (metadata,) = await store.list_keys()
    assert metadata.size == (sys.getsizeof("ä") if is_memory else 2)


@pytest.mark.parametrize("key", ["", "k" * 1025])
async def test_crawlee_key_that_is_empty_or_long(
    either_store: KeyValueStore, is_memory: bool, key: str
) -> None:
    if is_memory:
        await either_store.set_value(key, 1)
    else:
        with pytest.raises(InvalidKeyError):
            await either_store.set_value(key, 1)


async def test_crawlee_request_that_is_too_large(either_queue: RequestQueue, is_memory: bool) -> None:
    request = Request.from_url(url(1), user_data={"random": token_hex(400_000)})
    response = await either_queue._client.add_batch_of_requests([request])
    assert (len(response.processed_requests), len(response.unprocessed_requests)) == (
        (1, 0) if is_memory else (0, 1)
    )
