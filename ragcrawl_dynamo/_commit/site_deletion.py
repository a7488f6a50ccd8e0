"""Deletes a site with all that it has, in an order that lets an interrupted deletion be repeated."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import Protocol

from ragcrawl_dynamo._dynamodb.values import unescape
from ragcrawl_dynamo._records.frontier_items import FrontierItemStore
from ragcrawl_dynamo._records.runs import RunStore
from ragcrawl_dynamo._records.sites import SiteStore


class SitePart(Protocol):
    """A store that holds something of each site."""

    async def delete_of_site(self, site_id: str) -> int:
        """Removes what it holds of a site; returns how many records."""
        ...


class SiteDeletion:
    """Deletes sites."""

    def __init__(
        self, sites: SiteStore, runs: RunStore, items: FrontierItemStore, parts: Sequence[SitePart]
    ) -> None:
        """`parts` are deleted in their order, after the runs and before the site itself."""
        self._sites = sites
        self._runs = runs
        self._items = items
        self._parts = parts

    async def delete(self, site_id: str) -> bool:
        """Deletes one site; see StorageBackend.delete_site."""
        existed = await self._sites.get(site_id) is not None
        removed = 0
        async with aclosing(self._runs.keys(site_id)) as pages:
            async for keys in pages:
                for key in keys:
                    # A run goes after its frontier: while it is there, a repeated call finds the frontier.
                    removed += await self._items.clear(unescape(key["run_id"]["S"]), site_id)
                removed += await self._runs.delete(keys)
        for part in self._parts:
            removed += await part.delete_of_site(site_id)
        await self._sites.delete(site_id)
        return existed or removed > 0
