"""Keeps a search index up to date from the change feed of a site.

It runs on an embedded DynamoDB and needs no AWS account and no Docker.

A crawler commits pages, here without a frontier. An indexer, which is independent of the crawler, reads the
change feed and indexes the pages that changed. It stores the cursor of the feed in its index, atomically with
the indexed pages, so it misses no change and always knows where to continue. If your index cannot store a
cursor atomically, use `iter_changes`, which keeps the cursor for you and can wait for more changes. The
indexer may then get a change twice; this does no harm if it stores pages by their ids.

    python examples/incremental_sync.py
"""

import asyncio

from ragcrawl_dynamo import Page, PageVersion, StorageBackend, connect, page_id
from ragcrawl_dynamo.testing import local_config, local_dynamodb

SITE = "docs"


class Index:
    """A simple replacement for a vector store: it has the chunks of each page, and the cursor of the feed."""

    def __init__(self) -> None:
        self.chunks: dict[str, list[str]] = {}
        self.cursor: str | None = None

    def apply(self, put: dict[str, list[str]], remove: list[str], cursor: str) -> None:
        """Stores a slice of changes with its cursor. A real index does this in one transaction."""
        for removed in remove:
            self.chunks.pop(removed, None)
        self.chunks.update(put)
        self.cursor = cursor


async def sync(backend: StorageBackend, index: Index) -> str:
    """Updates the index; returns a description of the changes."""
    done = []
    while True:
        changes = await backend.list_changes(SITE, limit=50, cursor=index.cursor, include_content=True)
        put, remove = {}, []
        for change in changes:
            if change.version is None:
                remove.append(change.page.page_id)
            else:
                put[change.page.page_id] = change.version.markdown.split("\n\n")
            done.append(f"{change.kind} {change.page.url}")
        index.apply(put, remove, changes.cursor)
        if changes.is_end:
            return ", ".join(done) or "nothing to do"


async def crawl(backend: StorageBackend, site: dict[str, str | None]) -> None:
    """Commits the current pages of a site, as a crawler does. A page whose text is None is gone."""
    for name, text in site.items():
        url = f"https://example.com/{name}"
        page = Page(page_id=page_id(url), site_id=SITE, url=url, status_code=200 if text is not None else 404)
        version = None if text is None else PageVersion.of(page, "run", markdown=text)
        await backend.commit_page(page, version)


async def main() -> None:
    """Crawls a changing site several times, and updates the index after each crawl."""
    async with local_dynamodb() as endpoint, connect(local_config(endpoint)) as backend:
        index = Index()
        site: dict[str, str | None] = {"home": "Welcome.\n\nTo the docs.", "install": "pip install it."}
        await crawl(backend, site)
        print(f"first crawl:    {await sync(backend, index)}")
        await crawl(backend, site)
        print(f"nothing new:    {await sync(backend, index)}")
        site |= {"install": "uv add it.", "home": None, "faq": "Why?"}
        await crawl(backend, site)
        print(f"site changed:   {await sync(backend, index)}")
        print(f"in the index:   {sorted(index.chunks.values())}")
        # A new indexer, or one that lost its data, starts without a cursor and gets all pages.
        print(f"a new indexer:  {await sync(backend, Index())}")


asyncio.run(main())
