"""All errors that this package raises, under one base class.

    RagcrawlDynamoError
    ├── BackendStateError             the backend cannot serve the call in its present state
    │   ├── BackendNotOpenError
    │   ├── BackendClosedError
    │   ├── WrongEventLoopError
    │   └── WrongProcessError
    ├── InvalidInputError             the call cannot succeed as it is; nothing was sent (also a ValueError)
    │   ├── ContentTooLargeError
    │   ├── HostBudgetError
    │   ├── InvalidArgumentError
    │   ├── InvalidCursorError
    │   ├── InvalidKeyError
    │   ├── InvalidValueError
    │   └── ItemTooLargeError
    ├── MissingExtraError             a dependency of this feature is not installed (also an ImportError)
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
        ├── AnswerMismatchError
        ├── BucketNotFoundError
        ├── ConditionFailedError
        ├── CredentialsError
        ├── DeadlineExceededError
        ├── EndpointUnreachableError
        ├── RequestRejectedError
        ├── ServerFaultError
        ├── TableNotFoundError
        ├── TableUnusableError
        └── ThrottledError

The traceback of an error ends at the error. Its text says what the error of botocore, aiohttp or pydantic
said before it, and a `ServiceError` has the code, the class and the request id of that error as attributes.
Only an error that tells more is the `__cause__`, such as one that a function of yours raised.

Errors can be copied and pickled with their attributes, so they cross a pool of processes. As with every
error of Python, the `__cause__` stays behind.

A record that does not exist is not an error for `get_*`: these methods return None.
"""

from ragcrawl_dynamo.errors.base import (
    BackendClosedError,
    BackendNotOpenError,
    BackendStateError,
    MissingExtraError,
    RagcrawlDynamoError,
    WrongEventLoopError,
    WrongProcessError,
)
from ragcrawl_dynamo.errors.inputs import (
    ContentTooLargeError,
    HostBudgetError,
    InvalidArgumentError,
    InvalidCursorError,
    InvalidInputError,
    InvalidKeyError,
    InvalidValueError,
    ItemTooLargeError,
)
from ragcrawl_dynamo.errors.records import (
    AmbiguousIdError,
    ChangesExpiredError,
    ClockSkewError,
    ConflictError,
    CorruptContentError,
    CorruptItemError,
    FrontierCancelledError,
    LeaseLostError,
    MassDeletionError,
    NotFoundError,
    OpenRunsError,
    PartialBatchError,
    SchemaMismatchError,
    SchemaVersionError,
)
from ragcrawl_dynamo.errors.service import (
    AccessDeniedError,
    AnswerMismatchError,
    BucketNotFoundError,
    ConditionFailedError,
    CredentialsError,
    DeadlineExceededError,
    EndpointUnreachableError,
    RequestRejectedError,
    ServerFaultError,
    ServiceError,
    TableNotFoundError,
    TableUnusableError,
    ThrottledError,
)

__all__ = [
    "AccessDeniedError",
    "AmbiguousIdError",
    "AnswerMismatchError",
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
    "MissingExtraError",
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
    "TableUnusableError",
    "ThrottledError",
    "WrongEventLoopError",
    "WrongProcessError",
]

# Tracebacks and pickles name a class by the path from which users import it.
for _name in __all__:
    globals()[_name].__module__ = __name__
