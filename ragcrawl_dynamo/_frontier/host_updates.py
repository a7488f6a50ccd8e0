"""Updates of a host's record, as values: each says what the record becomes, whatever state it is in.

A store writes the new record if nobody else changed it meanwhile, or applies the update again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from ragcrawl_dynamo._schema.records import HostRecord

# Shares into which the queue of one host is split at most. A partition of an index takes 1,000 write units a
# second (AWS: "Best practices for designing and using partition keys"), a crawled page needs three of them.
MAX_SHARDS = 32

# Seconds until a host whose queue looked empty is looked at again. Its index may lag, commonly by well under
# a second; what it hides for longer is found when the run seems to be finished.
SECOND_LOOK = 1.0


class HostUpdate(Protocol):
    """What changes in a host's record."""

    def apply(self, record: HostRecord) -> HostRecord:
        """The record as it is afterwards."""
        ...


@dataclass(frozen=True, slots=True)
class ReserveLeases:
    """Leases of the host's items begin.

    Attributes:
        tokens: For each lease token the moment at which the lease is given up for lost.
        now: When the leases begin.
        process: Who holds them.
    """

    tokens: Mapping[str, datetime]
    now: datetime
    process: str

    def apply(self, record: HostRecord) -> HostRecord:
        """See HostUpdate."""
        changes: dict[str, Any] = {"reserver": self.process}
        if record.delay > 0:
            changes["next_at"] = self.now + timedelta(seconds=record.delay)
        if record.max_in_flight is not None:
            changes["slots"] = {**record.live_slots(self.now), **self.tokens}
        return record.model_copy(update=changes)


@dataclass(frozen=True, slots=True)
class ReturnLeases:
    """Leases that were reserved at a moment are not used after all."""

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
    """Leases have ended."""

    tokens: tuple[str, ...]

    def apply(self, record: HostRecord) -> HostRecord:
        """See HostUpdate."""
        slots = {token: expiry for token, expiry in record.slots.items() if token not in self.tokens}
        return record.model_copy(update={"slots": slots})


@dataclass(frozen=True, slots=True)
class ExtendLeases:
    """Leases end later; those that were given up for lost are counted again."""

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
    """The host has work from a moment on, in that many shards at least."""

    at: datetime
    shards: int = 1

    def apply(self, record: HostRecord) -> HostRecord:
        """See HostUpdate."""
        changes: dict[str, Any] = {"shards": max(record.shards, self.shards)}
        if record.work_at is None or self.at < record.work_at or record.empty_looks:
            work_at = self.at if record.work_at is None else min(self.at, record.work_at)
            changes |= {"work_at": work_at, "empty_looks": 0}
        return record.model_copy(update=changes)


@dataclass(frozen=True, slots=True)
class NoteEmptyQueue:
    """A look into the host's queue showed nothing to claim before `next_work`; one look is not trusted."""

    now: datetime
    next_work: datetime | None

    def apply(self, record: HostRecord) -> HostRecord:
        """See HostUpdate."""
        if record.empty_looks:
            return record.model_copy(update={"work_at": self.next_work, "empty_looks": 0})
        again = self.now + timedelta(seconds=SECOND_LOOK)
        work_at = again if self.next_work is None else min(again, self.next_work)
        return record.model_copy(update={"work_at": work_at, "empty_looks": 1})


@dataclass(frozen=True, slots=True)
class SetLimits:
    """The host has other limits; leases in flight from before are not counted.

    Attributes:
        limits: Fields of HostRecord: `delay`, `max_in_flight` or `blocked_until`.
    """

    limits: Mapping[str, Any]

    def apply(self, record: HostRecord) -> HostRecord:
        """See HostUpdate."""
        return record.model_copy(update=self.limits)


def shards_for(links: int) -> int:
    """Into how many shards a host's queue is to be split: a power of two, one for some sixty links."""
    return min(MAX_SHARDS, 1 << max(0, (links - 1) // 64).bit_length())
