"""Records of the package's own that lie in the five tables: hosts and control of a run, the schema's version.

They are pure values; moments are those of the workers' clocks.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from ragcrawl_dynamo.models import Entity, UtcDatetime


class RunState(StrEnum):
    """Whether a run's frontier hands out items."""

    RUNNING = "running"
    PAUSED = "paused"
    CANCELLED = "cancelled"


class RunControl(Entity):
    """What holds for all of a run's frontier.

    `host_delay` and `host_max_in_flight` are the limits that a host begins with. `verifying` is the token of
    whoever reads the whole run to prove it finished, and goes away when something is added meanwhile;
    `finished_by` is that token once it is proven, `final_counts` what was counted on the way.
    """

    run: str
    site_id: str
    state: RunState = RunState.RUNNING
    host_delay: float = 0.0
    host_max_in_flight: int | None = None
    verifying: str | None = None
    verifying_since: UtcDatetime | None = None
    finished_by: str | None = None
    final_counts: dict[str, int] = Field(default_factory=dict)


class HostRecord(Entity):
    """One host of a run.

    `work_at` is the moment from which on one of its items may be claimable, None while it seems to have none.
    `slots` are the leases in flight, by token, with the moment at which each is given up for lost; only kept
    where `max_in_flight` is set. `reserver` is the process that got the latest lease of a limited host.
    `revision` changes with every change.
    """

    run: str
    host: str
    site_id: str
    delay: float = 0.0
    max_in_flight: int | None = None
    next_at: UtcDatetime | None = None
    blocked_until: UtcDatetime | None = None
    slots: dict[str, UtcDatetime] = Field(default_factory=dict)
    shards: int = 1
    work_at: UtcDatetime | None = None
    empty_looks: int = 0
    reserver: str = ""
    revision: str = ""

    @property
    def is_limited(self) -> bool:
        """Whether a lease must be reserved here before an item is claimed."""
        return self.delay > 0 or self.max_in_flight is not None

    @property
    def open_at(self) -> datetime | None:
        """The moment from which on the limits allow a lease; None if they always did."""
        gates = [self.blocked_until, self.next_at if self.delay > 0 else None]
        if self.max_in_flight is not None and (excess := len(self.slots) - self.max_in_flight) >= 0:
            gates.append(sorted(self.slots.values())[excess])
        return max((each for each in gates if each is not None), default=None)

    @property
    def due(self) -> datetime | None:
        """When this host should be looked at next; None while it seems to have no work."""
        if self.work_at is None:
            return None
        return max(self.work_at, self.open_at or self.work_at)

    def allowance(self, now: datetime, wanted: int) -> int:
        """How many leases may begin now, up to `wanted`."""
        if (open_at := self.open_at) is not None and open_at > now:
            return 0
        if self.max_in_flight is not None:
            wanted = min(wanted, self.max_in_flight - len(self.live_slots(now)))
        return min(wanted, 1) if self.delay > 0 else wanted

    def live_slots(self, now: datetime) -> dict[str, datetime]:
        """The leases in flight that are not given up for lost at a moment."""
        return {token: expiry for token, expiry in self.slots.items() if expiry > now}


class SchemaRecord(Entity):
    """What the tables are, and how far their migration to the next version is.

    `step` counts the migrations of that version that are done; `position` is the key after which the next
    one goes on, and `clean` whether it had nothing to do so far.
    """

    version: int
    step: int = 0
    position: dict[str, str] = Field(default_factory=dict)
    clean: bool = True
