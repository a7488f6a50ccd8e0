"""Defines the updates of a host's record as pure values: each one maps a record to the updated record.

If another process has changed the record meanwhile, the store reads it again and applies the update again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from ragcrawl_dynamo._schema.records import HostRecord

# The largest number of shards over which a host's queue is spread. A partition of an index takes 1,000 write
# units a second (AWS: "Best practices for designing and using partition keys"). A crawled page needs three.
MAX_SHARDS = 32

# Seconds after which a host whose queue looked empty is due again. The index lags, usually by well under a
# second. Items that it hides for longer are found by the proof that the run is finished.
SECOND_LOOK = 1.0


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
        process: The process that gets the leases.
    """

    tokens: Mapping[str, datetime]
    now: datetime
    process: str

    def apply(self, record: HostRecord) -> HostRecord:
        """See HostUpdate."""
        fields: dict[str, Any] = {"reserver": self.process}
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
    """Notes that the host has work from a moment on, and spreads its queue over at least so many shards."""

    at: datetime
    shards: int = 1

    def apply(self, record: HostRecord) -> HostRecord:
        """See HostUpdate."""
        fields: dict[str, Any] = {"shards": max(record.shards, self.shards)}
        if record.work_at is None or self.at < record.work_at or record.empty_looks:
            work_at = self.at if record.work_at is None else min(self.at, record.work_at)
            fields |= {"work_at": work_at, "empty_looks": 0}
        return record.model_copy(update=fields)


@dataclass(frozen=True, slots=True)
class NoteEmptyQueue:
    """Notes that the host's queue showed nothing to claim before `next_work`.

    The index may lag. Therefore the host is due again after SECOND_LOOK seconds, and its queue is only
    trusted if it looks empty twice.
    """

    now: datetime
    next_work: datetime | None

    def apply(self, record: HostRecord) -> HostRecord:
        """See HostUpdate."""
        if record.empty_looks:
            return record.model_copy(update={"work_at": self.next_work, "empty_looks": 0})
        second_look = self.now + timedelta(seconds=SECOND_LOOK)
        work_at = second_look if self.next_work is None else min(second_look, self.next_work)
        return record.model_copy(update={"work_at": work_at, "empty_looks": 1})


@dataclass(frozen=True, slots=True)
class SetLimits:
    """Sets limits of the host. Leases that began while no maximum was set take no in-flight slot.

    Attributes:
        limits: Fields of HostRecord: `delay`, `max_in_flight` or `blocked_until`.
    """

    limits: Mapping[str, Any]

    def apply(self, record: HostRecord) -> HostRecord:
        """See HostUpdate."""
        return record.model_copy(update=self.limits)


def shards_for(links: int) -> int:
    """Returns the number of shards for a host's queue: a power of two, with up to 64 links a shard."""
    return min(MAX_SHARDS, 1 << max(0, (links - 1) // 64).bit_length())
