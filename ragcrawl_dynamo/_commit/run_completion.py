"""Completes runs: counts the stats of a run again, from the outcomes stored with its frontier items."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from ragcrawl_dynamo._commit.run_stats import STATS_ATTRIBUTES, RunTotals
from ragcrawl_dynamo._frontier.frontiers import Frontiers
from ragcrawl_dynamo._frontier.tally import Tally
from ragcrawl_dynamo._records.pages import PageStore
from ragcrawl_dynamo._records.runs import RunStore, check_final_status
from ragcrawl_dynamo._records.sites import SiteStore
from ragcrawl_dynamo.models import MAX_NAMED, CrawlRun, CrawlStats, FrontierStatus, RunStatus


class RunCompletion:
    """Completes runs of all sites."""

    def __init__(self, frontiers: Frontiers, runs: RunStore, pages: PageStore, sites: SiteStore) -> None:
        self._frontiers = frontiers
        self._runs = runs
        self._pages = pages
        self._sites = sites

    async def complete(self, site_id: str, run_id: str, status: RunStatus | str) -> CrawlRun:
        """Completes one run; see StorageBackend.complete_run."""
        final_status = check_final_status(status)
        totals, stats = await self._read_totals(site_id, run_id)
        if final_status is RunStatus.COMPLETED and (totals.open or stats.pages_failed):
            final_status = RunStatus.PARTIAL
        now = self._frontiers.services.clock.now()
        run = await self._runs.complete(
            site_id,
            run_id,
            final_status,
            stats,
            completed_at=now,
            frontier_size=stats.pages_discovered,
            max_depth_reached=totals.max_depth,
        )
        total_pages, total_runs = await asyncio.gather(
            self._pages.count(site_id, include_tombstones=False), self._runs.count(site_id)
        )
        await self._sites.record_crawl(
            site_id, total_pages=total_pages, total_runs=total_runs, moment=now, is_sync=run.is_sync
        )
        await self._frontiers.close_run(site_id, run_id)
        return run

    async def _read_totals(self, site_id: str, run_id: str) -> tuple[RunTotals, CrawlStats]:
        """Reads all items of a run (one read unit for 4 KB); returns their totals, and the run's stats."""
        totals = RunTotals()
        items = self._frontiers.queue(site_id, run_id).run.items
        with Tally() as tally:
            async with aclosing(items.scan(attributes=(*STATS_ATTRIBUTES, "domain"))) as pages:
                async for page in pages:
                    totals.add(page)
                    tally.count((item["domain"]["S"], item["status"]["S"]) for item in page)
            failures = tally.most(FrontierStatus.FAILED, MAX_NAMED)
            hosts = {
                "domains_crawled": tally.hosts_with(FrontierStatus.COMPLETED),
                "domains_sample": sorted(tally.most(FrontierStatus.COMPLETED, MAX_NAMED)),
                # A map of DynamoDB has no empty keys.
                "errors_by_domain": {host or "unknown": count for host, count in failures.items()},
            }
        return totals, totals.stats().model_copy(update=hosts)
