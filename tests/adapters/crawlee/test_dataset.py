"""Datasets: the scenarios of Crawlee's own tests, and items with a key."""

from __future__ import annotations

from typing import Any

import pytest
from crawlee.storages import Dataset

from ragcrawl_dynamo import DynamoDBConfig, InvalidArgumentError
from ragcrawl_dynamo.adapters.crawlee import DynamoDBStorageClient
from tests.adapters.crawlee.requests import url

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


async def test_crawlee_dataset_returns_items_in_their_order(dataset: Dataset) -> None:
    items: list[dict[str, Any]] = [
        {"id": i, "text": "ä€😀", "nested": {"a": [1.5, None, True]}} for i in range(60)
    ]
    await dataset.push_data(items[0])
    await dataset.push_data(items[1:])
    await dataset.push_data([])
    data = await dataset.get_data()
    assert (data.items, data.count, data.total, data.offset, data.desc) == (items, 60, 60, 0, False)
    part = await dataset.get_data(offset=5, limit=3)
    assert (part.items, part.count, part.total, part.limit) == (items[5:8], 3, 60, 3)
    back = await dataset.get_data(offset=1, limit=2, desc=True)
    assert back.items == [items[58], items[57]]
    assert [item async for item in dataset.iterate_items(offset=58)] == items[58:]
    assert (await dataset.get_metadata()).item_count == 60
    assert (await dataset.get_data(offset=100)).items == []


async def test_crawlee_dataset_stores_items_of_any_kind_and_size(
    dataset: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    items: list[dict[str, Any]] = [
        {},
        {"url": "https://a.example/", "title": "A", "markdown": "# A\n" * 200_000, "html": "<p>" * 200_000},
        {"markdown": None, "html": 3},
        {"same": 1},
        {"same": 1},
        {"large": 10**30, "deep": [[[[{"x": "y" * 500_000}]]]]},
    ]
    await dataset.push_data(items)
    assert (await dataset.get_data()).items == items
    assert (await dataset.get_data(skip_empty=True)).items == items[1:]
    await dataset.get_data(clean=True)
    assert "not supported and were ignored: clean" in caplog.text
    with pytest.raises(InvalidArgumentError, match="data: cannot be encoded as JSON"):
        await dataset.push_data({("a", "b"): "no key of JSON"})  # type: ignore[dict-item] # tested
    with pytest.raises(InvalidArgumentError, match="data: an item must be a mapping"):
        await dataset.push_data(["x"])  # type: ignore[list-item] # that is what is tested


async def test_crawlee_dataset_is_purged_and_dropped(dataset: Dataset, client: DynamoDBStorageClient) -> None:
    created_at = (await dataset.get_metadata()).created_at
    await dataset.push_data([{"a": 1}, {"a": 2}])
    await dataset.purge()
    assert (await dataset.get_data()).items == []
    assert (await dataset.get_metadata()).created_at == created_at
    await dataset.push_data({"a": 3})
    await dataset.drop()
    assert (await (await Dataset.open(storage_client=client)).get_data()).items == []


async def test_crawlee_dataset_with_an_item_key_replaces_items_and_logs_changes(
    dynamodb_config: DynamoDBConfig,
) -> None:
    keyed = DynamoDBStorageClient(dynamodb_config, site_id="site", run_id="run", item_key="url")
    async with keyed as client:
        dataset = await Dataset.open(storage_client=client)
        for text in ("old", "old", "new"):
            await dataset.push_data([{"url": url(i), "markdown": text} for i in range(3)])
        data = await dataset.get_data()
        assert sorted(map(str, data.items)) == [str({"url": url(i), "markdown": "new"}) for i in range(3)]
        page = await client.backend.get_page_by_url(dataset.id, url(1))
        assert page is not None
        assert page.version_count == 2
        changes = await client.backend.list_changes(dataset.id)
        assert {change.page.url for change in changes} == {url(i) for i in range(3)}
        with pytest.raises(InvalidArgumentError, match="no 'url', the item_key"):
            await dataset.push_data({"title": "no url"})
