"""Changes with content under faults, and in bounded memory, on DynamoDB Local."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import Any

import pytest

from ragcrawl_dynamo import CorruptContentError, DynamoDBBackend, DynamoDBConfig, PageChange, PageVersion
from ragcrawl_dynamo._dynamodb.expressions import Exists, Update
from ragcrawl_dynamo._dynamodb.requests import update_request
from ragcrawl_dynamo._schema.keys import version_key
from tests.support.engines import on_dynamodb_local
from tests.support.factories import make_page, make_version
from tests.support.fakes import intercepting

pytestmark = on_dynamodb_local


async def commit(backend: DynamoDBBackend, page_id: str, html: str | None = None) -> None:
    version = make_version("1", page_id, markdown="text", html=html, content_hash="1")
    await backend.commit_page(make_page(page_id, status_code=200), version)


@pytest.mark.parametrize(("torn_reads", "markdown"), [(1, "text"), (3, "text"), (100, None)])
async def test_iter_changes_looks_again_for_a_version_that_its_transaction_has_not_shown_yet(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, torn_reads: int, markdown: str | None
) -> None:
    reads = 0

    async def around(operation: str, request: dict[str, Any], call: Any) -> Any:
        nonlocal reads
        answer = await call(**request)
        for table, items in answer.get("Responses", {}).items():
            if table.endswith("versions"):
                reads += 1
                if reads <= torn_reads:
                    items.clear()
        return answer

    await commit(backend, "a")
    config = dynamodb_config.model_copy(update={"retry_base_delay": 0.0})
    async with DynamoDBBackend(config, client_factory=intercepting(around)) as reader:
        (change,) = [change async for change in reader.iter_changes("site", "indexer", include_content=True)]
    assert change.page.current_version_id == "1"
    assert (change.version and change.version.markdown) == markdown
    assert reads == min(torn_reads + 1, 5)


async def test_iter_changes_with_content_raises_at_a_damaged_body_and_gets_past_it_without(
    backend: DynamoDBBackend,
) -> None:
    for name in "abc":
        await commit(backend, name)
    damage = Update(put={"content": {"B": b"damaged"}})
    key = version_key("b", "1", "site")
    request = update_request(backend._rooms.tables.versions, key, damage, Exists("page_id"))
    await backend._rooms.gateway.call("UpdateItem", request)
    changes = backend.iter_changes("site", "indexer", include_content=True)
    assert (await anext(changes)).page.page_id == "a"
    with pytest.raises(CorruptContentError) as caught:
        await anext(changes)
    assert caught.value.page_id == "b"
    assert [change.page.page_id async for change in backend.iter_changes("site", "indexer")] == [
        "a",
        "b",
        "c",
    ]
    assert [change async for change in backend.iter_changes("site", "indexer", include_content=True)] == []


async def peak(iterator: Any) -> int:
    """The most bytes that Python takes while somebody reads 100 versions, one after the other."""
    count = 0
    tracemalloc.start()
    try:
        async for record in iterator:
            version: PageVersion | None = record.version if isinstance(record, PageChange) else record
            assert version is not None
            assert version.html is not None
            count += 1
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        assert count == 100


async def test_iter_changes_with_content_takes_bounded_memory(backend: DynamoDBBackend) -> None:
    # One slice of 100 bodies of 1 MB, which compress to little: 100 MB in all.
    for i in range(100):
        await commit(backend, f"p{i:02}", f"<p>{i:09}</p>" * 62_500)
    taken = await peak(backend.iter_changes("site", "indexer", include_content=True, limit=100))
    assert taken < 12_000_000
    assert taken < 1.5 * await peak(backend.iter_versions("site"))


async def test_iter_changes_with_content_left_early_leaves_no_task(backend: DynamoDBBackend) -> None:
    for i in range(60):
        await commit(backend, f"p{i:02}")
    before = asyncio.all_tasks()
    changes = backend.iter_changes("site", "indexer", include_content=True, follow=True)
    for _ in range(25):
        await anext(changes)
    await changes.aclose()  # type: ignore[attr-defined] # an async generator
    assert asyncio.all_tasks() == before
