"""What is tried again, how often and after how long: the one owner of retries (botocore's own are off)."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, cast

from aiohttp import ClientError as HttpError
from botocore.exceptions import ChecksumError, ClientError, HTTPClientError, SSLError
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.parsers import ResponseParserError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt

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
# AWS: TransactWriteItems, cancellation reasons; "None" is what had nothing against it.
_RETRYABLE_REASONS = frozenset(
    {
        "None",
        "ProvisionedThroughputExceeded",
        "RequestLimitExceeded",
        "ThrottlingError",
        "TransactionConflict",
    }
)
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


def full_jitter(config: DynamoDBConfig, failures: int) -> float:
    """Seconds to wait after that many failures in a row: random up to an exponentially growing bound.

    Source: AWS Architecture Blog, "Exponential Backoff And Jitter", the variant "full jitter".
    """
    bound = min(config.retry_max_delay, config.retry_base_delay * 2.0 ** (failures - 1))
    return random.uniform(0, bound)  # noqa: S311 # spreads load, guards nothing


def retrying(config: DynamoDBConfig, on_retry: Callable[[BaseException, int, float], None]) -> AsyncRetrying:
    """The policy of one request; the time it may take in all is the gateway's to bound.

    Args:
        config: Attempts and pauses.
        on_retry: Told the error, the number of the attempt that failed and the seconds to wait.
    """

    def pause(state: RetryCallState) -> float:
        return full_jitter(config, state.attempt_number)

    def before_sleep(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if error is not None and state.next_action is not None:
            on_retry(error, state.attempt_number, state.next_action.sleep)

    return AsyncRetrying(
        stop=stop_after_attempt(config.retry_attempts),
        wait=pause,
        retry=retry_if_exception(is_retryable),
        before_sleep=before_sleep,
        reraise=True,
    )
