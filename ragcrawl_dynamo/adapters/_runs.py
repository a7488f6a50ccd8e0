"""Crawls of others as runs here: sites and runs that are made when they are first used, and finished."""

from __future__ import annotations

import logging
from typing import Any

from ragcrawl_dynamo._schema.keys import site_partition
from ragcrawl_dynamo.backend import DynamoDBBackend
from ragcrawl_dynamo.errors import RagcrawlDynamoError
from ragcrawl_dynamo.models import CrawlRun, RunStatus, Site, utc_now

logger = logging.getLogger(__name__)


def run_name(site_id: str, run_id: str) -> str:
    """`{site_id}/{run_id}`: ids of runs are unique over all sites."""
    return f"{site_id}/{run_id}"


async def open_run(backend: DynamoDBBackend, site_id: str, run_id: str, snapshot: dict[str, Any]) -> CrawlRun:
    """A site's run; where there is none yet it is made, and so is the site."""
    site_partition(site_id)
    if await backend.get_site(site_id) is None:
        await backend.save_site(Site(site_id=site_id, name=site_id, seeds=[]))
    run = await backend.get_run(run_id, site_id)
    if run is None:
        run = CrawlRun(
            run_id=run_id,
            site_id=site_id,
            status=RunStatus.RUNNING,
            started_at=utc_now(),
            config_snapshot=snapshot,
        )
        await backend.save_run(run)
    return run


async def close_run(backend: DynamoDBBackend, site_id: str, run_id: str) -> None:
    """Records a run's end and stats, if it has any items and all of them are finished."""
    try:
        frontier = backend.frontier(run_id, site_id)
        if await frontier.is_finished() and (await frontier.stats()).total:
            await backend.complete_run(site_id, run_id)
    except RagcrawlDynamoError as error:
        logger.warning("the end of run %r is not recorded: %s", run_id, error)
