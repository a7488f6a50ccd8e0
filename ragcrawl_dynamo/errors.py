"""Every error that this package raises, under one base.

    RagcrawlDynamoError
    ├── BackendStateError             the backend is not in a state to serve the call
    │   ├── BackendNotOpenError
    │   ├── BackendClosedError
    │   └── WrongEventLoopError
    ├── InvalidInputError             the call can not succeed as it is; nothing was sent (also a ValueError)
    │   ├── ContentTooLargeError
    │   ├── InvalidArgumentError
    │   ├── InvalidCursorError
    │   ├── InvalidKeyError
    │   ├── InvalidValueError
    │   └── ItemTooLargeError
    ├── NotFoundError                 the record to change does not exist
    ├── FrontierCancelledError        the run was cancelled; its frontier hands out nothing more
    ├── LeaseLostError                leases had ended before the call; for their items it changed nothing
    ├── ClockSkewError                this machine's clock is too far off to judge leases
    ├── ChangesExpiredError           a cursor of the change feed is older than what is kept of it
    ├── AmbiguousIdError              an id that several sites use was given without its site
    ├── ConflictError                 others changed a record each time that it was about to be changed
    ├── CorruptContentError           a version's body is not, or not all, what was saved
    ├── CorruptItemError              a stored item does not fit its model
    ├── MassDeletionError             a call would delete more of a site than it may; nothing was deleted
    ├── PartialBatchError             some items of a bulk call were not saved; it carries them
    ├── SchemaMismatchError           an existing table differs from what this version needs
    ├── SchemaVersionError            the tables hold items of another version of this package
    └── ServiceError                  DynamoDB, or the way to it, said no; keeps code, operation and table
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

botocore's own error, where there is one, is the `__cause__`. A record that is absent is `None` from
`get_*`, not an error.
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
    "InvalidArgumentError",
    "InvalidCursorError",
    "InvalidInputError",
    "InvalidKeyError",
    "InvalidValueError",
    "ItemTooLargeError",
    "LeaseLostError",
    "MassDeletionError",
    "NotFoundError",
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
    """Base of every error of this package. A subclass's docstring is its default message."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip())


class BackendStateError(RagcrawlDynamoError):
    """The backend can not serve this call now."""


class BackendNotOpenError(BackendStateError):
    """The backend is not open: await backend.initialize() first, or use 'async with backend'."""


class BackendClosedError(BackendStateError):
    """The backend is closed: await backend.initialize() opens it again."""


class WrongEventLoopError(BackendStateError):
    """The backend is open in another event loop, and belongs to it: make one backend per loop."""


class InvalidInputError(RagcrawlDynamoError, ValueError):
    """What was given can not be stored or asked for as it is; nothing was sent.

    Attributes:
        model: The model concerned, such as "Page"; None for a plain argument.
        field: The field or argument, with its path inside free JSON, such as "config.headers.0".
    """

    def __init__(self, field: str, reason: str, *, model: str | None = None) -> None:
        self.model = model
        self.field = field
        super().__init__(f"{model + '.' if model else ''}{field}: {reason}")


class InvalidArgumentError(InvalidInputError):
    """An argument is outside its limits."""


class InvalidCursorError(InvalidInputError):
    """A cursor is damaged, or belongs to another listing."""


class InvalidKeyError(InvalidInputError):
    """An id is empty or longer than a key of DynamoDB may be."""


class InvalidValueError(InvalidInputError):
    """A field holds a value that DynamoDB can not store."""


class ItemTooLargeError(InvalidInputError):
    """A record is larger than an item of DynamoDB may be.

    Attributes:
        size: Bytes that the item would take, by DynamoDB's own rule.
        limit: Bytes that an item may take.
    """

    def __init__(
        self, field: str, *, model: str, record: str, size: int, field_size: int, limit: int
    ) -> None:
        self.size = size
        self.limit = limit
        super().__init__(
            field,
            f"{record} takes {size:,} bytes of the {limit:,} that one item may; "
            f"its largest field is {field} with {field_size:,} bytes: shorten or drop it",
            model=model,
        )


class ContentTooLargeError(InvalidInputError):
    """The body of a version is larger than `max_content_bytes`.

    Attributes:
        size: Bytes of the body before compression.
        limit: Bytes that it may take.
    """

    def __init__(self, size: int, limit: int) -> None:
        self.size = size
        self.limit = limit
        super().__init__(
            "markdown",
            f"with html, plain_text, outlinks and headings_outline takes {size:,} bytes; "
            f"max_content_bytes is {limit:,}: raise it, or shorten them",
            model="PageVersion",
        )


class NotFoundError(RagcrawlDynamoError):
    """The record to change does not exist."""


class FrontierCancelledError(RagcrawlDynamoError):
    """The run was cancelled: its frontier hands out nothing more, and can not be resumed."""


class LeaseLostError(RagcrawlDynamoError):
    """Leases had ended before the call; it changed nothing for their items, and did its work for all others.

    Attributes:
        claims: Those whose lease was lost.
    """

    def __init__(self, claims: Sequence[Any]) -> None:
        self.claims = tuple(claims)
        first = self.claims[0].item
        others = f", nor those of {len(claims) - 1} others" if len(claims) > 1 else ""
        super().__init__(
            f"item {first.item_id!r} ({first.url[:200]!r}) is not held under this lease any more{others}: "
            f"it was finished, or it expired and another worker took it over"
        )


