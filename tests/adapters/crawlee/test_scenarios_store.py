"""Scenarios of key-value stores, which pass with Crawlee's own storage client and with this package's."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from crawlee.storages import KeyValueStore

if TYPE_CHECKING:
    from crawlee.storage_clients import StorageClient

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


async def keys(store: KeyValueStore, **options: Any) -> list[str]:
    return [record.key async for record in store.iterate_keys(**options)]


@pytest.mark.parametrize(
    "value",
    [
        "text ä€😀",
        "",
        "x" * 500_000,
        b"\x00\xff",
        b"",
        bytearray(b"\x01"),
        {"a": [1, {"b": None}]},
        {},
        [],
        ["ä", 1.5, True, None],
        12,
        0,
        1.5,
        True,
        False,
        None,
    ],
    ids=lambda value: f"{type(value).__name__}-{str(value)[:8]!r}",
)
async def test_crawlee_store_returns_a_value_of_any_type(either_store: KeyValueStore, value: Any) -> None:
    await either_store.set_value("key", value)
    assert await either_store.get_value("key") == value
    # A stored None is not a missing value.
    assert await either_store.get_value("key", "default") == value
    assert await either_store.record_exists("key")
    (metadata,) = await either_store.list_keys()
    record = await either_store._client.get_value(key="key")
    assert record is not None
    assert record.content_type == metadata.content_type
    if isinstance(value, dict | list):
        expected = "application/json; charset=utf-8"
    elif value is None or isinstance(value, bytes | bytearray):
        expected = "application/octet-stream"
    else:
        expected = "text/plain; charset=utf-8"
    assert metadata.content_type == expected
    await either_store.set_value("key", value, "application/x-own")
    assert await either_store.get_value("key") == value
    assert [key.content_type for key in await either_store.list_keys()] == ["application/x-own"]


async def test_crawlee_store_returns_the_default_of_a_missing_value(either_store: KeyValueStore) -> None:
    assert await either_store.get_value("none") is None
    assert await either_store.get_value("none", {"a": 1}) == {"a": 1}
    assert not await either_store.record_exists("none")
    assert await either_store._client.get_value(key="none") is None


async def test_crawlee_store_replaces_a_value_and_its_type(either_store: KeyValueStore) -> None:
    for value in ("text", b"bytes", {"a": 1}, {"a": 1}, None, 5):
        await either_store.set_value("key", value)
        assert await either_store.get_value("key") == value
    assert await keys(either_store) == ["key"]


async def test_crawlee_store_deletes_values(either_store: KeyValueStore) -> None:
    for key in ("a", "b", "c"):
        await either_store.set_value(key, key)
    await either_store.delete_value("b")
    await either_store.delete_value("b")
    await either_store.delete_value("none")
    assert await keys(either_store) == ["a", "c"]
    assert await either_store.get_value("b", "gone") == "gone"
    assert not await either_store.record_exists("b")
    await either_store.set_value("b", "again")
    assert await keys(either_store) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"limit": 0},
        {"limit": 1},
        {"limit": 5},
        {"limit": 100},
        {"exclusive_start_key": "key-3"},
        {"exclusive_start_key": "key-3", "limit": 2},
        {"exclusive_start_key": "key-35"},
        {"exclusive_start_key": "zzz"},
        {"exclusive_start_key": ""},
    ],
)
async def test_crawlee_store_iterates_its_keys_in_order(either_store: KeyValueStore, options: Any) -> None:
    names = [f"key-{number}" for number in range(8)]
    for name in reversed(names):
        await either_store.set_value(name, name)
    start = options.get("exclusive_start_key", "")
    expected = [name for name in names if name > start][: options.get("limit")]
    assert await keys(either_store, **options) == expected
    assert [key.key for key in await either_store.list_keys(**options)] == expected
    assert [value async for value in either_store.iterate_values(**options)] == expected
    entries = [entry async for entry in either_store.iterate_entries(**options)]
    assert entries == list(zip(expected, expected, strict=True))


async def test_crawlee_store_is_iterated_by_its_keys(either_store: KeyValueStore) -> None:
    await either_store.set_value("b", 1)
    await either_store.set_value("a", 2)
    assert [key async for key in either_store] == ["a", "b"]


@pytest.mark.parametrize(
    "key", ["with space", "a/b\\c", "ä€😀", "ключ", "a.b_c-d!e'(f)", "%2F#?&=", "tab\tline\n", "k" * 200]
)
async def test_crawlee_store_takes_any_key(either_store: KeyValueStore, key: str) -> None:
    await either_store.set_value(key, "value")
    assert await either_store.get_value(key) == "value"
    assert await keys(either_store) == [key]
    await either_store.delete_value(key)
    assert await keys(either_store) == []


async def test_crawlee_store_takes_values_of_concurrent_calls(either_store: KeyValueStore) -> None:
    await asyncio.gather(*(either_store.set_value(f"key-{number:02}", number) for number in range(20)))
    assert [value async for value in either_store.iterate_values()] == list(range(20))


@pytest.mark.parametrize("action", ["purge", "drop"])
async def test_crawlee_purged_or_dropped_store_is_empty_and_can_be_used(
    either_store: KeyValueStore, action: str
) -> None:
    for key in ("a", "b"):
        await either_store.set_value(key, 1)
    before = (await either_store.get_metadata()).model_copy()
    await getattr(either_store, action)()
    assert await keys(either_store) == []
    assert not await either_store.record_exists("a")
    after = await either_store.get_metadata()
    assert (after.id, after.created_at) == (before.id, before.created_at)
    assert after.modified_at > before.modified_at
    await either_store.set_value("a", 2)
    assert [entry async for entry in either_store.iterate_entries()] == [("a", 2)]


async def test_crawlee_stores_are_opened_by_default_name_alias_or_id(either_client: StorageClient) -> None:
    stores = [
        await KeyValueStore.open(storage_client=either_client),
        await KeyValueStore.open(name="a-store", storage_client=either_client),
        await KeyValueStore.open(alias="an alias_1.x", storage_client=either_client),
    ]
    assert [store.name for store in stores] == [None, "a-store", None]
    for number, store in enumerate(stores):
        await store.set_value("number", number)
    for number, store in enumerate(stores):
        assert await KeyValueStore.open(id=store.id, storage_client=either_client) is store
        assert await store.get_value("number") == number
    await stores[1].drop()
    again = await KeyValueStore.open(name="a-store", storage_client=either_client)
    assert await again.get_value("number") is None
    await again.drop()


async def test_crawlee_store_metadata_has_the_times_of_reads_and_writes(either_store: KeyValueStore) -> None:
    first = (await either_store.get_metadata()).model_copy()
    await asyncio.sleep(0.02)
    await either_store.get_value("key")
    read = (await either_store.get_metadata()).model_copy()
    assert read.accessed_at > first.accessed_at
    assert read.modified_at == first.modified_at
    await asyncio.sleep(0.02)
    await either_store.set_value("key", 1)
    assert (await either_store.get_metadata()).modified_at > first.modified_at


async def test_crawlee_store_has_no_public_urls(either_store: KeyValueStore) -> None:
    with pytest.raises(NotImplementedError):
        await either_store.get_public_url("key")


async def test_crawlee_auto_saved_values_are_saved_and_read_again(either_client: StorageClient) -> None:
    store = await KeyValueStore.open(storage_client=either_client)
    value = await store.get_auto_saved_value("state", {"count": 0})
    assert value == {"count": 0}
    assert await store.get_value("state") is None
    value["count"] = 5
    assert await store.get_auto_saved_value("state") is value
    await store.persist_autosaved_values()
    assert await store.get_value("state") == {"count": 5}
    # A restarted process reads the saved values.
    KeyValueStore._autosaved_values.clear()
    assert await store.get_auto_saved_value("state", {"count": 0}) == {"count": 5}
    await store.drop()
    assert await store.get_value("state") is None
