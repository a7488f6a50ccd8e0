"""Decides for how long work is tried again while DynamoDB cannot be reached, fails or throttles."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from ragcrawl_dynamo._frontier.claim import Claim
from ragcrawl_dynamo._utils.clock import Clock
from ragcrawl_dynamo.errors import (
    ConflictError,
    CredentialsError,
    DeadlineExceededError,
    EndpointUnreachableError,
    PartialBatchError,
    RagcrawlDynamoError,
    ServerFaultError,
    ThrottledError,
)

T = TypeVar("T")

logger = logging.getLogger(__name__)

# Seconds between two tries of a call. Each try has retried its requests until `call_timeout`.
PAUSE_SECONDS = 1.0

_PASSING = (
    ConflictError,
    DeadlineExceededError,
    EndpointUnreachableError,
    ServerFaultError,
    ThrottledError,
)


def may_pass(error: RagcrawlDynamoError) -> bool:
    """Returns whether the same call may succeed later, without a change of settings or permissions."""
    if isinstance(error, PartialBatchError):
        return all(may_pass(failure) for _, failure in error.failures)
    if isinstance(error, CredentialsError):
        return error.is_transient
    return isinstance(error, _PASSING)


class Outage:
    """Measures for how long DynamoDB has not served a worker.

    Args:
        clock: Measures the time.
        longest: The seconds after which the worker gives up.
    """

    def __init__(self, clock: Clock, longest: float) -> None:
        self._clock = clock
        self._longest = longest
        self._since: float | None = None

    def end(self) -> None:
        """Notes that DynamoDB has served a call."""
        self._since = None

    def note(self, error: RagcrawlDynamoError, begun: float) -> None:
        """Notes that a call has failed.

        Args:
            error: The error.
            begun: When the call began, by the monotonic clock.

        Raises:
            RagcrawlDynamoError: The error itself, if it does not pass or the outage has lasted too long.
        """
        if self._since is None:
            self._since = begun
        if not may_pass(error) or self._clock.monotonic() - self._since >= self._longest:
            raise error


async def while_leased(
    claims: Sequence[Claim], clock: Clock, margin: float, work: Callable[[], Awaitable[T]]
) -> T:
    """Does finished work of claims; tries it again after errors that may pass, until the leases are over.

    So a worker need not fetch a page again after a short outage of DynamoDB. A lease keeper that renews the
    leases meanwhile gives the work more time.

    Args:
        claims: The claims. Without any, the work is done once.
        clock: The clock by which the leases are judged.
        margin: How many seconds before its end a lease counts as over.
        work: The work, which can be repeated.

    Raises:
        RagcrawlDynamoError: The last error of the work.
    """
    while True:
        try:
            return await work()
        except RagcrawlDynamoError as error:
            ends = [claim.deadline for claim in claims if not claim.lost]
            if not may_pass(error) or clock.monotonic() + PAUSE_SECONDS >= max(ends, default=0.0) - margin:
                raise
            logger.warning("%s could not be settled; it is tried again: %s", claims[0].item.url, error)
        await clock.sleep(PAUSE_SECONDS)
