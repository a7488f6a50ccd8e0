"""Adds the outcomes of commits to the stats of a run while it runs, once a second."""

from __future__ import annotations

import asyncio
import logging

from ragcrawl_dynamo._commit.run_stats import RunTotals
from ragcrawl_dynamo._dynamodb.values import Item
from ragcrawl_dynamo._records.runs import RunStore
from ragcrawl_dynamo._utils.clock import Clock
from ragcrawl_dynamo._utils.tasks import Tasks
from ragcrawl_dynamo.errors import NotFoundError, RagcrawlDynamoError
from ragcrawl_dynamo.models import FrontierItem, FrontierStatus

logger = logging.getLogger(__name__)

# Seconds for which totals are kept in memory before they are written.
_FLUSH_SECONDS = 1.0

# Stats that cannot be added up commit by commit. `complete_run` counts them from the items of the run.
_NOT_LIVE = {"pages_discovered", "avg_fetch_latency_ms"}


class LiveStats:
    """Adds up the commits of one process. If it is killed, `complete_run` counts what is missing."""

    def __init__(self, runs: RunStore, clock: Clock) -> None:
        self._runs = runs
        self._clock = clock
        self._tasks = Tasks()
        self._totals: dict[tuple[str, str], RunTotals] = {}
        self._kept_since: float | None = None
        self._flushing: asyncio.Task[None] | None = None

    def note(self, item: FrontierItem, outcome: Item) -> None:
        """Counts a frontier item that a commit completed, with the attributes that store its outcome."""
        completed: Item = {
            "status": {"S": FrontierStatus.COMPLETED},
            "domain": {"S": item.domain},
            "depth": {"N": str(item.depth)},
            **outcome,
        }
        self._totals.setdefault((item.site_id, item.run_id), RunTotals()).add([completed])
        if self._kept_since is None:
            self._kept_since = self._clock.monotonic()

    def flush_if_due(self) -> None:
        """Begins to write the totals, if they have been kept for long enough. Commits do not wait for it."""
        if self._kept_since is None or (self._flushing is not None and not self._flushing.done()):
            return
        if self._clock.monotonic() - self._kept_since >= _FLUSH_SECONDS:
            self._flushing = self._tasks.spawn(self.flush())

    async def flush(self) -> None:
        """Adds the totals to the stored stats of runs that are still open."""
        by_run, self._totals = self._totals, {}
        self._kept_since = None
        for (site_id, run_id), totals in by_run.items():
            deltas = {name: value for name, value in totals.stats() if value and name not in _NOT_LIVE}
            try:
                await self._runs.add_stats(site_id, run_id, deltas, only_open=True)
            except NotFoundError:
                # The run was never saved, so it has no stats.
                continue
            except RagcrawlDynamoError as error:
                logger.warning(
                    "run %r: some pages are missing in its stats until complete_run() counts them: %s",
                    run_id,
                    error,
                )

    async def close(self) -> None:
        """Waits for the writes that are under way, and writes the remaining totals."""
        await self._tasks.join()
        await self.flush()
