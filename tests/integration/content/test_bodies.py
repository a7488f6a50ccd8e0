"""Bodies under faults: killed workers, damage, and deletions beside saves, on DynamoDB Local."""

import asyncio
import sys
import tracemalloc
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from ragcrawl_dynamo import (
    CorruptContentError,
    DynamoDBBackend,
    DynamoDBConfig,
    MassDeletionError,
    PageVersion,
)
from ragcrawl_dynamo._dynamodb.client import open_client
from ragcrawl_dynamo.models import utc_now
from ragcrawl_dynamo.testing import local_config
from tests.support.engines import on_dynamodb_local
from tests.support.factories import START, dense_text, hours, make_page, make_version
from tests.support.fakes import intercepting

pytestmark = on_dynamodb_local

# Two parts.
LARGE = dense_text(500)


async def body_items(config: DynamoDBConfig) -> list[Any]:
    """The keys of all items in the versions table except heads."""
    async with open_client(config) as client:
        pages = client.get_paginator("scan").paginate(TableName=f"{config.table_prefix}versions")
        items = [item async for page in pages for item in page["Items"]]
    return [item for item in items if item["page_id"]["S"].startswith("#")]


# Saves versions one after the other, and stands still before the last one's head.
WORKER = """
import asyncio, sys
from ragcrawl_dynamo import DynamoDBBackend
from ragcrawl_dynamo.testing import local_config
from tests.support.factories import dense_text, make_version
from tests.support.fakes import intercepting

async def stand_still(operation, request, call):
    item = request.get("Item", {})
    if operation == "put_item" and item.get("version_id") == {"S": "killed"}:
        print("parts written", flush=True)
        await asyncio.Event().wait()
    return await call(**request)

async def main(endpoint, prefix):
    config = local_config(endpoint, table_prefix=prefix)
    async with DynamoDBBackend(config, client_factory=intercepting(stand_still)) as backend:
        await backend.save_version(make_version("saved", markdown=dense_text(900, "saved")))
        await backend.save_version(make_version("killed", markdown=dense_text(900, "killed")))

asyncio.run(main(*sys.argv[1:]))
"""


async def kill_a_worker(config: DynamoDBConfig) -> None:
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WORKER, str(config.endpoint_url), config.table_prefix),
        stdout=asyncio.subprocess.PIPE,
    )
    assert worker.stdout is not None
    assert await worker.stdout.readline() == b"parts written\n"
    worker.kill()
    await worker.communicate()


