"""Notifies the workers of this process and of other processes that hosts have work."""

from __future__ import annotations

import asyncio

from ragcrawl_dynamo._frontier.context import RunContext
from ragcrawl_dynamo._frontier.host_store import Listed
from ragcrawl_dynamo._frontier.work import Work, WorkByHost
from ragcrawl_dynamo._schema.queue_order import queue_order, rank


class Notifier:
    """Announces the work of one run. Work that could not be announced is announced by the next call."""

    def __init__(self, run: RunContext) -> None:
        self._run = run

    async def announce(self, work: WorkByHost) -> None:
        """Lists hosts as having work, and wakes waiting claims. It is called after the items are stored.

        Raises:
            ServiceError: The work of some hosts could not be announced; the next call announces it.
        """
        view = self._run.view
        # Work that an earlier call could not announce may be due sooner.
        view.unannounced.note_all(work)
        if not view.unannounced:
            return
        announced, view.unannounced = view.unannounced, WorkByHost()
        try:
            updates = await self._run.hosts.announce(announced, view.unwritten_counts.by_host)
        except BaseException:
            view.unannounced.note_all(announced)
            raise
        self._run.note_updates(updates)
        view.changed.set()

    async def announce_left(self) -> None:
        """Announces the work that earlier calls could not announce.

        Raises:
            ServiceError: It cannot be announced this time either.
        """
        await self.announce(WorkByHost())

    async def flush_if_due(self) -> None:
        """Stores the counts that this process has added up, if it is time for that; see `flush`."""
        if self._run.counters.is_due(self._run.clock.monotonic()):
            await self.flush()

    async def flush(self) -> None:
        """Stores the counts that this process has added up, and takes drained hosts out of the list.

        It runs to its end even if the caller is cancelled.

        Raises:
            ServiceError: Hosts that another process has taken out of the list too early cannot be announced.
        """
        await self._run.tasks.uninterrupted(self._flush())

    async def _flush(self) -> None:
        bench = self._run.view.bench
        counted = self._run.view.unwritten_counts.by_host
        drained = {
            name: Listed(name, host.order)
            for name in counted
            if (host := bench.hosts.get(name)) is not None and host.is_drained and host.order is not None
        }
        flushed = await self._run.counters.flush(drained)
        missed = WorkByHost()
        for name in flushed.asleep:
            if name in bench.hosts and not bench.hosts[name].is_drained:
                # An item came while the host was taken out of the list.
                flushed.to_wake.append(name)
            else:
                bench.remove(name)
        for name in flushed.to_wake:
            missed.note(name, Work(queue_order(rank(0.0, self._run.clock.now())), is_changed=True))
        await self.announce(missed)

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
