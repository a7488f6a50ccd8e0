"""What the frontier's methods return."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from ragcrawl_dynamo._frontier.counters import FrontierStats
from ragcrawl_dynamo.errors import InvalidInputError
from ragcrawl_dynamo.models import FrontierItem, FrontierStatus

__all__ = ["AddResult", "Claim", "HostStatus"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AddResult:
    """What became of one link.

    Attributes:
        url: The link as it was given.
        item_id: Its item; None where `error` is set.
        added: Whether it is new to the run.
        error: Why it can not be stored; None for all others.
        status: What it is, where it was looked up because this process did not know it.
    """

    url: str
    item_id: str | None
    added: bool
    error: InvalidInputError | None = None
    status: FrontierStatus | None = None


@dataclass(slots=True)
class Claim:
    """An item that this worker holds, until it finishes it or the lease ends.

    Attributes:
        item: The item as it was claimed.
        worker_id: The worker.
        expires_at: When the lease ends, by this machine's clock; `renew` moves it. Stop acting on the item
            `frontier_max_clock_skew` seconds before.
        ended: Whether a verb of this process has finished the claim, or found its lease lost.
        lost: Whether somebody else has the item, or it is gone.
        has_slot: Whether the item's host counts it as in flight.
        deadline: `expires_at` by the clock that is never set, in seconds.
    """

    item: FrontierItem
    worker_id: str
    expires_at: datetime
    ended: bool = False
    lost: bool = False
    has_slot: bool = field(default=False, repr=False)
    deadline: float = field(default=0.0, repr=False)

    @property
    def token(self) -> str:
        """Fencing token: of two claims of one item the later one's is greater, also as text."""
        return f"{self.item.attempt:010}.{self.item.lease_token}"


LeaseObserver: TypeAlias = Callable[[Claim], object]


def guarded(observer: LeaseObserver | None) -> LeaseObserver:
    """An observer of lost leases that raises nothing: the caller's code must not harm the queue's."""

    def observe(claim: Claim) -> None:
        if observer is None:
            return
        try:
            observer(claim)
        except Exception:  # the caller's code, of which nothing is known
            logger.exception("the observer of lost leases failed")

    return observe


def note_lost(claim: Claim, observer: LeaseObserver) -> None:
    """Ends a claim whose lease proved to be lost, and tells of it, once."""
    if not claim.ended:
        claim.ended = claim.lost = True
        observer(claim)


@dataclass(frozen=True, slots=True)
class HostStatus:
    """A host of a run: its limits, and its items.

    Attributes:
        host: Host name, with its port where the URL has one.
        delay: Seconds between the beginnings of two leases.
        max_in_flight: Leases at a time; None for any number.
        in_flight: Leases now, where `max_in_flight` is set.
        blocked_until: No lease before.
        next_at: When the next lease may begin, if `delay` is set.
        stats: Its items by state.
    """

    host: str
    delay: float
    max_in_flight: int | None
    in_flight: int
    blocked_until: datetime | None
    next_at: datetime | None
    stats: FrontierStats
