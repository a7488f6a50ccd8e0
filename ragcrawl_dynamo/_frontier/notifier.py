"""How workers learn of work, in this process and in others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime
from typing import TypeAlias

from ragcrawl_dynamo._frontier.host_store import HostStore
from ragcrawl_dynamo._frontier.scheduler import Claimer

# Host -> when it has something to claim, and in how many shards at least.
Work: TypeAlias = "dict[str, tuple[datetime, int]]"

# Hosts whose number of shards a process remembers.
_REMEMBERED = 100_000


def note_work(work: Work, host: str, at: datetime, shards: int) -> None:
    """Adds to what is known of a host's work."""
    before = work.get(host, (at, shards))
    work[host] = (min(at, before[0]), max(shards, before[1]))


class Waker:
    """Wakes hosts; what could not be made known is made known with what follows.

    Attributes:
        changed: Set when a waiting claim should look again.
    """

    def __init__(self, hosts: HostStore, claimer: Claimer) -> None:
        self.changed = asyncio.Event()
        self._hosts = hosts
        self._claimer = claimer
        self._left: Work = {}
        self._shards: dict[str, int] = {}

    async def wake(self, work: Work) -> None:
        """Lets hosts have work; to be called once the work is durable.

        Raises:
            ServiceError: Some could not be woken; a later call will.
        """
        # What an earlier call could not make known may be due sooner.
        for host, each in work.items():
            note_work(self._left, host, *each)
        if not self._left:
            return
        work = dict(self._left)
        woken, others = await self._hosts.wake(work)
        self._left = {host: each for host, each in self._left.items() if work.get(host) != each}
        if len(self._shards) > _REMEMBERED:
            self._shards.clear()
        self._shards |= {host: record.shards for host, record in (woken | others).items()}
        if woken:
            self._claimer.look_again()
        self.changed.set()

    async def reopen(self) -> None:
        """Takes back that the run is finished, or about to be proven so."""
        await self._hosts.reopen()

    async def wake_left(self) -> None:
        """Wakes what an earlier call could not.

        Raises:
            ServiceError: It can not be woken now either.
        """
        await self.wake({})

    def shards(self, host: str) -> int:
        """How many shards a host has, as far as this process knows."""
        return self._shards.get(host, 1)

    def look_again(self, hosts: Iterable[str] = ()) -> None:
        """Lets claims of this process see what changed, in the queues of some hosts."""
        self._claimer.forget(hosts)
        self._claimer.look_again()
        self.changed.set()

    def forget(self) -> None:
        """Drops what is known of the hosts."""
        self._left = {}
        self._shards.clear()
        self.look_again()
