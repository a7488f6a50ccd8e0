"""Tells the workers of this process, and those of others, that hosts have work."""

from __future__ import annotations

import asyncio

from ragcrawl_dynamo._frontier.context import RunContext
from ragcrawl_dynamo._frontier.work import WorkByHost


class Notifier:
    """Announces work of one run; what could not be announced is announced with what follows."""

    def __init__(self, run: RunContext) -> None:
        self._run = run

    async def announce(self, work: WorkByHost) -> None:
        """Lets hosts have work; to be called once the work is durable.

        Raises:
            ServiceError: Some hosts could not be told; a later call tells them.
        """
        view = self._run.view
        # What an earlier call could not announce may be due sooner.
        for host, wanted in work.items():
            view.unannounced.note(host, wanted)
        if not view.unannounced:
            return
        announced = dict(view.unannounced)
        woken, others = await self._run.hosts.announce(announced)
        for host, wanted in announced.items():
            if view.unannounced.get(host) == wanted:
                del view.unannounced[host]
        view.note_shards({host: record.shards for host, record in (woken | others).items()})
        if woken:
            view.due_list_read_at = None
        view.changed.set()

    async def announce_left(self) -> None:
        """Announces what an earlier call could not.

        Raises:
            ServiceError: It cannot be announced now either.
        """
        await self.announce(WorkByHost())

    async def wait_for_change(self, seconds: float) -> None:
        """Waits that long, but not longer than until something changes in this process."""
        sleep = asyncio.ensure_future(self._run.clock.sleep(seconds))
        change = asyncio.ensure_future(self._run.view.changed.wait())
        try:
            await asyncio.wait((sleep, change), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleep.cancel()
            change.cancel()
            await asyncio.gather(sleep, change, return_exceptions=True)
