"""What is tried again, how often and after how long: the one owner of retries (botocore's own are off)."""

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

from ragcrawl_dynamo.config import DynamoDBConfig

# AWS: "Error handling with DynamoDB", the codes marked "OK to retry", and TransactionConflictException, which
# botocore's retry modes leave out.
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
RETRYABLE_CODES = THROTTLING_CODES | {
    "ContinuousBackupsUnavailableException",
    "InternalFailure",
    "InternalServerError",
    "RequestTimeout",
    "RequestTimeoutException",
    "ServiceUnavailable",
    "ServiceUnavailableException",
    "TransactionConflictException",
    "TransactionInProgressException",
}
# AWS: TransactWriteItems, cancellation reasons, and BatchStatementError; parts of a request have names of
# their own for it.
THROTTLING_REASONS = frozenset({"ProvisionedThroughputExceeded", "RequestLimitExceeded", "ThrottlingError"})
# "None" is what had nothing against it.
_RETRYABLE_REASONS = THROTTLING_REASONS | {"None", "TransactionConflict"}
# Raised without an answer that could be read; whether the request was applied is unknown.
TRANSPORT_ERRORS = (
    HTTPClientError,
    BotoConnectionError,
    ChecksumError,
    ResponseParserError,
    HttpError,
    OSError,
)


def is_transport_error(error: BaseException) -> bool:
    """Whether no readable answer came, so that a write may have been applied or not."""
    return isinstance(error, TRANSPORT_ERRORS) and not isinstance(error, SSLError)


def error_code(error: BaseException) -> str:
    """DynamoDB's code of an error; the class name where there was no answer."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", "Unknown"))
    return type(error).__name__


def cancellation_reasons(error: BaseException) -> list[dict[str, Any]]:
    """Of a cancelled transaction a reason for each of its items; code "None" where the item was fine."""
    if not isinstance(error, ClientError):
        return []
    return cast("list[dict[str, Any]]", error.response.get("CancellationReasons") or [])


def is_retryable(error: BaseException) -> bool:
    """Whether trying the same request again can help."""
    if reasons := cancellation_reasons(error):
        return {str(each.get("Code", "None")) for each in reasons} <= _RETRYABLE_REASONS
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return error_code(error) in RETRYABLE_CODES or status >= 500
    return is_transport_error(error)


def is_throttling(error: BaseException) -> bool:
    """Whether there was more to do than the capacity allows; what was refused so was not applied."""
    reasons = {str(each.get("Code", "None")) for each in cancellation_reasons(error)}
    return error_code(error) in THROTTLING_CODES or bool(reasons & THROTTLING_REASONS)


def full_jitter(config: DynamoDBConfig, failures: int) -> float:
    """Seconds to wait after that many failures in a row: random up to an exponentially growing bound.

    Source: AWS Architecture Blog, "Exponential Backoff And Jitter", the variant "full jitter".
    """
    bound = min(config.retry_max_delay, config.retry_base_delay * 2.0 ** (failures - 1))
    return random.uniform(0, bound)  # noqa: S311 # spreads load, guards nothing


class Budget:
    """What one operation may still spend on tries: so many in a row without progress, and so many seconds.

    All requests of an operation share it, those that resend what a batch left over too: rounds of tries
    inside rounds of tries would multiply.
    """

    def __init__(self, config: DynamoDBConfig) -> None:
        self._config = config
        self.failures = 0
        self.deadline = 0.0
        self.progress()

    @property
    def is_spent(self) -> bool:
        """Whether no further try is due."""
        return self.failures >= self._config.retry_attempts

    def fail(self) -> None:
        """Counts a try that came to nothing."""
        self.failures += 1

    def progress(self) -> None:
        """Begins anew, after a part was done."""
        self.failures = 0
        self.deadline = asyncio.get_running_loop().time() + self._config.call_timeout

    def pause(self) -> float:
        """Seconds to wait before the next try."""
        return full_jitter(self._config, max(1, self.failures))


def retrying(budget: Budget, on_retry: Callable[[BaseException, float], None]) -> AsyncRetrying:
    """The policy of one request; the time it may take in all is the gateway's to bound.

    Args:
        budget: That of the operation.
        on_retry: Told the error and the seconds to wait, before a request is sent again.
    """

    def before_sleep(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if error is not None and state.next_action is not None:
            on_retry(error, state.next_action.sleep)

    return AsyncRetrying(
        after=lambda _: budget.fail(),
        stop=lambda _: budget.is_spent,
        wait=lambda _: budget.pause(),
        retry=retry_if_exception(is_retryable),
        before_sleep=before_sleep,
        reraise=True,
    )
