"""Sets the limits of hosts, and blocks them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from ragcrawl_dynamo._frontier.context import RunContext
from ragcrawl_dynamo._frontier.host_updates import BlockHost, HostUpdate, SetLimits
from ragcrawl_dynamo._schema.keys import host_name


class HostLimiter:
    """Sets the limits of the hosts of one run. All processes keep them from their next claim on."""

    def __init__(self, run: RunContext) -> None:
        self._run = run

    async def set(self, host: str, limits: Mapping[str, Any]) -> None:
        """Sets limits, fields of HostRecord; see Frontier.set_host_delay, set_host_max_in_flight, block_host.

        Raises:
            InvalidInputError: The host cannot be stored.
        """
        host = self._run.rules.host(host)
        # Refuses a host that is too long.
        host_name(host)
        await self._run.control.check_rules()
        await self._run.hosts.ensure(host)
        await self._update(host, SetLimits(limits))

    async def block(self, host: str, seconds: float) -> None:
        """Blocks the host of an item from now on, unless this process knows that it is blocked as long."""
        block = BlockHost(self._run.clock.now() + timedelta(seconds=seconds))
        known = self._run.view.bench.hosts.get(host)
        record = None if known is None else known.record
        if record is None or block.apply(record) != record:
            await self._update(host, block)

    async def _update(self, host: str, update: HostUpdate) -> None:
        run = self._run

        async def set_limits() -> None:
            run.note_updates(await run.hosts.update({host: update}))
            await run.control.note_new_limits()
            run.control_reads.forget()

        await run.tasks.uninterrupted(set_limits())
        run.view.changed.set()
