"""Keeps a search index up to date from a site's change feed, in an embedded DynamoDB: no account, no Docker.

A crawler commits pages; an indexer, which knows nothing of the crawler, follows the feed under a name of its
own and embeds what changed. It stores the feed's cursor with its index, in one step with what it indexed, so
that it neither misses a change nor needs to be told where it was. Where an index can not do that, let
`iter_changes` keep the cursor: changes then can come twice, which does no harm where each is put by its id.

    python examples/incremental_sync.py
"""

import asyncio
from hashlib import sha256

from ragcrawl_dynamo import (
    ChangeKind,
    Page,
    PageVersion,
    StorageBackend,
    StorageConfig,
    create_storage_backend,
)
from ragcrawl_dynamo.testing import local_config, local_dynamodb

SITE = "docs"


class Index:
    """A toy in the place of a vector store: chunks by page, and how far the feed has been read."""

    def __init__(self) -> None:
        self.chunks: dict[str, list[str]] = {}
        self.cursor: str | None = None

    def apply(self, put: dict[str, list[str]], remove: list[str], cursor: str) -> None:
        """Stores a slice of changes and the cursor behind it: one transaction, in a real one."""
        for page_id in remove:
            self.chunks.pop(page_id, None)
        self.chunks.update(put)
        self.cursor = cursor


async def sync(backend: StorageBackend, index: Index) -> str:
    """Brings the index up to date; says what it did."""
    done = []
    while True:
        changes = await backend.list_changes(SITE, limit=50, cursor=index.cursor)
        remove = [each.page.page_id for each in changes if each.kind is ChangeKind.DELETED]
        put = {}
        for each in changes:
            if each.kind is not ChangeKind.DELETED:
                version = await backend.get_current_version(SITE, each.page.page_id)
                if version is not None:
                    put[each.page.page_id] = version.markdown.split("\n\n")
            done.append(f"{each.kind} {each.page.url}")
        index.apply(put, remove, changes.cursor)
        if changes.is_end:
            return ", ".join(done) or "nothing to do"


async def crawl(backend: StorageBackend, site: dict[str, str | None]) -> None:
    """Commits a site as it is now, as a crawler would; None is a page that is gone."""
    for name, text in site.items():
        url = f"https://example.com/{name}"
        page = Page(page_id=name, site_id=SITE, url=url, status_code=200 if text is not None else 404)
        version = None
        if text is not None:
            digest = sha256(text.encode()).hexdigest()
            version = PageVersion(
                version_id=digest[:16],
                page_id=name,
                site_id=SITE,
                run_id="run",
                markdown=text,
                content_hash=digest,
                url=url,
                status_code=200,
            )
        await backend.commit_page(page, version)


async def main() -> None:
    """Crawls a site as it changes, and lets the indexer follow."""
    async with (
        local_dynamodb() as endpoint,
        create_storage_backend(StorageConfig(backend=local_config(endpoint))) as backend,
    ):
        index = Index()
        site: dict[str, str | None] = {"home": "Welcome.\n\nTo the docs.", "install": "pip install it."}
        await crawl(backend, site)
        print(f"first crawl:    {await sync(backend, index)}")
        await crawl(backend, site)
        print(f"nothing new:    {await sync(backend, index)}")
        site |= {"install": "uv add it.", "home": None, "faq": "Why?"}
        await crawl(backend, site)
        print(f"site changed:   {await sync(backend, index)}")
        print(f"in the index:   {index.chunks}")
        # Another indexer, or this one after it lost its data, gets everything that there is.
        print(f"a new indexer:  {await sync(backend, Index())}")


asyncio.run(main())
