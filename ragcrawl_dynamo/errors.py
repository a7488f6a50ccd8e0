"""All errors that this package raises, under one base class.

    RagcrawlDynamoError
    ├── BackendStateError             the backend cannot serve the call in its present state
    │   ├── BackendNotOpenError
    │   ├── BackendClosedError
    │   └── WrongEventLoopError
    ├── InvalidInputError             the call cannot succeed as it is; nothing was sent (also a ValueError)
    │   ├── ContentTooLargeError
    │   ├── HostBudgetError
    │   ├── InvalidArgumentError
    │   ├── InvalidCursorError
    │   ├── InvalidKeyError
    │   ├── InvalidValueError
    │   └── ItemTooLargeError
    ├── NotFoundError                 the record to change does not exist
    ├── FrontierCancelledError        the run was cancelled; nothing can be claimed from its frontier
    ├── LeaseLostError                leases were lost before the call; it changed nothing for their items
    ├── ClockSkewError                this machine's clock is too far off to judge leases
    ├── ChangesExpiredError           a cursor of the change feed is older than the changes that are kept
    ├── AmbiguousIdError              several sites use an id that was given without its site
    ├── ConflictError                 others changed a record each time that this process tried to change it
    ├── CorruptContentError           a stored body is incomplete or differs from what was saved
    ├── CorruptItemError              a stored item does not fit its model
    ├── MassDeletionError             a call would delete too large a share of a site; nothing was deleted
    ├── OpenRunsError                 tables cannot be migrated while runs are open; nothing was changed
    ├── PartialBatchError             some items of a bulk call were not saved; the error has them
    ├── SchemaMismatchError           an existing table differs from what this version needs
    ├── SchemaVersionError            the tables belong to another version of this package
    └── ServiceError                  DynamoDB refused a request or was not reached
        ├── AccessDeniedError
        ├── BucketNotFoundError
        ├── ConditionFailedError
        ├── CredentialsError
        ├── DeadlineExceededError
        ├── EndpointUnreachableError
        ├── RequestRejectedError
        ├── ServerFaultError
        ├── TableNotFoundError
        └── ThrottledError

If botocore raised an error first, it is the `__cause__`. A record that does not exist is not an error for
`get_*`: these methods return None.
"""

from collections.abc import Sequence
from typing import Any

__all__ = [
    "AccessDeniedError",
    "AmbiguousIdError",
    "BackendClosedError",
    "BackendNotOpenError",
    "BackendStateError",
    "BucketNotFoundError",
    "ChangesExpiredError",
    "ClockSkewError",
    "ConditionFailedError",
    "ConflictError",
    "ContentTooLargeError",
    "CorruptContentError",
    "CorruptItemError",
    "CredentialsError",
    "DeadlineExceededError",
    "EndpointUnreachableError",
    "FrontierCancelledError",
    "HostBudgetError",
    "InvalidArgumentError",
    "InvalidCursorError",
    "InvalidInputError",
    "InvalidKeyError",
    "InvalidValueError",
    "ItemTooLargeError",
    "LeaseLostError",
    "MassDeletionError",
    "NotFoundError",
    "OpenRunsError",
    "PartialBatchError",
    "RagcrawlDynamoError",
    "RequestRejectedError",
    "SchemaMismatchError",
    "SchemaVersionError",
    "ServerFaultError",
    "ServiceError",
    "TableNotFoundError",
    "ThrottledError",
    "WrongEventLoopError",
]


