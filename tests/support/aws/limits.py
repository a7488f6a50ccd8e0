"""Limits each partition key value of tables and indexes by a token bucket."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from ragcrawl_dynamo._dynamodb.sizes import item_size
from tests.support.aws.copies import Clock
from tests.support.aws.settings import Limits
from tests.support.aws.writes import Item


@dataclass
class _Bucket:
    tokens: float
    at: float


class Buckets:
    """The units that each key has left: a bucket that fills at the rate of the limit.

    A request is let through while its bucket is not empty, and is charged its units. So a bucket can be in
    debt: the units of a read are known when it is done.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets: dict[tuple[str, str, str], _Bucket] = {}

    def has_room(self, kind: str, name: str, key: str, limits: Limits) -> bool:
        """Returns whether a key takes another request.

        Args:
            kind: "read" or "write".
            name: The table, or the table and the index.
            key: The value of its partition key.
            limits: The limits.
        """
        return self._bucket(kind, name, key, limits).tokens > 0

    def charge(self, kind: str, name: str, key: str, limits: Limits, units: float) -> None:
        """Takes units from a key."""
        self._bucket(kind, name, key, limits).tokens -= units

    def _bucket(self, kind: str, name: str, key: str, limits: Limits) -> _Bucket:
        rate = limits.read_units if kind == "read" else limits.write_units
        # One unit at least: a key that was idle takes one request.
        most, now = max(1.0, rate * limits.burst_seconds), self._clock()
        bucket = self._buckets.get((kind, name, key))
        if bucket is None:
            bucket = self._buckets[kind, name, key] = _Bucket(most, now)
        bucket.tokens = min(most, bucket.tokens + (now - bucket.at) * rate)
        bucket.at = now
        return bucket


def write_units(item: Item | None) -> int:
    """Returns the units of writing an item; one if the item is not known.

    Source: AWS, "DynamoDB read and write operations": one for each KB, rounded up.
    """
    return max(1, ceil(item_size(item) / 1024)) if item else 1
