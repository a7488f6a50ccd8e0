"""Estimates from the `Date` header of answers how far this machine's clock is off."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any


class ServerClock:
    """How far this machine's clock is off, as far as the latest answer's `Date` header proves it.

    The header has whole seconds, rounded down, and was written at some moment between request and answer.
    """

    def __init__(self) -> None:
        self.offset = 0.0
        self._header = ""
        self._server_time = 0.0

    def observe(self, sent: float, received: float, metadata: Mapping[str, Any]) -> None:
        """Notes an answer that came between two moments of this machine's clock (seconds since 1970)."""
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
        # Positive: surely ahead by that much; negative: surely behind.
        self.offset = max(0.0, ahead) + min(0.0, behind)
