"""Reads the lists of hosts, bucket by bucket and page by page, and puts the hosts on the workbench."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from ragcrawl_dynamo._frontier.context import RunContext
from ragcrawl_dynamo._frontier.host_candidates import INDEX_LAG_SECONDS
from ragcrawl_dynamo._frontier.work import Listed
from ragcrawl_dynamo._utils.concurrency import gather

# How many hosts one read returns, and how many the read that only looks for better hosts.
_PAGE = 250
_HEAD = 20

# How many buckets are read further at a time, if more hosts are needed.
_BUCKETS_AT_ONCE = 4

# Seconds between two reads of the beginning of a list.
_HEAD_SECONDS = 1.0

# A list that was read to its end is read again after this time for each page, and a second at least.
_PAGE_SECONDS = 0.05

# Hosts that will have work so soon are read too, so that a waiting claim knows when to try again.
_AHEAD = timedelta(seconds=2)

# Seconds by which an index may lag (AWS gives no bound, but says "usually well under a second"). A host that
# was listed so recently is not taken for gone.
_LAG_SECONDS = 2.0


@dataclass(slots=True)
class _Pass:
    """How far a bucket's list was read.

    Attributes:
        bucket: The bucket.
        begun_at: When it was begun to read the list to its end, by the monotonic clock; None before.
        head_at: When its beginning was last read.
        last: The host that was read last.
        is_complete: Whether the list was read to its end.
        pages: How many pages were read.
        read_by: The number of the claim that has last read the list from its beginning to its end.
    """

    bucket: int
    begun_at: float | None = None
    head_at: float | None = None
    last: Listed | None = None
    is_complete: bool = False
    pages: int = 0
    read_by: int = 0


class HostLists:
    """The lists of hosts of one run."""

    def __init__(self, run: RunContext) -> None:
        self._run = run
        self._passes: list[_Pass] = []
        # The number of the claim, or of a later choice of it.
        self._claim = 0

    async def refill(self, wanted: int, now: datetime) -> None:
        """Reads lists until the workbench has work for a number of items, or all is read.

        It reads the lists in the share of this process first. The beginnings of all lists are read once a
        second, so that an urgent item waits for no process that has no time for it.
        """
        self._claim += 1
        share = self._run.share
        own_parts = [part for part in self._all() if part.bucket in share]
        other_parts = [part for part in self._all() if part.bucket not in share]
        await self._refresh([part for part in self._all() if self._is_old(part)], now)
        for parts in (own_parts, other_parts):
            while self._run.view.bench.supply(wanted, now) < wanted:
                if not (further := self._further(parts)):
                    break
                await gather(self._read(part, now) for part in further)

    async def refresh(self, now: datetime) -> None:
        """Reads the beginnings of all lists again, and long lists further if it is time for that.

        Lists that the last `refill` has read to their end are left out.
        """
        unread = [part for part in self._all() if part.read_by != self._claim]
        await self._refresh(unread, now, is_thorough=True)
        await gather(self._read(part, now) for part in self._further(self._all()))

    def clear(self) -> None:
        """Lets all lists be read again."""
        self._passes = []

    def _all(self) -> list[_Pass]:
        if len(self._passes) != self._run.hosts.buckets:
            self._passes = [_Pass(bucket) for bucket in range(self._run.hosts.buckets)]
        return self._passes

    def _is_old(self, part: _Pass) -> bool:
        return part.head_at is None or self._run.clock.monotonic() - part.head_at >= _HEAD_SECONDS

    def _further(self, parts: Iterable[_Pass]) -> list[_Pass]:
        """Returns the lists to read further: those whose next host is the best."""
        for part in parts:
            if part.is_complete and part.begun_at is not None:
                age = self._run.clock.monotonic() - part.begun_at
                if age >= max(_HEAD_SECONDS, _PAGE_SECONDS * part.pages):
                    _begin(part)
        unread = [part for part in parts if not part.is_complete]
        unread.sort(key=lambda part: part.last.order if part.last is not None else "")
        return unread[:_BUCKETS_AT_ONCE]

    async def _refresh(self, parts: Iterable[_Pass], now: datetime, *, is_thorough: bool = False) -> None:
        """Reads the beginnings of lists; those of other processes' shares only so far as urgent hosts are."""

        async def read_head(part: _Pass) -> None:
            part.head_at = self._run.clock.monotonic()
            is_short = part.begun_at is None or (part.is_complete and part.pages <= 1)
            if is_short and (part.bucket in self._run.share or is_thorough):
                _begin(part)
                await self._read(part, now)
            else:
                hosts, _ = await self._run.hosts.read_list(part.bucket, now + _AHEAD, _HEAD)
                self._see(part, hosts)

        await gather(read_head(part) for part in parts)

    async def _read(self, part: _Pass, now: datetime) -> None:
        """Reads the next page of a list."""
        if part.begun_at is None:
            part.begun_at = self._run.clock.monotonic()
        hosts, part.is_complete = await self._run.hosts.read_list(part.bucket, now + _AHEAD, _PAGE, part.last)
        part.pages += 1
        self._see(part, hosts)
        if hosts:
            part.last = hosts[-1]
        if part.is_complete:
            if part.pages == 1:
                part.read_by = self._claim
            self._drop_missing(part)

    def _see(self, part: _Pass, hosts: Iterable[Listed]) -> None:
        bench, monotonic = self._run.view.bench, self._run.clock.monotonic()
        is_own = part.bucket in self._run.share
        for listed in hosts:
            bench.see(listed.host, listed.order, part.bucket, monotonic, is_own=is_own)

    def _drop_missing(self, part: _Pass) -> None:
        """Forgets hosts of a bucket that its list does not show any more."""
        oldest = (part.begun_at or 0.0) - _LAG_SECONDS
        bench = self._run.view.bench
        monotonic = self._run.clock.monotonic()
        for host in [host for host in bench.hosts.values() if host.bucket == part.bucket]:
            is_gone = host.seen_at < oldest and host.placed_at < monotonic - INDEX_LAG_SECONDS
            if is_gone and not host.waiting:
                bench.remove(host.host, monotonic, has_left=False)


def _begin(part: _Pass) -> None:
    part.begun_at = part.last = None
    part.is_complete = False
    part.pages = 0
