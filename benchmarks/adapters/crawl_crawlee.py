"""Crawls with Crawlee's BeautifulSoupCrawler, which stores in files, in memory or in DynamoDB."""

import asyncio
from contextlib import AsyncExitStack

from crawlee import ConcurrencySettings
from crawlee.configuration import Configuration
from crawlee.crawlers import BeautifulSoupCrawler, BeautifulSoupCrawlingContext
from crawlee.storage_clients import FileSystemStorageClient, MemoryStorageClient, StorageClient

from benchmarks.adapters.measured import arguments, measured
from ragcrawl_dynamo.adapters.crawlee import DynamoDBStorageClient


async def crawl() -> int:
    """Crawls sites, pushes the text of its pages, and returns the number of pages."""
    urls, config, folder = arguments()
    async with AsyncExitStack() as stack:
        if config is None:
            client: StorageClient = FileSystemStorageClient() if folder else MemoryStorageClient()
        else:
            client = await stack.enter_async_context(
                DynamoDBStorageClient(config, site_id="docs", run_id="monday", item_key="url")
            )
        crawler = BeautifulSoupCrawler(
            storage_client=client,
            configuration=Configuration(storage_dir=folder or "unused"),
            # A fixed number: Crawlee lowers it while the machine is busy, and the local engine keeps it busy.
            concurrency_settings=ConcurrencySettings(
                min_concurrency=8, desired_concurrency=8, max_concurrency=8
            ),
            configure_logging=False,
        )

        @crawler.router.default_handler
        async def handle(context: BeautifulSoupCrawlingContext) -> None:
            await context.push_data(
                {"url": context.request.url, "markdown": context.soup.get_text(" ", strip=True)}
            )
            await context.enqueue_links()

        statistics = await crawler.run(urls)
        return statistics.requests_finished


if __name__ == "__main__":
    measured(lambda: asyncio.run(crawl()))
