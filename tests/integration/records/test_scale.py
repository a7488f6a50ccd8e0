"""Sizes that take several requests, on DynamoDB Local: listing, counting, deleting, interrupting."""

import asyncio
from hashlib import sha256
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig, PartialBatchError
from tests.support.engines import on_dynamodb_local
from tests.support.factories import START, hours, make_item, make_page, make_run, make_site, make_version
from tests.support.fakes import intercepting
from tests.support.slices import all_slices

pytestmark = on_dynamodb_local

# About 1.4 KB each, so that 3,000 take five query pages of 1 MB.
PADDING = "x" * 1000


def page_id(number: int) -> str:
    return sha256(str(number).encode()).hexdigest()


async def save_pages(backend: DynamoDBBackend, count: int, **fields: Any) -> list[str]:
    """Pages with hashes as ids, as crawlers make them; returns the ids in order."""
    ids = [page_id(i) for i in range(count)]
    await backend.save_pages_bulk(make_page(id_, last_error=PADDING, **fields) for id_ in ids)
    return sorted(ids)


def queries(backend: DynamoDBBackend) -> int:
    counters = backend.metrics()
    return sum(counted.requests for (operation, _), counted in counters.items() if operation == "Query")


async def test_list_pages_lists_3000_pages_exactly_once(backend: DynamoDBBackend) -> None:
    ids = await save_pages(backend, 3000)
    slices = await all_slices(lambda cursor: backend.list_pages("site", limit=7, cursor=cursor))
    assert [page.page_id for part in slices for page in part] == ids
    assert {len(part) for part in slices[:-1]} == {7}
    assert len(slices) in (429, 430)


@pytest.mark.parametrize("spread", [True, False], ids=["hashes", "counted"])
async def test_iter_pages_and_count_pages_of_3000_pages(backend: DynamoDBBackend, spread: bool) -> None:
    ids = sorted(page_id(i) if spread else f"page-{i:05}" for i in range(3000))
    await backend.save_pages_bulk(
        make_page(id_, last_error=PADDING, is_tombstone=i % 5 == 0) for i, id_ in enumerate(ids)
    )
    alive = [id_ for i, id_ in enumerate(ids) if i % 5]
    assert [page.page_id async for page in backend.iter_pages("site")] == alive
    assert [page.page_id async for page in backend.iter_pages("site", include_tombstones=True)] == ids
    assert await backend.count_pages("site") == 2400
    assert await backend.count_pages("site", include_tombstones=True) == 3000


async def test_iter_pages_reads_only_a_few_query_pages_ahead(backend: DynamoDBBackend) -> None:
    await save_pages(backend, 6000)
    assert queries(backend) == 0
    before = asyncio.all_tasks()
    iterator = backend.iter_pages("site")
    await anext(iterator)
    assert queries(backend) == 1
    for _ in range(1000):
        await anext(iterator)
    # The first page, the one being read, and at most four ahead.
    assert queries(backend) <= 6
    await iterator.aclose()  # type: ignore[attr-defined] # an async generator
    assert asyncio.all_tasks() == before


async def test_get_pages_needing_recrawl_of_3000_pages(backend: DynamoDBBackend) -> None:
    ids = [page_id(i) for i in range(3000)]
    await backend.save_pages_bulk(
        make_page(id_, last_error=PADDING, last_crawled=None if i < 5 else START + hours(3000 - i))
        for i, id_ in enumerate(ids)
    )
    due = await backend.get_pages_needing_recrawl("site", limit=150)
    assert [page.page_id for page in due] == [*sorted(ids[:5]), *reversed(ids[-145:])]


async def fill(backend: DynamoDBBackend, site_id: str) -> None:
    await backend.save_site(make_site(site_id))
    await backend.save_run(make_run(f"run-{site_id}", site_id))
    await asyncio.gather(
        *(backend.save_frontier_item(make_item(f"i{i}", f"run-{site_id}", site_id)) for i in range(60))
    )
    await backend.save_pages_bulk(make_page(page_id(i), site_id) for i in range(300))
    # The same versions of the same pages in every site.
    await backend.save_versions_bulk(make_version("v1", page_id(i), site_id) for i in range(300))


async def left(backend: DynamoDBBackend, site_id: str) -> tuple[int, int, int, int]:
    versions = await asyncio.gather(*(backend.get_version(site_id, page_id(i), "v1") for i in range(300)))
    return (
        len(await backend.list_runs(site_id)),
        len(await backend.get_frontier_items(f"run-{site_id}")),
        await backend.count_pages(site_id),
        sum(version is not None for version in versions),
    )


async def test_delete_site_that_is_interrupted_repeatedly_ends_complete(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    async def dies_after_five_batches(operation: str, request: Any, call: Any) -> Any:
        if operation == "batch_write_item":
            if not budget:
                raise EndpointConnectionError(endpoint_url="cut")
            budget.pop()
        return await call(**request)

    for site_id in ("one", "two"):
        await fill(backend, site_id)
    config = dynamodb_config.model_copy(update={"retry_attempts": 1})
    cuts = 0
    while True:
        budget = [None] * 5
        async with DynamoDBBackend(config, client_factory=intercepting(dies_after_five_batches)) as dying:
            try:
                assert await dying.delete_site("one") is True
                break
            except PartialBatchError:
                cuts += 1
                # The record of the site is deleted last: it is there as long as anything else may be left.
                assert await backend.get_site("one") is not None
    assert cuts >= 4
    assert await left(backend, "one") == (0, 0, 0, 0)
    assert await backend.get_site("one") is None
    assert await left(backend, "two") == (1, 60, 300, 300)


async def test_delete_site_that_is_cancelled_can_be_repeated(backend: DynamoDBBackend) -> None:
    await fill(backend, "one")
    deletion = asyncio.create_task(backend.delete_site("one"))
    while (await left(backend, "one"))[1]:  # noqa: ASYNC110 # it polls a database
        await asyncio.sleep(0)
    deletion.cancel()
    await asyncio.gather(deletion, return_exceptions=True)
    assert await backend.get_site("one") is not None
    assert await backend.delete_site("one") is True
    assert await left(backend, "one") == (0, 0, 0, 0)


async def test_save_pages_bulk_that_is_cancelled_leaves_no_task_and_harms_no_other_call(
    backend: DynamoDBBackend,
) -> None:
    before = asyncio.all_tasks()
    cancelled = asyncio.create_task(
        backend.save_pages_bulk(make_page(page_id(i), "one") for i in range(2000))
    )
    kept = asyncio.create_task(backend.save_pages_bulk(make_page(page_id(i), "two") for i in range(500)))
    await asyncio.sleep(0.1)
    cancelled.cancel()
    assert await kept == 500
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert asyncio.all_tasks() == before
    assert await backend.count_pages("two") == 500
    assert await backend.count_pages("one") < 2000
