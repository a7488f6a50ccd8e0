"""Fetches the pages of a site, and saves them. Tests pass a fetch function without network."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from ragcrawl_dynamo import Store, Task, WorkSummary


@dataclass(frozen=True)
class Response:
    """The response to a fetch."""

    status: int
    text: str = ""
    links: list[str] = field(default_factory=list)


Fetch = Callable[[str], Awaitable[Response]]


async def crawl(store: Store, site_id: str, seeds: list[str], fetch: Fetch) -> WorkSummary:
    """Crawls from the seeds until the run is finished. Many processes may call it at the same time."""
    async with store.crawl(site_id, seeds=seeds) as run:

        async def handle(task: Task) -> None:
            response = await fetch(task.url)
            await task.save(response.status, markdown=response.text, links=response.links)

        return await run.work(handle, concurrency=4)
