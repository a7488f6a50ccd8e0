"""Keeps the frontiers that one process has open, one for each run."""

from __future__ import annotations

from contextlib import AsyncExitStack

from ragcrawl_dynamo._dynamodb.conditional_writes import conditional_writes
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._frontier.arguments import HostLimits
from ragcrawl_dynamo._frontier.claim import LeaseObserver
from ragcrawl_dynamo._frontier.context import FrontierServices
from ragcrawl_dynamo._frontier.frontier import Frontier
from ragcrawl_dynamo._frontier.link_rules import LinkRules
from ragcrawl_dynamo._frontier.run_queue import RunQueue
from ragcrawl_dynamo._schema.keys import run_partition, site_partition
from ragcrawl_dynamo._schema.records import RunControl
from ragcrawl_dynamo._schema.tables import Tables
from ragcrawl_dynamo._utils.clock import Clock
from ragcrawl_dynamo._utils.validation import check_kind
from ragcrawl_dynamo.errors import InvalidArgumentError


class Frontiers:
    """The open frontiers. Every call for a run returns the same object.

    Attributes:
        services: The services that the queues of all runs share.
    """

    def __init__(self, gateway: Gateway, tables: Tables, clock: Clock, on_lease_lost: LeaseObserver) -> None:
        writes = conditional_writes(gateway, tables.frontier)
        self.services = FrontierServices(gateway, tables, writes, clock, on_lease_lost)
        self._open: dict[tuple[str, str], tuple[RunQueue, Frontier]] = {}

    def get(self, site_id: str, run_id: str, limits: HostLimits, rules: LinkRules) -> Frontier:
        """Returns the frontier of a run, and opens it if needed; see StorageBackend.frontier."""
        return self._get(site_id, run_id, limits, rules)[1]

    def queue(self, site_id: str, run_id: str) -> RunQueue:
        """Returns the queue of a run, for other parts of this package."""
        return self._get(site_id, run_id, HostLimits(), LinkRules())[0]

    def clear(self, run_id: str, site_id: str | None = None) -> None:
        """Clears the local view of a run, after the run's items were deleted.

        Args:
            run_id: The run.
            site_id: The site whose items of the run were deleted; None for all sites.
        """
        for (open_site_id, open_run_id), (queue, _) in self._open.items():
            if open_run_id == run_id and site_id in (None, open_site_id):
                queue.clear()

    async def close_run(self, site_id: str, run_id: str) -> None:
        """Closes the queue of one run, so that a long-lived process does not keep all queues open."""
        opened = self._open.pop((site_id, run_id), None)
        if opened is not None:
            await opened[0].close()

    async def close(self) -> None:
        """Closes all queues."""
        opened, self._open = self._open, {}
        async with AsyncExitStack() as stack:
            for queue, _ in opened.values():
                stack.push_async_callback(queue.close)

    def _get(
        self, site_id: str, run_id: str, limits: HostLimits, rules: LinkRules
    ) -> tuple[RunQueue, Frontier]:
        check_kind("site_id", site_id, str)
        check_kind("run_id", run_id, str)
        opened = self._open.get((site_id, run_id))
        if opened is None:
            # Raises if an id is not valid.
            run_partition(run_id)
            site_partition(site_id)
            names = rules.names()
            control = RunControl(
                run=run_id,
                site_id=site_id,
                host_delay=limits.delay,
                host_max_in_flight=limits.max_in_flight,
                buckets=self.services.gateway.config.frontier_buckets,
                host_max_items=limits.max_items,
                normalize=names["normalize"],
                politeness_key=names["politeness_key"],
            )
            queue = RunQueue(self.services, control, rules)
            opened = self._open[site_id, run_id] = queue, Frontier(queue)
            return opened
        run = opened[0].run
        first = run.first_control
        first_limits = HostLimits(first.host_delay, first.host_max_in_flight, first.host_max_items)
        if limits not in (HostLimits(), first_limits):
            raise InvalidArgumentError(
                "host_delay",
                f"this process has opened the frontier of run {run_id!r} with other limits (host_delay "
                f"{first.host_delay}, host_max_in_flight {first.host_max_in_flight}, host_max_items "
                f"{first.host_max_items}): pass the same ones, or none",
            )
        if rules not in (LinkRules(), run.rules):
            raise InvalidArgumentError(
                "normalize",
                f"this process has opened the frontier of run {run_id!r} with another normalize or "
                "politeness_key: pass the same ones, or none",
            )
        return opened
