"""Saves a page and reads it back from an embedded DynamoDB. It needs no AWS account and no Docker."""

import asyncio

from ragcrawl_dynamo import Page, Site, StorageConfig, create_storage_backend
from ragcrawl_dynamo.testing import local_config, local_dynamodb


async def main() -> None:
    """Opens a backend, saves a site with a page, and reads both back."""
    async with local_dynamodb() as endpoint:
        config = StorageConfig(backend=local_config(endpoint))
        async with create_storage_backend(config) as backend:
            await backend.save_site(Site(site_id="docs", name="Docs", seeds=["https://example.com/"]))
            await backend.save_page(Page(page_id="home", site_id="docs", url="https://example.com/"))
            page = await backend.get_page_by_url("docs", "https://example.com")
            assert page is not None  # noqa: S101 # it was saved above
            print(f"{page.url} is page {page.page_id!r}, first seen {page.first_seen:%Y-%m-%d %H:%M} UTC")
            for due_page in await backend.get_pages_needing_recrawl("docs", max_age_hours=24):
                print(f"{due_page.url} is due")


asyncio.run(main())
