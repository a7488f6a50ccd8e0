"""Notifies the workers of this process and of other processes that hosts have work."""

from __future__ import annotations

import asyncio

from ragcrawl_dynamo._frontier.context import RunContext
from ragcrawl_dynamo._frontier.work import WorkByHost


class Notifier:
    """Announces the work of one run. Work that could not be announced is announced by the next call."""

    def __init__(self, run: RunContext) -> None:
        self._run = run

    async def announce(self, work: WorkByHost) -> None:
        """Puts hosts on the due list and wakes waiting claims. It is called after the items are stored.

        Raises:
            ServiceError: The work of some hosts could not be announced; the next call announces it.
        """
        view = self._run.view
        # Work that an earlier call could not announce may be due sooner.
        for host, host_work in work.items():
            view.unannounced.note(host, host_work)
        if not view.unannounced:
            return
        announced = dict(view.unannounced)
        woken, others = await self._run.hosts.announce(announced)
        for host, host_work in announced.items():
            if view.unannounced.get(host) == host_work:
                del view.unannounced[host]
        view.note_shards({host: record.shards for host, record in (woken | others).items()})
        if woken:
            view.due_list_read_at = None
        view.changed.set()

    async def announce_left(self) -> None:
        """Announces the work that earlier calls could not announce.

        Raises:
            ServiceError: It cannot be announced this time either.
        """
        await self.announce(WorkByHost())

    async def wait_for_change(self, seconds: float) -> None:
        """Waits a number of seconds, or until this process learns of work."""
        sleep = asyncio.ensure_future(self._run.clock.sleep(seconds))
        change = asyncio.ensure_future(self._run.view.changed.wait())
        try:
            await asyncio.wait((sleep, change), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleep.cancel()
            change.cancel()
            await asyncio.gather(sleep, change, return_exceptions=True)
