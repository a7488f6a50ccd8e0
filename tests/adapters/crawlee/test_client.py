"""Storages are opened by name, alias or id, in a run or for all runs of a site."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from crawlee.storages import Dataset, KeyValueStore, RequestQueue

from ragcrawl_dynamo import (
    BackendStateError,
    DynamoDBBackend,
    DynamoDBConfig,
    FrontierStatus,
    InvalidArgumentError,
    WrongEventLoopError,
)
from ragcrawl_dynamo.adapters.crawlee import DynamoDBStorageClient
from ragcrawl_dynamo.testing import drop_tables, local_config
from tests.adapters.crawlee.requests import url

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.mark.parametrize("kind", [RequestQueue, Dataset, KeyValueStore])
async def test_crawlee_storage_client_opens_a_storage_by_name_alias_or_id(
    client: DynamoDBStorageClient, other_client: DynamoDBStorageClient, kind: Any
) -> None:
    default = await kind.open(storage_client=client)
    named = await kind.open(name="a-name", storage_client=client)
    aliased = await kind.open(alias="an-alias", storage_client=client)
    assert await kind.open(name="a-name", storage_client=client) is named
    assert (default.name, named.name, aliased.name) == (None, "a-name", None)
    assert len({default.id, named.id, aliased.id}) == 3
    by_id = await kind.open(id=named.id, storage_client=other_client)
    assert (by_id.id, by_id.name) == (named.id, "a-name")
    metadata = await by_id.get_metadata()
    assert metadata.created_at == (await named.get_metadata()).created_at
    with pytest.raises(ValueError, match="not found"):
        await kind.open(id="none", storage_client=client)
    with pytest.raises(ValueError, match="Only one of"):
        await kind.open(id="none", name="a-name", storage_client=client)
    await named.drop()


async def test_crawlee_storage_client_of_another_run_shares_only_named_storages(
    client: DynamoDBStorageClient, dynamodb_config: DynamoDBConfig
) -> None:
    queue = await RequestQueue.open(storage_client=client)
    named = await RequestQueue.open(name="shared", storage_client=client)
    await queue.add_request(url(1))
    await named.add_request(url(2))
    async with DynamoDBStorageClient(dynamodb_config, site_id="site", run_id="next") as later:
        assert await (await RequestQueue.open(storage_client=later)).is_finished()
        shared = await RequestQueue.open(name="shared", storage_client=later)
        request = await shared.fetch_next_request()
        assert request is not None
        assert request.url == url(2)
    with pytest.raises(RuntimeError, match="async with"):
        _ = later.backend


async def test_crawlee_storage_client_refuses_unknown_and_missing_options() -> None:
    with pytest.raises(TypeError, match="prefetched"):
        DynamoDBStorageClient(site_id="site", run_id="run", prefetched=1)  # type: ignore[call-arg] # tested
    with pytest.raises(TypeError, match="run_id"):
        DynamoDBStorageClient(site_id="site")  # type: ignore[call-arg] # tested
    # mypy refuses a wrong type of a queue option; the backend refuses a wrong value, once a queue is opened.
    DynamoDBStorageClient(site_id="site", run_id="run", prefetch="8")  # type: ignore[arg-type] # tested


async def test_crawlee_storage_client_passes_its_options_to_its_queues(
    dynamodb_backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    async with DynamoDBStorageClient(
        dynamodb_config,
        site_id="site",
        run_id="run",
        prefetch=3,
        lease_seconds=30.0,
        host_delay=0.25,
        host_max_in_flight=2,
    ) as client:
        queue = await RequestQueue.open(storage_client=client)
        await queue.add_requests([url(1), url(2)])
        assert await queue.fetch_next_request() is not None
        (host,) = [host async for host in client.backend.frontier("site", "site/run").iter_hosts()]
        assert (host.host, host.delay, host.max_in_flight, host.in_flight) == ("a.example", 0.25, 2, 1)
        (item,) = await client.backend.get_frontier_items("site/run", status=FrontierStatus.IN_PROGRESS)
        assert item.lease_expires_at is not None
        assert item.started_at is not None
        assert (item.lease_expires_at - item.started_at).total_seconds() == pytest.approx(30, abs=5)


async def test_crawlee_storage_client_refuses_an_option_outside_its_limits(
    client: DynamoDBStorageClient, dynamodb_config: DynamoDBConfig
) -> None:
    async with DynamoDBStorageClient(dynamodb_config, site_id="site", run_id="run", host_delay=-1) as wrong:
        with pytest.raises(InvalidArgumentError, match="host_delay"):
            await RequestQueue.open(storage_client=wrong)


@pytest.mark.parametrize("kind", [RequestQueue, Dataset, KeyValueStore])
async def test_crawlee_storage_client_finds_nothing_of_a_dropped_storage(
    client: DynamoDBStorageClient, other_client: DynamoDBStorageClient, kind: Any
) -> None:
    storage = await kind.open(name="a-name", storage_client=client)
    await _write(storage)
    await storage.drop()
    with pytest.raises(ValueError, match="not found"):
        await kind.open(id=storage.id, storage_client=other_client)
    assert [run async for run in client.backend.iter_runs("site")] == []
    assert [site.site_id async for site in client.backend.iter_sites()] in ([], ["site"])
    # The open storage creates itself again when something is stored.
    await _write(storage)
    again = await kind.open(id=storage.id, storage_client=other_client)
    assert again.name == "a-name"
    await again.drop()


async def _write(storage: Any) -> None:
    if isinstance(storage, RequestQueue):
        await storage.add_request(url(1))
    elif isinstance(storage, Dataset):
        await storage.push_data({"number": 1})
    else:
        await storage.set_value("key", 1)


async def _crawl(client: DynamoDBStorageClient, name: str) -> list[str]:
    """Crawls one new request, leaves another one claimed, and returns the names in the queue."""
    queue = await RequestQueue.open(storage_client=client)
    await queue.add_requests([url(name), url(f"{name}-left")])
    request = await queue.fetch_next_request()
    assert request is not None
    await queue.mark_request_as_handled(request)
    await (await Dataset.open(storage_client=client)).push_data({"name": name})
    data = await (await Dataset.open(storage_client=client)).get_data()
    return [str(item["name"]) for item in data.items]


def test_crawlee_storage_client_is_used_in_one_event_loop_after_the_other(
    dynamodb_endpoint: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = local_config(dynamodb_endpoint)
    client = DynamoDBStorageClient(config, site_id="site", run_id="run")

    async def closed(name: str) -> list[str]:
        async with client:
            return await _crawl(client, name)

    async def left_open(name: str) -> list[str]:
        return await _crawl(client, name)

    async def closed_later() -> None:
        await client.close()
        await drop_tables(config)

    assert asyncio.run(closed("one")) == ["one"]
    assert asyncio.run(closed("two")) == ["one", "two"]
    assert asyncio.run(left_open("three")) == ["one", "two", "three"]
    assert caplog.text == ""
    assert asyncio.run(left_open("four")) == ["one", "two", "three", "four"]
    assert "left open in an event loop that is closed" in caplog.text
    asyncio.run(closed_later())


def test_crawlee_storages_of_a_closed_event_loop_are_refused(dynamodb_endpoint: str) -> None:
    config = local_config(dynamodb_endpoint)
    client = DynamoDBStorageClient(config, site_id="site", run_id="run")

    async def open_all() -> list[Any]:
        return [await kind.open(storage_client=client) for kind in (RequestQueue, Dataset, KeyValueStore)]

    async def use(queue: RequestQueue, dataset: Dataset, store: KeyValueStore) -> None:
        for work in (
            queue.add_request(url(1)),
            queue.fetch_next_request(),
            queue.is_finished(),
            dataset.push_data({}),
            store.set_value("key", 1),
        ):
            with pytest.raises(BackendStateError):
                await work
        await client.close()
        await drop_tables(config)

    asyncio.run(use(*asyncio.run(open_all())))


async def test_crawlee_storage_client_refuses_a_second_event_loop_at_the_same_time(
    client: DynamoDBStorageClient,
) -> None:
    queue = await RequestQueue.open(storage_client=client)

    async def open_there() -> None:
        with pytest.raises(WrongEventLoopError):
            await RequestQueue.open(alias="other", storage_client=client)
        for work in (queue.add_request(url(1)), client.close()):
            with pytest.raises(WrongEventLoopError):
                await work

    await asyncio.to_thread(asyncio.run, open_there())


async def test_crawlee_storage_client_opens_new_storages_after_it_was_closed(
    dynamodb_config: DynamoDBConfig,
) -> None:
    client = DynamoDBStorageClient(dynamodb_config, site_id="site", run_id="run")
    async with client:
        queue = await RequestQueue.open(storage_client=client)
        await queue.add_request(url(1))
    with pytest.raises(BackendStateError):
        await queue.add_request(url(2))
    async with client:
        again = await RequestQueue.open(storage_client=client)
        assert again is not queue
        assert await again.fetch_next_request() is not None
