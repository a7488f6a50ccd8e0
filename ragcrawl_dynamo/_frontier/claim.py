"""Defines the results of the frontier's methods: claims, results of added links, and hosts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from ragcrawl_dynamo._frontier.counts import FrontierStats
from ragcrawl_dynamo._utils.validation import check_kind, check_several
from ragcrawl_dynamo.errors import InvalidArgumentError, InvalidInputError
from ragcrawl_dynamo.models import FrontierItem, FrontierStatus

__all__ = ["AddResult", "Claim", "HostStatus"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AddResult:
    """The result of adding one link.

    Attributes:
        url: The URL as it was given.
        item_id: The id of the link's item; None if `error` is set.
        added: Whether the link is new to the run.
        error: Why the link is refused: it is no absolute http(s) URL, it cannot be stored, or its host has
            as many links as `host_max_items` allows (HostBudgetError). None if it is not refused.
        status: The status of the item, if the item was already stored and this process had to look it up.
    """

    url: str
    item_id: str | None
    added: bool
    error: InvalidInputError | None = None
    status: FrontierStatus | None = None


@dataclass(slots=True)
class Claim:
    """An item that this worker has leased. It holds the item until it settles the claim or the lease ends.

    Attributes:
        item: The item as it was claimed. `put_back` updates it.
        worker_id: The name of the worker; empty if it has none.
        expires_at: When the lease ends, by this machine's clock. `renew` moves it. Stop the work on the item
            `frontier_max_clock_skew` seconds before.
        ended: Whether this process has settled the claim, or learned that its lease was lost.
        lost: Whether the lease was lost: another worker has claimed the item, another method has settled it,
            or it was deleted.
        settled_as: The status with which this process has settled the claim: PENDING for an item that is
            tried again. None if it has not.
        has_slot: Whether the lease takes an in-flight slot of the item's host.
        deadline: `expires_at` by the monotonic clock, in seconds.
    """

    item: FrontierItem
    worker_id: str
    expires_at: datetime
    ended: bool = False
    lost: bool = False
    settled_as: FrontierStatus | None = None
    has_slot: bool = field(default=False, repr=False)
    deadline: float = field(default=0.0, repr=False)

    @property
    def token(self) -> str:
        """The fencing token: of two claims of an item, the later one has the greater token, as text."""
        return f"{self.item.attempt:010}.{self.item.lease_token}"


LeaseObserver: TypeAlias = Callable[[Claim], object]


def guarded(observer: LeaseObserver | None) -> LeaseObserver:
    """Wraps an observer of lost leases, so that its errors are logged and not raised."""

    def observe(claim: Claim) -> None:
        if observer is None:
            return
        try:
            observer(claim)
        except Exception:  # the observer is the caller's code and may raise anything
            logger.exception("on_lease_lost raised an error for item %s", claim.item.item_id)

    return observe


def note_lost(claim: Claim, observer: LeaseObserver) -> None:
    """Marks a claim as lost and calls the observer, unless the claim has ended before."""
    if not claim.ended:
        claim.ended = claim.lost = True
        observer(claim)


@dataclass(frozen=True, slots=True)
class HostStatus:
    """A host of a run: its limits and its items.

    Attributes:
        host: The host name, with the port if it is not the default one; or the `politeness_key`.
        delay: Seconds between the beginnings of two leases; 0 means no delay.
        max_in_flight: How many leases may run at the same time; None for any number.
        in_flight: How many leases are running. They are only counted while `max_in_flight` is set.
        blocked_until: No lease begins before this moment; None if the host was never blocked.
        next_at: When the next lease may begin, if `delay` is set; None before the first lease.
        stats: How many of its items are in which state.
    """

    host: str
    delay: float
    max_in_flight: int | None
    in_flight: int
    blocked_until: datetime | None
    next_at: datetime | None
    stats: FrontierStats


def check_claims(claims: Claim | Sequence[Claim], run_id: str) -> list[Claim]:
    """Returns one claim or several as a list, after a check that they are of a run.

    Raises:
        InvalidArgumentError: A value is not a claim, or is one of another run.
    """
    checked = [claims] if isinstance(claims, Claim) else check_several("claims", claims, Claim)
    for claim in checked:
        if claim.item.run_id != run_id:
            raise InvalidArgumentError(
                "claims", f"must be claims of run {run_id!r}, and one is of run {claim.item.run_id!r}"
            )
    return checked


def check_claim(claim: Claim, run_id: str) -> Claim:
    """Returns a claim, if it is one of a run.

    Raises:
        InvalidArgumentError: The claim is one of another run.
    """
    check_kind("claim", claim, Claim)
    return check_claims(claim, run_id)[0]
