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