async def test_collect_garbage_removes_the_invisible_parts_of_a_killed_worker(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    await kill_a_worker(dynamodb_config)
    assert [version.version_id for version in await backend.list_versions("site", "page")] == ["saved"]
    assert await backend.get_version("site", "page", "killed") is None
    before = await body_items(dynamodb_config)
    left = [item for item in before if item["version_key"]["S"].startswith("killed#")]
    assert len(left) >= 3
    # The body is too young to be collected: its worker may be alive.
    assert (await backend.collect_garbage("site")).bodies_removed == 0
    planned = await backend.collect_garbage("site", grace_hours=0, dry_run=True)
    assert (planned.bodies_total, planned.bodies_removed, planned.parts_removed) == (2, 1, len(left))
    assert len(await body_items(dynamodb_config)) == len(before)
    done = await backend.collect_garbage("site", grace_hours=0)
    assert (done.bodies_removed, done.parts_removed, done.dry_run) == (1, len(left), False)
    after = await body_items(dynamodb_config)
    assert {item["version_key"]["S"] for item in before} - {item["version_key"]["S"] for item in after} == {
        item["version_key"]["S"] for item in left
    }
    version = await backend.get_version("site", "page", "saved")
    assert version is not None
    assert version.markdown == dense_text(900, "saved")


async def test_save_version_repeated_after_a_kill_succeeds(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    await kill_a_worker(dynamodb_config)
    version = make_version("killed", markdown=dense_text(900, "again"))
    await backend.save_version(version)
    assert await backend.get_version("site", "page", "killed") == version
    assert (await backend.collect_garbage("site", grace_hours=0)).bodies_removed == 1
    assert await backend.get_version("site", "page", "killed") == version


async def test_delete_site_leaves_no_body_parts(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    await kill_a_worker(dynamodb_config)
    for version_id in ("v1", "v2"):
        await backend.save_version(make_version(version_id, markdown=LARGE))
    await backend.save_version(make_version("v1", site_id="other", markdown=LARGE))
    assert await backend.delete_site("site") is True
    left = {item["version_key"]["S"].split("#")[1] for item in await body_items(dynamodb_config)}
    assert left == {"other"}
    assert await backend.delete_site("site") is False


async def change_parts(config: DynamoDBConfig, number: int, data: bytes | None) -> None:
    """Changes the data of the parts of that number, or removes them."""
    async with open_client(config) as client:
        for item in await body_items(config):
            if not item["version_key"]["S"].endswith(f"#{number:05}"):
                continue
            key = {name: item[name] for name in ("page_id", "version_key")}
            table = f"{config.table_prefix}versions"
            if data is None:
                await client.delete_item(TableName=table, Key=key)
            else:
                await client.put_item(TableName=table, Item={**item, "data": {"B": data}})


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("data", [None, b"", b"damaged"], ids=["missing", "empty", "damaged"])
async def test_get_version_of_a_torn_body_raises_and_names_the_version(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, number: int, data: bytes | None
) -> None:
    await backend.save_version(make_version("v1", "torn", markdown=LARGE))
    await backend.save_page(make_page("torn", current_version_id="v1"))
    await backend.save_version(make_version("v1", "whole"))
    await change_parts(dynamodb_config, number, data)
    for read in (
        lambda: backend.get_version("site", "torn", "v1"),
        lambda: backend.get_current_version("site", "torn"),
        lambda: backend.list_versions("site", "torn"),
        lambda: anext(backend.iter_versions("site")),
    ):
        with pytest.raises(CorruptContentError, match="version 'v1' of page 'torn' of site 'site'") as caught:
            await read()
        assert (caught.value.page_id, caught.value.version_id, caught.value.site_id) == ("torn", "v1", "site")
    assert len(await backend.list_versions("site", "torn", include_content=False)) == 1
    assert await backend.get_version("site", "whole", "v1") is not None


@pytest.mark.parametrize("applied", [True, False], ids=["answer lost", "request lost"])
@pytest.mark.parametrize("kilobytes", [8, 500], ids=["in a batch", "alone"])
async def test_save_version_writes_a_body_once_although_requests_and_answers_are_lost(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, applied: bool, kilobytes: int
) -> None:
    async def lossy(operation: str, request: Any, call: Any) -> Any:
        is_write = operation in ("put_item", "batch_write_item", "batch_execute_statement")
        calls.append(operation)
        if is_write and len(calls) % 2:
            if applied:
                await call(**request)
            raise EndpointConnectionError(endpoint_url="lost")
        return await call(**request)

    calls: list[str] = []
    quick = dynamodb_config.model_copy(update={"retry_base_delay": 0.001, "conditional_batches": "partiql"})
    version = make_version(markdown=dense_text(kilobytes))
    async with DynamoDBBackend(quick, client_factory=intercepting(lossy)) as flaky:
        await flaky.save_version(version)
    # A large part is sent alone: its request blocks the event loop for as long as it is.
    assert ("batch_execute_statement" in calls) == (kilobytes == 8)
    assert await backend.get_version("site", "page", "v1") == version
    usage = await backend.collect_garbage("site", grace_hours=0, dry_run=True)
    assert (usage.bodies_total, usage.bodies_removed) == (1, 0)


async def test_small_bodies_of_concurrent_saves_are_written_together(dynamodb_config: DynamoDBConfig) -> None:
    batched = dynamodb_config.model_copy(update={"conditional_batches": "partiql"})
    versions = [make_version(page_id=f"p{i}", markdown=dense_text(8, f"{i}")) for i in range(50)]
    async with DynamoDBBackend(batched) as backend:
        await asyncio.gather(*map(backend.save_version, versions))
        requests = {operation: count.requests for (operation, _), count in backend.metrics().items()}
        # Two batches are full; some leave earlier, since no one knows how many calls will follow.
        assert requests["BatchExecuteStatement"] <= 25
        assert requests.get("PutItem", 0) <= 25
        for version in versions:
            assert await backend.get_version(version.site_id, version.page_id, "v1") == version


async def test_body_that_is_saved_anew_beside_others_does_not_replace_the_one_that_is_read(
    dynamodb_config: DynamoDBConfig,
) -> None:
    batched = dynamodb_config.model_copy(update={"conditional_batches": "partiql"})
    async with DynamoDBBackend(batched) as backend:
        for attempt in range(2):
            versions = [
                make_version(page_id=f"p{i}", markdown=dense_text(8, f"{attempt}{i}")) for i in range(10)
            ]
            await asyncio.gather(*map(backend.save_version, versions))
            for version in versions:
                assert await backend.get_version(version.site_id, version.page_id, "v1") == version
        # The former bodies wait for the collection of garbage.
        collected = await backend.collect_garbage("site", grace_hours=0)
        assert (collected.bodies_total, collected.bodies_removed) == (20, 10)
        assert [
            await backend.get_version(version.site_id, version.page_id, "v1") for version in versions
        ] == versions


class Pause:
    """Holds back one request until the test resumes it."""

    def __init__(self, operation: str, attribute: str) -> None:
        self.reached = asyncio.Event()
        self.resume = asyncio.Event()
        self._operation = operation
        self._attribute = attribute

    async def __call__(self, operation: str, request: Any, call: Any) -> Any:
        names = request.get("ExpressionAttributeNames", {}).values()
        if operation == self._operation and self._attribute in names and not self.reached.is_set():
            self.reached.set()
            await self.resume.wait()
        return await call(**request)


async def test_save_version_that_joins_a_deleted_body_writes_its_own(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    await backend.save_version(make_version("old", markdown=LARGE, crawled_at=START))
    pause = Pause("update_item", "joined_at")
    new = make_version("new", markdown=LARGE)
    async with DynamoDBBackend(dynamodb_config, client_factory=intercepting(pause)) as saver:
        saving = asyncio.create_task(saver.save_version(new))
        await pause.reached.wait()
        await backend.prune_versions("site", keep_last=0, allow_mass_deletion=True)
        assert await body_items(dynamodb_config) == []
        pause.resume.set()
        await saving
    assert await backend.get_version("site", "page", "new") == new
    left = {item["version_key"]["S"].split("#")[0] for item in await body_items(dynamodb_config)}
    assert left == {"new"}


async def test_save_version_that_joins_a_body_during_its_deletion_keeps_a_body(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    await backend.save_version(make_version("old", markdown=LARGE, crawled_at=START))
    # The saver has found the body; the deleter has removed the head, and is about to close the body.
    joining, closing = Pause("update_item", "joined_at"), Pause("update_item", "closed")
    new = make_version("new", markdown=LARGE)
    async with (
        DynamoDBBackend(dynamodb_config, client_factory=intercepting(joining)) as saver,
        DynamoDBBackend(dynamodb_config, client_factory=intercepting(closing)) as deleter,
    ):
        # The joining request contains "closed" too, but only the saver sends it.
        saving = asyncio.create_task(saver.save_version(new))
        await joining.reached.wait()
        deleting = asyncio.create_task(deleter.prune_versions("site", keep_last=0, allow_mass_deletion=True))
        await closing.reached.wait()
        joining.resume.set()
        await saving
        assert await backend.get_version("site", "page", "new") == new
        closing.resume.set()
        await deleting
    assert await backend.get_version("site", "page", "new") == new
    assert (await backend.collect_garbage("site", grace_hours=0, dry_run=True)).bodies_removed == 0


async def test_retention_keeps_a_body_that_another_version_joined(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    await backend.save_version(make_version("old", markdown=LARGE, crawled_at=START))
    new = make_version("new", markdown=LARGE)
    await backend.save_version(new)
    await backend.prune_versions("site", keep_last=1)
    assert [version.version_id for version in await backend.list_versions("site", "page")] == ["new"]
    assert await backend.get_version("site", "page", "new") == new
    left = {item["version_key"]["S"].split("#")[0] for item in await body_items(dynamodb_config)}
    assert left == {"old"}


async def test_body_survives_concurrent_savers_and_deleters(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    """Some versions with the same body are deleted while others join it; every one left can be read."""
    async with DynamoDBBackend(dynamodb_config) as other:
        for turn in range(6):
            page_id = f"page{turn}"
            for i in range(3):
                old = make_version(f"old{i}", page_id, markdown=LARGE, crawled_at=START)
                await backend.save_version(old)

            async def join(i: int, page_id: str = page_id) -> None:
                await asyncio.sleep(0.004 * i)
                version = make_version(f"new{i}", page_id, markdown=LARGE, crawled_at=utc_now() + hours(24))
                await other.save_version(version)

            await asyncio.gather(
                backend.prune_versions("site", max_age_days=0, allow_mass_deletion=True),
                *(join(i) for i in range(6)),
            )
    for _ in range(2):
        for turn in range(6):
            versions = await backend.list_versions("site", f"page{turn}")
            assert [version.markdown == LARGE for version in versions] == [True] * 6
        await backend.collect_garbage("site", grace_hours=0, allow_mass_deletion=True)


async def test_save_version_repeated_after_a_lost_answer_keeps_head_and_body_together(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    first, second = (make_version(markdown=dense_text(20, seed)) for seed in "ab")

    async def lose_and_let_the_other_save(operation: str, request: Any, call: Any) -> Any:
        answer = await call(**request)
        if operation == "put_item" and "version_id" in request["Item"] and not lost:
            lost.append(request)
            await backend.save_version(second)
            raise EndpointConnectionError(endpoint_url="lost")
        return answer

    lost: list[Any] = []
    async with DynamoDBBackend(
        dynamodb_config, client_factory=intercepting(lose_and_let_the_other_save)
    ) as flaky:
        await flaky.save_version(first)
    assert await backend.get_version("site", "page", "v1") == first


async def test_save_version_by_two_savers_leaves_one_whole_version(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    async with DynamoDBBackend(dynamodb_config) as other:
        versions = [make_version("v1", markdown=dense_text(500, f"{i}")) for i in range(4)]
        await asyncio.gather(
            *((backend, other)[i % 2].save_version(version) for i, version in enumerate(versions))
        )
    assert await backend.get_version("site", "page", "v1") in versions
    report = await backend.collect_garbage("site", grace_hours=0, allow_mass_deletion=True)
    assert report.bodies_total - report.bodies_removed == 1
    assert await backend.get_version("site", "page", "v1") in versions


async def test_collect_garbage_refuses_a_mass_deletion_by_default(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    await backend.save_versions_bulk(
        make_version(f"v{i}", markdown=dense_text(5, f"{i}")) for i in range(130)
    )
    async with open_client(dynamodb_config) as client:
        for i in range(101):
            key: Any = {"page_id": {"S": "page"}, "version_key": {"S": f"v{i}#site#"}}
            await client.delete_item(TableName=f"{dynamodb_config.table_prefix}versions", Key=key)
    with pytest.raises(MassDeletionError, match="101 of 130 bodies"):
        await backend.collect_garbage("site", grace_hours=0)
    assert len(await body_items(dynamodb_config)) == 130
    report = await backend.collect_garbage("site", grace_hours=0, allow_mass_deletion=True)
    assert report.bodies_removed == 101
    assert len(await body_items(dynamodb_config)) == 29


async def test_iter_versions_takes_bounded_memory(backend: DynamoDBBackend) -> None:
    # 60 bodies of 2 MB, which compress to little: 120 MB in all.
    for i in range(60):
        await backend.save_version(make_version("v", f"p{i:02}", html=f"<p>{i:09}</p>" * 125_000))
    await backend.save_pages_bulk(make_page(f"p{i:02}", current_version_id="v") for i in range(60))
    count = 0
    tracemalloc.start()
    try:
        async for version in backend.iter_versions("site"):
            assert version.html is not None
            count += len(version.html)
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()
    assert count == 60 * 125_000 * 16


async def test_iter_versions_left_early_leaves_no_task(backend: DynamoDBBackend) -> None:
    await backend.save_versions_bulk(make_version("v", f"p{i:03}") for i in range(200))
    await backend.save_pages_bulk(make_page(f"p{i:03}", current_version_id="v") for i in range(200))
    before = asyncio.all_tasks()
    iterator = backend.iter_versions("site")
    assert isinstance(await anext(iterator), PageVersion)
    await iterator.aclose()  # type: ignore[attr-defined] # an async generator
    assert asyncio.all_tasks() == before


async def test_max_content_bytes_of_a_reader_refuses_a_larger_body(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    await backend.save_version(make_version(html="x" * 1_000_000))
    small = local_config(
        str(dynamodb_config.endpoint_url),
        table_prefix=dynamodb_config.table_prefix,
        max_content_bytes=100_000,
    )
    async with DynamoDBBackend(small) as reader:
        with pytest.raises(CorruptContentError, match="more than max_content_bytes = 100,000"):
            await reader.get_version("site", "page", "v1")
