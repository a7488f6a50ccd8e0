"""Checks arguments of the frontier's methods: leases, limits of hosts, links and errors."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any, Self

from pydantic import ValidationError

from ragcrawl_dynamo._utils.validation import (
    MAX_DELAY_SECONDS,
    check_count,
    check_moment,
    check_seconds,
    first_of,
)
from ragcrawl_dynamo.errors import InvalidArgumentError
from ragcrawl_dynamo.models import FrontierItem

# A lease may last that many seconds; longer work renews it.
MAX_LEASE_SECONDS = 7 * 86_400

# Leases of one host at a time, and items of one claim, and handlers of one worker.
MAX_IN_FLIGHT = 1000
MAX_CLAIMED = 10_000

# What is kept of an error.
_ERROR_CHARACTERS = 1000


@dataclass(frozen=True, slots=True)
class HostLimits:
    """The limits that the hosts of a run begin with.

    Attributes:
        delay: Seconds between the beginnings of two leases of one host's items.
        max_in_flight: Leases of one host's items at a time; None for any number.
    """

    delay: float = 0.0
    max_in_flight: int | None = None

    @classmethod
    def checked(cls, host_delay: Any, host_max_in_flight: Any) -> Self:
        """The limits that a caller gives.

        Raises:
            InvalidArgumentError: One is negative or too large.
        """
        delay = check_seconds("host_delay", host_delay, MAX_DELAY_SECONDS)
        if host_max_in_flight is not None:
            check_count("host_max_in_flight", host_max_in_flight, MAX_IN_FLIGHT)
        return cls(delay, host_max_in_flight)


def check_lease(seconds: Any, max_clock_skew: float) -> float:
    """How long a lease lasts.

    Raises:
        InvalidArgumentError: It is too short to be kept, or too long.
    """
    least = 2 * max_clock_skew
    if check_seconds("lease_seconds", seconds, MAX_LEASE_SECONDS) <= least:
        raise InvalidArgumentError(
            "lease_seconds", f"must be more than twice frontier_max_clock_skew, {least:g}, not {seconds!r}"
        )
    return float(seconds)


def check_link_options(depth: Any, referrer_url: Any, priority: Any, not_before: Any) -> dict[str, Any]:
    """What links that are added together have in common, as fields of FrontierItem.

    Raises:
        InvalidArgumentError: An option is outside its limits.
    """
    if isinstance(depth, bool) or not isinstance(depth, int) or depth < 0:
        raise InvalidArgumentError("depth", f"must be a whole number from 0 on, not {depth!r}")
    if referrer_url is not None and not isinstance(referrer_url, str):
        raise InvalidArgumentError("referrer_url", f"must be text, not {type(referrer_url).__name__}")
    if priority is None:
        priority = 0.0
    if isinstance(priority, bool) or not isinstance(priority, int | float) or not isfinite(priority):
        raise InvalidArgumentError("priority", f"must be a finite number, not {priority!r}")
    return {
        "depth": depth,
        "referrer_url": referrer_url,
        "priority": float(priority),
        "scheduled_at": None if not_before is None else check_moment("not_before", not_before),
    }


def link_item(fields: dict[str, Any]) -> FrontierItem:
    """Makes an item to be added, of some of its fields; the queue sets the others.

    Raises:
        InvalidArgumentError: There is no such field, or its value is of the wrong kind.
    """
    set_by_queue = dict.fromkeys(("item_id", "normalized_url", "url_hash", "domain"), "")
    try:
        return FrontierItem.model_validate({**set_by_queue, **fields})
    except ValidationError as error:
        raise InvalidArgumentError(*first_of(error)) from error


def error_text(error: str | BaseException) -> str:
    """What is kept of an error: its type and what it says, shortened."""
    text = error if isinstance(error, str) else f"{type(error).__name__}: {error}".removesuffix(": ")
    return text[:_ERROR_CHARACTERS].encode("utf-8", "replace").decode()
