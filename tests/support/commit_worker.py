"""Runs a worker process that crawls a small made-up site by commits, and kills itself with SIGKILL."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from ragcrawl_dynamo import Claim, DynamoDBBackend, Page, PageVersion
from ragcrawl_dynamo.testing import local_config
from tests.support.factories import dense_text
from tests.support.fakes import intercepting

PAGES = 3
LEASE_SECONDS = 1.0


def url(number: int) -> str:
    return f"https://a.example/{number}"


def links(number: int) -> list[str]:
    return [url(linked) for linked in (2 * number + 1, 2 * number + 2) if linked < PAGES]


def settings(endpoint: str, prefix: str) -> Any:
    return local_config(
        endpoint,
        table_prefix=prefix,
        conditional_batches="partiql",
        frontier_max_clock_skew=0.1,
        frontier_max_attempts=100,
    )


def work(
    endpoint: str, prefix: str, step: int | None = None, moment: str = "before", run_id: str = "run"
) -> None:
    """Crawls a run, and dies at a request or at the end.

    `step` counts requests from the claim of the first item on; it dies before it sends that one, or after the
    engine has applied it. Without, it crawls to the end.
    """
    asyncio.run(crawl(endpoint, prefix, step, moment == "after", run_id))


async def crawl(endpoint: str, prefix: str, step: int | None, after: bool, run_id: str) -> None:
    sent = 0
    counting = False

    async def around(operation: str, request: dict[str, Any], call: Any) -> Any:
        nonlocal sent
        sent += counting
        # Requests can overlap, so the number of this request counts when its answer comes.
        is_last = counting and sent == step
        if is_last and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = await call(**request)
        if is_last:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    async with DynamoDBBackend(settings(endpoint, prefix), client_factory=intercepting(around)) as backend:
        frontier = backend.frontier("site", run_id)

        async def handle(claim: Claim) -> None:
            nonlocal counting
            # From here on each request is one at which it may die.
            counting = True
            number = int(claim.item.url.rpartition("/")[2])
            body = dense_text(20, f"{number}")
            page = Page(page_id=claim.item.item_id, site_id="site", url=claim.item.url, status_code=200)
            version = PageVersion(
                version_id=f"v{number}",
                page_id=page.page_id,
                site_id="site",
                run_id=run_id,
                markdown=body,
                content_hash=f"hash {number}",
                url=page.url,
                status_code=200,
            )
            await backend.commit_page(page, version, claim=claim, discovered=links(number))

        async with frontier.worker(lease_seconds=LEASE_SECONDS) as worker:
            await worker.run(handle)
