"""Reads the current versions of a site, some of its pages or all, for the document loaders of frameworks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from types import NoneType
from typing import Any, Self, TypeAlias

from ragcrawl_dynamo._utils.concurrency import read_ahead
from ragcrawl_dynamo._utils.portal import Portal
from ragcrawl_dynamo._utils.validation import check_kind, check_moment
from ragcrawl_dynamo.backend import DynamoDBBackend
from ragcrawl_dynamo.config import DynamoDBConfig
from ragcrawl_dynamo.models import Page, PageVersion

# Versions that are read ahead.
_READ_AHEAD = 8

Source: TypeAlias = DynamoDBBackend | DynamoDBConfig


@dataclass(frozen=True, slots=True)
class SiteReader:
    """Reads the current versions of the pages of a site, ordered by page_id, a few at a time.

    Attributes:
        source: An open backend or store, or settings to open one with.
        site_id: The site.
        url_prefix: Only pages whose URL begins with it; None for all.
        changed_since: Only pages that were created or changed at that moment or later; None for all.
    """

    source: Source
    site_id: str
    url_prefix: str | None
    changed_since: datetime | None

    @classmethod
    def checked(
        cls, source: Source, site_id: str, url_prefix: str | None, changed_since: datetime | None
    ) -> Self:
        """Checks the arguments.

        Raises:
            InvalidArgumentError: One has a wrong type.
        """
        check_kind("source", source, DynamoDBBackend, DynamoDBConfig)
        check_kind("site_id", site_id, str)
        check_kind("url_prefix", url_prefix, str, NoneType)
        moment = None if changed_since is None else check_moment("changed_since", changed_since)
        return cls(source, site_id, url_prefix, moment)

    async def versions(self) -> AsyncGenerator[PageVersion, None]:
        """Yields the versions. Use it within `aclosing`."""
        if isinstance(self.source, DynamoDBBackend):
            versions = self._versions_of(self.source)
        else:
            versions = self._versions_of_opened(DynamoDBBackend(self.source))
        async with aclosing(versions):
            async for version in versions:
                yield version

    def versions_in_thread(self) -> Iterator[PageVersion]:
        """Yields the versions to a synchronous caller, from a backend of its own in another thread."""
        portal = Portal("ragcrawl_dynamo")
        versions = self._versions_of_opened(self._own_backend())

        async def following() -> PageVersion | None:
            return await anext(versions, None)

        try:
            while (version := portal.call(following())) is not None:
                yield version
        finally:
            try:
                portal.call(_close(versions))
            finally:
                portal.close()

    def _own_backend(self) -> DynamoDBBackend:
        if isinstance(self.source, DynamoDBConfig):
            return DynamoDBBackend(self.source)
        # An open backend belongs to its event loop.
        access = self.source._rooms.access
        return DynamoDBBackend(self.source.config, session=access.session, client_config=access.client_config)

    async def _versions_of_opened(self, backend: DynamoDBBackend) -> AsyncGenerator[PageVersion, None]:
        async with backend, aclosing(self._versions_of(backend)) as versions:
            async for version in versions:
                yield version

    async def _versions_of(self, backend: DynamoDBBackend) -> AsyncGenerator[PageVersion, None]:
        async with aclosing(read_ahead(self._reads(backend), _READ_AHEAD)) as versions:
            async for version in versions:
                if version is not None:
                    yield version

    async def _reads(
        self, backend: DynamoDBBackend
    ) -> AsyncGenerator[Callable[[], Awaitable[PageVersion | None]], None]:
        pages: Any = backend.iter_pages(self.site_id)
        async with aclosing(pages):
            async for page in pages:
                if page.current_version_id is not None and self._is_wanted(page):
                    yield partial(_load, backend, page, page.current_version_id)

    def _is_wanted(self, page: Page) -> bool:
        if self.url_prefix is not None and not page.url.startswith(self.url_prefix):
            return False
        # `save_page` may have stored a page without the moment of its last change.
        changed_at = page.last_changed or page.first_seen
        return self.changed_since is None or changed_at >= self.changed_since


async def _load(backend: DynamoDBBackend, page: Page, version_id: str) -> PageVersion | None:
    version = await backend.get_version(page.site_id, page.page_id, version_id)
    # The page may have changed since it was listed, and the version was pruned.
    return version or await backend.get_current_version(page.site_id, page.page_id)


async def _close(versions: AsyncGenerator[PageVersion, None]) -> None:
    await versions.aclose()
