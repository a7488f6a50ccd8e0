"""The pipeline: which items become pages."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast

import pytest

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig, FrontierStatus, InvalidArgumentError
from ragcrawl_dynamo.adapters.scrapy.pipeline import PagePipeline, record_of
from tests.adapters.scrapy.crawls import crawl, statuses
from tests.adapters.site import Site
from tests.support.engines import on_dynamodb_local

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


async def test_scrapy_pipeline_skips_items_that_are_dropped_or_fail(
    site: Site, dynamodb_backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    site.pages = 5
    pipelines = {"tests.adapters.scrapy.spiders.Dropping": 100}
    stats = await crawl(dynamodb_config, "Plain", site.url, ITEM_PIPELINES=pipelines)
    assert (stats["item_dropped_count"], stats["ragcrawl_dynamo/failed"]) == (1, 1)
    status_of = await statuses(dynamodb_backend)
    assert status_of.pop(f"{site.url[:-1]}3") is FrontierStatus.FAILED
    assert set(status_of.values()) == {FrontierStatus.COMPLETED}
    pages = {page.url[-1] async for page in dynamodb_backend.iter_pages("site")}
    assert pages == {"0", "1", "4"}


@on_dynamodb_local
async def test_scrapy_pipeline_reports_an_item_that_cannot_be_stored_and_its_page_is_not_fetched_again(
    site: Site, dynamodb_backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    site.pages = 3
    stats = await crawl(dynamodb_config, "Unusual", site.url, RAGCRAWL_DYNAMO_ERROR_ATTEMPTS=3)
    assert set(site.hits.values()) == {1}
    assert "item.selector: cannot be stored: a value of type Selector" in stats["log"]
    assert stats["item_scraped_count"] == 9 - 1
    versions = {version.url[-1]: version async for version in dynamodb_backend.iter_versions("site")}
    assert sorted(versions) == ["1", "2"]
    assert (versions["1"].title, versions["1"].extra["price"]) == ("Page 1 Page 1", "1.10")
    dead = await dynamodb_backend.get_frontier_items("site/run", status=FrontierStatus.FAILED)
    assert [item.url for item in dead] == [site.url]


@on_dynamodb_local
async def test_scrapy_pipeline_makes_pages_be_fetched_again_that_dynamodb_did_not_take(
    site: Site, dynamodb_backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    site.pages = 1
    pipelines = {"tests.adapters.scrapy.spiders.OutOfReach": 100}
    stats = await crawl(dynamodb_config, "Plain", site.url, ITEM_PIPELINES=pipelines)
    assert await statuses(dynamodb_backend) == {site.url: FrontierStatus.COMPLETED}
    assert (site.hits["/p/0"], stats["ragcrawl_dynamo/failed"]) == (2, 1)
    assert await dynamodb_backend.count_pages("site") == 1


def test_scrapy_pipeline_names_the_field_that_cannot_be_stored() -> None:
    with pytest.raises(InvalidArgumentError, match=r"item\.status_code"):
        record_of({"url": "https://a.example/", "status_code": "many"}, "site", "run")
    with pytest.raises(InvalidArgumentError, match=r"item\.at: cannot be stored: a value of type object"):
        record_of({"url": "https://a.example/", "at": [object()]}, "site", "run")
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(InvalidArgumentError, match=r"item\.at: cannot be stored: maximum recursion depth"):
        record_of({"url": "https://a.example/", "at": endless}, "site", "run")
    page, version = record_of({"url": "HTTPS://A.example", "title": "A", "x": 1, "html": None}, "site", "run")
    assert (page.url, version.title, version.extra) == ("https://a.example/", "A", {"x": 1})


def test_scrapy_pipeline_stores_the_fields_of_the_page_in_the_page() -> None:
    fields = {"depth": 3, "referrer_url": "https://a.example/", "redirect_url": "/b", "etag": "e"}
    item = {"url": "https://a.example/a", "status_code": 301, "x": 1, **fields}
    page, version = record_of(item, "site", "run")
    assert {name: getattr(page, name) for name in fields} == fields
    assert (page.status_code, version.status_code, version.etag) == (301, 301, "e")
    assert version.extra == {"x": 1}


def test_scrapy_pipeline_version_ids_stand_for_one_content_hash() -> None:
    """An id that is in use for another content_hash is refused by `commit_page`."""
    item = {"url": "https://a.example/", "markdown": "a"}
    others = [{**item, "markdown": "b"}, {**item, "content_hash": "1"}, {**item, "content_hash": "2"}]
    versions = [record_of(fields, "site", "run")[1] for fields in (item, *others)]
    assert len({version.version_id for version in versions}) == len({v.content_hash for v in versions}) == 4
    assert record_of(dict(item), "site", "run")[1].version_id == versions[0].version_id


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"status_code": 503}, "old"),
        ({"status_code": 403}, "old"),
        ({"status_code": 404}, None),
        ({"status_code": 301, "redirect_url": "https://a.example/b"}, None),
        ({"status_code": 206}, "new"),
        ({}, "new"),
    ],
)
async def test_scrapy_pipeline_goes_by_the_status_of_an_item(
    dynamodb_backend: DynamoDBBackend, fields: dict[str, object], kept: str | None
) -> None:
    for text, more in (("old", {}), ("new", fields)):
        record = record_of({"url": "https://a.example/", "markdown": text, **more}, "site", "run")
        await dynamodb_backend.commit_page(*record)
    pages = await dynamodb_backend.list_changes("site")
    current = [await dynamodb_backend.get_current_version("site", change.page.page_id) for change in pages]
    assert [version.markdown for version in current if version] == ([] if kept is None else [kept])


async def test_scrapy_pipeline_passes_on_values_that_are_no_items() -> None:
    pipeline = PagePipeline(cast("Any", None))
    for output in (None, "text", 5, ["list"]):
        assert await pipeline.process_item(output) is output


def test_scrapy_pipeline_stores_items_whose_values_are_lists() -> None:
    item = {
        "url": ["https://a.example/"],
        "title": ["A", "title"],
        "markdown": ["one", "two"],
        "outlinks": ["https://a.example/b"],
        "status_code": [201],
        "language": [],
        "tags": ["a", "b"],
    }
    page, version = record_of(item, "site", "run")
    assert (page.url, version.url) == ("https://a.example/", "https://a.example/")
    assert (version.title, version.markdown, version.outlinks) == ("A title", "one\ntwo", item["outlinks"])
    assert (version.status_code, version.language, version.extra) == (201, None, {"tags": ["a", "b"]})


def test_scrapy_pipeline_moves_fields_of_a_wrong_type_into_extra() -> None:
    fields: dict[str, object] = {"title": {"a": 1}, "word_count": "many", "outlinks": "no list", "depth": -1}
    page, version = record_of({"url": "https://a.example/", "markdown": "text", **fields}, "site", "run")
    assert (version.title, version.word_count, version.outlinks, page.depth) == (None, 0, [], 0)
    assert (version.markdown, version.extra) == ("text", fields)


async def test_scrapy_pipeline_stores_values_that_json_does_not_have(
    dynamodb_backend: DynamoDBBackend,
) -> None:
    moment = datetime(2026, 7, 1, 12, tzinfo=UTC)
    values = {"at": moment, "price": Decimal("1.10"), "tags": {"b", "a"}, "large": 2**70, "broken": "\ud83d"}
    record = record_of({"url": "https://a.example/", "crawled_at": moment, **values}, "site", "run")
    await dynamodb_backend.commit_page(*record)
    (version,) = [version async for version in dynamodb_backend.iter_versions("site")]
    assert version.crawled_at == moment
    assert version.extra == {
        "at": "2026-07-01T12:00:00+00:00",
        "price": "1.10",
        "tags": ["a", "b"],
        "large": str(2**70),
        "broken": "\ufffd",
    }
