"""Crawls three pages into an embedded DynamoDB. It needs no AWS account, no Docker and no network."""

import asyncio

from ragcrawl_dynamo import Task, connect
from ragcrawl_dynamo.testing import local_config, local_dynamodb

HOME = "https://example.com/"
# Stands for the web: the text and the links of each URL.
WEB = {
    HOME: ("# Home", ["guide", "install"]),
    f"{HOME}guide": ("# Guide", [HOME]),
    f"{HOME}install": ("# Install", [HOME, "missing"]),
}


async def main() -> None:
    """Crawls the site, and prints the changes of the change feed."""
    async with local_dynamodb() as endpoint, connect(local_config(endpoint)) as store:
        async with store.crawl("docs", seeds=[HOME]) as run:

            async def handle(task: Task) -> None:
                markdown, links = WEB.get(task.url, ("", []))  # your fetcher and parser
                await task.save(200 if markdown else 404, markdown=markdown, links=links)

            print(await run.work(handle, concurrency=8))
        print(f"{run.run.status}: {run.run.stats.pages_new} new pages")
        async for change in store.iter_changes("docs", "indexer", include_content=True):
            print(change.kind, change.page.url)  # embed change.version.markdown here


asyncio.run(main())
