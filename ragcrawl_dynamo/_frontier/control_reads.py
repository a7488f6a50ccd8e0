"""Limits the reads of a run's control, so that one item can serve all processes.

Every claim needs the control, and every addition has to read it after its items are durable. All processes
read the same item, and a partition serves 3,000 read units a second (AWS), however much is paid. So the more
processes claim from the run, the longer a process waits between two reads. Calls that wait share the next
read.
"""

from __future__ import annotations

import asyncio
import math

from ragcrawl_dynamo._frontier.control_store import ControlStore
from ragcrawl_dynamo._frontier.membership import Membership
from ragcrawl_dynamo._schema.records import RunControl
from ragcrawl_dynamo._utils.tasks import Tasks

# How many reads of the control all processes begin in a second, for claims, and again for additions.
_READS_PER_SECOND = 1000


class ControlReads:
    """The reads of one run's control by one process."""

    def __init__(self, control: ControlStore, membership: Membership, tasks: Tasks) -> None:
        self._control = control
        self._membership = membership
        self._tasks = tasks
        self._next: asyncio.Task[RunControl | None] | None = None
        # When the latest read for an addition began.
        self._began_at = -math.inf
        self._recent: RunControl | None = None
        self._recent_at = self._forgotten_at = -math.inf

    @property
    def interval(self) -> float:
        """The seconds between two reads of this process: a millisecond for each process."""
        return self._membership.count / _READS_PER_SECOND

    def forget(self) -> None:
        """Forgets the control that was read. It is called after this process has changed it."""
        self._recent_at = -math.inf
        self._forgotten_at = asyncio.get_running_loop().time()

    async def recent(self) -> RunControl | None:
        """Returns the control, or None, as it was at most `interval` seconds before the call."""
        began_at = asyncio.get_running_loop().time()
        if began_at - self._recent_at < self.interval:
            return self._recent
        control = await self._control.read()
        if began_at > self._forgotten_at:
            self._recent, self._recent_at = control, began_at
        return control

    def may_begin(self) -> bool:
        """Returns whether the caller may read the control at once, with other items: then it does."""
        now = asyncio.get_running_loop().time()
        if now - self._began_at < self.interval:
            return False
        self._began_at = now
        return True

    async def following(self) -> RunControl | None:
        """Returns the control, or None, by a read that begins after the call, for all calls until then."""
        if self._next is None:
            self._next = self._tasks.spawn(self._read_next())
        return await asyncio.shield(self._next)

    async def _read_next(self) -> RunControl | None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._began_at + self.interval - loop.time()))
        # A later caller needs another read: its items may become durable during this one.
        self._next = None
        self._began_at = loop.time()
        return await self._control.read()
