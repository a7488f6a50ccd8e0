"""The version that tables carry, and the way from an older one to this one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from ragcrawl_dynamo import (
    DynamoDBBackend,
    DynamoDBConfig,
    EndpointUnreachableError,
    MigrationProgress,
    SchemaVersionError,
)
from ragcrawl_dynamo._dynamodb.client import open_client
from ragcrawl_dynamo._schema import migrations as schema
from ragcrawl_dynamo._schema.keys import schema_key
from ragcrawl_dynamo._schema.migrations import SCHEMA_VERSION, Migration
from tests.support.engines import on_dynamodb_local
from tests.support.factories import make_page

if TYPE_CHECKING:
    from ragcrawl_dynamo._dynamodb.values import Item

PAGES = 60


def title_to_etag(item: Item) -> Item:
    """A made-up migration: every page has an etag, made of its id."""
    if "etag" in item or "#" in str(item["site_id"]):
        return item
    return {**item, "etag": {"S": f"of {item['page_id']['S']}"}}


def count_up(item: Item) -> Item:
    """Another, of the same version and table: a depth is 7 at least."""
    return item if int(item.get("depth", {"N": "7"})["N"]) >= 7 else {**item, "depth": {"N": "7"}}


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> None:
    """This package, two versions later."""
    monkeypatch.setattr(schema, "_PER_PAGE", 25)
    monkeypatch.setattr(schema, "SCHEMA_VERSION", 4)
    steps = (Migration(3, "pages", title_to_etag), Migration(3, "pages", count_up))
    monkeypatch.setattr(schema, "MIGRATIONS", steps)


async def fill(backend: DynamoDBBackend) -> None:
    await backend.save_pages_bulk(make_page(page_id=f"p{i}", etag=None, depth=i % 3) for i in range(PAGES))


async def check(config: DynamoDBConfig) -> None:
    async with DynamoDBBackend(config) as backend:
        pages = [page async for page in backend.iter_pages("site")]
    assert {page.page_id: (page.etag, page.depth) for page in pages} == {
        f"p{i}": (f"of p{i}", 7) for i in range(PAGES)
    }


async def test_migration_is_not_needed_for_tables_of_this_version(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    record = await backend._rooms.schema.store.read()
    assert record is not None
    assert record.version == SCHEMA_VERSION
    seen: list[MigrationProgress] = []
    assert await DynamoDBBackend(dynamodb_config).migrate(seen.append) == 0
    assert seen == []


async def test_initialize_refuses_tables_of_a_newer_schema_version(
    backend: DynamoDBBackend,
    dynamodb_config: DynamoDBConfig,
    newer: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await DynamoDBBackend(dynamodb_config).migrate()
    monkeypatch.undo()
    for call in ("initialize", "migrate"):
        older = DynamoDBBackend(dynamodb_config)
        with pytest.raises(SchemaVersionError, match=r"version 4, this package has 2: upgrade") as caught:
            await getattr(older, call)()
        assert (caught.value.stored, caught.value.wanted) == (4, 2)
        await older.close()


async def test_initialize_refuses_tables_of_an_older_schema_version_until_migrated(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, newer: None
) -> None:
    await fill(backend)
    later = DynamoDBBackend(dynamodb_config)
    with pytest.raises(SchemaVersionError, match=r"upgrade the tables with migrate\(\)"):
        await later.initialize()
    seen: list[MigrationProgress] = []
    # Each page by the first step; those whose depth was set by the second had it below seven, all of them.
    assert await later.migrate(seen.append) == 2 * PAGES
    assert sum(progress.rewritten for progress in seen) == 2 * PAGES
    # A second look, that finds nothing, for each step.
    assert sum(progress.seen for progress in seen) >= 4 * PAGES
    assert {progress.version for progress in seen} == {3}
    await check(dynamodb_config)
    assert await later.migrate() == 0


async def test_schema_version_of_unmarked_tables_is_the_first_unless_they_are_new(
    dynamodb_config: DynamoDBConfig, newer: None
) -> None:
    """As those are that were made before versions were recorded, or by a template."""
    async with DynamoDBBackend(dynamodb_config) as backend:
        record = await backend._rooms.schema.store.read()
        assert record is not None
        assert record.version == 4
        await fill(backend)
    async with open_client(dynamodb_config) as client:
        await client.delete_item(TableName=f"{dynamodb_config.table_prefix}runs", Key=schema_key())
    for create_tables in (True, False):
        with pytest.raises(SchemaVersionError, match="have schema version 1"):
            await DynamoDBBackend(dynamodb_config).initialize(create_tables=create_tables)
    await DynamoDBBackend(dynamodb_config).migrate()
    await check(dynamodb_config)


async def test_migration_resumes_after_an_interruption(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, newer: None
) -> None:
    await fill(backend)
    ends = 0
    rewritten: list[int] = []

    def end(progress: MigrationProgress) -> None:
        rewritten.append(progress.rewritten)
        raise EndpointUnreachableError("gone", code="Gone", operation="Scan", table=None)

    while True:
        try:
            await DynamoDBBackend(dynamodb_config).migrate(end)
        except EndpointUnreachableError:
            ends += 1
        else:
            break
    # One page of a table each time, and nothing twice.
    assert ends >= 4
    assert sum(rewritten) == 2 * PAGES
    await check(dynamodb_config)


@on_dynamodb_local
async def test_migration_keeps_and_converts_concurrent_writes(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, newer: None
) -> None:
    """Between a read of the migration's and its write, the old code changes pages."""
    await fill(backend)
    table = f"{dynamodb_config.table_prefix}pages"
    done = asyncio.Event()

    async def write(client: Any) -> int:
        changes = 0
        while not done.is_set():
            number = changes % PAGES
            await client.update_item(
                TableName=table,
                Key={"site_id": {"S": "site"}, "page_id": {"S": f"p{number}"}},
                UpdateExpression="ADD error_count :one",
                ExpressionAttributeValues={":one": {"N": "1"}},
            )
            changes += 1
        return changes

    def look(_: MigrationProgress) -> None:
        # The last word of the old code, before the migration's last look.
        done.set()

    async with open_client(dynamodb_config) as client:
        writing = asyncio.create_task(write(client))
        await DynamoDBBackend(dynamodb_config).migrate(look)
        changes = await writing
    await check(dynamodb_config)
    async with DynamoDBBackend(dynamodb_config) as later:
        assert sum([page.error_count async for page in later.iter_pages("site")]) == changes


@on_dynamodb_local
async def test_migration_run_twice_at_once_ends_as_one(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, newer: None
) -> None:
    await fill(backend)
    await asyncio.gather(*(DynamoDBBackend(dynamodb_config).migrate() for _ in range(3)))
    await check(dynamodb_config)
