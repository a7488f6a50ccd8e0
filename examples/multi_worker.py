"""Several processes that crawl together, one of which is killed: nothing is lost, nothing is done twice.

    python examples/multi_worker.py

The parent starts an embedded DynamoDB and three workers, and kills one with SIGKILL half-way. On AWS the
workers would run on several machines, with nothing in common but the tables.
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
    """A page of the site, which has hosts in plenty."""
    return f"https://h{number % 7}.example.com/{number}"


async def work(config: DynamoDBConfig) -> None:
    """One worker: claims, "fetches", commits, until the run is finished."""
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
            links = [url(each) for each in (2 * number + 1, 2 * number + 2) if each < PAGES]
            page = Page(page_id=page_id, site_id=SITE, url=claim.item.url, status_code=200)
            await backend.commit_page(page, version, claim=claim, discovered=links)

        # The leases of a killed worker end after that long; others take over.
        async with backend.frontier(RUN, SITE).worker(concurrency=4, lease_seconds=5) as worker:
            await worker.run(handle)


def process(config: DynamoDBConfig) -> None:
    """What a worker's process runs."""
    asyncio.run(work(config))


async def main() -> None:
    """Starts all of it, kills one, and counts."""
    async with local_dynamodb() as endpoint:
        config = local_config(endpoint, frontier_max_clock_skew=0.5)
        async with DynamoDBBackend(config) as backend:
            await backend.save_site(Site(site_id=SITE, name="Docs", seeds=[url(0)]))
            await backend.save_run(CrawlRun(run_id=RUN, site_id=SITE, status=RunStatus.RUNNING))
            frontier = backend.frontier(RUN, SITE)
            await frontier.add([url(0)])
            context = multiprocessing.get_context("spawn")
            workers = [context.Process(target=process, args=(config,)) for _ in range(WORKERS)]
            for each in workers:
                each.start()
            started = time.monotonic()
            while (await frontier.stats()).completed < PAGES // 3:  # noqa: ASYNC110 # others complete them
                await asyncio.sleep(0.2)
            victim = workers[0]
            os.kill(victim.pid or 0, signal.SIGKILL)
            print(f"killed worker 1 of {WORKERS} after {time.monotonic() - started:.1f} s")
            for each in workers:
                await asyncio.to_thread(each.join)
            run = await backend.complete_run(SITE, RUN)
            pages = [page async for page in backend.iter_pages(SITE)]
            print(f"run {run.status}: {run.stats.pages_crawled} pages crawled of {PAGES}")
            print(f"stored {len(pages)} pages, {sum(page.version_count for page in pages)} versions")


if __name__ == "__main__":
    asyncio.run(main())
