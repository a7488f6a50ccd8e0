"""Errors of requests that DynamoDB refused, or that did not reach it."""

from typing import Any

from ragcrawl_dynamo.errors.base import RagcrawlDynamoError


class ServiceError(RagcrawlDynamoError):
    """DynamoDB refused a request, or could not be reached.

    Attributes:
        code: DynamoDB's error code, or the name of the transport error.
        operation: The API operation, such as "PutItem".
        table: The full name of the table; None if the request names no table or several.
        status_code: The HTTP status of the answer; None if there was none.
        request_id: The id that AWS gave the request, which its support asks for; None if there was no answer.
        cause_type: The class of the error that the AWS client raised, such as
            "botocore.exceptions.ReadTimeoutError"; None if this package noticed the fault itself.

    If a deadline ended the call, the last three are those of its last attempt.
    """

    status_code: int | None = None
    request_id: str | None = None
    cause_type: str | None = None

    def __init__(self, message: str, *, code: str, operation: str, table: str | None) -> None:
        self.code = code
        self.operation = operation
        self.table = table
        super().__init__(f"{operation}{f' on {table}' if table else ''}: {message} [{code}]")


class AccessDeniedError(ServiceError):
    """The credentials are not valid or do not allow the operation, or the clock of this machine is off."""


class AnswerMismatchError(ServiceError):
    """An answer has an item that its request did not ask for. It is not known whether a write was applied."""


class BucketNotFoundError(ServiceError):
    """The content bucket does not exist."""


class ConditionFailedError(ServiceError):
    """The condition of a write did not hold.

    Attributes:
        item: The stored item, if the request asked for it.
        reasons: For a transaction, one code for each of its writes; "None" for a write that was not refused.
        items: For a transaction, one stored item for each of its writes, if the condition of the write failed
            and the item existed; None otherwise.
    """

    item: dict[str, Any] | None = None
    reasons: tuple[str, ...] = ()
    items: tuple[dict[str, Any] | None, ...] = ()


class CredentialsError(ServiceError):
    """No credentials were found, they could not be read, or they have expired. Nothing was changed.

    Attributes:
        is_transient: Whether the source of the credentials failed or was busy, so that they may come later.
    """

    is_transient: bool = False


class DeadlineExceededError(ServiceError):
    """The call took longer than its deadline. It is not known whether a write was applied."""


class EndpointUnreachableError(ServiceError):
    """The endpoint did not answer. It is not known whether a write was applied."""


class RequestRejectedError(ServiceError):
    """DynamoDB refused the request. Sending it again would not help."""


class ServerFaultError(ServiceError):
    """DynamoDB failed on its side until the retries ended. It is not known whether a write was applied."""


class TableNotFoundError(ServiceError):
    """A table or index does not exist."""


class TableUnusableError(ServiceError):
    """A table is archived, or its KMS key cannot be used. It serves no requests; waiting does not help."""


class ThrottledError(ServiceError):
    """DynamoDB was too busy, or the capacity of the table was used up, until the retries ended."""
