"""The items in the tables, seen with a plain client: names, types and limits."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from ragcrawl_dynamo import CorruptItemError, CrawlStats, DynamoDBBackend, DynamoDBConfig, ItemTooLargeError
from ragcrawl_dynamo._dynamodb.client import open_client
from ragcrawl_dynamo._dynamodb.codec import to_item
from ragcrawl_dynamo._dynamodb.sizes import MAX_ITEM_BYTES, item_size
from ragcrawl_dynamo._schema.keys import schema_key
from ragcrawl_dynamo._schema.tables import Tables
from tests.support.engines import on_dynamodb_local
from tests.support.factories import START, make_item, make_page, make_run, make_site, make_version


async def raw_items(config: DynamoDBConfig, name: str) -> list[Any]:
    """All but the record of the schema's version."""
    async with open_client(config) as client:
        items = (await client.scan(TableName=config.table_prefix + name))["Items"]
        return [item for item in items if not schema_key().items() <= item.items()]


async def put_raw(config: DynamoDBConfig, name: str, item: Any) -> None:
    async with open_client(config) as client:
        await client.put_item(TableName=config.table_prefix + name, Item=item)


async def test_stored_item_holds_free_json_natively(
    dynamodb_config: DynamoDBConfig, backend: DynamoDBBackend
) -> None:
    await backend.save_site(make_site(config={"a": [1, 0.5, None, True, {"b": "x"}]}, seeds=["s"]))
    (item,) = await raw_items(dynamodb_config, "sites")
    native = [{"N": "1"}, {"N": "0.5"}, {"NULL": True}, {"BOOL": True}, {"M": {"b": {"S": "x"}}}]
    assert item["config"] == {"M": {"a": {"L": native}}}
    assert item["seeds"] == {"L": [{"S": "s"}]}


async def test_stored_item_of_a_run_holds_its_stats(
    dynamodb_config: DynamoDBConfig, backend: DynamoDBBackend
) -> None:
    stats = CrawlStats(status_codes={200: 3}, domains_crawled=2, domains_sample=["a"])
    await backend.save_run(make_run(stats=stats, created_at=START))
    (item,) = await raw_items(dynamodb_config, "runs")
    assert item["stats"]["M"]["status_codes"] == {"M": {"200": {"N": "3"}}}
    assert item["stats"]["M"]["domains_crawled"] == {"N": "2"}
    assert item["stats"]["M"]["domains_sample"] == {"L": [{"S": "a"}]}
    assert item["created_at"] == {"S": "2026-01-01T00:00:00.000000Z"}
    assert item["status"] == {"S": "pending"}


async def test_stored_item_key_escapes_only_the_separator(
    dynamodb_config: DynamoDBConfig, backend: DynamoDBBackend
) -> None:
    await backend.save_version(make_version("v/1", "p#1", "s 1"))
    (item,) = await raw_items(dynamodb_config, "versions")
    assert (item["page_id"], item["version_key"]) == ({"S": "p~11"}, {"S": "v/1#s 1#"})


async def test_frontier_ttl_is_stored_on_final_items_if_configured(
    dynamodb_config: DynamoDBConfig, backend: DynamoDBBackend
) -> None:
    await backend.save_frontier_item(make_item("kept", status="completed"))
    async with DynamoDBBackend(dynamodb_config.model_copy(update={"frontier_ttl_days": 2})) as expiring:
        await expiring.save_frontier_item(make_item("pending"))
        for item_id in ("done", "again"):
            await expiring.save_frontier_item(make_item(item_id))
            done = await expiring.update_frontier_status("run", item_id, "completed")
        await expiring.update_frontier_status("run", "again", "pending")
        items = {item["item_id"]["S"]: item for item in await raw_items(dynamodb_config, "frontier")}
    assert done.completed_at is not None
    seconds = int(items["done"]["expires_at"]["N"]) - done.completed_at.timestamp()
    assert seconds == pytest.approx(2 * 86_400, abs=60)
    assert [name for name, item in items.items() if "expires_at" in item] == ["done"]


async def test_stored_item_of_another_program_is_reported_with_its_key(
    dynamodb_config: DynamoDBConfig, backend: DynamoDBBackend
) -> None:
    await put_raw(dynamodb_config, "pages", {"site_id": {"S": "site"}, "page_id": {"S": "alien"}})
    with pytest.raises(CorruptItemError, match=r"item .*'alien'.* of table .*pages is not a valid Page.*url"):
        await backend.get_page("site", "alien")


async def test_stored_item_attributes_of_a_newer_version_are_ignored(
    dynamodb_config: DynamoDBConfig, backend: DynamoDBBackend
) -> None:
    page = make_page()
    item = to_item(Tables.of("").pages, page)
    await put_raw(dynamodb_config, "pages", {**item, "from_the_future": {"B": b"x"}})
    assert await backend.get_page("site", "page") == page


@on_dynamodb_local
async def test_item_size_limit_is_that_of_the_engine(
    dynamodb_config: DynamoDBConfig, backend: DynamoDBBackend
) -> None:
    table = Tables.of(dynamodb_config.table_prefix).sites
    room = MAX_ITEM_BYTES - item_size(to_item(table, make_site(name="", created_at=START, updated_at=START)))
    largest = make_site(name="x" * room, created_at=START, updated_at=START)
    await backend.save_site(largest)
    assert await backend.get_site("site") == largest
    over = make_site(name="x" * (room + 1), created_at=START, updated_at=START)
    with pytest.raises(
        ItemTooLargeError, match=r"takes 409,601 bytes, an item may take 409,600; .*name with"
    ):
        await backend.save_site(over)
    item: Any = {**to_item(table, largest), "name": {"S": over.name}}
    with pytest.raises(ClientError, match="Item size"):
        await put_raw(dynamodb_config, "sites", item)


@on_dynamodb_local
async def test_item_size_limit_of_a_head_fits_the_table(backend: DynamoDBBackend) -> None:
    with pytest.raises(ItemTooLargeError, match="its largest field is extra") as caught:
        await backend.save_version(make_version(extra={"x": "x" * 500_000}, markdown="y" * 10_000))
    room = 500_000 - (caught.value.size - caught.value.limit)
    largest = make_version(extra={"x": "x" * room}, markdown="y" * 10_000)
    await backend.save_version(largest)
    assert await backend.get_version("site", "page", "v1") == largest
    with pytest.raises(ItemTooLargeError):
        await backend.save_version(make_version("v2", extra={"x": "x" * (room + 1)}))
