"""Defines the options of a request queue: how its requests are leased, and how many of them a host gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict


class RequestQueueOptions(TypedDict, total=False):
    """Keyword arguments of `DynamoDBStorageClient` for its request queues. All of them are optional.

    Attributes:
        prefetch: Number of requests that are claimed ahead, 16 by default. Their leases run while they wait
            to be handled, and are renewed.
        lease_seconds: Seconds after which others get the requests of a killed process, 60 by default.
        host_delay: Seconds between two requests to a host, by all processes together; 0 by default.
        host_max_in_flight: Requests to a host at a time, by all processes together. None, the default, sets
            no limit.
    """

    prefetch: int
    lease_seconds: float
    host_delay: float
    host_max_in_flight: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestQueueSettings:
    """The options with their defaults. `RequestQueueOptions` describes the fields."""

    prefetch: int = 16
    lease_seconds: float = 60.0
    host_delay: float = 0.0
    host_max_in_flight: int | None = None

    @property
    def has_host_limits(self) -> bool:
        """Whether a host can have requests that may not be fetched yet."""
        return bool(self.host_delay) or self.host_max_in_flight is not None
