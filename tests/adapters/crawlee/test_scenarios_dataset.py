"""Scenarios of datasets, which pass with Crawlee's own storage client and with this package's."""

from __future__ import annotations

import asyncio
import json
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from crawlee.storages import Dataset, KeyValueStore

if TYPE_CHECKING:
    from crawlee.storage_clients import StorageClient

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

ITEMS: list[dict[str, Any]] = [{"number": number} for number in range(10)]


async def test_crawlee_new_dataset_is_empty(either_dataset: Dataset) -> None:
    data = await either_dataset.get_data()
    assert (data.items, data.count, data.total, data.offset, data.desc) == ([], 0, 0, 0, False)
    assert [item async for item in either_dataset.iterate_items()] == []
    assert (await either_dataset.get_metadata()).item_count == 0


async def test_crawlee_dataset_keeps_the_order_of_single_items_and_lists(either_dataset: Dataset) -> None:
    await either_dataset.push_data(ITEMS[0])
    await either_dataset.push_data([])
    await either_dataset.push_data(ITEMS[1:9])
    await either_dataset.push_data(ITEMS[9])
    data = await either_dataset.get_data()
    assert (data.items, data.count, data.total) == (ITEMS, 10, 10)
    assert (await either_dataset.get_metadata()).item_count == 10


@pytest.mark.parametrize("desc", [False, True])
async def test_crawlee_dataset_returns_a_part_of_its_items(either_dataset: Dataset, desc: bool) -> None:
    await either_dataset.push_data(ITEMS)
    ordered = ITEMS[::-1] if desc else ITEMS
    for offset, limit in product((0, 1, 7, 10), (1, 4, 100)):
        expected = ordered[offset : offset + limit]
        data = await either_dataset.get_data(offset=offset, limit=limit, desc=desc)
        assert (data.items, data.count, data.total) == (expected, len(expected), 10)
        assert (data.offset, data.limit, data.desc) == (offset, limit, desc)
        items = either_dataset.iterate_items(offset=offset, limit=limit, desc=desc)
        assert [item async for item in items] == expected
        assert await either_dataset.list_items(offset=offset, limit=limit, desc=desc) == expected


async def test_crawlee_dataset_returns_all_items_without_a_limit(either_dataset: Dataset) -> None:
    await either_dataset.push_data(ITEMS)
    data = await either_dataset.get_data(limit=None, offset=2)
    assert (data.items, data.limit) == (ITEMS[2:], 8)
    data = await either_dataset.get_data(limit=None, desc=True)
    assert (data.items, data.limit) == (ITEMS[::-1], 10)
    assert await either_dataset.list_items() == ITEMS
    # No limit, as for Crawlee.
    assert (await either_dataset.get_data(limit=0)).items == []


async def test_crawlee_dataset_skips_empty_items_of_the_part(either_dataset: Dataset) -> None:
    await either_dataset.push_data([{"a": 1}, {}, {"a": 0}, {}, {"a": None}])
    data = await either_dataset.get_data(skip_empty=True)
    assert (data.items, data.count, data.total) == ([{"a": 1}, {"a": 0}, {"a": None}], 3, 5)
    part = await either_dataset.get_data(skip_empty=True, offset=1, limit=2)
    assert part.items == [{"a": 0}]
    items = [item async for item in either_dataset.iterate_items(skip_empty=True, limit=4)]
    assert items == [{"a": 1}, {"a": 0}]
    assert len((await either_dataset.get_data()).items) == 5


@pytest.mark.parametrize(
    "options",
    [
        {"clean": True},
        {"fields": ["a"]},
        {"omit": ["a"]},
        {"unwind": ["a"]},
        {"skip_hidden": True},
        {"flatten": ["a"]},
        {"view": "v"},
    ],
)
async def test_crawlee_dataset_warns_of_options_that_it_does_not_support(
    either_dataset: Dataset, options: Any, caplog: pytest.LogCaptureFixture
) -> None:
    items = [{"a": 1, "#hidden": 2}, {}]
    await either_dataset.push_data(items)
    assert (await either_dataset.get_data(**options)).items == items
    assert f"{next(iter(options))}" in caplog.text
    assert "not supported" in caplog.text


@pytest.mark.parametrize(
    "item",
    [
        {},
        {"text": "ä€😀\n\t\x00", "ключ": "значение", "": "no name"},
        {"none": None, "true": True, "float": 1.5, "negative": -0.0, "large": 2**70, "list": [[], [{}]]},
        {"url": "https://a.example/", "markdown": "# A", "html": "<h1>A</h1>", "title": "A"},
        {"url": None, "markdown": 5, "html": ["no", "text"], "own": {"deep": {"er": [1]}}},
        {"large": "x" * 1_000_000},
    ],
    ids=["empty", "unicode", "kinds", "page", "other", "large"],
)
async def test_crawlee_dataset_returns_an_item_as_it_was(
    either_dataset: Dataset, item: dict[str, Any]
) -> None:
    await either_dataset.push_data(item)
    (stored,) = (await either_dataset.get_data()).items
    assert stored == item
    assert list(stored) == list(item) or "markdown" in item


