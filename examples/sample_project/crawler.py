"""Fetches the pages in the frontier of a run, and saves them. Tests pass a fetch function without network."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import sha256

from ragcrawl_dynamo import Claim, DynamoDBBackend, Page, PageVersion


@dataclass(frozen=True)
class Response:
    """The response to a fetch."""

    status: int
    text: str = ""
    links: list[str] = field(default_factory=list)


Fetch = Callable[[str], Awaitable[Response]]


def digest(text: str) -> str:
    """Returns a short hash."""
    return sha256(text.encode()).hexdigest()[:32]


async def crawl(backend: DynamoDBBackend, site_id: str, run_id: str, seeds: list[str], fetch: Fetch) -> None:
    """Crawls from the seeds until the run is finished. Many processes may call it at the same time."""
    frontier = backend.frontier(site_id, run_id)
    await frontier.add(seeds)

    async def handle(claim: Claim) -> None:
        url = claim.item.url
        response = await fetch(url)
        if response.status >= 500:
            # The worker puts the item back into the queue, to be tried again later.
            raise RuntimeError(f"{url} answered {response.status}")
        page = Page(page_id=digest(url), site_id=site_id, url=url, status_code=response.status)
        version = None
        if response.status == 200:
            version = PageVersion(
                version_id=digest(f"{run_id} {url}"),
                page_id=page.page_id,
                site_id=site_id,
                run_id=run_id,
                url=url,
                status_code=response.status,
                content_hash=digest(response.text),
                markdown=response.text,
            )
        await backend.commit_page(page, version, claim=claim, discovered=response.links)

    async with frontier.worker(concurrency=4) as worker:
        await worker.run(handle)