class ClockSkewError(RagcrawlDynamoError):
    """This machine's clock is too far off to judge leases.

    Attributes:
        offset: Seconds by which it is off at least, by DynamoDB's own answers; negative if it is behind.
    """

    def __init__(self, offset: float, bound: float) -> None:
        self.offset = offset
        super().__init__(
            f"this machine's clock is at least {abs(offset):.1f} s {'ahead' if offset > 0 else 'behind'} of "
            f"DynamoDB's, frontier_max_clock_skew is {bound:g} s: synchronize it, or raise that everywhere"
        )


class ChangesExpiredError(RagcrawlDynamoError):
    """The cursor is older than what is kept of the site's changes: start anew without one."""


class AmbiguousIdError(RagcrawlDynamoError):
    """Several sites use this id: pass site_id as well."""


class ConflictError(RagcrawlDynamoError):
    """Others changed a record each time that it was about to be changed."""


class CorruptContentError(RagcrawlDynamoError):
    """A version's body is not, or not all, what was saved.

    Attributes:
        page_id: The page.
        version_id: The version.
        site_id: The site.
    """

    def __init__(self, reason: str, *, page_id: str, version_id: str, site_id: str) -> None:
        self.page_id = page_id
        self.version_id = version_id
        self.site_id = site_id
        super().__init__(
            f"the body of version {version_id!r} of page {page_id!r} of site {site_id!r} is damaged: {reason}"
        )


class CorruptItemError(RagcrawlDynamoError):
    """A stored item does not fit its model: something other than this package wrote it."""


class SchemaMismatchError(RagcrawlDynamoError):
    """An existing table differs from what this version needs.

    Attributes:
        table: Full name of the table.
        differences: One sentence each.
    """

    def __init__(self, table: str, differences: Sequence[str], advice: str) -> None:
        self.table = table
        self.differences = tuple(differences)
        super().__init__(f"table {table}: {'; '.join(differences)}. {advice}")


class SchemaVersionError(RagcrawlDynamoError):
    """The tables hold items of another version of this package.

    Attributes:
        found: Version of the tables.
        wanted: That of this package.
    """

    def __init__(self, found: int, wanted: int) -> None:
        self.found = found
        self.wanted = wanted
        advice = "upgrade ragcrawl-dynamo" if found > wanted else "bring them up with migrate()"
        super().__init__(f"the tables are of schema version {found}, this package is of {wanted}: {advice}")


class MassDeletionError(RagcrawlDynamoError):
    """A call would delete more of a site than `max_deleted_share` allows; nothing was deleted.

    Attributes:
        deleted: How many it would delete.
        total: Of how many.
    """

    def __init__(self, what: str, deleted: int, total: int, share: float) -> None:
        self.deleted = deleted
        self.total = total
        super().__init__(
            f"this would delete {deleted:,} of {total:,} {what}, more than max_deleted_share = {share:g}: "
            f"look at it with dry_run=True, then pass allow_mass_deletion=True"
        )


class PartialBatchError(RagcrawlDynamoError):
    """Some items of a bulk call were not saved; all others were.

    Attributes:
        saved: How many distinct items were written.
        failures: A pair (model, error) for each that was not. An error of the transport leaves open
            whether its items were written; saving them again is safe.
    """

    def __init__(self, saved: int, failures: Sequence[tuple[Any, RagcrawlDynamoError]]) -> None:
        self.saved = saved
        self.failures = tuple(failures)
        super().__init__(
            f"{saved} items saved, {len(self.failures)} not; the first failure: {self.failures[0][1]}"
        )


class ServiceError(RagcrawlDynamoError):
    """DynamoDB, or the way to it, refused a request.

    Attributes:
        code: DynamoDB's error code, or the name of the transport error.
        operation: The API operation, such as "PutItem".
        table: Full name of the table; None where the request names none or several.
    """

    def __init__(self, message: str, *, code: str, operation: str, table: str | None) -> None:
        self.code = code
        self.operation = operation
        self.table = table
        super().__init__(f"{operation}{f' on {table}' if table else ''}: {message} [{code}]")


class AccessDeniedError(ServiceError):
    """The credentials are not valid or do not allow the operation."""


class BucketNotFoundError(ServiceError):
    """The content bucket does not exist."""


class ConditionFailedError(ServiceError):
    """The condition of a write did not hold.

    Attributes:
        item: The item as it was, where the request asked for it.
        reasons: Of a transaction, a code for each of its items; "None" where the item was fine.
        items: Of a transaction, each item as it was, where its condition failed and it existed.
    """

    item: dict[str, Any] | None = None
    reasons: tuple[str, ...] = ()
    items: tuple[dict[str, Any] | None, ...] = ()


class CredentialsError(ServiceError):
    """No credentials were found, or the configured profile does not exist."""


class DeadlineExceededError(ServiceError):
    """The call took longer than its deadline. A write may have been applied or not."""


class EndpointUnreachableError(ServiceError):
    """No answer came from the endpoint. A write may have been applied or not."""


class RequestRejectedError(ServiceError):
    """DynamoDB refused the request for a reason that repeating does not change."""


class ServerFaultError(ServiceError):
    """DynamoDB failed on its own side for longer than the retries lasted; a write may have been applied."""


class TableNotFoundError(ServiceError):
    """A table or index does not exist."""


class ThrottledError(ServiceError):
    """DynamoDB was too busy, or the table's capacity was used up, for longer than the retries lasted."""
