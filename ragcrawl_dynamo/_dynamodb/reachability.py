"""Knows whether an endpoint answers: logs an outage in few lines, and gives up on one that never answered."""

from __future__ import annotations

import logging
import time

from ragcrawl_dynamo._dynamodb.retry import is_transport_error

logger = logging.getLogger(__name__)

# Seconds between two log lines about one outage.
_LOG_SECONDS = 10.0


class Reachability:
    """Follows the attempts of one client: an outage begins when one gets no answer, and ends with an answer.

    An outage is logged when it begins, every ten seconds, and when it ends. Its other failures have level
    DEBUG.

    Args:
        service: The name of the service, for the log.
        patience: For how many seconds after the first failure an endpoint may stay silent that has never
            answered. Its URL or region is probably wrong.
    """

    def __init__(self, service: str, patience: float) -> None:
        self._service = service
        self._patience = patience
        self._has_answered = False
        self._since: float | None = None
        self._logged = 0.0
        self._failures = 0

    def note_answer(self) -> None:
        """Notes that the endpoint has answered, be it with an error."""
        self._has_answered = True
        if self._since is None:
            return
        if self._failures > 1:
            logger.warning(
                "%s answers again, after %d failed attempts in %.1f s",
                *(self._service, self._failures, time.monotonic() - self._since),
            )
        self._since = None

    def note_failure(self) -> int:
        """Notes that an attempt got no answer, and is repeated; returns the level at which to log it."""
        now = time.monotonic()
        if self._since is None:
            self._since = self._logged = now
            self._failures = 1
            return logging.WARNING
        self._failures += 1
        if now - self._logged >= _LOG_SECONDS:
            self._logged = now
            logger.warning(
                "%s still does not answer, after %d attempts in %.1f s; it is tried again",
                *(self._service, self._failures, now - self._since),
            )
        return logging.DEBUG

    def is_given_up(self, error: BaseException) -> bool:
        """Tells whether an attempt is not repeated, since the endpoint has never answered for too long."""
        if self._has_answered or self._since is None or not is_transport_error(error):
            return False
        return time.monotonic() - self._since >= self._patience
