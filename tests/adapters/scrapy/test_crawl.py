"""Whole crawls: their requests hit faults, and their processes are killed."""

from __future__ import annotations

import pytest

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig, FrontierStatus
from tests.adapters.processes import check_bad_day, crawl_with_a_kill
from tests.adapters.scrapy.crawls import crawl, statuses
from tests.adapters.site import Site
from tests.support.aws import SimulatedAWS
from tests.support.engines import on_dynamodb_local
from tests.support.faults import Faults, faulty

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@on_dynamodb_local
async def test_scrapy_spider_loses_nothing_to_faults_of_the_network_and_of_dynamodb(
    site: Site, dynamodb_backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, dynamodb_endpoint: str
) -> None:
    faults = Faults(dynamodb_endpoint, 0.15, seed=7)
    async with faulty(faults) as proxy:
        changes = {"endpoint_url": proxy, "read_timeout": 0.5, "retry_base_delay": 0.01}
        await crawl(dynamodb_config.model_copy(update=changes), "Plain", site.url)
    assert sum(faults.injected.values()) > 30
    assert await statuses(dynamodb_backend) == dict.fromkeys(site.urls, FrontierStatus.COMPLETED)
    pages = [page async for page in dynamodb_backend.iter_pages("site")]
    assert sorted(page.url for page in pages) == sorted(site.urls)
    assert {page.version_count for page in pages} == {1}


@on_dynamodb_local
async def test_scrapy_spiders_of_two_processes_finish_although_one_is_killed(
    site: Site, dynamodb_backend: DynamoDBBackend, dynamodb_endpoint: str
) -> None:
    again = await crawl_with_a_kill("scrapy_crawl.py", site, dynamodb_backend, dynamodb_endpoint, "docs")
    assert again == "0 requests completed by this process\n"


@pytest.mark.aws
@on_dynamodb_local
async def test_scrapy_spiders_of_two_processes_finish_on_a_simulated_aws_although_one_is_killed(
    site: Site, dynamodb_backend: DynamoDBBackend, aws: SimulatedAWS
) -> None:
    again = await crawl_with_a_kill("scrapy_crawl.py", site, dynamodb_backend, aws.url, "docs")
    assert again.endswith("0 requests completed by this process\n")
    check_bad_day(aws)
