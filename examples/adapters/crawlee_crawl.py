"""A Crawlee crawler that several processes run together. It survives a killed process.

    pip install 'ragcrawl-dynamo[crawlee,local]' 'crawlee[beautifulsoup]'
    python examples/adapters/crawlee_crawl.py https://docs.example.org/
    python examples/adapters/crawlee_crawl.py https://docs.example.org/ --endpoint-url http://127.0.0.1:8000

Without an endpoint it starts an embedded engine, whose data is lost when the program ends.
"""

import argparse
import asyncio

from crawlee import ConcurrencySettings
from crawlee.crawlers import BeautifulSoupCrawler, BeautifulSoupCrawlingContext

from ragcrawl_dynamo.adapters.crawlee import DynamoDBStorageClient
from ragcrawl_dynamo.testing import local_config, run_moto


async def crawl(url: str, endpoint: str, prefix: str, run_id: str, lease_seconds: float) -> None:
    """Crawls a site, and pushes the text of each page."""
    storage_client = DynamoDBStorageClient(
        # What is throttled is tried again until `call_timeout`, as by default.
        local_config(endpoint, table_prefix=prefix, retry_attempts=None),
        site_id="docs",
        run_id=run_id,
        # A page that is pushed again replaces its old item.
        item_key="url",
        lease_seconds=lease_seconds,
    )
    async with storage_client:
        crawler = BeautifulSoupCrawler(
            storage_client=storage_client,
            concurrency_settings=ConcurrencySettings(desired_concurrency=8, max_concurrency=8),
            configure_logging=False,
        )

        @crawler.router.default_handler
        async def handle(context: BeautifulSoupCrawlingContext) -> None:
            title = context.soup.title.string if context.soup.title else None
            await context.push_data(
                {
                    "url": context.request.url,
                    "title": title,
                    "markdown": context.soup.get_text(" ", strip=True),
                }
            )
            await context.enqueue_links()

        statistics = await crawler.run([url])
        print(f"{statistics.requests_finished} requests finished, {statistics.requests_failed} failed")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--endpoint-url", help="endpoint of DynamoDB; an embedded engine by default")
    parser.add_argument("--table-prefix", default="crawlee_")
    parser.add_argument("--run-id", default="monday")
    parser.add_argument("--lease-seconds", type=float, default=60.0)
    options = parser.parse_args()
    arguments = (options.table_prefix, options.run_id, options.lease_seconds)
    if options.endpoint_url:
        asyncio.run(crawl(options.url, options.endpoint_url, *arguments))
    else:
        with run_moto() as endpoint:
            asyncio.run(crawl(options.url, endpoint, *arguments))
