"""Decides which errors are retried, how often and after which pause; botocore's own retries are off."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, cast

from aiohttp import ClientError as HttpError
from botocore.exceptions import ChecksumError, ClientError, HTTPClientError, SSLError
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.parsers import ResponseParserError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception

from ragcrawl_dynamo._dynamodb.backpressure import Permit
from ragcrawl_dynamo._dynamodb.credentials import EXPIRED_TOKEN_CODES, CredentialsUnavailableError
from ragcrawl_dynamo.config import DynamoDBConfig

# AWS: "Error handling with DynamoDB", the codes marked "OK to retry", and the conflicts, which botocore's
# retry modes leave out.
THROTTLING_CODES = frozenset(
    {
        "LimitExceededException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "ThrottlingException",
        "Throttling",
        # S3: "Error responses".
        "SlowDown",
    }
)
# Another transaction, or in a global table a write in another region, changes the same item at the moment.
CONFLICT_CODES = frozenset({"ReplicatedWriteConflictException", "TransactionConflictException"})
# DynamoDB failed, or still works on an earlier attempt: the request may have been applied.
FAULT_CODES = frozenset(
    {
        "ContinuousBackupsUnavailableException",
        "InternalFailure",
        "InternalServerError",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "TransactionInProgressException",
    }
)
RETRYABLE_CODES = THROTTLING_CODES | CONFLICT_CODES | FAULT_CODES
# AWS: TransactWriteItems, cancellation reasons, and BatchStatementError. The parts of a request have other
# names for it than the request.
THROTTLING_REASONS = frozenset({"ProvisionedThroughputExceeded", "RequestLimitExceeded", "ThrottlingError"})
CONFLICT_REASON = "TransactionConflict"
# "None" is the reason of an item that had no part in the cancellation.
_RETRYABLE_REASONS = THROTTLING_REASONS | {"None", CONFLICT_REASON}
# S3 has codes for it; DynamoDB says in the message of InvalidSignatureException why a signature is invalid.
_STALE_SIGNATURE_CODES = frozenset({"RequestExpired", "RequestTimeTooSkewed"})
_STALE_SIGNATURE_MESSAGES = ("Signature expired", "Signature not yet current")
# Seconds. With less time left until the deadline, another attempt would hardly be answered.
_SHORTEST_ATTEMPT = 0.02
# More doublings could overflow the float, and reach any `retry_max_delay` before.
_MOST_DOUBLINGS = 60
# Errors that are raised if no readable answer came: it is unknown whether the request was applied.
TRANSPORT_ERRORS = (
    HTTPClientError,
    BotoConnectionError,
    ChecksumError,
    ResponseParserError,
    HttpError,
    OSError,
)


def is_transport_error(error: BaseException) -> bool:
    """Returns whether no readable answer came, so that a write may have been applied or not."""
    return isinstance(error, TRANSPORT_ERRORS) and not isinstance(error, SSLError)


def error_code(error: BaseException) -> str:
    """Returns DynamoDB's code of an error; the class name if there was no answer."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", "Unknown"))
    return type(error).__name__


def cancellation_reasons(error: BaseException) -> list[dict[str, Any]]:
    """Returns a reason for each item of a cancelled transaction; its code is "None" if the item was fine."""
    if not isinstance(error, ClientError):
        return []
    return cast("list[dict[str, Any]]", error.response.get("CancellationReasons") or [])


def is_retryable(error: BaseException) -> bool:
    """Returns whether the same request can succeed later."""
    if isinstance(error, CredentialsUnavailableError):
        return error.is_transient
    if reasons := _reason_codes(error):
        return reasons <= _RETRYABLE_REASONS
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return error_code(error) in RETRYABLE_CODES or status >= 500
    return is_transport_error(error)


def is_throttling(error: BaseException) -> bool:
    """Returns whether DynamoDB refused a request for lack of capacity; such a request was not applied."""
    return error_code(error) in THROTTLING_CODES or bool(_reason_codes(error) & THROTTLING_REASONS)


def is_conflict(error: BaseException) -> bool:
    """Returns whether others changed an item at the same time; such a request was not applied."""
    reasons = _reason_codes(error)
    return error_code(error) in CONFLICT_CODES or (
        CONFLICT_REASON in reasons and reasons <= {"None", CONFLICT_REASON}
    )


def _reason_codes(error: BaseException) -> set[str]:
    return {str(reason.get("Code", "None")) for reason in cancellation_reasons(error)}


def is_stale(error: ClientError) -> bool:
    """Returns whether a request was refused because its session token or its signature had expired."""
    code = error_code(error)
    message = str(error.response.get("Error", {}).get("Message", ""))
    return (
        code in EXPIRED_TOKEN_CODES
        or code in _STALE_SIGNATURE_CODES
        or (code == "InvalidSignatureException" and message.startswith(_STALE_SIGNATURE_MESSAGES))
    )


