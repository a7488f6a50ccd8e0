"""Checks the arguments of the frontier's methods: leases, limits of hosts, links and errors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from typing import Any, Self, TypedDict

from pydantic import ValidationError

from ragcrawl_dynamo._utils.urls import normalize_url
from ragcrawl_dynamo._utils.validation import (
    MAX_DELAY_SECONDS,
    check_count,
    check_kind,
    check_moment,
    check_name,
    check_seconds,
    first_of,
)
from ragcrawl_dynamo.errors import InvalidArgumentError
from ragcrawl_dynamo.models import FrontierItem

# The longest lease, in seconds. Longer work renews it.
MAX_LEASE_SECONDS = 7 * 86_400

# The largest number of leases of one host at the same time; and of items that one call claims, which is also
# the largest number of handlers of one worker.
MAX_IN_FLIGHT = 1000
MAX_CLAIMED = 10_000

# The largest budget of links of a host.
MAX_HOST_ITEMS = 10**12

# How much of an error is stored.
_ERROR_CHARACTERS = 1000


class LinkFields(TypedDict, total=False):
    """The fields of an item that `Frontier.link` sets, beside its URL."""

    depth: int
    referrer_url: str | None
    priority: float
    scheduled_at: datetime | None
    discovered_at: datetime
    unique_key: str | None
    payload: str | None


@dataclass(frozen=True, slots=True)
class HostLimits:
    """The limits that a new host of a run gets.

    Attributes:
        delay: Seconds between the beginnings of two leases of the host's items.
        max_in_flight: How many leases of the host's items may run at the same time; None for any number.
        max_items: How many links the host may have in all; None for any number.
    """

    delay: float = 0.0
    max_in_flight: int | None = None
    max_items: int | None = None

    @classmethod
    def checked(cls, host_delay: Any, host_max_in_flight: Any, host_max_items: Any = None) -> Self:
        """Returns the limits that a caller has given.

        Raises:
            InvalidArgumentError: A limit is negative or too large.
        """
        delay = check_seconds("host_delay", host_delay, MAX_DELAY_SECONDS)
        if host_max_in_flight is not None:
            check_count("host_max_in_flight", host_max_in_flight, MAX_IN_FLIGHT)
        if host_max_items is not None:
            check_count("host_max_items", host_max_items, MAX_HOST_ITEMS)
        return cls(delay, host_max_in_flight, host_max_items)


def check_lease(seconds: Any, max_clock_skew: float) -> float:
    """Returns how many seconds a lease lasts.

    Raises:
        InvalidArgumentError: The number is not more than twice `max_clock_skew`, or too large.
    """
    lower_bound = 2 * max_clock_skew
    if check_seconds("lease_seconds", seconds, MAX_LEASE_SECONDS) <= lower_bound:
        raise InvalidArgumentError(
            "lease_seconds",
            f"must be more than {lower_bound:g}, twice frontier_max_clock_skew, not {seconds!r}",
        )
    return float(seconds)


def check_claim_options(limit: Any, worker_id: Any, wait_seconds: Any) -> str:
    """Checks the options of `Frontier.claim`; returns the name of the worker.

    Raises:
        InvalidArgumentError: An option is outside its limits.
    """
    check_count("limit", limit, MAX_CLAIMED)
    check_seconds("wait_seconds", wait_seconds, MAX_DELAY_SECONDS)
    return check_name("worker_id", worker_id)


def check_delay(name: str, seconds: Any) -> float | None:
    """Returns the seconds until the next attempt; None for the default. `name` is that of the argument.

    Raises:
        InvalidArgumentError: The seconds are outside their limits.
    """
    return None if seconds is None else check_seconds(name, seconds, MAX_DELAY_SECONDS)


def check_limit(**limit: Any) -> dict[str, Any]:
    """Returns a limit of a host as a field of HostRecord: `seconds`, `count` or `until`.

    Raises:
        InvalidArgumentError: The value is outside its limits.
    """
    if "seconds" in limit:
        return {"delay": check_seconds("seconds", limit["seconds"], MAX_DELAY_SECONDS)}
    if "until" in limit:
        return {"blocked_until": check_moment("until", limit["until"])}
    count = limit["count"]
    return {"max_in_flight": None if count is None else check_count("count", count, MAX_IN_FLIGHT)}


def check_links(links: Any) -> Iterable[Any]:
    """Returns links.

    Raises:
        InvalidArgumentError: The argument is a single link, or is not a collection.
    """
    if isinstance(links, str | bytes | FrontierItem) or not isinstance(links, Iterable):
        raise InvalidArgumentError(
            "links", f"must be a collection, not a {type(links).__name__}: put a single value into a list"
        )
    return links


def check_link_options(depth: Any, referrer_url: Any, priority: Any, not_before: Any) -> dict[str, Any]:
    """Returns the options of `Frontier.add` as fields of FrontierItem.

    Raises:
        InvalidArgumentError: An option is outside its limits.
    """
    if isinstance(depth, bool) or not isinstance(depth, int) or depth < 0:
        raise InvalidArgumentError("depth", f"must be a whole number of at least 0, not {depth!r}")
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


def check_base_url(base_url: Any) -> str | None:
    """Returns the URL against which relative links are resolved; None if there is none.

    Raises:
        InvalidArgumentError: The URL is not an absolute http(s) URL.
    """
    if base_url is None:
        return None
    try:
        normalize_url(base_url)
    except InvalidArgumentError as error:
        raise InvalidArgumentError("base_url", str(error).removeprefix("url: ")) from None
    return str(base_url)


def link_item(fields: dict[str, Any]) -> FrontierItem:
    """Builds an item to add from the given fields; the queue sets the other ones.

    Raises:
        InvalidArgumentError: There is no such field, or its value has a wrong type.
    """
    set_by_queue = dict.fromkeys(("item_id", "normalized_url", "url_hash", "domain"), "")
    try:
        return FrontierItem.model_validate({**set_by_queue, **fields})
    except ValidationError as error:
        raise InvalidArgumentError(*first_of(error)) from None


def error_text(error: str | BaseException) -> str:
    """Returns the text to store for an error: its type and its message, shortened."""
    text = error if isinstance(error, str) else f"{type(error).__name__}: {error}".removesuffix(": ")
    return text[:_ERROR_CHARACTERS].encode("utf-8", "replace").decode()


def check_new_values(payload: Any, priority: Any) -> dict[str, Any]:
    """Returns the new values of an item that is put back, as fields of FrontierItem; None changes nothing.

    Raises:
        InvalidArgumentError: The payload is not a text, or the priority is not a finite number.
    """
    fields: dict[str, Any] = {}
    if payload is not None:
        check_kind("payload", payload, str)
        fields["payload"] = payload
    if priority is not None:
        fields["priority"] = check_link_options(0, None, priority, None)["priority"]
    return fields
