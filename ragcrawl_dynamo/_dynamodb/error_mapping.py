"""Maps the errors of botocore to those of this package."""

from __future__ import annotations

from typing import Any, cast

from botocore.exceptions import (
    ClientError,
    ConfigParseError,
    CredentialRetrievalError,
    InvalidConfigError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
)

from ragcrawl_dynamo import errors
from ragcrawl_dynamo._dynamodb import in_process_mock
from ragcrawl_dynamo._dynamodb.credentials import EXPIRED_TOKEN_CODES, CredentialsUnavailableError, advice_on
from ragcrawl_dynamo._dynamodb.destination import Destination, Service
from ragcrawl_dynamo._dynamodb.retry import (
    CONFLICT_REASON,
    THROTTLING_REASONS,
    Budget,
    cancellation_reasons,
    error_code,
    is_conflict,
    is_retryable,
    is_stale,
    is_throttling,
    is_transport_error,
)
from ragcrawl_dynamo.config import DynamoDBConfig

_ACCESS_CODES = frozenset(
    {
        "403",
        "AccessDenied",
        "InvalidAccessKeyId",
        "AccessDeniedException",
        "IncompleteSignatureException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        "NotAuthorized",
        "OptInRequired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
# HeadBucket answers without a body, and so without a name for the error.
_NO_BUCKET = frozenset({"404", "NoSuchBucket"})
# AWS: BatchStatementError.
_STATEMENT_ERRORS: dict[str, type[errors.ServiceError]] = {
    "AccessDenied": errors.AccessDeniedError,
    "ResourceNotFound": errors.TableNotFoundError,
    "InternalServerError": errors.ServerFaultError,
    **dict.fromkeys(THROTTLING_REASONS, errors.ThrottledError),
}
# Errors that are raised before a client is made, or by a client that a user has made.
_CREDENTIALS_ERRORS = (
    *(ConfigParseError, CredentialRetrievalError, InvalidConfigError),
    *(NoCredentialsError, PartialCredentialsError, ProfileNotFound),
)


def statement_error(code: str, message: str, table: str) -> errors.RagcrawlDynamoError:
    """Returns the error of one statement of a PartiQL batch.

    Args:
        code: DynamoDB's code of the error.
        message: DynamoDB's message.
        table: The full name of the table.
    """
    if code == CONFLICT_REASON:
        return _conflict("BatchExecuteStatement", table, code)
    kind = _STATEMENT_ERRORS.get(code, errors.RequestRejectedError)
    text = f"a statement was refused; DynamoDB says: {message}"
    return kind(text, code=code, operation="BatchExecuteStatement", table=table)


class ErrorMapper:
    """Maps the errors of one gateway.

    Attributes:
        destination: Where the requests go; None before it is found.
    """

    destination: Destination | None = None

    def __init__(self, config: DynamoDBConfig, service: Service) -> None:
        self._config = config
        self._service = service

    def map(
        self,
        error: Exception,
        operation: str,
        table: str | None,
        last_error: BaseException | None = None,
        *,
        budget: Budget | None = None,
    ) -> errors.RagcrawlDynamoError:
        """Returns the error to raise instead.

        Args:
            error: The error that ended the call; a TimeoutError if that was its deadline.
            operation: The operation that was called.
            table: The table of the request.
            last_error: The error of the attempt before the deadline.
            budget: The budget of the call for attempts.
        """
        if type(error) is TimeoutError and isinstance(last_error, CredentialsUnavailableError):
            error = last_error
        if is_conflict(error) and budget is not None and not budget.may_be_applied:
            return _conflict(operation, table, error_code(error))
        is_transient = False
        if isinstance(error, CredentialsUnavailableError):
            is_transient, error = error.is_transient, error.cause
            kind, message = _explain_credentials(error)
        else:
            kind, message = self._explain(error, error_code(error), last_error, budget)
        code = error_code(error)
        mapped = kind(message, code=code, operation=operation, table=table or None)
        cause = error if last_error is None or type(error) is not TimeoutError else last_error
        mapped.cause_type = f"{type(cause).__module__}.{type(cause).__qualname__}"
        if isinstance(cause, ClientError):
            metadata = cause.response.get("ResponseMetadata", {})
            mapped.status_code = metadata.get("HTTPStatusCode")
            mapped.request_id = metadata.get("RequestId")
        if isinstance(mapped, errors.CredentialsError):
            mapped.is_transient = is_transient
        if isinstance(mapped, errors.ConditionFailedError) and isinstance(error, ClientError):
            mapped.item = cast("dict[str, Any]", error.response).get("Item")
            reasons = cancellation_reasons(error)
            mapped.reasons = tuple(str(reason.get("Code", "None")) for reason in reasons)
            mapped.items = tuple(reason.get("Item") for reason in reasons)
        return mapped

    def _explain(
        self, error: Exception, code: str, last_error: BaseException | None, budget: Budget | None
    ) -> tuple[type[errors.ServiceError], str]:
        where = str(self.destination or "its endpoint")
        if isinstance(error, ClientError):
            return self._explain_answer(error, code, where)
        if type(error) is TimeoutError:
            is_shorter = budget is not None and budget.seconds < self._config.call_timeout
            limit = (
                f"{budget.seconds:g}"
                if budget and is_shorter
                else f"call_timeout = {self._config.call_timeout}"
            )
            cause = (
                f"; the last error was {error_code(last_error)}: {_text(last_error)}" if last_error else ""
            )
            return (
                errors.DeadlineExceededError,
                f"no answer within {limit} s, at {where}: check the network, or allow more time{cause}",
            )
        if isinstance(error, _CREDENTIALS_ERRORS):
            return _explain_credentials(error)
        if is_transport_error(error):
            return (
                errors.EndpointUnreachableError,
                f"no usable answer from {where}: check endpoint_url, region and the network; {_text(error)}",
            )
        return errors.RequestRejectedError, f"could not be sent to {where}; {_text(error)}"

    def _explain_answer(
        self, error: ClientError, code: str, where: str
    ) -> tuple[type[errors.ServiceError], str]:
        """Explains an error that the service answered."""
        answer = error.response.get("Error", {}).get("Message", "") or "no message"
        is_refused = any(
            reason.get("Code") == "ConditionalCheckFailed" for reason in cancellation_reasons(error)
        )
        if code == "ConditionalCheckFailedException" or is_refused:
            return errors.ConditionFailedError, "the condition of the write did not hold"
        if code == "ResourceNotFoundException":
            return (
                errors.TableNotFoundError,
                f"there is no such table or index at {where}: call initialize() to create it; "
                f"if it exists, check table_prefix, region and endpoint_url{in_process_mock.advice()}",
            )
        if code in EXPIRED_TOKEN_CODES:
            return (
                errors.CredentialsError,
                f"the session token has expired, even after it was read again: renew the credentials; "
                f"{self._service} says: {answer}",
            )
        if is_stale(error):
            return (
                errors.AccessDeniedError,
                f"refused at {where}, even with a new signature: correct the clock of this machine; "
                f"{self._service} says: {answer}",
            )
        if code in _ACCESS_CODES:
            return (
                errors.AccessDeniedError,
                f"refused at {where}: check the credentials, the region and the role's policy; "
                f"{self._service} says: {answer}",
            )
        if is_throttling(error):
            return (
                errors.ThrottledError,
                f"throttled at every attempt: raise the capacity, or send less at once; "
                f"{self._service} says: {answer}",
            )
        if is_retryable(error):
            return (
                errors.ServerFaultError,
                f"{self._service} failed at every attempt: try again later; it says: {answer}",
            )
        if code in _NO_BUCKET and self._service == "S3":
            return (
                errors.BucketNotFoundError,
                f"no bucket {self._config.content_bucket!r} at {where}: create it, or check content_bucket",
            )
        return errors.RequestRejectedError, f"refused at {where}; {self._service} says: {answer}"


def _explain_credentials(error: Exception) -> tuple[type[errors.ServiceError], str]:
    told = _text(error) or type(error).__name__
    return errors.CredentialsError, f"no usable credentials, nothing was sent: {told}; {advice_on(error)}"


def _conflict(operation: str, table: str | None, code: str) -> errors.ConflictError:
    where = f"{operation}{f' on {table}' if table else ''}"
    return errors.ConflictError(
        f"{where}: other writers changed the same items at every attempt, so nothing was written: try again "
        f"[{code}]"
    )


def _text(error: BaseException) -> str:
    """Returns the message of an error, with that of its cause, which botocore often leaves out."""
    below = getattr(error, "kwargs", {}).get("error")
    if below is None or str(below) in str(error):
        return str(error)
    return f"{error} ({type(below).__name__}: {below})"
