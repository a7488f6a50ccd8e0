"""Estimates from the `Date` header of answers how wrong this machine's clock is."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any


class ServerClock:
    """Keeps how wrong this machine's clock is, as far as the `Date` header of the latest answer proves it.

    The header has whole seconds, rounded down. It was written between the request and the answer.

    Attributes:
        offset: Seconds by which the clock is ahead for certain; negative if it is behind.
    """

    def __init__(self) -> None:
        self.offset = 0.0
        self._header = ""
        self._server_time = 0.0

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
        ahead = sent - (self._server_time + 1)
        behind = received - self._server_time
        self.offset = max(0.0, ahead) + min(0.0, behind)
