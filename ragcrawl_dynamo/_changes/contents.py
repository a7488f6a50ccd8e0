"""Loads the versions of changed pages, a few at a time, and pages again whose versions are gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol

from ragcrawl_dynamo._changes.change import ChangeKind, PageChange, kind_now
from ragcrawl_dynamo._dynamodb.retry import full_jitter
from ragcrawl_dynamo._dynamodb.values import Key
from ragcrawl_dynamo._records.pages import PageStore
from ragcrawl_dynamo._schema.keys import version_key
from ragcrawl_dynamo.config import DynamoDBConfig
from ragcrawl_dynamo.models import Page, PageVersion

# Times that a page is read again whose version was not found.
_READS = 4


class VersionLoader(Protocol):
    """Loads versions with their bodies, strongly consistent; None for one that is absent."""

    async def get(self, key: Key) -> PageVersion | None:
        """Loads one version."""
        ...

    def iterate(self, keys: AsyncIterable[Key]) -> AsyncGenerator[PageVersion | None, None]:
        """Loads a version for each key, in the order of the keys, in bounded memory."""
        ...


class ChangeContents:
    """Loads the versions that the pages of changes name."""

    def __init__(self, config: DynamoDBConfig, pages: PageStore, versions: VersionLoader) -> None:
        self._config = config
        self._pages = pages
        self._versions = versions

    async def loaded(self, changes: Sequence[PageChange]) -> AsyncGenerator[PageChange, None]:
        """Yields changes of different pages with their versions, in their order. Use it within `aclosing`."""
        async with aclosing(self._versions.iterate(_version_keys(changes))) as versions:
            for change in changes:
                if _version_key(change.page) is None:
                    yield change
                    continue
                version = await anext(versions)
                yield await self._read_again(change) if version is None else replace(change, version=version)

    async def _read_again(self, change: PageChange) -> PageChange:
        """Reads a page again whose version was not found, and the version that it names now.

        The page may have changed since it was read, and its former version may have been pruned. Or the page
        was read in the middle of its transaction, whose items become visible one after the other.
        """
        for failures in range(1, _READS + 1):
            page = await self._pages.get(change.page.site_id, change.page.page_id)
            if page is None:
                # Its site was deleted.
                return replace(change, kind=ChangeKind.DELETED)
            change = PageChange(kind_now(change.kind, page), page)
            key = _version_key(page)
            if key is None:
                return change
            version = await self._versions.get(key)
            if version is not None:
                return replace(change, version=version)
            await asyncio.sleep(full_jitter(self._config, failures))
        # `save_page` wrote it with a version that was never saved.
        return change


async def _version_keys(changes: Iterable[PageChange]) -> AsyncGenerator[Key, None]:
    for change in changes:
        if (key := _version_key(change.page)) is not None:
            yield key


def _version_key(page: Page) -> Key | None:
    """Returns the key of a page's current version; None if the page is deleted, or names none."""
    if page.is_tombstone or page.current_version_id is None:
        return None
    return version_key(page.page_id, page.current_version_id, page.site_id)
