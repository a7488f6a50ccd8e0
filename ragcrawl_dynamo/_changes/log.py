"""Logs the changes of a site in shards, whose sequence numbers one process gives out without a gap.

Key of an entry `#{site_id}#{shard}` / `{sequence_number}`. The transaction that makes a change puts its
entry, on the condition that its position is free. So two processes can hold one shard, and a reader can give
up a sequence number for a commit that is late: the one that comes second takes another number. The order does
not depend on who holds a shard, or on a clock; a clock only decides when a shard counts as left.
"""

from __future__ import annotations

import heapq
from asyncio import Lock
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from ragcrawl_dynamo._changes.change import VOID, ChangeKind, LogEntry, LogPosition, next_order
from ragcrawl_dynamo._changes.shards import ShardStore, holder_token
from ragcrawl_dynamo._dynamodb.expressions import Missing
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._dynamodb.transactions import Refusal, Transaction
from ragcrawl_dynamo._dynamodb.values import Item, escape
from ragcrawl_dynamo._dynamodb.write_token import WriteToken
from ragcrawl_dynamo._utils.clock import Clock
from ragcrawl_dynamo.models import Page

# Sites whose shard a process holds. Beyond that, it leaves the shard that it has not used for longest.
_SHARDS_HELD = 256

# Seconds after which a process verifies that it still holds its shard: another one may have deleted the site,
# and no reader reads a shard that is not listed.
_VERIFY_SECONDS = 60.0

# Seconds for which a sequence number that was not used after all can be used for another change.
_REUSE_SECONDS = 60.0

# Name of the entry's write in a transaction.
_WRITE = "change"

_FREE = Missing("page_id")


@dataclass(frozen=True, slots=True)
class PendingEntry:
    """A log entry that is not written yet: the transaction that makes the change has to write it.

    Attributes:
        position: Where the change will be logged.
        order: Order of the change among those of its page.
        table: The table of the log.
        item: The entry's item.
    """

    position: LogPosition
    order: int
    table: Table[Page]
    item: Item

    def add_to(self, transaction: Transaction) -> None:
        """Adds the write of the entry, named "change", on the condition that its position is free."""
        transaction.put(_WRITE, self.table, self.item, _FREE)


@dataclass
class _Shard:
    """The shard that this process holds for a site; it has no name before the process has taken one.

    Attributes:
        lock: Held while the process takes or verifies the shard.
        name: The shard's name.
        token: The token that the process stored when it took the shard.
        next_number: The next sequence number to give out.
        verified_at: When the process last verified that it holds the shard, by the monotonic clock.
        free_numbers: Sequence numbers that were given out and not used, with the moments of that, as a heap.
    """

    lock: Lock = field(default_factory=Lock)
    name: str | None = None
    token: WriteToken = field(default_factory=holder_token)
    next_number: int = 0
    verified_at: float = 0.0
    free_numbers: list[tuple[int, float]] = field(default_factory=list)

    def take_number(self, now: float) -> int:
        """Takes the lowest sequence number that can be used."""
        while self.free_numbers:
            number, freed_at = heapq.heappop(self.free_numbers)
            if now - freed_at < _REUSE_SECONDS:
                return number
        self.next_number += 1
        return self.next_number - 1


class ChangeLog:
    """Logs the changes that one process makes. It holds one shard for each site that it changes."""

    def __init__(self, gateway: Gateway, table: Table[Page], clock: Clock) -> None:
        self._gateway = gateway
        self._table = table
        self._clock = clock
        self.shards = ShardStore(gateway, table)
        self._held: OrderedDict[str, _Shard] = OrderedDict()

    def now(self) -> datetime:
        """Returns the time of day, corrected as far as DynamoDB's answers prove this machine's wrong."""
        return self._clock.now() - timedelta(seconds=self._gateway.server_clock.offset)

    async def append(
        self, site_id: str, page_id: str, kind: ChangeKind, previous_order: int | None
    ) -> PendingEntry | None:
        """Takes a position for a change; returns the entry that logs it, or None if changes are not logged.

        Args:
            site_id: The site.
            page_id: The page.
            kind: The kind of the change.
            previous_order: Order of the page's change before, if a commit made one.
        """
        config = self._gateway.config
        if not config.change_feed:
            return None
        position = await self._take_position(site_id)
        now = self.now()
        order = next_order(previous_order, now)
        entry = LogEntry(position, kind, escape(page_id), order, now)
        return PendingEntry(position, order, self._table, entry.item(site_id, config.change_retention_days))

    def note_refusal(self, site_id: str, entry: PendingEntry, refusal: Refusal) -> None:
        """Notes that the transaction was refused that would have written an entry.

        If the entry's position was free, its sequence number can be used for another change. If a reader has
        given the number up, the process takes the next one. If another process has used it, this process
        looks for another shard.
        """
        position = entry.position
        shard = self._held.get(site_id)
        if shard is None or shard.name != position.shard:
            return
        if not refusal.is_refused(_WRITE):
            heapq.heappush(shard.free_numbers, (position.sequence_number, self._clock.monotonic()))
        elif refusal.item(_WRITE).get("kind") != {"S": VOID}:
            self._held.pop(site_id)

    def forget(self, site_id: str) -> None:
        """Forgets the shard of a site that is being deleted."""
        self._held.pop(site_id, None)

    async def close(self) -> None:
        """Leaves all shards, so that other processes can take them over at once."""
        while self._held:
            await self._leave(*self._held.popitem())

    async def _take_position(self, site_id: str) -> LogPosition:
        """Takes the position of the next change of a site."""
        shard = self._held.setdefault(site_id, _Shard())
        self._held.move_to_end(site_id)
        async with shard.lock:
            now = self._clock.monotonic()
            name = await self._held_name(site_id, shard, now)
            # No await before the number is taken: the process could take another shard meanwhile.
            position = LogPosition(name, shard.take_number(now))
        if len(self._held) > _SHARDS_HELD:
            await self._leave(*self._held.popitem(last=False))
        return position

    async def _held_name(self, site_id: str, shard: _Shard, now: float) -> str:
        """Returns the name of a shard once this process holds it."""
        if shard.name is not None:
            if now - shard.verified_at <= _VERIFY_SECONDS:
                return shard.name
            if await self.shards.is_held(site_id, shard.name, shard.token):
                shard.verified_at = now
                return shard.name
        # Numbers that are freed from now on are of the former shard.
        shard.name = None
        shard.free_numbers.clear()
        token = holder_token()
        shard.name, shard.next_number = await self.shards.take(site_id, token, self.now())
        shard.token, shard.verified_at = token, now
        return shard.name

    async def _leave(self, site_id: str, shard: _Shard) -> None:
        if shard.name is not None:
            await self.shards.leave(site_id, shard.name, shard.token, shard.next_number)
