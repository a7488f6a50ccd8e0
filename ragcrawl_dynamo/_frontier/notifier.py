"""Notifies the workers of this process and of other processes that hosts have work."""

from __future__ import annotations

import logging
from collections.abc import Container, Sequence

from ragcrawl_dynamo._dynamodb.outcomes import Applied
from ragcrawl_dynamo._frontier.context import RunContext
from ragcrawl_dynamo._frontier.counters import FLUSH_SECONDS
from ragcrawl_dynamo._frontier.work import Listed, Work, WorkByHost
from ragcrawl_dynamo._schema.queue_order import queue_order, rank
from ragcrawl_dynamo._utils.concurrency import wait_for_event
from ragcrawl_dynamo._utils.tasks import DueWork
from ragcrawl_dynamo.errors import RagcrawlDynamoError

logger = logging.getLogger(__name__)

# How many drained hosts are taken out of the list with a flush of counts, besides those with counts to store.
_LEAVING_AT_ONCE = 50


class Notifier:
    """Announces the work of one run. Work that could not be announced is announced by the next call."""

    def __init__(self, run: RunContext) -> None:
        self._run = run
        self._flushes = DueWork(run.clock, run.tasks, self.flush_if_due, self._flush_in_background)

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
            updates = await self._run.hosts.announce(announced, view.unwritten_counts)
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

    def flush_if_due(self) -> None:
        """Begins to store the counts that this process has added up, if it is time for that; see `flush`.

        The caller does not wait for it. Throttled counts are stored with those of the next second. If it is
        not time yet, it begins then, even if this process does nothing else.
        """
        seconds = self._run.counters.seconds_until_due(self._run.clock.monotonic())
        if seconds is not None:
            self._flushes.start_in(seconds, FLUSH_SECONDS)

    async def close(self) -> None:
        """Stores the last counts; see `flush`."""
        await self._flushes.close()
        await self.flush()

    async def flush(self) -> None:
        """Stores the counts that this process has added up, and takes drained hosts out of the list.

        It runs to its end even if the caller is cancelled.

        Raises:
            ServiceError: Hosts that another process has taken out of the list too early cannot be announced.
        """
        await self._run.tasks.uninterrupted(self._flush(None))

    async def flush_of(self, hosts: Container[str]) -> None:
        """Stores the counts of some hosts; see `flush`.

        Another process may be about to take the host of an added item out of the list, because all items that
        it knows have ended. It does not if the counts say that there is another one.
        """
        if any(host in hosts for host in self._run.view.unwritten_counts.by_host):
            await self._run.tasks.uninterrupted(self._flush(hosts))

    async def _flush_in_background(self) -> None:
        try:
            await self._flush(None, once=True)
        except RagcrawlDynamoError as error:
            logger.warning("the counts of hosts could not be stored; they are stored later: %s", error)

    async def _flush(self, only: Container[str] | None, *, once: bool = False) -> None:
        """Stores counts; `once` leaves those that DynamoDB throttles for the next time."""
        run = self._run
        bench = run.view.bench
        flushed = await run.counters.flush(bench.drained, only, once=once)
        if only is None:
            flushed.asleep += await self._leave(bench.idle_drained(_LEAVING_AT_ONCE, run.clock.monotonic()))
        missed = WorkByHost()
        for name in flushed.open:
            bench.doubt(name)
        for name in flushed.asleep:
            host = bench.hosts.get(name)
            if host is not None and not host.is_drained:
                # An item came while the host was taken out of the list.
                host.note_order(None, run.clock.monotonic())
                flushed.to_wake.append(name)
            else:
                bench.remove(name, run.clock.monotonic())
        for name in flushed.to_wake:
            missed.note(name, Work(queue_order(rank(0.0, run.clock.now())), is_changed=True))
        if missed:
            await self.announce(missed)

    async def _leave(self, hosts: Sequence[Listed]) -> list[str]:
        """Takes drained hosts out of the list whose counts are stored; returns those that have left it.

        A host whose counts say that items are open stays.
        """
        outcomes = await self._run.hosts.move([(listed, None) for listed in hosts]) if hosts else []
        return [
            listed.host
            for listed, outcome in zip(hosts, outcomes, strict=True)
            if isinstance(outcome, Applied)
        ]

    async def wait_for_change(self, seconds: float) -> None:
        """Waits a number of seconds, or until this process learns of work."""
        await wait_for_event(self._run.view.changed, self._run.clock, seconds)
