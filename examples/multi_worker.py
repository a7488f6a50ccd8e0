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

from ragcrawl_dynamo import Crawl, DynamoDBConfig, Store, Task, connect
from ragcrawl_dynamo.testing import local_config, local_dynamodb

PAGES = 60
WORKERS = 3


def url(number: int) -> str:
    """Returns the URL of a page. The site has seven hosts."""
    return f"https://h{number % 7}.example.com/{number}"


def crawl_of(store: Store, run_id: str | None = None) -> Crawl:
    """Returns the crawl that all workers share."""
    hosts = [f"h{number}.example.com" for number in range(7)]
    return store.crawl("docs", seeds=[url(0)], allowed_domains=hosts, run_id=run_id)


async def handle(task: Task) -> None:
    """Pretends to fetch a page, and saves it."""
    await asyncio.sleep(0.05)
    number = int(task.url.rpartition("/")[2])
    links = [url(child) for child in (2 * number + 1, 2 * number + 2) if child < PAGES]
    await task.save(200, markdown=f"# Page {number}", links=links)


async def work(config: DynamoDBConfig, run_id: str) -> None:
    """Crawls until the run is finished."""
    # The leases of a killed worker expire after five seconds; other workers then claim its items.
    async with connect(config) as store, crawl_of(store, run_id) as crawl:
        await crawl.work(handle, concurrency=4, lease_seconds=5)


def process(config: DynamoDBConfig, run_id: str) -> None:
    """Runs in the process of a worker."""
    asyncio.run(work(config, run_id))


async def main() -> None:
    """Starts the workers, kills one of them, and counts the pages."""
    async with local_dynamodb() as endpoint:
        config = local_config(endpoint, frontier_max_clock_skew=0.5)
        async with connect(config) as store:
            async with crawl_of(store) as crawl:
                context = multiprocessing.get_context("spawn")
                arguments = (config, crawl.run.run_id)
                workers = [context.Process(target=process, args=arguments) for _ in range(WORKERS)]
                for worker in workers:
                    worker.start()
                started = time.monotonic()
                while (await crawl.frontier.stats()).completed < PAGES // 3:  # noqa: ASYNC110 # others do it
                    await asyncio.sleep(0.2)
                os.kill(workers[0].pid or 0, signal.SIGKILL)
                print(f"killed worker 1 of {WORKERS} after {time.monotonic() - started:.1f} s")
                for worker in workers:
                    await asyncio.to_thread(worker.join)
            pages = [page async for page in store.iter_pages("docs")]
            print(f"run {crawl.run.status}: {crawl.run.stats.pages_crawled} pages crawled of {PAGES}")
            print(f"stored {len(pages)} pages, {sum(page.version_count for page in pages)} versions")


if __name__ == "__main__":
    asyncio.run(main())
