"""Defines the outcomes of conditional writes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeAlias, TypeGuard

from ragcrawl_dynamo._dynamodb.values import Item
from ragcrawl_dynamo.errors import DeadlineExceededError, RagcrawlDynamoError, ThrottledError


@dataclass(frozen=True, slots=True)
class Applied:
    """The write was done.

    Attributes:
        item: The item as an update left it; None after an insert.
    """

    item: Item | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The condition did not hold, or the item to insert was there."""


@dataclass(frozen=True, slots=True)
class Failed:
    """DynamoDB rejected the write, or it is unknown whether the write was done.

    Attributes:
        error: The reason.
        may_be_applied: Whether the write may have been done nevertheless.
    """

    error: RagcrawlDynamoError
    may_be_applied: bool = True


Outcome: TypeAlias = Applied | Refused | Failed


def is_throttled(outcome: Outcome) -> TypeGuard[Failed]:
    """Returns whether a write failed for lack of capacity. An earlier attempt may still have done it."""
    return isinstance(outcome, Failed) and isinstance(outcome.error, ThrottledError)


def is_held_up(outcome: Outcome) -> bool:
    """Returns whether a write failed for lack of capacity, or because there was no answer in time."""
    return isinstance(outcome, Failed) and isinstance(outcome.error, ThrottledError | DeadlineExceededError)


def raise_if_failed(outcomes: Collection[Outcome]) -> None:
    """Raises the first error among outcomes, if there is one.

    Raises:
        ServiceError: A write failed.
    """
    for outcome in outcomes:
        if isinstance(outcome, Failed):
            raise outcome.error


def raise_if_all_failed(outcomes: Collection[Outcome]) -> None:
    """Raises the first error if all writes failed; does nothing if there are none.

    Raises:
        ServiceError: All writes failed.
    """
    if all(isinstance(outcome, Failed) for outcome in outcomes):
        raise_if_failed(outcomes)
