"""Holds the knowledge of one process about a run's queue. It may be out of date; the tables decide."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from ragcrawl_dynamo._frontier.counts import UnwrittenCounts
from ragcrawl_dynamo._frontier.seen_links import SeenLinks
from ragcrawl_dynamo._frontier.work import WorkByHost
from ragcrawl_dynamo._frontier.workbench import Workbench


class LocalView:
    """The knowledge of one process about a run.

    Attributes:
        changed: Set when a waiting claim should try again.
        bench: The hosts and candidates to claim from.
        seen_links: The ids of items that are known to be in the queue.
        unannounced: Work that could not be announced yet.
        unwritten_counts: Counts that are not stored yet.
        open_items: The ids of up to 100 items that were open when they were last read.
    """

    def __init__(self, seen_links: int, process: str) -> None:
        """`seen_links` is the number of links to remember, `process` the id of this process."""
        self.changed: asyncio.Event = asyncio.Event()
        self.bench: Workbench = Workbench(process)
        self.unwritten_counts: UnwrittenCounts = UnwrittenCounts()
        self.seen_links: SeenLinks = SeenLinks(seen_links)
        self._latest = datetime.min.replace(tzinfo=UTC)
        self.clear()

    def clear(self) -> None:
        """Forgets everything. It is called after the run's items were deleted."""
        self.bench.clear()
        self.seen_links.clear()
        self.unannounced: WorkByHost = WorkByHost()
        self.unwritten_counts.clear()
        self.open_items: list[str] = []
        self.changed.set()

    def next_moment(self, now: datetime) -> datetime:
        """Returns `now`, or a moment just after the previous one: links of one priority keep their order."""
        self._latest = max(now, self._latest + timedelta(microseconds=1))
        return self._latest
