"""Stores a dataset or a key-value store as a site, and its records as the pages of this site."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from ragcrawl_dynamo import DynamoDBBackend, Page, PageVersion, Site
from ragcrawl_dynamo.adapters._slices import closing
from ragcrawl_dynamo.adapters.crawlee.metadata import StorageTimes, storage_name

# Versions that are read at a time.
_VERSIONS_AT_ONCE = 50


class Collection:
    """The site of a dataset or a key-value store.

    Attributes:
        backend: The backend.
        site_id: Id of the site, which is the id of the dataset or store too.
        times: When it was created, read and changed.
    """

    def __init__(self, backend: DynamoDBBackend, site: Site) -> None:
        self.backend = backend
        self.site_id: str = site.site_id
        self.times: StorageTimes = StorageTimes(site.created_at)
        self._site = site
        self._is_dropped = False

    async def drop(self) -> None:
        """Deletes the site and its records. The next record that is saved makes a new site."""
        await self.backend.delete_site(self.site_id)
        self._is_dropped = True
        self.times.note_change()

    async def prepare_write(self) -> None:
        """Saves the site again if it was dropped. It is called before records are saved."""
        if self._is_dropped:
            await self.backend.save_site(self._site)
            self._is_dropped = False

    async def purge(self) -> None:
        """Deletes the records, and keeps the site."""
        await self.backend.delete_site(self.site_id)
        await self.backend.save_site(self._site)
        self._is_dropped = False
        self.times.note_change()

    def metadata(self) -> dict[str, Any]:
        """Returns the fields that the metadata of datasets and stores have in common."""
        return {"id": self.site_id, "name": storage_name(self._site.config), **self.times.fields()}

    def pages(self) -> AsyncIterator[Page]:
        """Yields the pages of all records, in the order of their ids."""
        return self.backend.iter_pages(self.site_id)

    async def versions(self, pages: AsyncIterator[Page]) -> AsyncGenerator[PageVersion, None]:
        """Yields the current versions of pages, and skips pages without one. Closes `pages` at its end."""
        batch: list[Page] = []
        async with closing(pages) as remaining:
            async for page in remaining:
                batch.append(page)
                if len(batch) == _VERSIONS_AT_ONCE:
                    for version in await self._read(batch):
                        yield version
                    batch = []
        for version in await self._read(batch):
            yield version

    async def _read(self, pages: list[Page]) -> list[PageVersion]:
        versions = await asyncio.gather(
            *(
                self.backend.get_version(self.site_id, page.page_id, page.current_version_id)
                for page in pages
                if page.current_version_id is not None
            )
        )
        return [version for version in versions if version is not None]
