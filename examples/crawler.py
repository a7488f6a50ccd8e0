"""A complete crawler: `python examples/crawler.py URL`. Run it again to resume it, or to look for changes."""

import asyncio
import sys

import aiohttp
from bs4 import BeautifulSoup
from markdownify import markdownify

from ragcrawl_dynamo import Task, connect


async def main(url: str) -> None:
    """Crawls the site of a URL, and prints which pages have changed since the last time."""
    async with connect() as store, aiohttp.ClientSession() as http:  # settings: RAGCRAWL_DYNAMO_* variables
        async with store.crawl("docs", seeds=[url], host_delay=0.1) as run:

            async def handle(task: Task) -> None:
                async with http.get(task.url, headers=task.conditional_headers) as response:
                    html = await response.text()
                soup = BeautifulSoup(html, "lxml")
                await task.save(
                    response.status,
                    headers=response.headers,
                    url=str(response.url),
                    redirects=[hop.status for hop in response.history],
                    html=html,
                    markdown=markdownify(html),
                    title=soup.title.get_text() if soup.title else None,
                    links=[str(tag["href"]) for tag in soup.find_all("a", href=True)],
                )

            print(await run.work(handle, concurrency=8))
        async for change in store.iter_changes("docs", "printer"):
            print(change.kind, change.page.url)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
