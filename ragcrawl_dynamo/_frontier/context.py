"""Holds what the parts of a run's queue share in one process: stores, settings, clock and local view."""

from __future__ import annotations

from dataclasses import dataclass

from ragcrawl_dynamo._dynamodb.conditional_writes import ConditionalWrites
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._frontier.claim import LeaseObserver
from ragcrawl_dynamo._frontier.control_store import ControlStore
from ragcrawl_dynamo._frontier.counters import Counters
from ragcrawl_dynamo._frontier.host_store import HostStore
from ragcrawl_dynamo._frontier.item_store import ItemStore
from ragcrawl_dynamo._frontier.link_rules import LinkRules
from ragcrawl_dynamo._frontier.local_view import LocalView
from ragcrawl_dynamo._frontier.membership import Membership
from ragcrawl_dynamo._schema.records import RunControl
from ragcrawl_dynamo._schema.tables import Tables
from ragcrawl_dynamo._utils.clock import Clock, SystemClock
from ragcrawl_dynamo._utils.tasks import Tasks
from ragcrawl_dynamo.errors import ClockSkewError


@dataclass(frozen=True, slots=True)
class FrontierServices:
    """What the queues of all runs share in one process: the client, the tables, the clock, the observer."""

    gateway: Gateway
    tables: Tables
    writes: ConditionalWrites
    clock: Clock
    on_lease_lost: LeaseObserver


class RunContext:
    """One run, as one process works on it.

    Attributes:
        first_control: The control that is stored if the run has none yet.
        rules: How the run's links are compared, and to which host each belongs.
        run_id: The run.
        site_id: The site of the run.
        config: The settings of the backend.
        clock: The clock by which leases and delays are judged.
        on_lease_lost: Called with each claim whose lease was lost.
        control: The store of the run's control.
        hosts: The store of the run's hosts.
        items: The store of the run's items.
        counters: How many items are in which state.
        membership: Which processes claim from the run.
        view: What this process remembers of the run.
        tasks: Work that continues if its caller is cancelled.
    """

    def __init__(self, services: FrontierServices, first_control: RunControl, rules: LinkRules) -> None:
        gateway, tables, writes = services.gateway, services.tables, services.writes
        self.first_control = first_control
        self.rules = rules
        self.run_id = first_control.run
        self.site_id = first_control.site_id
        self.config = gateway.config
        self.clock = services.clock
        self.on_lease_lost = services.on_lease_lost
        self.tasks = Tasks()
        self.view = LocalView(gateway.config.frontier_seen_cache)
        self.control = ControlStore(gateway, tables.controls, first_control, rules)
        self.hosts = HostStore(gateway, tables, writes, self.control)
        self.items = ItemStore(gateway, tables.frontier, writes, self.run_id)
        self.counters = Counters(gateway, tables.frontier, writes, first_control, self.view.unwritten_counts)
        self.membership = Membership(gateway, tables.frontier, self.run_id, self.site_id)
        self._gateway = gateway

    def check_clock(self) -> None:
        """Checks this machine's clock against the times in DynamoDB's answers.

        Raises:
            ClockSkewError: The clock is off by more than `frontier_max_clock_skew`.
        """
        bound = self.config.frontier_max_clock_skew
        offset = self._gateway.server_clock.offset
        if abs(offset) > bound and isinstance(self.clock, SystemClock):
            raise ClockSkewError(offset, bound)
