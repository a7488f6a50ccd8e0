"""Looks again at hosts that are listed as having work and seem to have nothing, and moves them away.

An item that is added to a host whose place in the list is not behind that of the item changes nothing in the
list. So a claim that would return nothing reads the queues of these hosts again. A host that has nothing for
longer moves to the moment of its next item, or leaves the list if it has none. From then on, a process that
adds an item moves the host. The queue is read once more after the move: an item that was added just before
did not move the host.

Neither the index nor a move is trusted for long: a host waits for 60 seconds at most while items of it are
open, and leaves the list only if the counts in its record say that nothing is open.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from ragcrawl_dynamo._dynamodb.outcomes import Applied, Refused
from ragcrawl_dynamo._frontier.context import RunContext
from ragcrawl_dynamo._frontier.counts import UnwrittenCounts
from ragcrawl_dynamo._frontier.host_candidates import LONGEST_PAUSE, HostCandidates, pause_after
from ragcrawl_dynamo._frontier.host_lists import HostLists
from ragcrawl_dynamo._frontier.queue_reader import QueueReader
from ragcrawl_dynamo._frontier.work import Work, WorkByHost
from ragcrawl_dynamo._schema.queue_order import queue_order

# How many hosts one claim looks at again at most, those first that were not looked at for the longest time.
_LOOKS = 200

# Seconds between two times at which claims that wait look again.
_INTERVAL = 1.0

# Seconds for which a host had nothing before it is moved.
_IDLE_SECONDS = 1.0


class IdleHosts:
    """The hosts of one run that have nothing to claim, as far as this process knows."""

    def __init__(self, run: RunContext, lists: HostLists, reader: QueueReader) -> None:
        self._run = run
        self._lists = lists
        self._reader = reader
        self._looked_at: float | None = None

    def is_due(self) -> bool:
        """Returns whether a claim that waits should look again."""
        return self._looked_at is None or self._run.clock.monotonic() - self._looked_at >= _INTERVAL

    async def look_again(self, wanted: int, now: datetime) -> bool:
        """Reads the lists and idle hosts again; returns whether something may be claimable now."""
        self._looked_at = self._run.clock.monotonic()
        bench = self._run.view.bench
        await self._lists.refresh(now)
        if bench.supply(1, now):
            return True
        hosts = [host for host in bench.idle.values() if self._is_worth_a_look(host)]
        hosts = sorted(hosts, key=lambda host: host.looked_at or 0.0)[:_LOOKS]
        full = [host for host in bench.forget_full(_LOOKS, now) if host not in hosts]
        await self._reader.look([*hosts, *full], wanted, now)
        if bench.supply(1, now):
            return True
        # The queue of a host whose limits allow no lease was not read.
        idle = [host for host in hosts if host.has_room(now) and self._is_idle_for_long(host)]
        moved = await self._move(idle, now)
        await self._reader.look([host for host, _ in moved], wanted, now)
        missed, monotonic = WorkByHost(), self._run.clock.monotonic()
        for host, is_listed in moved:
            if not is_listed:
                host.note_order(None, monotonic)
            items = [*host.ready, *(waiting.candidate for waiting in host.waiting.values())]
            if host.ready or (items and not is_listed):
                missed.note(host.host, Work(min(item.order for item in items)))
            elif not is_listed:
                bench.remove(host.host, monotonic)
        if missed:
            self._run.note_updates(await self._run.hosts.announce(missed, UnwrittenCounts()))
        return bool(bench.supply(1, now))

    def _is_worth_a_look(self, host: HostCandidates) -> bool:
        if not host.distrusted or host.looked_at is None:
            return True
        return self._run.clock.monotonic() - host.looked_at >= pause_after(host.distrusted)

    def _is_idle_for_long(self, host: HostCandidates) -> bool:
        monotonic = self._run.clock.monotonic()
        if host.idle_since is None:
            host.idle_since = monotonic
        return monotonic - host.idle_since >= _IDLE_SECONDS

    async def _move(
        self, hosts: Sequence[HostCandidates], now: datetime
    ) -> list[tuple[HostCandidates, bool]]:
        """Moves hosts to the moment of their next item, or out of the list.

        Returns:
            The hosts that were moved, each with whether it is still listed.
        """
        moves = [(host.entry, _place(host, now)) for host in hosts]
        moved: list[tuple[HostCandidates, bool]] = []
        outcomes = await self._run.hosts.move(moves)
        for host, (_, place), outcome in zip(hosts, moves, outcomes, strict=True):
            if isinstance(outcome, Applied):
                is_listed = place is not None and host.note_move(outcome, self._run.clock.monotonic())
                moved.append((host, is_listed))
            elif isinstance(outcome, Refused):
                # Its counts say that an item is open; or another process has moved it, which the list shows.
                host.distrusted += place is None
        return moved


def _place(host: HostCandidates, now: datetime) -> str | None:
    """Returns the place of a host that has nothing to claim now; None if it has no item."""
    if not host.waiting:
        return None
    ranks = [waiting.candidate.rank for waiting in host.waiting.values()]
    latest = now + timedelta(seconds=LONGEST_PAUSE)
    return queue_order(min(ranks), min(host.next_moment() or latest, latest))
