"""Leases an index to one process at a time, and keeps its cursor."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.expressions import AllOf, Compare, Condition, Missing
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._dynamodb.values import Item, moment_text
from ragcrawl_dynamo._dynamodb.write_token import WriteToken
from ragcrawl_dynamo._schema.keys import index_key
from ragcrawl_dynamo._utils.clock import Clock
from ragcrawl_dynamo.errors import ConditionFailedError, ConflictError, RagcrawlDynamoError
from ragcrawl_dynamo.models import Page

logger = logging.getLogger(__name__)

# Seconds of a lease. A process that is killed holds up the next one as long.
LEASE_SECONDS = 60.0

# Renewals within a lease: two of them may fail.
_RENEWALS = 3

# The first and the longest pause, in seconds, of a process that waits for the lease of another one.
_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 5.0

_HELD_UNTIL = "held_until"


@dataclass(frozen=True, slots=True)
class IndexState:
    """The stored state of an index.

    Attributes:
        cursor: How far the consumer has come in the change feed; None if it begins with all pages.
        generation: Grows when the index is to be filled again.
        fence: The number of the latest lease.
        holder: The value of the token of that lease; None if there was none.
        held_until: When that lease ends; None if it was ended.
    """

    cursor: str | None = None
    generation: int = 1
    fence: int = 0
    holder: str | None = None
    held_until: datetime | None = None

    @classmethod
    def of(cls, item: Item) -> Self:
        """Reads the state of an item."""
        until = item.get(_HELD_UNTIL)
        return cls(
            item["cursor"]["S"] if "cursor" in item else None,
            int(item["generation"]["N"]),
            int(item["fence"]["N"]),
            item["holder"]["S"],
            None if until is None else datetime.fromisoformat(until["S"]).astimezone(UTC),
        )

    @property
    def is_unchanged(self) -> Condition:
        """The condition that no lease was taken, renewed or ended since the state was read."""
        if self.holder is None:
            return Missing("site_id")
        is_same_holder = Compare("holder", "=", {"S": self.holder})
        if self.held_until is None:
            return AllOf((is_same_holder, Missing(_HELD_UNTIL)))
        return AllOf((is_same_holder, Compare(_HELD_UNTIL, "=", {"S": moment_text(self.held_until)})))


class IndexLeases:
    """Key `#{site_id}` / `index#{consumer}`; all reads are strongly consistent."""

    def __init__(self, gateway: Gateway, table: Table[Page], clock: Clock) -> None:
        self.clock = clock
        self._gateway = gateway
        self._table = table

    async def read(self, site_id: str, consumer: str) -> IndexState:
        """Returns the state of an index; that of a new one, if none is stored."""
        request = requests.get_request(self._table, index_key(site_id, consumer))
        item = (await self._gateway.call("GetItem", request)).get("Item")
        return IndexState() if item is None else IndexState.of(item)

    async def put(self, site_id: str, consumer: str, state: IndexState, condition: Condition) -> None:
        """Writes the state of an index if a condition holds.

        Raises:
            ConditionFailedError: The condition does not hold.
        """
        item: Item = {
            **index_key(site_id, consumer),
            "generation": {"N": str(state.generation)},
            "fence": {"N": str(state.fence)},
            "holder": {"S": str(state.holder)},
        }
        if state.cursor is not None:
            item["cursor"] = {"S": state.cursor}
        if state.held_until is not None:
            item[_HELD_UNTIL] = {"S": moment_text(state.held_until)}
        await self._gateway.call("PutItem", requests.put_request(self._table, item, condition))

    @asynccontextmanager
    async def held(self, site_id: str, consumer: str) -> AsyncGenerator[IndexLease, None]:
        """Waits until no other process holds the lease, and keeps it until the end of the block."""
        lease = IndexLease(self, site_id, consumer, await self._take(site_id, consumer))
        keeper = asyncio.create_task(lease.keep())
        try:
            yield lease
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
            await lease.end()

    async def _take(self, site_id: str, consumer: str) -> IndexState:
        token = WriteToken.new("holder")
        skew = timedelta(seconds=self._gateway.config.frontier_max_clock_skew)
        pause = _FIRST_PAUSE
        has_waited = False
        while True:
            stored = await self.read(site_id, consumer)
            now = self.clock.now()
            if stored.held_until is not None and now < stored.held_until + skew:
                left = (stored.held_until + skew - now).total_seconds()
                if not has_waited:
                    logger.info(
                        "index %r of site %r waits for the lease of another process until %s: that process "
                        "renews it while it works; if it was killed, its lease ends then",
                        *(consumer, site_id, stored.held_until + skew),
                    )
                has_waited = True
                await self.clock.sleep(min(left, pause))
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            until = now + timedelta(seconds=LEASE_SECONDS)
            value: Any = token.value
            state = replace(stored, fence=stored.fence + 1, holder=value["S"], held_until=until)
            try:
                await self.put(site_id, consumer, state, stored.is_unchanged)
            except ConditionFailedError as error:
                # Another process was first, unless an earlier attempt of this write was applied.
                if not token.is_in(error.item):
                    continue
            if has_waited:
                logger.info("index %r of site %r has the lease now", consumer, site_id)
            return state


class IndexLease:
    """The lease of an index, as the process has it that holds it."""

    def __init__(self, leases: IndexLeases, site_id: str, consumer: str, state: IndexState) -> None:
        self.state = state
        self._leases = leases
        self._site_id = site_id
        self._consumer = consumer
        # One write at a time: a renewal must not bring a former cursor back.
        self._writing = asyncio.Lock()

    async def check(self) -> None:
        """Renews the lease if less than a part of it is left, as after the process was suspended.

        Raises:
            ConflictError: Another process has taken the lease.
        """
        assert self.state.held_until is not None  # noqa: S101 # it is ended last
        left = (self.state.held_until - self._leases.clock.now()).total_seconds()
        if left < LEASE_SECONDS / _RENEWALS:
            await self._put(self.state)

    async def save(self, *, cursor: str | None, generation: int | None = None) -> None:
        """Stores the cursor, and a new generation if there is one; renews the lease.

        Raises:
            ConflictError: Another process has taken the lease.
        """
        state = replace(self.state, cursor=cursor)
        await self._put(state if generation is None else replace(state, generation=generation))

    async def keep(self) -> None:
        """Renews the lease until it is lost."""
        while True:
            await self._leases.clock.sleep(LEASE_SECONDS / _RENEWALS)
            try:
                await self._put(None)
            except ConflictError as error:
                logger.warning("%s", error)
                return
            except RagcrawlDynamoError as error:
                logger.warning(
                    "the lease of index %r could not be renewed; this is tried again: %s",
                    self._consumer,
                    error,
                )

    async def end(self) -> None:
        """Lets other processes take the lease at once."""
        try:
            async with self._writing:
                ended = replace(self.state, held_until=None)
                await self._leases.put(self._site_id, self._consumer, ended, self._is_held)
        except RagcrawlDynamoError as error:
            logger.debug(
                "the lease of index %r could not be ended; another process waits until it expires: %s",
                *(self._consumer, error),
            )

    def lost(self) -> ConflictError:
        """Returns the error of a lost lease."""
        return ConflictError(
            f"another process changes index {self._consumer!r} of site {self._site_id!r}: it took the lease "
            f"over, because this process did not renew it for {LEASE_SECONDS:g} s, or the site was deleted; "
            "call it again"
        )

    @property
    def _is_held(self) -> Condition:
        return Compare("holder", "=", {"S": str(self.state.holder)})

    async def _put(self, state: IndexState | None) -> None:
        """Writes a state, or the present one again, with a later end of the lease."""
        async with self._writing:
            until = self._leases.clock.now() + timedelta(seconds=LEASE_SECONDS)
            renewed = replace(state or self.state, held_until=until)
            try:
                await self._leases.put(self._site_id, self._consumer, renewed, self._is_held)
            except ConditionFailedError:
                raise self.lost() from None
            self.state = renewed
