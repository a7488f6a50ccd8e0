"""Describes open items as the index shows them, and the order in which they are claimed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ragcrawl_dynamo._schema.queue_order import PRIORITY_LENGTH, split_order


@dataclass(frozen=True, slots=True)
class Candidate:
    """An open item, as by_queue shows it.

    Attributes:
        item_id: The id of the item.
        host: The host of the item.
        order: The sort key of the item in its host's queue.
        rank: Sorts by priority and age.
        moment: The end of the item's delay; None if it has none.
        expired_token: The token of the item's lease, if the item can only be claimed after that lease.
        distance: 0 if the item is in the share of this process. Otherwise, how late this process should try
            it, from 1 on.
    """

    item_id: str
    host: str
    order: str
    rank: str
    moment: datetime | None = None
    expired_token: str | None = None
    distance: int = 0

    @property
    def claim_order(self) -> tuple[str, int, float]:
        """The priority order: sorts by priority, then by distance, then by age.

        In the shares of other processes the youngest item comes first, so that a process that helps another
        one begins at the other end of the queue.
        """
        if not self.distance:
            return self.rank[:PRIORITY_LENGTH], 0, self.age
        return self.rank[:PRIORITY_LENGTH], self.distance, -self.age

    @property
    def age(self) -> float:
        """When the item was discovered, in seconds since 1970."""
        return datetime.fromisoformat(self.rank[PRIORITY_LENGTH:]).timestamp()

    @property
    def state(self) -> str:
        """The state in which the item is counted until it is claimed."""
        if self.expired_token is not None:
            return "in_progress"
        return "pending" if self.moment is None else "delayed"


def candidate_at(item_id: str, host: str, order: str) -> Candidate:
    """Returns the candidate of an item with a sort key."""
    moment, rank = split_order(order)
    return Candidate(item_id, host, order, rank, moment)


@dataclass(frozen=True, slots=True)
class Waiting:
    """An item that cannot be claimed before a moment.

    Attributes:
        until: The moment: the end of a delay, or of a lease.
        candidate: The candidate that the item becomes then.
        is_own: Whether the item waits for the end of a lease of this process.
    """

    until: datetime
    candidate: Candidate
    is_own: bool = False


def claim_order(candidate: Candidate) -> tuple[str, int, float]:
    """Returns the priority order of a candidate; a function to sort by."""
    return candidate.claim_order
