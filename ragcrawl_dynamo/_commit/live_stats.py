"""A run's stats while it runs: what commits note is added to the run once a second."""

from __future__ import annotations

import logging

from ragcrawl_dynamo._commit.run_stats import Fold
from ragcrawl_dynamo._dynamodb.values import Item
from ragcrawl_dynamo._records.runs import RunStore
from ragcrawl_dynamo._utils.clock import Clock
from ragcrawl_dynamo.errors import NotFoundError, RagcrawlDynamoError

logger = logging.getLogger(__name__)

# Seconds for which notes are kept in memory.
_FLUSH_SECONDS = 1.0

# What commits do not know of; the whole run's items tell it in the end.
_NOT_LIVE = {"pages_discovered", "avg_fetch_latency_ms"}


class LiveStats:
    """Adds up what the commits of one process did; what a killed one takes along, `complete_run` counts."""

    def __init__(self, runs: RunStore, clock: Clock) -> None:
        self._runs = runs
        self._clock = clock
        self._notes: dict[tuple[str, str], Fold] = {}
        self._kept_since: float | None = None

    def note(self, site_id: str, run_id: str, completed: Item) -> None:
        """Notes a frontier item as a commit completed it."""
        self._notes.setdefault((site_id, run_id), Fold()).add([completed])
        if self._kept_since is None:
            self._kept_since = self._clock.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether notes have been kept for long enough."""
        return self._kept_since is not None and self._clock.monotonic() - self._kept_since >= _FLUSH_SECONDS

    async def flush(self) -> None:
        """Adds what was noted to the runs that are still open."""
        notes, self._notes = self._notes, {}
        self._kept_since = None
        for (site_id, run_id), fold in notes.items():
            stats = fold.stats()
            deltas = {name: value for name, value in stats if value and name not in _NOT_LIVE}
            try:
                await self._runs.add_stats(site_id, run_id, deltas, only_open=True)
            except NotFoundError:
                # Nobody saved the run, so nobody asks for its stats.
                continue
            except RagcrawlDynamoError as error:
                logger.warning("run %r: its stats miss some pages until it is completed: %s", run_id, error)
