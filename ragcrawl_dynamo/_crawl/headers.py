"""Reads the headers of HTTP answers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

# The longest time in seconds for which a server can block its host. A longer one is a mistake, or an attack.
_LONGEST_RETRY_AFTER = 86_400.0


def header(headers: Mapping[str, str], name: str) -> str | None:
    """Returns the value of a header, whose name is compared without case; None if there is none."""
    for key, value in headers.items():
        if key.lower() == name:
            return value.strip() or None
    return None


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Returns the seconds that the header Retry-After asks for, a day at most; None without a valid one.

    RFC 9110, section 10.2.3: a number of seconds, or a date.
    """
    value = header(headers, "retry-after")
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return min(float(value), _LONGEST_RETRY_AFTER)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max(0.0, (moment - now).total_seconds()), _LONGEST_RETRY_AFTER)