async def test_crawlee_dataset_keeps_equal_items(either_dataset: Dataset) -> None:
    await either_dataset.push_data([{"a": 1}] * 3)
    assert (await either_dataset.get_data()).items == [{"a": 1}] * 3


async def test_crawlee_dataset_takes_items_of_concurrent_calls(either_dataset: Dataset) -> None:
    await asyncio.gather(*(either_dataset.push_data({"number": number}) for number in range(30)))
    data = await either_dataset.get_data()
    assert {item["number"] for item in data.items} == set(range(30))
    assert data.total == 30


async def test_crawlee_dataset_with_many_items_is_iterated_and_left_early(either_dataset: Dataset) -> None:
    items = [{"number": number} for number in range(300)]
    await either_dataset.push_data(items)
    assert [item async for item in either_dataset.iterate_items()] == items
    async for item in either_dataset.iterate_items(offset=120):
        assert item == {"number": 120}
        break


@pytest.mark.parametrize("action", ["purge", "drop"])
async def test_crawlee_purged_or_dropped_dataset_is_empty_and_can_be_used(
    either_dataset: Dataset, action: str
) -> None:
    await either_dataset.push_data(ITEMS)
    before = (await either_dataset.get_metadata()).model_copy()
    await getattr(either_dataset, action)()
    assert (await either_dataset.get_data()).items == []
    after = await either_dataset.get_metadata()
    assert (after.item_count, after.id, after.created_at) == (0, before.id, before.created_at)
    assert after.modified_at > before.modified_at
    await either_dataset.push_data({"new": 1})
    assert (await either_dataset.get_data()).items == [{"new": 1}]


async def test_crawlee_dataset_that_is_opened_after_a_drop_is_new(either_client: StorageClient) -> None:
    dataset = await Dataset.open(name="a-dataset", storage_client=either_client)
    await dataset.push_data({"a": 1})
    await dataset.drop()
    again = await Dataset.open(name="a-dataset", storage_client=either_client)
    assert again is not dataset
    assert (again.name, (await again.get_data()).items) == ("a-dataset", [])
    await again.drop()


async def test_crawlee_datasets_are_opened_by_default_name_alias_or_id(either_client: StorageClient) -> None:
    datasets = [
        await Dataset.open(storage_client=either_client),
        await Dataset.open(name="a-dataset", storage_client=either_client),
        await Dataset.open(alias="an alias_1.x", storage_client=either_client),
    ]
    assert [dataset.name for dataset in datasets] == [None, "a-dataset", None]
    for number, dataset in enumerate(datasets):
        await dataset.push_data({"number": number})
    for number, dataset in enumerate(datasets):
        assert await Dataset.open(id=dataset.id, storage_client=either_client) is dataset
        assert (await dataset.get_data()).items == [{"number": number}]
    await datasets[1].drop()


async def test_crawlee_dataset_metadata_has_the_times_of_reads_and_writes(either_dataset: Dataset) -> None:
    first = (await either_dataset.get_metadata()).model_copy()
    await asyncio.sleep(0.02)
    await either_dataset.get_data()
    read = (await either_dataset.get_metadata()).model_copy()
    assert read.accessed_at > first.accessed_at
    assert read.modified_at == first.modified_at
    await asyncio.sleep(0.02)
    await either_dataset.push_data({"a": 1})
    assert (await either_dataset.get_metadata()).modified_at > first.modified_at


async def test_crawlee_dataset_is_exported(either_client: StorageClient) -> None:
    dataset = await Dataset.open(storage_client=either_client)
    await dataset.push_data([{"a": 1, "b": "ä"}, {"a": 2, "b": "x,y"}])
    kinds: tuple[Any, ...] = ("json", "csv")
    for kind in kinds:
        await dataset.export_to(
            key=f"out.{kind}",
            content_type=kind,
            to_kvs_storage_client=either_client,
        )
    store = await KeyValueStore.open(storage_client=either_client)
    assert json.loads(await store.get_value("out.json")) == [{"a": 1, "b": "ä"}, {"a": 2, "b": "x,y"}]
    assert (await store.get_value("out.csv")).splitlines() == ["a,b", "1,ä", '2,"x,y"']
    types = {record.key: record.content_type async for record in store.iterate_keys()}
    assert types == {"out.csv": "text/csv", "out.json": "application/json"}
