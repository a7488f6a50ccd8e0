"""Logs the errors of handlers, with few tracebacks."""

from __future__ import annotations

import logging
import traceback

from ragcrawl_dynamo._frontier.claim import Claim
from ragcrawl_dynamo.models import FrontierStatus

logger = logging.getLogger(__name__)

# The next state of an item whose handler has failed, by how its claim is settled.
_FATES = {
    FrontierStatus.PENDING: "it will be tried again",
    FrontierStatus.FAILED: "it is given up",
    FrontierStatus.COMPLETED: "after it was completed",
    FrontierStatus.SKIPPED: "after it was skipped",
    None: "it will be claimed again when its lease has ended",
}


class HandlerErrors:
    """Logs the errors of the handlers of one worker.

    A host that is down fails each attempt of each of its items in the same way. So the traceback is logged
    once for each type of error and line that raised it, and with each item that is given up.
    """

    def __init__(self) -> None:
        self._known: set[tuple[type[Exception], str | None, int | None]] = set()

    def log(self, claim: Claim, error: Exception) -> None:
        """Logs an error after the claim is settled: a dead letter at level error, others at warning."""
        is_final = claim.settled_as is FrontierStatus.FAILED
        logger.log(
            logging.ERROR if is_final else logging.WARNING,
            "the handler of %s has failed in attempt %d, %s: %r",
            *(claim.item.url, claim.item.attempt, _FATES[claim.settled_as], error),
            exc_info=error if self._is_new(error) or is_final else None,
        )

    def _is_new(self, error: Exception) -> bool:
        """Returns whether the worker logs the first error of this type that this line has raised."""
        frames = list(traceback.walk_tb(error.__traceback__))
        frame, line = frames[-1] if frames else (None, None)
        key = (type(error), frame.f_code.co_filename if frame else None, line)
        is_new = key not in self._known
        self._known.add(key)
        return is_new
