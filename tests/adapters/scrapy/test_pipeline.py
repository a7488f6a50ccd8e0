"""The pipeline: which items become pages."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig, FrontierStatus, InvalidArgumentError
from ragcrawl_dynamo.adapters.scrapy.pipeline import record_of
from tests.adapters.scrapy.crawls import crawl, statuses
from tests.adapters.site import Site

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


async def test_scrapy_pipeline_skips_items_that_are_dropped_or_fail(
    site: Site, dynamodb_backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    site.pages = 5
    pipelines = {"tests.adapters.scrapy.spiders.Dropping": 100}
    stats = await crawl(dynamodb_config, "Plain", site.url, ITEM_PIPELINES=pipelines)
    assert (stats["item_dropped_count"], stats["ragcrawl_dynamo/failed"]) == (1, 1)
    assert await statuses(dynamodb_backend) == dict.fromkeys(site.urls, FrontierStatus.COMPLETED)
    pages = {page.url[-1] async for page in dynamodb_backend.iter_pages("site")}
    assert pages == {"0", "1", "3", "4"}


def test_scrapy_pipeline_names_the_field_that_cannot_be_stored() -> None:
    with pytest.raises(InvalidArgumentError, match=r"item\.status_code"):
        record_of({"url": "https://a.example/", "status_code": "many"}, "site", "run")
    with pytest.raises(InvalidArgumentError, match="item: cannot be encoded as JSON"):
        record_of({"url": "https://a.example/", "at": datetime.now(UTC)}, "site", "run")
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
    versions = [record_of(each, "site", "run")[1] for each in (item, *others)]
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
    current = [await dynamodb_backend.get_current_version("site", each.page.page_id) for each in pages]
    assert [version.markdown for version in current if version] == ([] if kept is None else [kept])
