"""Deletes a site with all its records, in an order that allows repeating an interrupted deletion."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import Protocol

from ragcrawl_dynamo._dynamodb.values import unescape
from ragcrawl_dynamo._frontier.frontiers import Frontiers
from ragcrawl_dynamo._records.frontier_items import FrontierItemStore
from ragcrawl_dynamo._records.runs import RunStore
from ragcrawl_dynamo._records.sites import SiteStore


class SitePart(Protocol):
    """A store that holds records of sites."""

    async def delete_of_site(self, site_id: str) -> int:
        """Deletes the records of a site; returns how many."""
        ...


class SiteDeletion:
    """Deletes sites with all their records."""

    def __init__(
        self,
        sites: SiteStore,
        runs: RunStore,
        items: FrontierItemStore,
        frontiers: Frontiers,
        parts: Sequence[SitePart],
    ) -> None:
        """`parts` are deleted in their order, after the runs and before the site itself."""
        self._sites = sites
        self._runs = runs
        self._items = items
        self._frontiers = frontiers
        self._parts = parts

    async def delete(self, site_id: str) -> bool:
        """Deletes one site; see StorageBackend.delete_site."""
        existed = await self._sites.get(site_id) is not None
        deleted = 0
        async with aclosing(self._runs.keys(site_id)) as pages:
            async for keys in pages:
                for key in keys:
                    run_id = unescape(key["run_id"]["S"])
                    # A run is deleted after its frontier: a repeated call finds the frontier by the run.
                    deleted += await self._items.clear(run_id, site_id)
                    self._frontiers.clear(run_id, site_id)
                deleted += await self._runs.delete(keys)
        for part in self._parts:
            deleted += await part.delete_of_site(site_id)
        await self._sites.delete(site_id)
        return existed or deleted > 0
