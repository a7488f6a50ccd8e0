"""Creates the run of another crawler when a crawl first opens it, and completes it when the crawl ends."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

from ragcrawl_dynamo import CrawlRun, DynamoDBBackend, RagcrawlDynamoError, RunState, RunStatus, Site
from ragcrawl_dynamo._schema.keys import run_key

logger = logging.getLogger(__name__)


def run_name(site_id: str, run_id: str) -> str:
    """Returns the id of a run, `{site_id}/{run_id}`, which no other site uses."""
    return f"{site_id}/{run_id}"


async def open_run(backend: DynamoDBBackend, site_id: str, run_id: str, snapshot: dict[str, Any]) -> CrawlRun:
    """Returns a run of a site. Creates the run, and its site, if they do not exist."""
    if await backend.get_site(site_id) is None:
        await backend.save_site(Site(site_id=site_id, name=site_id, seeds=[]))
    run = await backend.get_run(site_id, run_id)
    if run is None:
        run = CrawlRun(
            run_id=run_id,
            site_id=site_id,
            status=RunStatus.RUNNING,
            started_at=datetime.now(UTC),
            config_snapshot=snapshot,
        )
        await backend.save_run(run)
    return run


async def delete_run(backend: DynamoDBBackend, run: CrawlRun) -> None:
    """Deletes the record of a run whose frontier is empty. The contract deletes runs only with their site."""
    await backend._rooms.runs.delete([run_key(run.site_id, run.run_id)])


async def close_run(backend: DynamoDBBackend, site_id: str, run_id: str) -> None:
    """Records the end of a run and its statistics, if it has items and all of them are finished."""
    try:
        frontier = backend.frontier(site_id, run_id)
        if await frontier.is_finished() and (await frontier.stats()).total:
            is_cancelled = await frontier.state() is RunState.CANCELLED
            status = RunStatus.CANCELLED if is_cancelled else RunStatus.COMPLETED
            await backend.complete_run(site_id, run_id, status=status)
    except RagcrawlDynamoError as error:
        logger.warning(
            "run %r has ended, but its end could not be recorded; the next process that uses the run records "
            "it: %s",
            *(run_id, error),
        )
