"""Defines the updates of a host's record as pure values: each one maps a record to the updated record.

If another process has changed the record meanwhile, the store reads it again and applies the update again.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from ragcrawl_dynamo._frontier.work import Work
from ragcrawl_dynamo._schema.queue_order import queue_order, split_order
from ragcrawl_dynamo._schema.records import HostRecord

# The largest number of shards over which a host's queue is spread.
MAX_SHARDS = 32

# How many items a second one shard serves. A partition of an index takes 1,000 write units a second (AWS:
# "Best practices for designing and using partition keys"). An item takes two, when it is added and when it
# leaves the queue, and two more for each delay.
_CLAIMS_PER_SHARD = 200


class HostUpdate(Protocol):
    """An update of a host's record."""

    def apply(self, record: HostRecord) -> HostRecord:
        """Returns the updated record."""
        ...


@dataclass(frozen=True, slots=True)
class ReserveLeases:
    """Reserves leases of the host's items.

    Attributes:
        tokens: For each lease token, the moment at which the lease counts as lost.
        now: When the leases begin.
    """

    tokens: Mapping[str, datetime]
    now: datetime

    def apply(self, record: HostRecord) -> HostRecord:
        """See HostUpdate."""
        fields: dict[str, Any] = {}
        if record.delay > 0:
            fields["next_at"] = self.now + timedelta(seconds=record.delay)
        if record.max_in_flight is not None:
            fields["slots"] = {**record.live_slots(self.now), **self.tokens}
        return record.model_copy(update=fields)


@dataclass(frozen=True, slots=True)
class ReturnLeases:
    """Returns leases that were reserved at a moment and are not used."""

    tokens: tuple[str, ...]
    reserved_at: datetime

    def apply(self, record: HostRecord) -> HostRecord:
        """See HostUpdate."""
        record = EndLeases(self.tokens).apply(record)
        if record.next_at == self.reserved_at + timedelta(seconds=record.delay):
            record = record.model_copy(update={"next_at": self.reserved_at})
        return record


@dataclass(frozen=True, slots=True)
class EndLeases:
    """Frees the in-flight slots of leases that have ended."""

    tokens: tuple[str, ...]

    def apply(self, record: HostRecord) -> HostRecord:
        """See HostUpdate."""
        slots = {token: expiry for token, expiry in record.slots.items() if token not in self.tokens}
        return record.model_copy(update={"slots": slots})


@dataclass(frozen=True, slots=True)
class ExtendLeases:
    """Sets a later end of leases. It also counts those again that counted as lost."""

    tokens: tuple[str, ...]
    free_at: datetime

    def apply(self, record: HostRecord) -> HostRecord:
        """See HostUpdate."""
        if record.max_in_flight is None:
            return record
        return record.model_copy(
            update={"slots": {**record.slots, **dict.fromkeys(self.tokens, self.free_at)}}
        )


@dataclass(frozen=True, slots=True)
class AnnounceWork:
    """Moves the host to the place of its best item in the list of hosts, if that is before its own place.

    A host that was not listed has no other item.
    """

    work: Work

    def apply(self, record: HostRecord) -> HostRecord:
        """See HostUpdate."""
        fields: dict[str, Any] = {"shards": max(record.shards, self.work.shards)}
        is_only = record.place is None or record.only_item == self.work.item_id
        fields["only_item"] = self.work.item_id if is_only else None
        if record.place is None or self.work.place < record.place:
            fields["place"] = self.work.place
        if self.work.is_changed:
            fields["mark"] = new_mark()
        return record.model_copy(update=fields)


@dataclass(frozen=True, slots=True)
class SetLimits:
    """Sets limits of the host. Leases that began while no maximum was set take no in-flight slot.

    Attributes:
        limits: Fields of HostRecord: `delay`, `max_in_flight` or `blocked_until`.
    """

    limits: Mapping[str, Any]

    def apply(self, record: HostRecord) -> HostRecord:
        """See HostUpdate."""
        fields = {**self.limits, "mark": new_mark()}
        if record.place is not None:
            # The host may have waited for limits that are weaker now.
            moment, rank = split_order(record.place)
            fields["place"] = queue_order(rank)
            if moment is not None:
                fields["only_item"] = None
        return record.model_copy(update=fields)


@dataclass(frozen=True, slots=True)
class BlockHost:
    """Blocks the host until a moment, unless it is blocked for as long already, to the second.

    The answers of one host come at the same time, and say the same.
    """

    until: datetime

    def apply(self, record: HostRecord) -> HostRecord:
        """See HostUpdate."""
        if record.blocked_until is not None and record.blocked_until > self.until - timedelta(seconds=1):
            return record
        return SetLimits({"blocked_until": self.until}).apply(record)


def new_mark() -> str:
    """Returns a new mark of a host."""
    return secrets.token_hex(2)


def shards_for(claims_per_second: float) -> int:
    """Returns the number of shards for a host's queue: a power of two, one for 200 claims a second each."""
    return min(MAX_SHARDS, 1 << max(0, int(claims_per_second / _CLAIMS_PER_SHARD)).bit_length())
