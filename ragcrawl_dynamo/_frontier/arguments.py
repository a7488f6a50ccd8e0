"""Checks arguments of the frontier's methods: leases, and what links that are added have in common."""

from __future__ import annotations

from math import isfinite
from typing import Any

from ragcrawl_dynamo._utils.validation import check_moment, check_seconds
from ragcrawl_dynamo.errors import InvalidArgumentError

# A lease may last that many seconds; longer work renews it.
MAX_LEASE_SECONDS = 7 * 86_400


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
