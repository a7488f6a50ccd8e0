"""What was sent and what it cost: counters per operation and table, and events for whoever observes."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

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
        requests: Requests answered or failed, retries included.
        retries: How many of them repeated a failed one.
        throttled: How many DynamoDB refused, or did only in part, for lack of capacity.
        read_units: Read capacity units that DynamoDB says were consumed.
        write_units: Write capacity units likewise, indexes included.
    """

    requests: int = 0
    retries: int = 0
    throttled: int = 0
    read_units: float = 0.0
    write_units: float = 0.0


@dataclass(frozen=True, slots=True)
class RequestEvent:
    """One request that was answered, or has failed.

    Attributes:
        operation: Its name in AWS's reference, such as "PutItem".
        table: Full name of its table, or bucket; "" for transactions, which have several.
        attempt: 1 for the first try, more for a retry.
        items: How many items it writes, or asks for by key: one call's, or coalesced ones'; 1 for a query.
        seconds: From sending it to its answer.
        error: DynamoDB's code of the error, or the name of an exception; None for an answer.
        left_over: Items of a batch that were left undone for lack of capacity, and are sent again.
        read_units: Read capacity units that DynamoDB says were consumed.
        write_units: Write capacity units likewise.
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


Observer: TypeAlias = Callable[[RequestEvent], object]


class Metrics:
    """Counters of one backend, by (operation, table), and its observer."""

    def __init__(self, observer: Observer | None = None) -> None:
        self._counters: defaultdict[tuple[str, str], OperationMetrics] = defaultdict(OperationMetrics)
        self._observer = observer

    def begin(self, operation: str, table: str, attempt: int, request: Mapping[str, Any]) -> Measured:
        """Counts a request that is about to be sent."""
        self._counters[operation, table].requests += 1
        return Measured(self, operation, table, attempt, request)

    def retry(self, operation: str, table: str) -> None:
        """Counts a request that will be sent again."""
        self._counters[operation, table].retries += 1

    def throttled(self, operation: str, table: str) -> None:
        """Counts a request that DynamoDB refused, wholly or in part."""
        self._counters[operation, table].throttled += 1

    def capacity(self, operation: str, response: Mapping[str, Any]) -> float:
        """Adds the capacity units that an answer reports, and returns them."""
        total = 0.0
        consumed = response.get("ConsumedCapacity") or ()
        for each in (consumed,) if isinstance(consumed, Mapping) else consumed:
            counter = self._counters[operation, each.get("TableName", "")]
            units = each.get("CapacityUnits", 0.0)
            total += units
            if operation in READS:
                counter.read_units += units
            else:
                counter.write_units += units
        return total

    def report(self, event: Callable[[], RequestEvent]) -> None:
        """Tells the observer, if there is one; whatever it raises is logged, and harms no request."""
        if self._observer is None:
            return
        try:
            self._observer(event())
        except Exception:  # the caller's code, of which nothing is known
            logger.exception("the observer of requests failed")

    def snapshot(self) -> dict[tuple[str, str], OperationMetrics]:
        """A copy of the counters as they stand."""
        return {key: replace(counter) for key, counter in self._counters.items()}


class Measured:
    """One request under way."""

    __slots__ = ("_attempt", "_began", "_metrics", "_operation", "_request", "_table", "left_over")

    def __init__(
        self, metrics: Metrics, operation: str, table: str, attempt: int, request: Mapping[str, Any]
    ) -> None:
        self._metrics = metrics
        self._operation = operation
        self._table = table
        self._attempt = attempt
        self._request = request
        self._began = time.perf_counter()
        self.left_over = 0

    def end(self, response: Mapping[str, Any]) -> None:
        """Notes its answer."""
        self.left_over = _left_over(response)
        if self.left_over:
            self._metrics.throttled(self._operation, self._table)
        units = self._metrics.capacity(self._operation, response)
        is_read = self._operation in READS
        self._metrics.report(lambda: self._event(None, units * is_read, units * (not is_read)))

    def fail(self, error: BaseException) -> None:
        """Notes why it has none."""
        if is_throttling(error):
            self._metrics.throttled(self._operation, self._table)
        self._metrics.report(lambda: self._event(error_code(error), 0.0, 0.0))

    def _event(self, error: str | None, read_units: float, write_units: float) -> RequestEvent:
        seconds = time.perf_counter() - self._began
        return RequestEvent(
            self._operation,
            self._table,
            self._attempt,
            _items(self._request),
            seconds,
            error,
            self.left_over,
            read_units,
            write_units,
        )


def _items(request: Mapping[str, Any]) -> int:
    """How many items a request is about."""
    if tables := request.get("RequestItems"):
        return sum(len(each if isinstance(each, list) else each["Keys"]) for each in tables.values())
    return len(request.get("Statements") or request.get("TransactItems") or (request,))


def _left_over(response: Mapping[str, Any]) -> int:
    """How many items of a batch DynamoDB left undone for lack of capacity."""
    if items := response.get("UnprocessedItems"):
        return sum(map(len, items.values()))
    if keys := response.get("UnprocessedKeys"):
        return sum(len(each["Keys"]) for each in keys.values())
    answers = response.get("Responses")
    if isinstance(answers, list):
        return sum(each.get("Error", {}).get("Code") in THROTTLING_REASONS for each in answers)
    return 0
