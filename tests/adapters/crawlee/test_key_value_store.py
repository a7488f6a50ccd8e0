"""Key-value stores: the scenarios of Crawlee's own tests."""

from __future__ import annotations

from typing import Any

import pytest
from crawlee.storages import KeyValueStore

from ragcrawl_dynamo import InvalidArgumentError, InvalidKeyError, InvalidValueError
from ragcrawl_dynamo.adapters.crawlee import DynamoDBStorageClient

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.mark.parametrize(
    ("value", "content_type"),
    [
        ("text ä€", "text/plain; charset=utf-8"),
        ("", "text/plain; charset=utf-8"),
        (b"\x00\xff" * 400_000, "application/octet-stream"),
        ({"a": [1, {"b": None}]}, "application/json; charset=utf-8"),
        ([], "application/json; charset=utf-8"),
        (12.5, "text/plain; charset=utf-8"),
        (None, "application/octet-stream"),
        (True, "text/plain; charset=utf-8"),
        ({"x": "y" * 2_000_000}, "application/json; charset=utf-8"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_crawlee_key_value_store_returns_a_value_as_it_was(
    store: KeyValueStore, value: Any, content_type: str
) -> None:
    await store.set_value("key", value)
    record = await store._client.get_value(key="key")
    assert record is not None
    assert (record.value, record.content_type) == (value, content_type)
    assert await store.get_value("key", "default") == value


async def test_crawlee_key_value_store_replaces_and_deletes_values(store: KeyValueStore) -> None:
    assert await store.get_value("key") is None
    assert await store.get_value("key", 5) == 5
    assert not await store.record_exists("key")
    await store.set_value("key", "one")
    await store.set_value("key", {"two": 2}, content_type="application/x-two")
    record = await store._client.get_value(key="key")
    assert record is not None
    assert (record.value, record.content_type) == ({"two": 2}, "application/x-two")
    await store.delete_value("key")
    await store.delete_value("none")
    assert await store.get_value("key") is None
    assert not await store.record_exists("key")
    assert [metadata async for metadata in store.iterate_keys()] == []
    await store.set_value("key", "three")
    assert await store.get_value("key") == "three"
    assert [metadata.key async for metadata in store.iterate_keys()] == ["key"]


async def test_crawlee_key_value_store_iterates_keys_in_order(store: KeyValueStore) -> None:
    for i in range(60):
        await store.set_value(f"key {i:02} #~/ä", i)
    keys = [metadata.key async for metadata in store.iterate_keys()]
    assert keys == [f"key {i:02} #~/ä" for i in range(60)]
    after = store.iterate_keys(exclusive_start_key=keys[9], limit=2)
    assert [(metadata.key, metadata.size) async for metadata in after] == [(keys[10], 2), (keys[11], 2)]
    assert [metadata async for metadata in store.iterate_keys(limit=0)] == []
    assert [value async for value in store.iterate_values(limit=3)] == [0, 1, 2]


async def test_crawlee_key_value_store_is_purged_and_dropped(
    store: KeyValueStore, client: DynamoDBStorageClient
) -> None:
    await store.set_value("key", b"x" * 100_000)
    await store.purge()
    assert await store.get_value("key") is None
    await store.set_value("key", "again")
    await store.drop()
    assert await (await KeyValueStore.open(storage_client=client)).get_value("key") is None


async def test_crawlee_key_value_store_refuses_values_that_cannot_be_stored(store: KeyValueStore) -> None:
    with pytest.raises(InvalidKeyError, match="page_id"):
        await store.set_value("k" * 2000, "value")
    circular: list[Any] = []
    circular.append(circular)
    with pytest.raises(InvalidArgumentError, match="value: cannot be encoded as JSON"):
        await store.set_value("key", circular)
    with pytest.raises(InvalidValueError):
        await store.set_value("key", {"x": "\ud800"})
    with pytest.raises(NotImplementedError, match="public"):
        await store.get_public_url("key")


async def test_crawlee_key_value_store_saves_its_auto_saved_values(store: KeyValueStore) -> None:
    value = await store.get_auto_saved_value("state", {"count": 0})
    value["count"] = 5
    await store.persist_autosaved_values()
    assert await store.get_value("state") == {"count": 5}


async def test_crawlee_key_value_store_does_not_overwrite_the_state_that_another_process_has_stored(
    store: KeyValueStore, other_client: DynamoDBStorageClient, caplog: pytest.LogCaptureFixture
) -> None:
    other_store = await KeyValueStore.open(storage_client=other_client)
    for key in ("CRAWLEE_STATE_0", "__CRAWLER_STATISTICS_0"):
        assert await store.get_value(key) is None
        assert await other_store.get_value(key) is None
        for number in (1, 2):
            await store.set_value(key, {"number": number})
            await other_store.set_value(key, {"other": number})
        assert await store.get_value(key) == {"number": 2}
        assert caplog.text.count(f"'{key}' of key-value store") == 1
        # A process that has read the state continues with it, as after a restart.
        assert await other_store.get_value(key) == {"number": 2}
        await other_store.set_value(key, {"other": 3})
        assert await store.get_value(key) == {"other": 3}
    assert "another process has stored its own since this one read it" in caplog.text
    await store.purge()
    await other_store.set_value("CRAWLEE_STATE_0", {"other": 4})
    assert await store.get_value("CRAWLEE_STATE_0") == {"other": 4}
    # Of other keys, the last value stays.
    for any_store in (store, other_store):
        await any_store.get_value("key")
    for any_store in (store, other_store):
        await any_store.set_value("key", any_store is store)
    assert await store.get_value("key") is False


async def test_crawlee_key_value_store_does_not_overwrite_auto_saved_values_of_another_process(
    store: KeyValueStore, other_client: DynamoDBStorageClient
) -> None:
    value = await store.get_auto_saved_value("mine", {"count": 0})
    other_store = await KeyValueStore.open(storage_client=other_client)
    await other_store.set_value("mine", {"count": 7})
    value["count"] = 1
    await store.persist_autosaved_values()
    assert await store.get_value("mine") == {"count": 7}
