"""The cost of each operation in capacity units, as DynamoDB Local counts them.

AWS adds a read unit for each read that finds nothing, which DynamoDB Local does not.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest

from ragcrawl_dynamo import Crawl, DynamoDBBackend, DynamoDBConfig, PageChange, Task, connect
from ragcrawl_dynamo.testing import ManualClock
from tests.support.engines import on_dynamodb_local
from tests.support.factories import dense_text, make_item, make_page, make_run, make_site, make_version

pytestmark = on_dynamodb_local


def requests(backend: DynamoDBBackend) -> int:
    return sum(counted.requests for counted in backend.metrics().values())


async def units(backend: DynamoDBBackend, operation: Awaitable[Any]) -> tuple[float, float]:
    """Read and write units that an operation consumes."""

    def total() -> tuple[float, float]:
        counters = backend.metrics().values()
        return sum(counted.read_units for counted in counters), sum(
            counted.write_units for counted in counters
        )

    reads, writes = total()
    await operation
    return total()[0] - reads, total()[1] - writes


async def test_capacity_units_of_saving_small_records(
    backend: DynamoDBBackend,
) -> None:
    assert await units(backend, backend.save_site(make_site())) == (0, 1)
    assert await units(backend, backend.save_run(make_run())) == (0, 3)
    assert await units(backend, backend.add_run_stats("site", "run", pages_crawled=1)) == (0, 1)
    assert await units(backend, backend.save_page(make_page())) == (0, 2)
    assert await units(backend, backend.save_page(make_page(depth=1))) == (0, 1)
    assert await units(backend, backend.save_version(make_version())) == (1, 2)
    assert await units(backend, backend.save_frontier_item(make_item())) == (0, 1)
    assert await units(backend, backend.update_frontier_status("run", "item", "completed")) == (0, 1)


async def test_capacity_units_of_reading_by_key_and_by_index(backend: DynamoDBBackend) -> None:
    await backend.save_pages_bulk(make_page(f"p{i}", last_error="x" * 2000) for i in range(100))
    await backend.save_run(make_run())
    assert await units(backend, backend.get_page("site", "p1")) == (1, 0)
    # Half a unit for the index, which is read eventually consistent.
    assert await units(backend, backend.get_page_by_url("site", "https://example.com/p1")) == (1.5, 0)
    assert await units(backend, backend.get_run("site", "run")) == (1, 0)
    assert await units(backend, backend.find_run("run")) == (1.5, 0)
    assert await units(backend, backend.get_latest_run("site")) == (2, 0)


async def test_capacity_units_of_save_version(backend: DynamoDBBackend) -> None:
    assert await units(backend, backend.save_version(make_version(markdown=dense_text(20)))) == (0, 23)
    # In its head, a small body takes no item and no index entry of its own.
    small = make_version(page_id="small", markdown=dense_text(1)[:1800])
    assert await units(backend, backend.save_version(small)) == (0, 3)
    other = make_version("v2", html=dense_text(20), markdown="")
    # The other heads of the page are read, to find an equal body.
    assert await units(backend, backend.save_version(other)) == (1, 23)


async def test_capacity_units_of_unchanged_and_equal_content(backend: DynamoDBBackend) -> None:
    await backend.save_version(make_version(markdown=dense_text(20), content_hash="a"))
    await backend.save_page(make_page(current_version_id="v1", content_hash="a"))
    unchanged = make_version("v2", markdown=dense_text(20), content_hash="a")
    assert await units(backend, backend.save_version(unchanged)) == (2, 0)
    # The head, its index entry, and a line among the body's users.
    assert await units(backend, backend.save_version(unchanged, keep_unchanged=True)) == (2, 3)


async def test_capacity_units_of_get_version(backend: DynamoDBBackend) -> None:
    await backend.save_version(make_version("small"))
    await backend.save_version(make_version("large", markdown=dense_text(20)))
    before = requests(backend)
    assert await units(backend, backend.get_version("site", "page", "small")) == (1, 0)
    # One for the head, six for 21 KB.
    assert await units(backend, backend.get_version("site", "page", "large")) == (7, 0)
    assert requests(backend) - before == 2


async def test_capacity_units_of_list_versions_without_content(backend: DynamoDBBackend) -> None:
    for i in range(20):
        await backend.save_version(make_version(f"v{i}", markdown=dense_text(20) + str(i)))
    # Twenty heads of half a kilobyte.
    assert await units(backend, backend.list_versions("site", "page", include_content=False)) == (2, 0)
    reads, _ = await units(backend, backend.list_versions("site", "page", limit=1))
    assert reads == 2 + 6


async def test_capacity_units_of_a_site_equal_get_content_usage(backend: DynamoDBBackend) -> None:
    async def save() -> None:
        for i in range(12):
            await backend.save_version(make_version(f"v{i}", markdown=dense_text(i, f"{i}") + "x"))
        await backend.save_versions_bulk(
            make_version(f"b{i}", "other", markdown=dense_text(100 * i, f"{i}")) for i in range(8)
        )

    _, paid = await units(backend, save())
    usage = await backend.get_content_usage("site")
    assert (usage.versions, usage.shared, usage.write_units) == (20, 0, paid)
    assert usage.raw_bytes > 1.8 * usage.stored_bytes
    await backend.save_version(make_version("again", "other", markdown=dense_text(100, "1")))
    shared = await backend.get_content_usage("site")
    assert (shared.versions, shared.shared, shared.stored_bytes) == (21, 1, usage.stored_bytes)


async def test_capacity_units_of_commit_page_unchanged(dynamodb_config: DynamoDBConfig) -> None:
    # The engine reports no units for PartiQL batches, whose writes are the same.
    config = dynamodb_config.model_copy(update={"conditional_batches": "item"})
    async with DynamoDBBackend(config) as backend:
        page, version = make_page(status_code=200), make_version(markdown=dense_text(20))
        await backend.commit_page(page, version)
        frontier = backend.frontier("site", "run")
        await frontier.add(["https://example.com/page"])
        (claim,) = await frontier.claim()
        # One for the page; one for the frontier item, and one for its entry in the index, which goes.
        assert await units(backend, backend.commit_page(page, version, claim=claim)) == (1, 3)
        assert await units(backend, backend.commit_page(page, version)) == (1, 1)
        not_modified = make_page(status_code=304)
        assert await units(backend, backend.commit_page(not_modified)) == (1, 1)
        await backend.commit_page(make_page(status_code=404))
        assert await units(backend, backend.commit_page(make_page(status_code=404))) == (1, 1)


async def test_capacity_units_of_following_the_links_of_an_unchanged_page(
    dynamodb_config: DynamoDBConfig,
) -> None:
    """The sync reads the body of the version, for its links, and writes nothing for links that are known."""
    home = "https://example.com/"
    links = [f"{home}{i}" for i in range(150)]
    config = dynamodb_config.model_copy(update={"conditional_batches": "item"})

    async def task_of(run: Crawl) -> Task:
        (claim,) = await run.frontier.claim(1)
        return Task(run, claim, await run.backend.get_page("site", claim.item.item_id))

    async with connect(config) as store:

        def begun(run_id: str) -> Crawl:
            return store.crawl(
                "site", seeds=[home], run_id=run_id, sitemap=links, priority=lambda url: url == home
            )

        async with store.crawl("site", seeds=[home], max_depth=0) as run:
            await (await task_of(run)).save(200, markdown=dense_text(20), links=links)
        # Page and claim, as without links; the head, and six for 21 KB.
        expected = 1 + 7, 3
        async with begun("own") as run:
            task = await task_of(run)
            assert await units(store, task.save(304)) == expected
        async with begun("shared") as run, connect(config) as other:
            task = await task_of(run)
            async with other.crawl("site", seeds=[home], run_id="shared") as shared:
                # Another process reads each link once, to see that it is known, and what it needs of the run.
                reads, writes = await units(other, Task(shared, task.claim, task.page).save(304))
                assert expected[0] + 150 <= reads <= expected[0] + 155
                assert writes == expected[1]


async def test_capacity_units_of_commit_page_new(dynamodb_config: DynamoDBConfig) -> None:
    """In a transaction DynamoDB Local counts 4 units for 1 KB, where AWS's rule is 2."""
    async with DynamoDBBackend(dynamodb_config) as backend:
        # The first commit of a process also takes a shard of the change log.
        await backend.commit_page(make_page("first", status_code=200), make_version("v1", "first"))

        async def commit(name: str, characters: int) -> tuple[float, float]:
            text = dense_text(1, name)[:characters]
            version = make_version("v1", name, markdown=text, content_hash=name)
            return await units(backend, backend.commit_page(make_page(name, status_code=200), version))

        # Page, log entry, head, and an index entry each of the page and the head.
        assert await commit("small", 200) == (1, 5 * 4)
        # With this body the head would take 2 KB: the body gets an item and an index entry of its own.
        assert await commit("large", 1800) == (1, 4 * 4 + 3)
        assert (await backend.list_versions("site", "large"))[0].markdown == dense_text(1, "large")[:1800]


