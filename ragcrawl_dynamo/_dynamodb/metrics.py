"""Measures requests and their cost: counters for each operation and table, and an event for each request."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from botocore.exceptions import ClientError

from ragcrawl_dynamo._dynamodb.retry import THROTTLING_REASONS, error_code, is_throttling

__all__ = ["OperationMetrics", "RequestEvent"]

logger = logging.getLogger(__name__)

READS = frozenset({"BatchGetItem", "GetItem", "Query", "Scan"})
WRITES = frozenset(
    {
        "BatchExecuteStatement",
        "BatchWriteItem",
        "DeleteItem",
        "PutItem",
        "TransactWriteItems",
        "UpdateItem",
    }
)
OBJECTS = frozenset({"DeleteObject", "GetObject", "PutObject"})


@dataclass(slots=True)
class OperationMetrics:
    """Counters of one operation on one table.

    Attributes:
        requests: The requests that were answered or failed, with the retries.
        retries: The requests that repeated a failed one.
        throttled: The requests that DynamoDB refused, or did only in part, for lack of capacity.
        read_units: The read capacity units that DynamoDB reports as consumed.
        write_units: The write capacity units that DynamoDB reports as consumed, with those of indexes.
    """

    requests: int = 0
    retries: int = 0
    throttled: int = 0
    read_units: float = 0.0
    write_units: float = 0.0


@dataclass(frozen=True, slots=True)
class RequestEvent:
    """One request that was answered or has failed.

    Attributes:
        operation: The operation's name in AWS's reference, such as "PutItem".
        table: The full name of its table, or bucket; "" for transactions, which have several tables.
        attempt: 1 for the first attempt, more for a retry.
        items: The number of items that it writes or reads by key, of one call or of coalesced calls; 1 for a
            query.
        seconds: The time from sending it to its answer.
        error: DynamoDB's code of the error, or the name of an exception; None for an answer.
        left_over: The items of a batch that DynamoDB left undone for lack of capacity; they are sent again.
        read_units: The read capacity units that DynamoDB reports as consumed.
        write_units: The write capacity units that DynamoDB reports as consumed.
        request: The request as it was sent. It holds keys and items, so do not log it.
        response: DynamoDB's answer, also that of an error; None if none came. It holds keys and items too.
    """

    operation: str
    table: str
    attempt: int
    items: int
    seconds: float
    error: str | None
    left_over: int
    read_units: float
    write_units: float
    request: Mapping[str, Any] = field(default_factory=dict, repr=False)
    response: Mapping[str, Any] | None = field(default=None, repr=False)


Observer: TypeAlias = Callable[[RequestEvent], object]


class Metrics:
    """Counters of one backend, by operation and table, and its observer.

    Args:
        observer: Is called after every request; an exception that it raises is logged, and harms no request.
    """

    def __init__(self, observer: Observer | None = None) -> None:
        self._counters: defaultdict[tuple[str, str], OperationMetrics] = defaultdict(OperationMetrics)
        self._observer = observer

    def begin(self, operation: str, table: str, attempt: int, request: Mapping[str, Any]) -> Measurement:
        """Counts a request that is about to be sent."""
        self._counters[operation, table].requests += 1
        return Measurement(self, operation, table, attempt, request)

    def count_retry(self, operation: str, table: str) -> None:
        """Counts a request that will be sent again."""
        self._counters[operation, table].retries += 1

    def count_throttle(self, operation: str, table: str) -> None:
        """Counts a request that DynamoDB refused, wholly or in part."""
        self._counters[operation, table].throttled += 1

    def count_capacity(self, operation: str, response: Mapping[str, Any]) -> float:
        """Adds the capacity units that an answer reports, and returns their sum."""
        total = 0.0
        consumed = response.get("ConsumedCapacity") or ()
        for capacity in (consumed,) if isinstance(consumed, Mapping) else consumed:
            counter = self._counters[operation, capacity.get("TableName", "")]
            units = capacity.get("CapacityUnits", 0.0)
            total += units
            if operation in READS:
                counter.read_units += units
            else:
                counter.write_units += units
        return total

    def report(self, event: Callable[[], RequestEvent]) -> None:
        """Calls the observer, if there is one."""
        if self._observer is None:
            return
        try:
            self._observer(event())
        except Exception:  # the observer is the caller's code and may raise anything
            logger.exception("on_request raised an error; the request itself is not affected")

    def snapshot(self) -> dict[tuple[str, str], OperationMetrics]:
        """Copies the counters."""
        return {key: replace(counter) for key, counter in self._counters.items()}


@dataclass(slots=True)
class Measurement:
    """Measures one request that is in flight.

    Attributes:
        left_over: Items of a batch that DynamoDB left undone for lack of capacity.
    """

    metrics: Metrics
    operation: str
    table: str
    attempt: int
    request: Mapping[str, Any]
    left_over: int = 0
    began: float = field(default_factory=time.perf_counter)

    @property
    def is_left_over(self) -> bool:
        """Whether DynamoDB left all items undone."""
        return self.left_over > 0 and self.left_over == _count_items(self.request)

    def succeed(self, response: Mapping[str, Any]) -> None:
        """Counts the answer, and reports it."""
        self.left_over = _left_over(response)
        if self.left_over:
            self.metrics.count_throttle(self.operation, self.table)
        units = self.metrics.count_capacity(self.operation, response)
        is_read = self.operation in READS
        self.metrics.report(lambda: self._event(None, response, units * is_read, units * (not is_read)))

    def fail(self, error: BaseException) -> None:
        """Counts the error that came instead of an answer, and reports it."""
        if is_throttling(error):
            self.metrics.count_throttle(self.operation, self.table)
        response = error.response if isinstance(error, ClientError) else None
        self.metrics.report(lambda: self._event(error_code(error), response, 0.0, 0.0))

    def _event(
        self, error: str | None, response: Mapping[str, Any] | None, read_units: float, write_units: float
    ) -> RequestEvent:
        return RequestEvent(
            operation=self.operation,
            table=self.table,
            attempt=self.attempt,
            items=_count_items(self.request),
            seconds=time.perf_counter() - self.began,
            error=error,
            left_over=self.left_over,
            read_units=read_units,
            write_units=write_units,
            request=self.request,
            response=response,
        )


def _count_items(request: Mapping[str, Any]) -> int:
    """Counts the items that a request is about."""
    if tables := request.get("RequestItems"):
        return sum(len(part if isinstance(part, list) else part["Keys"]) for part in tables.values())
    return len(request.get("Statements") or request.get("TransactItems") or (request,))


def _left_over(response: Mapping[str, Any]) -> int:
    """Counts the items of a batch that DynamoDB left undone for lack of capacity."""
    if items := response.get("UnprocessedItems"):
        return sum(map(len, items.values()))
    if keys := response.get("UnprocessedKeys"):
        return sum(len(part["Keys"]) for part in keys.values())
    answers = response.get("Responses")
    if isinstance(answers, list):
        return sum(answer.get("Error", {}).get("Code") in THROTTLING_REASONS for answer in answers)
    return 0
