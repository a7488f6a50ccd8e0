"""Crawlers: they fail and retry, their requests hit faults, and their processes are killed."""

from __future__ import annotations

import pytest
from crawlee.crawlers import BasicCrawler, BasicCrawlingContext

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig
from ragcrawl_dynamo.adapters.crawlee import DynamoDBStorageClient
from tests.adapters.crawlee.requests import url
from tests.adapters.processes import check_bad_day, crawl_with_a_kill
from tests.adapters.site import Site
from tests.support.aws import SimulatedAWS
from tests.support.engines import on_dynamodb_local
from tests.support.faults import Faults, faulty

# Where the example stores the pages.
DATASET = "docs/monday:dataset"

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


async def test_crawlee_crawler_retries_and_gives_up(client: DynamoDBStorageClient) -> None:
    crawler = BasicCrawler(storage_client=client, max_request_retries=2, configure_logging=False)
    tries: list[str] = []

    @crawler.router.default_handler
    async def handle(context: BasicCrawlingContext) -> None:
        tries.append(context.request.url)
        if context.request.url == url("bad"):
            raise ValueError("bad")
        if context.request.url == url("good"):
            await context.add_requests([url("more")])

    statistics = await crawler.run([url("bad"), url("good")])
    assert (statistics.requests_finished, statistics.requests_failed) == (2, 1)
    assert sorted(tries) == sorted([url("bad")] * 3 + [url("good"), url("more")])


@on_dynamodb_local
async def test_crawlee_crawler_loses_nothing_to_faults_of_the_network_and_of_dynamodb(
    dynamodb_backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, dynamodb_endpoint: str
) -> None:
    faults = Faults(dynamodb_endpoint, 0.15, seed=3)
    async with faulty(faults) as proxy:
        changes = {"endpoint_url": proxy, "read_timeout": 0.5, "retry_base_delay": 0.01}
        config = dynamodb_config.model_copy(update=changes)
        async with DynamoDBStorageClient(config, site_id="site", run_id="run", item_key="url") as client:
            crawler = BasicCrawler(storage_client=client, configure_logging=False)

            @crawler.router.default_handler
            async def handle(context: BasicCrawlingContext) -> None:
                number = int(context.request.url.rpartition("/")[2])
                await context.push_data({"url": context.request.url, "number": number})
                await context.add_requests([url(link) for link in (2 * number, 2 * number + 1) if link < 64])

            statistics = await crawler.run([url(1)])
    assert statistics.requests_failed == 0
    assert sum(faults.injected.values()) > 30
    pages = [page async for page in dynamodb_backend.iter_pages("site/run:dataset")]
    assert sorted(page.url for page in pages) == sorted(url(number) for number in range(1, 64))
    assert {page.version_count for page in pages} == {1}
    stats = await dynamodb_backend.frontier("site", "site/run").recount()
    assert (stats.completed, stats.total) == (63, 63)


@on_dynamodb_local
async def test_crawlee_crawlers_of_two_processes_finish_although_one_is_killed(
    site: Site, dynamodb_backend: DynamoDBBackend, dynamodb_endpoint: str
) -> None:
    await crawl_with_a_kill("crawlee_crawl.py", site, dynamodb_backend, dynamodb_endpoint, DATASET)


@pytest.mark.aws
@on_dynamodb_local
async def test_crawlee_crawlers_of_two_processes_finish_on_a_simulated_aws_although_one_is_killed(
    site: Site, dynamodb_backend: DynamoDBBackend, aws: SimulatedAWS
) -> None:
    await crawl_with_a_kill("crawlee_crawl.py", site, dynamodb_backend, aws.url, DATASET)
    check_bad_day(aws)
