"""Models of the package's own records in the five tables: the control and the hosts of a run, and the schema.

They are pure values. Moments are read from the workers' clocks. No user sees a schema of them: pydantic need
not read descriptions from their source, which would take time when the package is imported.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from ragcrawl_dynamo._schema.queue_order import HostFacts, host_order
from ragcrawl_dynamo.models import Entity, UtcDatetime


class RunState(StrEnum):
    """The state of a run's frontier.

    Attributes:
        RUNNING: Items can be claimed.
        PAUSED: No item can be claimed until the run is resumed.
        CANCELLED: No item can be claimed any more.
    """

    RUNNING = "running"
    PAUSED = "paused"
    CANCELLED = "cancelled"


class RunControl(Entity, use_attribute_docstrings=False):
    """The control of a run: one record for its whole frontier.

    Attributes:
        run: The run.
        site_id: The site of the run.
        state: Whether items can be claimed.
        host_delay: The delay that a new host gets, in seconds.
        host_max_in_flight: The number of leases at a time that a new host gets; None for any number.
        verifying: The token of the process that reads the whole run to prove that it is finished. It is
            removed when an item is added meanwhile.
        verifying_since: When this process last gave a sign of life.
        finished_by: The token of the proof that the run is finished; None while it is not.
        final_counts: How many items are in which state, as the proof counted them.
        buckets: Over how many buckets the hosts of the run are spread. It never changes.
        limits_changed_by: A random name for the latest change of a host's limits.
        host_max_items: How many links a host may have in all; None for any number.
        normalize: The name of the function by which links are compared; None if none was recorded.
        politeness_key: The name of the function that assigns links to hosts; None if none was recorded.
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
    buckets: int = 1
    limits_changed_by: str | None = None
    host_max_items: int | None = None
    normalize: str | None = None
    politeness_key: str | None = None


class HostRecord(Entity, use_attribute_docstrings=False):
    """One host of a run: its limits, its leases in flight, and its place in the list of hosts that have work.

    Attributes:
        run: The run.
        host: The name of the host.
        site_id: The site of the run.
        bucket: The bucket of the host.
        delay: Seconds between the beginnings of two leases.
        max_in_flight: How many leases may run at a time; None for any number.
        next_at: When the next lease may begin, if `delay` is set.
        blocked_until: No lease may begin before this moment.
        slots: The in-flight slots: the leases in flight by token, and the moment at which each one counts as
            lost. They are only kept while `max_in_flight` is set.
        shards: Over how many shards the host's queue is spread.
        place: The host's place in the list: that of the best item that is known; None while the host seems
            to have no work. No item of the host is claimable before its place says so.
        only_item: The id of the only item in the host's queue, if the host was listed for it and nothing was
            added since; None otherwise.
        mark: A text that differs after each change that other processes have to notice.
        revision: A random name for the latest update.
    """

    run: str
    host: str
    site_id: str
    bucket: int = 0
    delay: float = 0.0
    max_in_flight: int | None = None
    next_at: UtcDatetime | None = None
    blocked_until: UtcDatetime | None = None
    slots: dict[str, UtcDatetime] = Field(default_factory=dict)
    shards: int = 1
    place: str | None = None
    only_item: str | None = None
    mark: str = ""
    revision: str = ""

    @property
    def order(self) -> str | None:
        """The sort key of the host in the list of hosts; None if it is not listed."""
        if self.place is None:
            return None
        facts = HostFacts(self.has_limits, self.shards, self.mark, self.only_item or "")
        return host_order(self.place, facts)

    @property
    def is_limited(self) -> bool:
        """Whether a lease has to be reserved in this record before an item is claimed."""
        return self.delay > 0 or self.max_in_flight is not None

    @property
    def has_limits(self) -> bool:
        """Whether the host has a limit that can forbid a lease."""
        return self.is_limited or self.blocked_until is not None

    @property
    def open_at(self) -> datetime | None:
        """When the limits allow the next lease, perhaps in the past; None if no limit applies."""
        gates = [self.blocked_until, self.next_at if self.delay > 0 else None]
        if self.max_in_flight is not None and (excess := len(self.slots) - self.max_in_flight) >= 0:
            gates.append(sorted(self.slots.values())[excess])
        return max((moment for moment in gates if moment is not None), default=None)

    def allowance(self, now: datetime, wanted: int) -> int:
        """Returns how many leases may begin at a moment, at most `wanted`."""
        if (open_at := self.open_at) is not None and open_at > now:
            return 0
        if self.max_in_flight is not None:
            wanted = min(wanted, self.max_in_flight - len(self.live_slots(now)))
        return min(wanted, 1) if self.delay > 0 else wanted

    def live_slots(self, now: datetime) -> dict[str, datetime]:
        """Returns the in-flight slots of the leases that do not count as lost at a moment."""
        return {token: expiry for token, expiry in self.slots.items() if expiry > now}


class SchemaRecord(Entity, use_attribute_docstrings=False):
    """The schema record: the version of the tables, and the progress of their migration to the next version.

    Attributes:
        version: The version of all five tables.
        step: How many migrations to the next version are done.
        position: The key after which the current migration resumes; empty at the beginning of its table.
        clean: Whether the current pass over the table has rewritten nothing so far.
    """

    version: int
    step: int = 0
    position: dict[str, str] = Field(default_factory=dict)
    clean: bool = True
