"""Tells when a cancelled run is finished: as soon as none of its items is leased."""

from __future__ import annotations

from contextlib import aclosing
from datetime import timedelta

from ragcrawl_dynamo._dynamodb.values import moment_text, unescape
from ragcrawl_dynamo._frontier.context import RunContext
from ragcrawl_dynamo.models import FrontierStatus


async def holds_no_lease(run: RunContext) -> bool:
    """Returns whether no item of a cancelled run is leased.

    It reads the items of the run, strongly consistent, up to the first one with a lease. The next call begins
    with that item. An item that `update_frontier_status` has set to in progress has no lease.
    """
    # Leases that have ended by then count as lost, even by the slowest clock that is allowed.
    lost = run.clock.now() - timedelta(seconds=run.config.frontier_max_clock_skew)
    view = run.view
    if view.open_items:
        for item in (await run.items.read(view.open_items)).values():
            is_in_progress = item.status is FrontierStatus.IN_PROGRESS
            if is_in_progress and item.lease_expires_at is not None and item.lease_expires_at > lost:
                return False
        view.open_items = []
    scan = run.items.scan(FrontierStatus.IN_PROGRESS, attributes=("lease_expires_at",))
    async with aclosing(scan) as pages:
        async for items in pages:
            for leased in items:
                if "lease_expires_at" in leased and leased["lease_expires_at"]["S"] > moment_text(lost):
                    view.open_items = [unescape(leased["item_id"]["S"])]
                    return False
    return True
