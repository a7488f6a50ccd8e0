"""Reads the queues of hosts, and the limits that apply to them, onto the workbench."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from ragcrawl_dynamo._frontier.candidates import Candidate
from ragcrawl_dynamo._frontier.context import RunContext
from ragcrawl_dynamo._frontier.host_candidates import HostCandidates
from ragcrawl_dynamo._schema.queue_order import PRIORITY_LENGTH, split_facts, split_order
from ragcrawl_dynamo._utils.concurrency import gather, gather_bounded
from ragcrawl_dynamo.errors import ThrottledError

logger = logging.getLogger(__name__)

# How many items of a shard one read returns at least, besides those that are known to be leased.
_LEAST_ITEMS = 50

# How many hosts are read at the same time.
_HOSTS_AT_ONCE = 32

# How many items of other processes' shares are read by key before they are tried, for each wanted item.
_KNOWN_PER_WANTED = 2


class QueueReader:
    """Reads the queues of one run's hosts."""

    def __init__(self, run: RunContext) -> None:
        self._run = run

    async def look(self, hosts: Sequence[HostCandidates], wanted: int, now: datetime) -> None:
        """Reads the unknown limits of hosts, and then the queues of the hosts that are open.

        A host whose queue DynamoDB does not let it read now is paused.

        Args:
            hosts: The hosts, all of them on the workbench.
            wanted: How many items are wanted of each host.
            now: The present moment.
        """
        await self._read_limits(hosts)
        bench = self._run.view.bench
        monotonic = self._run.clock.monotonic()
        open_hosts = [
            host
            for host in hosts
            if bench.hosts.get(host.host) is host and host.has_room(now) and host.needs_look(monotonic)
        ]

        async def look(host: HostCandidates) -> None:
            try:
                await self._look_into(host, wanted, now)
            except ThrottledError as error:
                # The claim does not wait for it.
                logger.warning(
                    "the queue of host %s could not be read, and is read later: %s", host.host, error
                )
                self._run.hold_up(host.host)

        try:
            await gather_bounded(look, open_hosts, _HOSTS_AT_ONCE)
            lowered = await self._lower([host for host in open_hosts if _is_overrated(host)])
            # An item that was added just before the move did not move the host.
            await gather_bounded(look, lowered, _HOSTS_AT_ONCE)
        finally:
            for host in hosts:
                bench.settle(host)

    async def learn(self, candidates: Sequence[Candidate]) -> None:
        """Reads items by key, and notes which of them can be claimed now, which later, and which never."""
        bench = self._run.view.bench
        hosts = [bench.hosts.get(candidate.host) for candidate in candidates]
        try:
            known = await self._run.queues.read_known(candidates)
        except BaseException:
            # The candidates may have been taken already: only the index knows them now.
            for host in hosts:
                if host is not None:
                    host.is_all = False
            raise
        now = self._run.clock.now()
        free: set[str] = set()
        skew = timedelta(seconds=self._run.config.frontier_max_clock_skew)
        for candidate, host in zip(candidates, hosts, strict=True):
            if host is None:
                continue
            host.drop(candidate.item_id)
            state = known[candidate.item_id]
            if state is None:
                host.end(candidate.item_id)
                continue
            current, ends_at = state
            until = current.moment if ends_at is None else ends_at + skew
            current = self._run.placed(host, current)
            if until is None or until <= now:
                host.offer(current)
                free.add(host.host)
            else:
                host.wait(current, until)
        for name, host in {host.host: host for host in hosts if host is not None}.items():
            # An item that turns out to be free comes next, even if a later one of its host was claimed.
            if name in free or not host.is_served:
                host.turn = host.last_turn
            bench.settle(host)

    async def _lower(self, hosts: Sequence[HostCandidates]) -> list[HostCandidates]:
        """Moves hosts down to the place of their best item; returns those that were moved.

        Otherwise a new item of the same priority as the place would not move the host, and other processes
        would not notice it.
        """
        outcomes = await self._run.hosts.move([(host.entry, host.ready[0].order) for host in hosts])
        now = self._run.clock.monotonic()
        return [host for host, outcome in zip(hosts, outcomes, strict=True) if host.note_move(outcome, now)]

    async def _read_limits(self, hosts: Sequence[HostCandidates]) -> None:
        bench, monotonic = self._run.view.bench, self._run.clock.monotonic()
        unknown = [host.host for host in hosts if host.lacks_record]
        if not unknown:
            return
        records = await self._run.hosts.read(unknown)
        for name in unknown:
            if name not in records:
                # Its run was deleted meanwhile.
                bench.remove(name, monotonic)
                continue
            record = records[name]
            bench.note_update(record, record.order, monotonic, is_own=False)

    async def _look_into(self, host: HostCandidates, wanted: int, now: datetime) -> None:
        """Reads the shards of a host's queue."""
        run = self._run
        if host.order is None:
            return
        wanted_of_shard = max(_LEAST_ITEMS, 2 * wanted) * run.membership.count
        known = host.waiting.keys() | host.ended.keys() | host.tried
        shards = range(split_facts(host.order).shards)
        looks = await gather(
            run.queues.look(host.host, shard, wanted_of_shard, known, now) for shard in shards
        )
        # An item further down in one shard than another shard was read may not be the next one.
        ends = [look.candidates[-1].order for look in looks if not look.is_all]
        bound = min(ends, default=None)
        seen = [
            candidate
            for look in looks
            for candidate in look.candidates
            if bound is None or candidate.order <= bound
        ]
        seen += [candidate for look in looks for candidate in look.due]
        is_all = not ends

        def distance(candidate: Candidate) -> int:
            return run.distance(host, candidate, is_all=is_all)

        host.note_look(seen, is_all=is_all, now=now, distance=distance)
        host.looked_at = run.clock.monotonic()
        free = [candidate for candidate in host.ready if candidate.expired_token is None]
        unsure = [candidate for candidate in free if candidate.item_id in host.doubtful]
        for candidate in unsure:
            host.doubtful.pop(candidate.item_id)
        foreign = [candidate for candidate in free if candidate.distance and candidate not in unsure]
        unsure += foreign[: _KNOWN_PER_WANTED * wanted + 1]
        if unsure:
            await self.learn(unsure)


def _is_overrated(host: HostCandidates) -> bool:
    """Returns whether a host is listed with a higher priority than that of its best item."""
    if host.order is None or not host.is_own or not host.ready or host.ready[0].moment is not None:
        return False
    moment, rank = split_order(host.order)
    return moment is None and rank[:PRIORITY_LENGTH] < host.ready[0].rank[:PRIORITY_LENGTH]