class RagcrawlDynamoError(Exception):
    """The base class of all errors of this package. The docstring of a subclass is its default message."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip())


class BackendStateError(RagcrawlDynamoError):
    """The backend cannot serve the call in its present state."""


class BackendNotOpenError(BackendStateError):
    """The backend is not open: await backend.initialize() first, or use 'async with backend'."""


class BackendClosedError(BackendStateError):
    """The backend is closed: await backend.initialize() opens it again."""


class WrongEventLoopError(BackendStateError):
    """The backend is open in another event loop and works only there: make one backend per loop."""


class InvalidInputError(RagcrawlDynamoError, ValueError):
    """A record or an argument is not valid; nothing was sent.

    Attributes:
        model: The name of the model, such as "Page"; None for a plain argument.
        field: The field or argument. Inside free JSON it is a path such as "config.headers.0".
    """

    def __init__(self, field: str, reason: str, *, model: str | None = None) -> None:
        self.model = model
        self.field = field
        super().__init__(f"{model + '.' if model else ''}{field}: {reason}")


class InvalidArgumentError(InvalidInputError):
    """An argument has a wrong type or a value that is not allowed."""


class InvalidCursorError(InvalidInputError):
    """A cursor is damaged or belongs to another listing."""


class InvalidKeyError(InvalidInputError):
    """An id is empty, or longer than DynamoDB allows for a key."""


class InvalidValueError(InvalidInputError):
    """A field has a value that DynamoDB cannot store."""


class ItemTooLargeError(InvalidInputError):
    """A record is larger than DynamoDB allows for an item.

    Attributes:
        size: The size of the item in bytes, counted by DynamoDB's own rule.
        limit: The number of bytes that an item may take.
    """

    def __init__(self, largest: tuple[str, int], *, model: str, record: str, size: int, limit: int) -> None:
        """`largest` is the name and size of the largest field, `record` the key of the record as text."""
        self.size = size
        self.limit = limit
        field, field_size = largest
        super().__init__(
            field,
            f"{record} takes {size:,} bytes, an item may take {limit:,}; "
            f"its largest field is {field} with {field_size:,} bytes: shorten or remove it",
            model=model,
        )


class ContentTooLargeError(InvalidInputError):
    """The body of a version is larger than `max_content_bytes`.

    Attributes:
        size: The size of the body in bytes before compression.
        limit: The number of bytes that a body may take.
    """

    def __init__(self, size: int, limit: int) -> None:
        self.size = size
        self.limit = limit
        super().__init__(
            "markdown",
            f"the body (with html, plain_text, outlinks and headings_outline) takes {size:,} bytes, "
            f"max_content_bytes is {limit:,}: raise it, or shorten the body",
            model="PageVersion",
        )


class HostBudgetError(InvalidInputError):
    """The host of a link has as many links as the run's `host_max_items` allows."""


class NotFoundError(RagcrawlDynamoError):
    """The record to change does not exist."""


class FrontierCancelledError(RagcrawlDynamoError):
    """The run was cancelled: nothing can be claimed from its frontier, and it cannot be resumed."""


class LeaseLostError(RagcrawlDynamoError):
    """Leases were lost before the call. Nothing was changed for their items; all other items were processed.

    Attributes:
        claims: The claims whose lease was lost.
    """

    def __init__(self, claims: Sequence[Any]) -> None:
        self.claims: tuple[Any, ...] = tuple(claims)
        first = self.claims[0].item
        others = f", and those of {len(claims) - 1} other items" if len(claims) > 1 else ""
        super().__init__(
            f"the lease of item {first.item_id!r} ({first.url[:200]!r}) was lost{others}: the item was "
            f"finished, or its lease expired and another worker claimed it; drop this claim"
        )


class ClockSkewError(RagcrawlDynamoError):
    """This machine's clock is too far off to judge leases.

    Attributes:
        offset: How many seconds the clock is ahead at least, by the times in DynamoDB's answers.
    """

    def __init__(self, offset: float, bound: float) -> None:
        self.offset = offset
        super().__init__(
            f"this machine's clock is at least {abs(offset):.1f} s {'ahead' if offset > 0 else 'behind'} of "
            f"DynamoDB's, more than half of frontier_max_clock_skew = {bound:g} s: synchronize the clock, or "
            f"raise that setting in every process"
        )


class ChangesExpiredError(RagcrawlDynamoError):
    """The cursor is older than the changes that are kept of the site: start again without a cursor."""


class AmbiguousIdError(RagcrawlDynamoError):
    """Several sites use this id: pass site_id too."""


class ConflictError(RagcrawlDynamoError):
    """Others changed a record each time that this process tried to change it: try again."""


