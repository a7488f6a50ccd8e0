"""Crawlee's storages on this one: the scenarios of its own tests, and a crawler that is killed half-way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import pytest
import pytest_asyncio
from crawlee import Request
from crawlee._request import RequestState
from crawlee.crawlers import BasicCrawler, BasicCrawlingContext
from crawlee.storages import Dataset, KeyValueStore, RequestQueue

from ragcrawl_dynamo import (
    DynamoDBBackend,
    DynamoDBConfig,
    InvalidArgumentError,
    InvalidKeyError,
    InvalidValueError,
)
from ragcrawl_dynamo.adapters.crawlee import DynamoDBStorageClient
from tests.adapters.processes import crawl_with_a_kill
from tests.adapters.site import Site
from tests.faults import Faults, faulty

_T = TypeVar("_T")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
DYNAMODB_LOCAL = pytest.mark.parametrize("dynamodb_endpoint", ["dynamodb-local"], indirect=True)


@pytest_asyncio.fixture
async def client(
    dynamodb_backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> AsyncIterator[DynamoDBStorageClient]:
    async with DynamoDBStorageClient(dynamodb_config, site_id="site", run_id="run") as client:
        yield client
    # Crawlee keeps these by the id of their store, for as long as the process lives.
    KeyValueStore._autosaved_values.clear()


@pytest_asyncio.fixture
async def other(
    client: DynamoDBStorageClient, dynamodb_config: DynamoDBConfig
) -> AsyncIterator[DynamoDBStorageClient]:
    """Another process."""
    async with DynamoDBStorageClient(dynamodb_config, site_id="site", run_id="run") as other:
        yield other


@pytest_asyncio.fixture
async def queue(client: DynamoDBStorageClient) -> RequestQueue:
    return await RequestQueue.open(storage_client=client)


@pytest_asyncio.fixture
async def dataset(client: DynamoDBStorageClient) -> Dataset:
    return await Dataset.open(storage_client=client)


@pytest_asyncio.fixture
async def store(client: DynamoDBStorageClient) -> KeyValueStore:
    return await KeyValueStore.open(storage_client=client)


def url(name: object) -> str:
    return f"https://a.example/{name}"


async def drained(queue: RequestQueue) -> list[str]:
    """The requests that are left, handled."""
    found = []
    while (request := await queue.fetch_next_request()) is not None:
        found.append(request.url.removeprefix(url("")))
        await queue.mark_request_as_handled(request)
    return found


async def soon(ask: Callable[[], Awaitable[_T]], wanted: _T) -> None:
    for _ in range(600):
        if await ask() == wanted:
            return
        await asyncio.sleep(0.05)
    assert await ask() == wanted


def told(request: Request) -> tuple[Any, ...]:
    """What a user set of a request."""
    fields = (request.url, request.unique_key, request.method, request.payload, request.label)
    data = {name: value for name, value in request.user_data.items() if name != "label"}
    return (*fields, dict(request.headers), data)


# Opening


@pytest.mark.parametrize("kind", [RequestQueue, Dataset, KeyValueStore])
async def test_a_storage_is_opened_by_name_alias_or_id(
    client: DynamoDBStorageClient, other: DynamoDBStorageClient, kind: Any
) -> None:
    default = await kind.open(storage_client=client)
    named = await kind.open(name="a-name", storage_client=client)
    aliased = await kind.open(alias="an-alias", storage_client=client)
    assert await kind.open(name="a-name", storage_client=client) is named
    assert (default.name, named.name, aliased.name) == (None, "a-name", None)
    assert len({default.id, named.id, aliased.id}) == 3
    by_id = await kind.open(id=named.id, storage_client=other)
    assert (by_id.id, by_id.name) == (named.id, "a-name")
    metadata = await by_id.get_metadata()
    assert metadata.created_at == (await named.get_metadata()).created_at
    with pytest.raises(ValueError, match="not found"):
        await kind.open(id="none", storage_client=client)
    with pytest.raises(ValueError, match="Only one of"):
        await kind.open(id="none", name="a-name", storage_client=client)
    await named.drop()


async def test_a_client_of_another_run_has_other_storages_but_the_named_ones(
    client: DynamoDBStorageClient, dynamodb_config: DynamoDBConfig
) -> None:
    own = await RequestQueue.open(storage_client=client)
    named = await RequestQueue.open(name="shared", storage_client=client)
    await own.add_request(url(1))
    await named.add_request(url(2))
    async with DynamoDBStorageClient(dynamodb_config, site_id="site", run_id="next") as later:
        assert await (await RequestQueue.open(storage_client=later)).is_finished()
        shared = await RequestQueue.open(name="shared", storage_client=later)
        request = await shared.fetch_next_request()
        assert request is not None
        assert request.url == url(2)
    with pytest.raises(RuntimeError, match="async with"):
        _ = later.backend


# Request queues


async def test_requests_are_added_once(queue: RequestQueue) -> None:
    first = await queue.add_request(url(1))
    again = await queue.add_request(Request.from_url(url(1), user_data={"x": 1}))
    assert first is not None
    assert again is not None
    assert (first.was_already_present, again.was_already_present) == (False, True)
    assert again.unique_key == first.unique_key
    metadata = await queue.get_metadata()
    assert (metadata.total_request_count, metadata.pending_request_count) == (1, 1)
    request = await queue.fetch_next_request()
    assert request is not None
    assert request.user_data.get("x") is None
    await queue.mark_request_as_handled(request)
    handled = await queue.add_request(url(1))
    assert handled is not None
    assert handled.was_already_handled
    metadata = await queue.get_metadata()
    assert (metadata.handled_request_count, metadata.pending_request_count) == (1, 0)


async def test_another_process_knows_what_was_handled(
    queue: RequestQueue, other: DynamoDBStorageClient
) -> None:
    await queue.add_requests([url(1), url(2)])
    assert await drained(queue) == ["1", "2"]
    theirs = await RequestQueue.open(storage_client=other)
    added = await theirs.add_request(url(2))
    assert added is not None
    assert added.was_already_handled
    assert await theirs.is_finished()


async def test_requests_that_differ_in_method_payload_or_by_force(queue: RequestQueue) -> None:
    form = {"use_extended_unique_key": True, "method": "POST"}
    requests = [
        Request.from_url(url("form"), payload=b"a=1", headers={"X-Test": "1"}, **form),  # type: ignore[arg-type]
        Request.from_url(url("form"), payload=b"a=2", label="two", **form),  # type: ignore[arg-type] # as above
        Request.from_url(url("form")),
        Request.from_url(url("form"), always_enqueue=True),
        Request.from_url(url("other"), unique_key="mine", user_data={"depth": {"a": [1, None]}}),
    ]
    await queue.add_requests(list(requests), wait_for_all_requests_to_be_added=True)
    found = [await queue.fetch_next_request() for _ in requests]
    assert [each and told(each) for each in found] == [told(each) for each in requests]
    assert await queue.fetch_next_request() is None
    mine = await queue.get_request("mine")
    assert mine is not None
    assert told(mine) == told(requests[4])
    assert await queue.get_request("none") is None


async def test_forefront(queue: RequestQueue) -> None:
    await queue.add_requests([url("a"), url("b")])
    await queue.add_requests([url("x"), url("y")], forefront=True)
    await queue.add_request(url("c"))
    await queue.add_request(url("z"), forefront=True)
    assert await drained(queue) == ["z", "y", "x", "a", "b", "c"]


async def test_a_request_is_reclaimed_to_the_end_or_the_front(queue: RequestQueue) -> None:
    await queue.add_requests([url(1), url(2), url(3)])
    first, second = await queue.fetch_next_request(), await queue.fetch_next_request()
    assert first is not None
    assert second is not None
    first.retry_count = 7
    first.user_data["note"] = "kept"
    result = await queue.reclaim_request(first)
    assert result is not None
    assert (result.was_already_present, result.was_already_handled) == (True, False)
    await queue.reclaim_request(second, forefront=True)
    again = [await queue.fetch_next_request() for _ in range(3)]
    assert [each and each.url for each in again] == [url(2), url(3), url(1)]
    assert again[2] is not None
    assert (again[2].retry_count, again[2].user_data["note"]) == (7, "kept")
    assert await queue.get_total_count() == 3


async def test_what_is_not_in_progress_is_neither_handled_nor_reclaimed(queue: RequestQueue) -> None:
    stranger = Request.from_url(url("stranger"))
    assert await queue.mark_request_as_handled(stranger) is None
    assert await queue.reclaim_request(stranger) is None
    await queue.add_request(url(1))
    request = await queue.fetch_next_request()
    assert request is not None
    assert await queue.mark_request_as_handled(request) is not None
    assert await queue.mark_request_as_handled(request) is None
    assert await queue.reclaim_request(request) is None
    stored = await queue.get_request(request.unique_key)
    assert stored is not None
    assert stored.was_already_handled


async def test_a_failed_request_is_a_dead_letter(client: DynamoDBStorageClient, queue: RequestQueue) -> None:
    await queue.add_request(url(1))
    request = await queue.fetch_next_request()
    assert request is not None
    request.state = RequestState.ERROR
    request.retry_count = 3
    assert await queue.mark_request_as_handled(request) is not None
    assert await queue.is_finished()
    frontier = client.backend.frontier("site/run", "site")
    assert (await frontier.stats()).failed == 1
    metadata = await queue.get_metadata()
    assert metadata.handled_request_count == 1
    stored = await queue.get_request(request.unique_key)
    assert stored is not None
    assert stored.was_already_handled


async def test_empty_and_finished(queue: RequestQueue, other: DynamoDBStorageClient) -> None:
    theirs = await RequestQueue.open(storage_client=other)
    assert (await queue.is_empty(), await queue.is_finished()) == (True, True)
    await queue.add_request(url(1))
    assert (await queue.is_empty(), await queue.is_finished()) == (False, False)
    request = await queue.fetch_next_request()
    assert request is not None
    assert (await queue.is_empty(), await queue.is_finished()) == (True, False)
    # What one process handles keeps the others from ending.
    assert (await theirs.is_empty(), await theirs.is_finished()) == (True, False)
    await queue.mark_request_as_handled(request)
    assert await queue.is_finished()
    await soon(theirs.is_finished, True)
    await theirs.add_request(url(2))
    await soon(queue.is_empty, False)


async def test_two_processes_never_get_the_same_request(
    queue: RequestQueue, other: DynamoDBStorageClient
) -> None:
    theirs = await RequestQueue.open(storage_client=other)
    await queue.add_requests([url(i) for i in range(60)], wait_for_all_requests_to_be_added=True)
    found = await asyncio.gather(*(drained(each) for each in (queue, theirs)))
    await soon(queue.is_empty, True)
    rest = await drained(queue) + await drained(theirs)
    assert sorted(int(each) for each in (*found[0], *found[1], *rest)) == list(range(60))


async def test_a_client_that_is_closed_gives_its_requests_back(
    queue: RequestQueue, client: DynamoDBStorageClient, other: DynamoDBStorageClient
) -> None:
    await queue.add_requests([url(1), url(2)])
    assert await queue.fetch_next_request() is not None
    assert not await queue.is_empty()
    await client.close()
    theirs = await RequestQueue.open(storage_client=other)
    assert await drained(theirs) == ["1", "2"]


async def test_purge_and_drop(queue: RequestQueue, client: DynamoDBStorageClient) -> None:
    await queue.add_requests([url(1), url(2)])
    assert await queue.fetch_next_request() is not None
    await queue.purge()
    assert await queue.get_total_count() == 0
    assert await queue.is_finished()
    added = await queue.add_request(url(1))
    assert added is not None
    assert not added.was_already_present
    await queue.drop()
    assert await (await RequestQueue.open(storage_client=client)).fetch_next_request() is None


async def test_a_request_that_can_not_be_stored_is_unprocessed_and_loses_no_other(
    queue: RequestQueue, caplog: pytest.LogCaptureFixture
) -> None:
    large = Request.from_url(url("large"), user_data={"x": "y" * 500_000})
    response = await queue._client.add_batch_of_requests([large, Request.from_url(url(1))])
    assert [each.url for each in response.unprocessed_requests] == [url("large")]
    assert [each.was_already_present for each in response.processed_requests] == [False]
    assert "of the 409,600 that one item may" in caplog.text
    assert await drained(queue) == ["1"]


async def test_links_that_something_else_added_are_requests(
    queue: RequestQueue, client: DynamoDBStorageClient
) -> None:
    await client.backend.frontier("site/run", "site").add([url(1)])
    await soon(queue.is_empty, False)
    request = await queue.fetch_next_request()
    assert request is not None
    assert (request.url, request.method) == (url(1), "GET")


# Datasets


async def test_items_come_back_in_their_order(dataset: Dataset) -> None:
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


async def test_items_of_any_kind_and_size(dataset: Dataset, caplog: pytest.LogCaptureFixture) -> None:
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
    assert "not supported: clean" in caplog.text
    with pytest.raises(InvalidArgumentError, match="data: is no JSON"):
        await dataset.push_data({"x": object()})  # type: ignore[dict-item] # that is what is tested
    with pytest.raises(InvalidArgumentError, match="data: an item is a mapping"):
        await dataset.push_data(["x"])  # type: ignore[list-item] # that is what is tested


async def test_a_dataset_is_purged_and_dropped(dataset: Dataset, client: DynamoDBStorageClient) -> None:
    created_at = (await dataset.get_metadata()).created_at
    await dataset.push_data([{"a": 1}, {"a": 2}])
    await dataset.purge()
    assert (await dataset.get_data()).items == []
    assert (await dataset.get_metadata()).created_at == created_at
    await dataset.push_data({"a": 3})
    await dataset.drop()
    assert (await (await Dataset.open(storage_client=client)).get_data()).items == []


async def test_items_of_one_key_replace_each_other_and_tell_changes(dynamodb_config: DynamoDBConfig) -> None:
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
        with pytest.raises(InvalidArgumentError, match="item_key 'url'"):
            await dataset.push_data({"title": "no url"})


# Key-value stores


@pytest.mark.parametrize(
    ("value", "content_type"),
    [
        ("text ä€", "text/plain; charset=utf-8"),
        ("", "text/plain; charset=utf-8"),
        (b"\x00\xff" * 400_000, "application/octet-stream"),
        ({"a": [1, {"b": None}]}, "application/json; charset=utf-8"),
        ([], "application/json; charset=utf-8"),
        (12.5, "application/json; charset=utf-8"),
        (None, "application/json; charset=utf-8"),
        (True, "application/json; charset=utf-8"),
        ({"x": "y" * 2_000_000}, "application/json; charset=utf-8"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_value_comes_back_as_it_was(store: KeyValueStore, value: Any, content_type: str) -> None:
    await store.set_value("key", value)
    record = await store._client.get_value(key="key")
    assert record is not None
    assert (record.value, record.content_type) == (value, content_type)
    assert await store.get_value("key", "default") == value


async def test_values_are_replaced_and_deleted(store: KeyValueStore) -> None:
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
    assert [each async for each in store.iterate_keys()] == []
    await store.set_value("key", "three")
    assert await store.get_value("key") == "three"
    assert [each.key async for each in store.iterate_keys()] == ["key"]


async def test_keys_are_iterated_in_order(store: KeyValueStore) -> None:
    for i in range(60):
        await store.set_value(f"key {i:02} #~/ä", i)
    keys = [each.key async for each in store.iterate_keys()]
    assert keys == [f"key {i:02} #~/ä" for i in range(60)]
    after = store.iterate_keys(exclusive_start_key=keys[9], limit=2)
    assert [(each.key, each.size) async for each in after] == [(keys[10], 2), (keys[11], 2)]
    assert [each async for each in store.iterate_keys(limit=0)] == []
    assert [value async for value in store.iterate_values(limit=3)] == [0, 1, 2]


async def test_a_store_is_purged_and_dropped(store: KeyValueStore, client: DynamoDBStorageClient) -> None:
    await store.set_value("key", b"x" * 100_000)
    await store.purge()
    assert await store.get_value("key") is None
    await store.set_value("key", "again")
    await store.drop()
    assert await (await KeyValueStore.open(storage_client=client)).get_value("key") is None


async def test_what_a_store_refuses(store: KeyValueStore) -> None:
    with pytest.raises(InvalidKeyError, match="page_id"):
        await store.set_value("k" * 2000, "value")
    with pytest.raises(InvalidArgumentError, match="value: is no JSON"):
        await store.set_value("key", object())
    with pytest.raises(InvalidValueError):
        await store.set_value("key", {"x": "\ud800"})
    with pytest.raises(NotImplementedError, match="public"):
        await store.get_public_url("key")


async def test_a_store_saves_its_auto_saved_values(store: KeyValueStore) -> None:
    value = await store.get_auto_saved_value("state", {"count": 0})
    value["count"] = 5
    await store.persist_autosaved_values()
    assert await store.get_value("state") == {"count": 5}


# Crawlers


async def test_a_crawler_retries_and_gives_up(client: DynamoDBStorageClient) -> None:
    crawler = BasicCrawler(storage_client=client, max_request_retries=2, configure_logging=False)
    tries: list[str] = []

    @crawler.router.default_handler
    async def handle(context: BasicCrawlingContext) -> None:
        tries.append(context.request.url)
        if context.request.url == url("bad"):
            raise ValueError("bad")
        if context.request.url == url("good"):
            await context.add_requests([url("more")])

    statistics = await crawler.run([url("bad"), url("good")])
    assert (statistics.requests_finished, statistics.requests_failed) == (2, 1)
    assert sorted(tries) == sorted([url("bad")] * 3 + [url("good"), url("more")])


@DYNAMODB_LOCAL
async def test_faults_of_the_network_and_of_dynamodb_lose_nothing(
    dynamodb_backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, dynamodb_endpoint: str
) -> None:
    faults = Faults(dynamodb_endpoint, 0.15, seed=3)
    async with faulty(faults) as proxy:
        changes = {"endpoint_url": proxy, "read_timeout": 0.5, "retry_base_delay": 0.01}
        config = dynamodb_config.model_copy(update=changes)
        async with DynamoDBStorageClient(config, site_id="site", run_id="run", item_key="url") as client:
            crawler = BasicCrawler(storage_client=client, configure_logging=False)

            @crawler.router.default_handler
            async def handle(context: BasicCrawlingContext) -> None:
                number = int(context.request.url.rpartition("/")[2])
                await context.push_data({"url": context.request.url, "number": number})
                await context.add_requests([url(each) for each in (2 * number, 2 * number + 1) if each < 64])

            statistics = await crawler.run([url(1)])
    assert statistics.requests_failed == 0
    assert sum(faults.injected.values()) > 30
    pages = [page async for page in dynamodb_backend.iter_pages("site/run:dataset")]
    assert sorted(page.url for page in pages) == sorted(url(number) for number in range(1, 64))
    assert {page.version_count for page in pages} == {1}
    stats = await dynamodb_backend.frontier("site/run", "site").recount()
    assert (stats.completed, stats.total) == (63, 63)


@DYNAMODB_LOCAL
async def test_two_processes_crawl_together_and_one_is_killed(
    site: Site, dynamodb_backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, dynamodb_endpoint: str
) -> None:
    site.seconds = 0.2
    arguments = (
        *(site.url, "--endpoint-url", dynamodb_endpoint, "--table-prefix", dynamodb_config.table_prefix),
        *("--lease-seconds", "6"),
    )
    items = "docs/monday:dataset"

    async def half() -> bool:
        return await dynamodb_backend.count_pages(items) >= site.pages // 2

    await crawl_with_a_kill("crawlee_crawl.py", site, arguments, half)
    pages = [page async for page in dynamodb_backend.iter_pages(items)]
    assert sorted(page.url for page in pages) == sorted(site.urls)
    assert {page.version_count for page in pages} == {1}
    bodies = {version.url: version.markdown async for version in dynamodb_backend.iter_versions(items)}
    assert bodies.keys() == site.urls
    assert all("first edition" in text for text in bodies.values())
    stats = await dynamodb_backend.frontier("docs/monday", "docs").recount()
    assert (stats.completed, stats.pending, stats.in_progress, stats.failed) == (site.pages, 0, 0, 0)
