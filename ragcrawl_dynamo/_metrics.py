"""What was sent and what it cost: counters per operation and table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["OperationMetrics"]

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
        read_units: Read capacity units that DynamoDB says were consumed.
        write_units: Write capacity units likewise, indexes included.
    """

    requests: int = 0
    retries: int = 0
    read_units: float = 0.0
    write_units: float = 0.0


class Metrics:
    """Counters of one backend, by (operation, table)."""

    def __init__(self) -> None:
        self._counters: defaultdict[tuple[str, str], OperationMetrics] = defaultdict(OperationMetrics)

    def request(self, operation: str, table: str) -> None:
        """Counts a request that is about to be sent."""
        self._counters[operation, table].requests += 1

    def retry(self, operation: str, table: str) -> None:
        """Counts a request that will be sent again."""
        self._counters[operation, table].retries += 1

    def capacity(self, operation: str, response: Mapping[str, Any]) -> None:
        """Adds the capacity units that an answer reports."""
        consumed = response.get("ConsumedCapacity") or ()
        for each in (consumed,) if isinstance(consumed, Mapping) else consumed:
            counter = self._counters[operation, each.get("TableName", "")]
            units = each.get("CapacityUnits", 0.0)
            if operation in READS:
                counter.read_units += units
            else:
                counter.write_units += units

    def snapshot(self) -> dict[tuple[str, str], OperationMetrics]:
        """A copy of the counters as they stand."""
        return {key: replace(counter) for key, counter in self._counters.items()}