def full_jitter(config: DynamoDBConfig, failures: int) -> float:
    """Returns the seconds to wait after that many failures: random, up to a bound that grows exponentially.

    Source: AWS Architecture Blog, "Exponential Backoff And Jitter", the variant "full jitter".
    """
    doubled = config.retry_base_delay * 2.0 ** min(failures - 1, _MOST_DOUBLINGS)
    bound = min(config.retry_max_delay, doubled)
    return random.uniform(0, bound)  # noqa: S311 # spreads load, guards nothing


def is_spent(config: DynamoDBConfig, failures: int, seconds_left: float) -> bool:
    """Returns whether no attempt is allowed: after so many failures in a row, or with so little time left."""
    most = config.retry_attempts
    return seconds_left <= 0 or (most is not None and failures >= most)


class Budget:
    """Bounds the attempts of one operation: the time without progress, and how many may fail in a row.

    All requests of an operation share it, also those that resend items that a batch left over: attempts
    within attempts would multiply.

    Attributes:
        failures: The attempts that failed since the last progress.
        deadline: When the operation fails, in the event loop's time.
        may_be_applied: Whether an attempt failed so that DynamoDB may have applied it nevertheless.
        is_once: Whether throttled requests are not sent again.
        seconds: How long the operation may take without progress.
        final_codes: Codes of errors after which nothing is sent again.
        on_throttled: Called with the seconds of a pause, when a request is throttled.
        is_given_up: Tells whether nothing is sent again after an error that may pass.
    """

    def __init__(
        self,
        config: DynamoDBConfig,
        permit: Permit | None = None,
        *,
        is_once: bool = False,
        seconds: float | None = None,
    ) -> None:
        """`seconds` is `call_timeout` by default."""
        self._config = config
        self._permit = permit
        self.seconds: float = config.call_timeout if seconds is None else min(seconds, config.call_timeout)
        self.failures: int = 0
        self.deadline: float = 0.0
        self.may_be_applied = False
        self.is_once = is_once
        self.final_codes: frozenset[str] = frozenset()
        self.on_throttled: Callable[[float], None] | None = None
        self.is_given_up: Callable[[BaseException], bool] | None = None
        self.progress()

    def is_spent_after(self, pause: float) -> bool:
        """Returns whether no attempt is allowed after a pause: it would be too late, or one too many.

        An operation whose next pause would end after its deadline ends at once, with its last error. That
        says more than an error of the deadline.
        """
        seconds_left = self.deadline - (asyncio.get_running_loop().time() + pause + _SHORTEST_ATTEMPT)
        return is_spent(self._config, self.failures, seconds_left)

    def fail(self) -> None:
        """Counts an attempt that made no progress."""
        self.failures += 1

    def progress(self) -> None:
        """Resets the deadline and the failures after progress."""
        self.failures = 0
        self.deadline = asyncio.get_running_loop().time() + self.seconds

    def count_batch(self, sent: int, left_over: int) -> None:
        """Counts an attempt of which DynamoDB left a part undone; it is a failure if all was left."""
        if left_over < sent:
            self.progress()
        else:
            self.fail()

    def pause(self) -> float:
        """Returns the seconds to wait before the next attempt."""
        return full_jitter(self._config, max(1, self.failures))

    def may_retry(self, error: BaseException) -> bool:
        """Returns whether a request is sent again after an error."""
        if error_code(error) in self.final_codes:
            return False
        if self.is_given_up is not None and self.is_given_up(error):
            return False
        return is_retryable(error) and not (self.is_once and is_throttling(error))

    async def sleep(self, seconds: float) -> None:
        """Waits before the next attempt."""
        if self._permit is None:
            await asyncio.sleep(seconds)
        else:
            await self._permit.pause(seconds)


def retrying(budget: Budget, on_retry: Callable[[BaseException, float], None]) -> AsyncRetrying:
    """Returns the retry policy of one request; the gateway bounds the whole time.

    Args:
        budget: The budget of the operation.
        on_retry: Is called with the error and the seconds to wait, before a request is sent again.
    """

    def before_sleep(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if error is not None and state.next_action is not None:
            on_retry(error, state.next_action.sleep)

    return AsyncRetrying(
        sleep=budget.sleep,
        after=lambda _: budget.fail(),
        stop=lambda state: budget.is_spent_after(state.upcoming_sleep),
        wait=lambda _: budget.pause(),
        retry=retry_if_exception(budget.may_retry),
        before_sleep=before_sleep,
        reraise=True,
    )
