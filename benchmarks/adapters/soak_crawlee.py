"""Crawls a soak's site with Crawlee. Its processes share the crawl."""

import asyncio
from datetime import timedelta

from crawlee import ConcurrencySettings
from crawlee.crawlers import BeautifulSoupCrawler, BeautifulSoupCrawlingContext

from benchmarks.adapters.soak_site import Job
from ragcrawl_dynamo.adapters.crawlee import DynamoDBStorageClient


async def crawl(job: Job) -> None:
    """Pushes the text of each page."""
    async with DynamoDBStorageClient(
        job.config(),
        site_id="docs",
        run_id="monday",
        item_key="url",
        lease_seconds=job.lease_seconds,
        host_delay=job.host_delay,
    ) as client:
        crawler = BeautifulSoupCrawler(
            storage_client=client,
            concurrency_settings=ConcurrencySettings(
                min_concurrency=8, desired_concurrency=8, max_concurrency=8
            ),
            request_handler_timeout=timedelta(seconds=30),
            configure_logging=False,
        )

        @crawler.router.default_handler
        async def handle(context: BeautifulSoupCrawlingContext) -> None:
            url = context.request.loaded_url or context.request.url
            job.fail_once(url)
            await context.push_data({"url": url, "markdown": context.soup.get_text(" ", strip=True)})
            await context.enqueue_links(strategy="all")

        await crawler.run(job.urls)


if __name__ == "__main__":
    asyncio.run(crawl(Job.from_arguments()))
