"""Adds the outcomes of commits to the stats of a run while it runs, once a second.

All processes write one item, that of the run. Its size does not grow with the hosts of the run, and the more
processes there are, the less often each one writes.
"""

from __future__ import annotations

import logging
from typing import Any

from ragcrawl_dynamo._commit.run_stats import RunTotals
from ragcrawl_dynamo._dynamodb.values import Item
from ragcrawl_dynamo._frontier.run_queue import RunQueue
from ragcrawl_dynamo._records.runs import RunStore
from ragcrawl_dynamo._utils.clock import Clock
from ragcrawl_dynamo._utils.tasks import DueWork, Tasks
from ragcrawl_dynamo.errors import NotFoundError, RagcrawlDynamoError
from ragcrawl_dynamo.models import FrontierItem, FrontierStatus

logger = logging.getLogger(__name__)

# Seconds for which totals are kept in memory before they are written, at least; and how many writes all
# processes together send to a run in a second. A partition takes 1,000 write units a second (AWS).
_FLUSH_SECONDS = 1.0
_WRITES_PER_SECOND = 100

# Stats that cannot be added up commit by commit. `complete_run` counts them from the items of the run.
_NOT_LIVE = {"pages_discovered", "avg_fetch_latency_ms", "domains_sample"}


class LiveStats:
    """Adds up the commits of one process. If it is killed, `complete_run` counts the missing ones."""

    def __init__(self, runs: RunStore, clock: Clock) -> None:
        self._runs = runs
        self._clock = clock
        self._tasks = Tasks()
        self._totals: dict[tuple[str, str], tuple[RunTotals, RunQueue]] = {}
        self._kept_since: float | None = None
        self._flushes = DueWork(clock, self._tasks, self.flush_if_due, self.flush)

    def note(self, item: FrontierItem, outcome: Item, queue: RunQueue) -> None:
        """Counts a frontier item that a commit completed.

        Args:
            item: The item.
            outcome: The attributes that store the outcome of the commit.
            queue: The queue of the run.
        """
        completed: Item = {"status": {"S": FrontierStatus.COMPLETED}, **outcome}
        totals, _ = self._totals.setdefault((item.site_id, item.run_id), (RunTotals(), queue))
        totals.add([completed])
        if self._kept_since is None:
            self._kept_since = self._clock.monotonic()

    def flush_if_due(self) -> None:
        """Begins to write the totals, if they have been kept for long enough. Commits do not wait for it.

        If it is not time yet, it begins then, even if this process commits nothing else.
        """
        if self._kept_since is None:
            return
        processes = max(queue.run.membership.count for _, queue in self._totals.values())
        interval = max(_FLUSH_SECONDS, processes / _WRITES_PER_SECOND)
        self._flushes.start_in(self._kept_since + interval - self._clock.monotonic(), interval)

    async def flush(self) -> None:
        """Adds the totals to the stored stats of runs that are still open."""
        by_run, self._totals = self._totals, {}
        self._kept_since = None
        for (site_id, run_id), (totals, queue) in by_run.items():
            deltas: dict[str, Any] = {
                name: value for name, value in totals.stats() if value and name not in _NOT_LIVE
            }
            if new_hosts := queue.run.counters.take_new_hosts():
                deltas["domains_crawled"] = new_hosts
            if not deltas:
                continue
            # The counts of the last hosts may be stored later. Then the next call adds these hosts.
            self._totals.setdefault((site_id, run_id), (RunTotals(), queue))
            try:
                await self._runs.add_stats(site_id, run_id, deltas, live_since=self._clock.now())
            except NotFoundError:
                # The run was never saved, so it has no stats.
                continue
            except RagcrawlDynamoError as error:
                logger.warning(
                    "run %r: its stats could not be updated, so they lack some pages until complete_run() "
                    "counts them: %s",
                    run_id,
                    error,
                )

    async def close(self) -> None:
        """Waits for the writes that are under way, and writes the remaining totals."""
        await self._flushes.close()
        await self._tasks.join()
        await self.flush()
