"""Keeps the number of links of each host within a budget, over all processes.

Key `#{run_id}#{bucket}` / `budget#{host}`: how many links were admitted. A process reserves a part of the
budget by a conditional update before it adds links, so that no two processes use the same part.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from ragcrawl_dynamo._dynamodb.batching import read_all
from ragcrawl_dynamo._dynamodb.conditional_writes import ConditionalInsert, ConditionalUpdate
from ragcrawl_dynamo._dynamodb.expressions import AllOf, Compare, Condition, Update
from ragcrawl_dynamo._dynamodb.outcomes import Applied, Failed, Refused
from ragcrawl_dynamo._dynamodb.values import Item, Key
from ragcrawl_dynamo._dynamodb.write_token import WriteToken
from ragcrawl_dynamo._frontier.context import FrontierServices, RunContext
from ragcrawl_dynamo._schema.keys import budget_host, budget_key
from ragcrawl_dynamo.errors import RagcrawlDynamoError, ThrottledError

logger = logging.getLogger(__name__)

# The attribute that counts the links of a host that were admitted.
_ADMITTED = "admitted"

# How many times a process tries to reserve while other processes do.
_ATTEMPTS = 20

# Of how many hosts a process remembers whether their budget is used up, and for how many seconds: other
# processes may give parts of it back.
_HOSTS_REMEMBERED = 100_000
_SECONDS_REMEMBERED = 10.0


class HostBudget:
    """The budgets of the hosts of one run."""

    def __init__(self, services: FrontierServices, run: RunContext) -> None:
        self._gateway = services.gateway
        self._table = services.tables.frontier
        self._run = run
        self.clear()

    def clear(self) -> None:
        """Forgets everything. It is called after the run's items were deleted."""
        self._stored: set[str] = set()
        self._used_up: dict[str, float] = {}

    async def reserve(self, wanted: Mapping[str, int], limit: int) -> dict[str, int]:
        """Reserves parts of budgets.

        Args:
            wanted: How many links are to be added to each host.
            limit: How many links a host may have.

        Returns:
            How many links of each host may be added.

        Raises:
            ServiceError: A budget could not be read or written; the parts already reserved are given back.
        """
        if max(len(self._stored), len(self._used_up)) > _HOSTS_REMEMBERED:
            self.clear()
        granted = dict.fromkeys(wanted, 0)
        now = self._run.clock.monotonic()
        missing = {
            host: min(count, limit) for host, count in wanted.items() if self._used_up.get(host, 0.0) <= now
        }
        try:
            for _ in range(_ATTEMPTS):
                if missing := await self._try(missing, limit, granted):
                    missing = await self._left(missing, limit)
                if not missing:
                    return granted
        except RagcrawlDynamoError:
            await self.give_back(granted)
            raise
        await self.give_back(granted)
        raise ThrottledError(
            f"other processes changed the budgets of {len(missing)} hosts at each of {_ATTEMPTS} attempts: "
            f"try again",
            code="Contention",
            operation="UpdateItem",
            table=self._table.name,
        )

    async def give_back(self, unused: Mapping[str, int]) -> None:
        """Gives back reserved parts that are not used. If that fails, a host gets fewer links."""
        writes = [self._addition(host, -count) for host, count in unused.items() if count]
        if not writes:
            return
        try:
            outcomes = await self._run.items.run(writes)
        except RagcrawlDynamoError as error:
            outcomes = [Failed(error)]
        for host in unused:
            self._used_up.pop(host, None)
        if any(not isinstance(outcome, Applied) for outcome in outcomes):
            logger.warning(
                "run %r: unused parts of the budgets of hosts could not be given back, so some of %d hosts "
                "get fewer links than host_max_items",
                self._run.run_id,
                len(writes),
            )

    async def _try(self, missing: dict[str, int], limit: int, granted: dict[str, int]) -> dict[str, int]:
        """Tries to reserve once; returns the refused parts, and adds the reserved ones to `granted`.

        Raises:
            ServiceError: A write failed.
        """
        writes = [
            self._addition(host, count, Compare(_ADMITTED, "<=", {"N": str(limit - count)}))
            if host in self._stored
            else self._insert(host, count)
            for host, count in missing.items()
        ]
        outcomes = await self._run.items.run(writes)
        refused: dict[str, int] = {}
        error: RagcrawlDynamoError | None = None
        for (host, count), outcome in zip(missing.items(), outcomes, strict=True):
            if isinstance(outcome, Failed):
                error = outcome.error
                continue
            if isinstance(outcome, Refused):
                refused[host] = count
            else:
                granted[host] += count
            self._stored.add(host)
        if error is not None:
            raise error
        return refused

    async def _left(self, missing: dict[str, int], limit: int) -> dict[str, int]:
        """Returns how much of the budgets is left, at most as much as is missing."""
        keys = [self._key(host) for host in missing]
        stored = {budget_host(item): item for item in await read_all(self._gateway, self._table, keys)}
        left: dict[str, int] = {}
        for host, count in missing.items():
            if host not in stored:
                # The run's items were deleted.
                self._stored.discard(host)
                left[host] = count
            elif (room := limit - int(stored[host][_ADMITTED]["N"])) > 0:
                left[host] = min(count, room)
            else:
                self._used_up[host] = self._run.clock.monotonic() + _SECONDS_REMEMBERED
        return left

    def _key(self, host: str) -> Key:
        return budget_key(self._run.run_id, host, self._run.hosts.bucket_of(host))

    def _insert(self, host: str, count: int) -> ConditionalInsert:
        token = WriteToken.new("made_by")
        site: Item = {"site_id": {"S": self._run.site_id}, _ADMITTED: {"N": str(count)}}
        return ConditionalInsert({**self._key(host), **site, **token.attributes}, token)

    def _addition(self, host: str, count: int, condition: Condition | None = None) -> ConditionalUpdate:
        token = WriteToken.new("made_by")
        update = Update(put=token.assignment, increment={_ADMITTED: {"N": str(count)}})
        allowed = token.is_absent if condition is None else AllOf((token.is_absent, condition))
        return ConditionalUpdate(self._key(host), update, allowed, token)
