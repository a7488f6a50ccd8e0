"""Crawls with several processes and kills one of them: no page is lost, and no page is saved twice.

    python examples/multi_worker.py

The parent starts an embedded DynamoDB and three workers, and kills one of them with SIGKILL during the crawl.
On AWS, the workers can run on several machines. They share only the tables.
"""

import asyncio
import multiprocessing
import os
import signal
import time
from hashlib import sha256

from ragcrawl_dynamo import (
    Claim,
    CrawlRun,
    DynamoDBBackend,
    DynamoDBConfig,
    Page,
    PageVersion,
    RunStatus,
    Site,
)
from ragcrawl_dynamo.testing import local_config, local_dynamodb

SITE, RUN = "docs", "monday"
PAGES = 60
WORKERS = 3


def url(number: int) -> str:
    """Returns the URL of a page. The site has seven hosts."""
    return f"https://h{number % 7}.example.com/{number}"


async def work(config: DynamoDBConfig) -> None:
    """Claims, "fetches" and commits pages until the run is finished."""
    async with DynamoDBBackend(config) as backend:

        async def handle(claim: Claim) -> None:
            number = int(claim.item.url.rpartition("/")[2])
            await asyncio.sleep(0.05)
            page_id = sha256(claim.item.url.encode()).hexdigest()[:32]
            text = f"# Page {number}"
            version = PageVersion(
                version_id=f"{RUN} {page_id}",
                page_id=page_id,
                site_id=SITE,
                run_id=RUN,
                url=claim.item.url,
                status_code=200,
                content_hash=sha256(text.encode()).hexdigest(),
                markdown=text,
            )
            links = [url(child) for child in (2 * number + 1, 2 * number + 2) if child < PAGES]
            page = Page(page_id=page_id, site_id=SITE, url=claim.item.url, status_code=200)
            await backend.commit_page(page, version, claim=claim, discovered=links)

        # The leases of a killed worker expire after that time; other workers then claim its items.
        async with backend.frontier(SITE, RUN).worker(concurrency=4, lease_seconds=5) as worker:
            await worker.run(handle)


def process(config: DynamoDBConfig) -> None:
    """Runs in the process of a worker."""
    asyncio.run(work(config))


async def main() -> None:
    """Starts the workers, kills one of them, and counts the pages."""
    async with local_dynamodb() as endpoint:
        config = local_config(endpoint, frontier_max_clock_skew=0.5)
        async with DynamoDBBackend(config) as backend:
            await backend.save_site(Site(site_id=SITE, name="Docs", seeds=[url(0)]))
            await backend.save_run(CrawlRun(run_id=RUN, site_id=SITE, status=RunStatus.RUNNING))
            frontier = backend.frontier(SITE, RUN)
            await frontier.add([url(0)])
            context = multiprocessing.get_context("spawn")
            workers = [context.Process(target=process, args=(config,)) for _ in range(WORKERS)]
            for worker in workers:
                worker.start()
            started = time.monotonic()
            while (await frontier.stats()).completed < PAGES // 3:  # noqa: ASYNC110 # others complete them
                await asyncio.sleep(0.2)
            victim = workers[0]
            os.kill(victim.pid or 0, signal.SIGKILL)
            print(f"killed worker 1 of {WORKERS} after {time.monotonic() - started:.1f} s")
            for worker in workers:
                await asyncio.to_thread(worker.join)
            run = await backend.complete_run(SITE, RUN)
            pages = [page async for page in backend.iter_pages(SITE)]
            print(f"run {run.status}: {run.stats.pages_crawled} pages crawled of {PAGES}")
            print(f"stored {len(pages)} pages, {sum(page.version_count for page in pages)} versions")


if __name__ == "__main__":
    asyncio.run(main())