class CorruptContentError(RagcrawlDynamoError):
    """The stored body of a version is incomplete or differs from what was saved.

    Attributes:
        page_id: The page.
        version_id: The version.
        site_id: The site.
    """

    def __init__(self, reason: str, *, page_id: str, version_id: str, site_id: str) -> None:
        self.page_id = page_id
        self.version_id = version_id
        self.site_id = site_id
        version = f"version {version_id!r} of page {page_id!r} of site {site_id!r}"
        super().__init__(f"the body of {version} is damaged: {reason}")


class CorruptItemError(RagcrawlDynamoError):
    """A stored item does not fit its model: a program other than this package wrote it."""


class SchemaMismatchError(RagcrawlDynamoError):
    """An existing table differs from what this version needs.

    Attributes:
        table: The full name of the table.
        differences: The differences, one sentence for each.
    """

    def __init__(self, table: str, differences: Sequence[str], advice: str) -> None:
        self.table = table
        self.differences: tuple[str, ...] = tuple(differences)
        super().__init__(f"table {table}: {'; '.join(differences)}. {advice}")


class SchemaVersionError(RagcrawlDynamoError):
    """The tables belong to another version of this package.

    Attributes:
        found: The schema version of the tables.
        wanted: The schema version of this package.
    """

    def __init__(self, found: int, wanted: int) -> None:
        self.found = found
        self.wanted = wanted
        advice = "upgrade ragcrawl-dynamo" if found > wanted else "upgrade the tables with migrate()"
        super().__init__(f"the tables have schema version {found}, this package has {wanted}: {advice}")


class MassDeletionError(RagcrawlDynamoError):
    """A call would delete more of a site than `max_deleted_share` allows; nothing was deleted.

    Attributes:
        deleted: How many records the call would delete.
        total: How many records there are.
    """

    def __init__(self, what: str, deleted: int, total: int, share: float) -> None:
        self.deleted = deleted
        self.total = total
        super().__init__(
            f"the call would delete {deleted:,} of {total:,} {what}, more than max_deleted_share = "
            f"{share:g}: if that is intended, pass allow_mass_deletion=True; prune_versions and "
            f"collect_garbage can be tried with dry_run=True"
        )


class OpenRunsError(RagcrawlDynamoError):
    """The tables cannot be migrated while runs are open; nothing was changed. `runs` has the ids of all."""

    def __init__(self, runs: Sequence[str]) -> None:
        self.runs: tuple[str, ...] = tuple(runs)
        named = ", ".join(map(repr, runs[:10])) + (", ..." if len(runs) > 10 else "")
        advice = "finish or cancel them with the version of this package that began them"
        super().__init__(f"{len(runs):,} runs are open ({named}): {advice}, and stop its processes")


class PartialBatchError(RagcrawlDynamoError):
    """Some items of a bulk call were not saved; all others were.

    Attributes:
        saved: How many distinct items were written.
        failures: A pair (model, error) for each item that was not. After a transport error it is not known
            whether the items were written; saving them again is safe.
    """

    def __init__(self, saved: int, failures: Sequence[tuple[Any, RagcrawlDynamoError]]) -> None:
        self.saved = saved
        self.failures: tuple[tuple[Any, RagcrawlDynamoError], ...] = tuple(failures)
        super().__init__(
            f"{saved} items saved, {len(self.failures)} not; the first failure: {self.failures[0][1]}"
        )


class ServiceError(RagcrawlDynamoError):
    """DynamoDB refused a request, or could not be reached.

    Attributes:
        code: DynamoDB's error code, or the name of the transport error.
        operation: The API operation, such as "PutItem".
        table: The full name of the table; None if the request names no table or several.
    """

    def __init__(self, message: str, *, code: str, operation: str, table: str | None) -> None:
        self.code = code
        self.operation = operation
        self.table = table
        super().__init__(f"{operation}{f' on {table}' if table else ''}: {message} [{code}]")


class AccessDeniedError(ServiceError):
    """The credentials are not valid, or they do not allow the operation."""


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
    """No credentials were found, or the configured profile does not exist."""


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


class ThrottledError(ServiceError):
    """DynamoDB was too busy, or the capacity of the table was used up, until the retries ended."""
