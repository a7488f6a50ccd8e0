"""Asyncio storage layer on Amazon DynamoDB for web crawlers that feed RAG pipelines."""

from ragcrawl_dynamo._changes.change import ChangeKind, ChangeSlice, PageChange
from ragcrawl_dynamo._commit.decision import CommitOutcome, CommitResult
from ragcrawl_dynamo._commit.responses import ResponseKind
from ragcrawl_dynamo._content.garbage import GarbageReport
from ragcrawl_dynamo._content.retention import PruneReport
from ragcrawl_dynamo._content.usage import ContentUsage
from ragcrawl_dynamo._crawl.crawl import Crawl
from ragcrawl_dynamo._crawl.task import Task
from ragcrawl_dynamo._dynamodb.client import ClientOptions
from ragcrawl_dynamo._dynamodb.destination import Destination
from ragcrawl_dynamo._dynamodb.metrics import OperationMetrics, RequestEvent
from ragcrawl_dynamo._dynamodb.pagination import Slice
from ragcrawl_dynamo._frontier.arguments import LinkFields
from ragcrawl_dynamo._frontier.claim import AddResult, Claim, HostStatus
from ragcrawl_dynamo._frontier.counts import FrontierStats
from ragcrawl_dynamo._frontier.frontier import Frontier
from ragcrawl_dynamo._frontier.handling import DoNotRetry, Skip, WorkSummary
from ragcrawl_dynamo._frontier.lease_keeper import LeaseKeeper
from ragcrawl_dynamo._frontier.worker import Worker
from ragcrawl_dynamo._records.runs import StatsDeltas
from ragcrawl_dynamo._schema.migrations import MigrationProgress
from ragcrawl_dynamo._schema.records import RunState
from ragcrawl_dynamo._schema.table_info import TableInfo
from ragcrawl_dynamo._utils.domains import registrable_domain
from ragcrawl_dynamo._utils.urls import normalize_url, page_id
from ragcrawl_dynamo.backend import DynamoDBBackend
from ragcrawl_dynamo.config import DynamoDBConfig, StorageConfig
from ragcrawl_dynamo.errors import (
    AccessDeniedError,
    AmbiguousIdError,
    AnswerMismatchError,
    BackendClosedError,
    BackendNotOpenError,
    BackendStateError,
    BucketNotFoundError,
    ChangesExpiredError,
    ClockSkewError,
    ConditionFailedError,
    ConflictError,
    ContentTooLargeError,
    CorruptContentError,
    CorruptItemError,
    CredentialsError,
    DeadlineExceededError,
    EndpointUnreachableError,
    FrontierCancelledError,
    HostBudgetError,
    InvalidArgumentError,
    InvalidCursorError,
    InvalidInputError,
    InvalidKeyError,
    InvalidValueError,
    ItemTooLargeError,
    LeaseLostError,
    MassDeletionError,
    MissingExtraError,
    NotFoundError,
    OpenRunsError,
    PartialBatchError,
    RagcrawlDynamoError,
    RequestRejectedError,
    SchemaMismatchError,
    SchemaVersionError,
    ServerFaultError,
    ServiceError,
    TableNotFoundError,
    TableUnusableError,
    ThrottledError,
    WrongEventLoopError,
    WrongProcessError,
)
from ragcrawl_dynamo.factory import create_storage_backend
from ragcrawl_dynamo.models import (
    CrawlRun,
    CrawlStats,
    FrontierItem,
    FrontierStatus,
    Page,
    PageVersion,
    RunStatus,
    Site,
)
from ragcrawl_dynamo.storage import StorageBackend
from ragcrawl_dynamo.store import Store, connect
from ragcrawl_dynamo.table_options import TableOptions

__all__ = [
    "AccessDeniedError",
    "AddResult",
    "AmbiguousIdError",
    "AnswerMismatchError",
    "BackendClosedError",
    "BackendNotOpenError",
    "BackendStateError",
    "BucketNotFoundError",
    "ChangeKind",
    "ChangeSlice",
    "ChangesExpiredError",
    "Claim",
    "ClientOptions",
    "ClockSkewError",
    "CommitOutcome",
    "CommitResult",
    "ConditionFailedError",
    "ConflictError",
    "ContentTooLargeError",
    "ContentUsage",
    "CorruptContentError",
    "CorruptItemError",
    "Crawl",
    "CrawlRun",
    "CrawlStats",
    "CredentialsError",
    "DeadlineExceededError",
    "Destination",
    "DoNotRetry",
    "DynamoDBBackend",
    "DynamoDBConfig",
    "EndpointUnreachableError",
    "Frontier",
    "FrontierCancelledError",
    "FrontierItem",
    "FrontierStats",
    "FrontierStatus",
    "GarbageReport",
    "HostBudgetError",
    "HostStatus",
    "InvalidArgumentError",
    "InvalidCursorError",
    "InvalidInputError",
    "InvalidKeyError",
    "InvalidValueError",
    "ItemTooLargeError",
    "LeaseKeeper",
    "LeaseLostError",
    "LinkFields",
    "MassDeletionError",
    "MigrationProgress",
    "MissingExtraError",
    "NotFoundError",
    "OpenRunsError",
    "OperationMetrics",
    "Page",
    "PageChange",
    "PageVersion",
    "PartialBatchError",
    "PruneReport",
    "RagcrawlDynamoError",
    "RequestEvent",
    "RequestRejectedError",
    "ResponseKind",
    "RunState",
    "RunStatus",
    "SchemaMismatchError",
    "SchemaVersionError",
    "ServerFaultError",
    "ServiceError",
    "Site",
    "Skip",
    "Slice",
    "StatsDeltas",
    "StorageBackend",
    "StorageConfig",
    "Store",
    "TableInfo",
    "TableNotFoundError",
    "TableOptions",
    "TableUnusableError",
    "Task",
    "ThrottledError",
    "WorkSummary",
    "Worker",
    "WrongEventLoopError",
    "WrongProcessError",
    "connect",
    "create_storage_backend",
    "normalize_url",
    "page_id",
    "registrable_domain",
]

__version__ = "0.2.0"