@pytest.mark.parametrize(
    ("kilobytes", "body_units"),
    # In its head; in a part of 20 KB and some bytes.
    [(0, 0), (20, 6)],
)
async def test_capacity_units_of_a_change(
    dynamodb_config: DynamoDBConfig, kilobytes: int, body_units: int
) -> None:
    changes = 100
    async with DynamoDBBackend(dynamodb_config) as backend:
        cursor = str(await backend.get_change_cursor("site"))
        for i in range(changes):
            name = f"p{i:02}"
            version = make_version("v1", name, markdown=dense_text(kilobytes, name), content_hash=name)
            await backend.commit_page(make_page(name, status_code=200), version)

        async def consume(iterator: AsyncIterator[PageChange], *, one_by_one: bool = False) -> None:
            count = 0
            async for change in iterator:
                count += 1
                if one_by_one:
                    await backend.get_current_version("site", change.page.page_id)
            assert count == changes

        # The consumer's cursor; twice the record of the shard, for the slice and for its end; 16 KB of log.
        of_the_log = 1 + 2 + 4
        page = head = 1
        for consumer, one_by_one, include_content, of_a_change in (
            ("plain", False, False, page),
            ("one by one", True, False, 2 * page + head + body_units),
            ("content", False, True, page + head + body_units),
        ):
            await backend.save_change_cursor("site", consumer, cursor)
            iterator = backend.iter_changes("site", consumer, include_content=include_content)
            paid = await units(backend, consume(iterator, one_by_one=one_by_one))
            assert paid == (of_the_log + changes * of_a_change, 1), consumer


async def test_capacity_units_of_following_without_changes(dynamodb_config: DynamoDBConfig) -> None:
    """A read for the shards' records, and one for each shard that a process holds, which finds nothing."""
    clock = ManualClock()
    async with (
        DynamoDBBackend(dynamodb_config, clock=clock) as backend,
        DynamoDBBackend(dynamodb_config) as other,
    ):
        for writer, name in ((backend, "a"), (other, "b")):
            await writer.commit_page(make_page(name, status_code=200), make_version("v1", name))

        async def follow() -> None:
            changes = backend.iter_changes("site", "indexer", include_content=True, follow=True)
            async for _ in changes:
                pass

        following = asyncio.create_task(follow())
        await clock.wait_for_sleeper()

        async def poll() -> None:
            for _ in range(10):
                clock.advance(10)
                await clock.wait_for_sleeper()

        before = requests(backend)
        assert await units(backend, poll()) == (10, 0)
        assert requests(backend) - before == 10 * 3
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
