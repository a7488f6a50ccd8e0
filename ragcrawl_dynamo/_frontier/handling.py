"""Defines the settings of a worker, the exceptions by which handlers settle an item, and the summary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from ragcrawl_dynamo._frontier.arguments import MAX_CLAIMED
from ragcrawl_dynamo._frontier.lease_keeper import LeaseSettings
from ragcrawl_dynamo._utils.validation import MAX_DELAY_SECONDS, check_count, check_name, check_seconds

__all__ = ["DoNotRetry", "Skip", "WorkSummary"]

# Seconds of an outage after which a worker gives up, so that its supervisor notices the outage.
OUTAGE_SECONDS = 900.0


class Skip(Exception):  # noqa: N818 # it is an instruction
    """Raised by a handler: the item is not crawled on purpose. Its status becomes SKIPPED.

    The message is stored as the item's `last_error`.
    """


class DoNotRetry(Exception):  # noqa: N818 # it is an instruction
    """Raised by a handler: the item has failed, and another attempt would fail too.

    The item becomes a dead letter. The message is stored as its `last_error`.
    """


@dataclass(frozen=True, slots=True)
class WorkSummary:
    """Counts the items that a worker has handled, by their outcome.

    Attributes:
        completed: How many items were completed.
        retried: How many items went back into the queue, to be tried again.
        failed: How many items have failed for good: dead letters.
        skipped: How many items were skipped.
        lost: How many handlers lost their lease. Another worker does their items.
        seconds: How long the worker ran.
    """

    completed: int
    retried: int
    failed: int
    skipped: int
    lost: int
    seconds: float

    @property
    def pages_per_second(self) -> float:
        """How many items were completed or skipped in a second, over the whole time."""
        return (self.completed + self.skipped) / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        """Describes it in a line."""
        return (
            f"{self.completed:,} completed, {self.retried:,} retried, {self.failed:,} failed, "
            f"{self.skipped:,} skipped, {self.lost:,} lost in {self.seconds:,.1f} s "
            f"({self.pages_per_second:,.1f} pages/s)"
        )


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """The settings of a worker.

    Attributes:
        concurrency: How many handlers run at the same time.
        lease: How long leases last.
        worker_id: The name of the worker, stored with the items.
        grace_seconds: How many seconds handlers may run after SIGTERM; None does not handle the signal.
        outage_seconds: The worker gives up after an outage of this many seconds.
    """

    concurrency: int
    lease: LeaseSettings
    worker_id: str | None = None
    grace_seconds: float | None = None
    outage_seconds: float = OUTAGE_SECONDS

    @classmethod
    def checked(
        cls,
        concurrency: int,
        lease: LeaseSettings,
        worker_id: str | None,
        grace_seconds: float | None,
        outage_seconds: float,
    ) -> Self:
        """Returns the settings.

        Raises:
            InvalidArgumentError: A setting is outside its limits.
        """
        check_count("concurrency", concurrency, MAX_CLAIMED)
        check_name("worker_id", worker_id)
        if grace_seconds is not None:
            check_seconds("grace_seconds", grace_seconds, MAX_DELAY_SECONDS)
        check_seconds("outage_seconds", outage_seconds, MAX_DELAY_SECONDS)
        return cls(concurrency, lease, worker_id, grace_seconds, outage_seconds)
