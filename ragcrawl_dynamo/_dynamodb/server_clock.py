"""Estimates from the `Date` header of answers how wrong this machine's clock is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

# Seconds for which what answers have proved is kept at least, and twice that at most.
_KEPT_SECONDS = 60.0

# The bounds while nothing is proved: the fewest and the most seconds that the clock is ahead.
_UNKNOWN = (-math.inf, math.inf)


class ServerClock:
    """Keeps how wrong this machine's clock is, as far as the `Date` headers of answers prove it.

    A header has whole seconds, rounded down. It was written between the request and the answer. Several of
    them, at different parts of a second, prove the offset to the duration of the fastest request.

    Attributes:
        offset: Seconds by which the clock is ahead for certain; negative if it is behind.
    """

    def __init__(self) -> None:
        self.offset: float = 0.0
        self._header = ""
        self._server_time = 0.0
        self._since = 0.0
        # Between how many seconds ahead the clock is, by recent answers and by those before.
        self._recent = self._before = _UNKNOWN

    def observe(self, sent: float, received: float, metadata: Mapping[str, Any]) -> None:
        """Uses an answer that came between two moments of this machine's clock (seconds since 1970)."""
        header = metadata.get("HTTPHeaders", {}).get("date")
        if not header:
            return
        if header != self._header:
            try:
                self._server_time = parsedate_to_datetime(header).timestamp()
            except ValueError:
                return
            self._header = header
        answer = (sent - (self._server_time + 1), received - self._server_time)
        if sent - self._since >= _KEPT_SECONDS:
            self._before, self._recent, self._since = self._recent, answer, sent
        else:
            self._recent = _both(self._recent, answer)
        least, most = _both(self._recent, self._before)
        if least > most:
            # The clock was set meanwhile.
            self._before, self._recent, self._since = _UNKNOWN, answer, sent
            least, most = answer
        self.offset = max(0.0, least) + min(0.0, most)


def _both(first: tuple[float, float], second: tuple[float, float]) -> tuple[float, float]:
    """Intersects two ranges."""
    return max(first[0], second[0]), min(first[1], second[1])
