"""Storages are opened by name, alias or id, in a run or for all runs of a site."""

from __future__ import annotations

from typing import Any

import pytest
from crawlee.storages import Dataset, KeyValueStore, RequestQueue

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig, FrontierStatus, InvalidArgumentError
from ragcrawl_dynamo.adapters.crawlee import DynamoDBStorageClient
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
