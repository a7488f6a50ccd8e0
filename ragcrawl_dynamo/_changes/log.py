"""Where the changes of a site are logged: lanes, whose numbers one process gives out, without a gap.

Keys `#{site_id}` / `lane#{lane}` for a lane and `#{site_id}#{lane}` / `{number}` for its changes. A change is
put on the condition that its number is free, in the transaction that makes it. So two processes can hold one
lane, and a reader can give up a number for a commit that is late: whoever comes second takes another number.
Nothing depends on who holds a lane, or on a clock, but that a lane is not left for long.
"""

from __future__ import annotations

import heapq
import logging
import random
import secrets
from asyncio import Lock
from collections import OrderedDict
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from ragcrawl_dynamo._changes.change import LATEST_HOURS, VOID, ChangeKind, Entry, Place, next_order
from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.expressions import AllOf, BeginsWith, Compare, Condition, Missing, Path, Update
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.pagination import read_pages
from ragcrawl_dynamo._dynamodb.requests import Query
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._dynamodb.values import Item, Value, escape, moment_text
from ragcrawl_dynamo._schema.keys import (
    CHANGE_SHARD_PREFIX,
    change_shard_key,
    change_shard_of,
    change_shard_partition,
    changes_partition,
)
from ragcrawl_dynamo._utils.clock import Clock
from ragcrawl_dynamo.errors import ConditionFailedError, RagcrawlDynamoError
from ragcrawl_dynamo.models import Page

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.type_defs import TransactWriteItemTypeDef

logger = logging.getLogger(__name__)

# Sites whose lane a process keeps; the one that was not used for longest is given up.
_LANES = 256

# Seconds after which a process makes sure that its lane still is its own: somebody may have deleted the site,
# and nobody reads a lane that is not listed.
_SURE_SECONDS = 60.0

# Seconds for which a number that was not used after all can be used for another change.
_REUSE_SECONDS = 60.0

# Lanes that a process tries to take over before it makes one of its own.
_TRIES = 3


@dataclass
class _Lane:
    """A lane that this process holds, or None if it still has to get one."""

    lock: Lock = field(default_factory=Lock)
    name: str | None = None
    next: int = 0
    sure_at: float = 0.0
    free: list[tuple[int, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Logged:
    """What logs a change.

    Attributes:
        place: Where.
        order: That of the change among those of its page.
        write: An element of the transaction that makes the change.
    """

    place: Place
    order: int
    write: TransactWriteItemTypeDef


class Lanes:
    """The lanes of one process, one for each site that it changes."""

    def __init__(self, gateway: Gateway, table: Table[Page], clock: Clock) -> None:
        self.me = secrets.token_hex(6)
        self._gateway = gateway
        self._table = table
        self._clock = clock
        self._lanes: OrderedDict[str, _Lane] = OrderedDict()

    def now(self) -> datetime:
        """The time of day, as far as it is known to be wrong corrected by DynamoDB's own."""
        return self._clock.now() - timedelta(seconds=self._gateway.server_clock.offset)

    async def records(self, site_id: str) -> list[Item]:
        """All lanes of a site; strongly consistent."""
        only_lanes = BeginsWith("page_id", {"S": CHANGE_SHARD_PREFIX})
        query = Query(self._table, changes_partition(site_id), sort=only_lanes)
        async with aclosing(read_pages(self._gateway, query)) as pages:
            return [item async for _, items in pages for item in items]

    async def log(self, site_id: str, page_id: str, kind: ChangeKind, before: int | None) -> Logged | None:
        """What logs a change of a page; None where changes are not logged.

        Args:
            site_id: The site.
            page_id: The page.
            kind: What changes.
            before: The order of the page's change before.
        """
        if not self._gateway.config.change_feed:
            return None
        place = await self._take(site_id)
        now = self.now()
        order = next_order(before, now)
        item = Entry(place, kind, escape(page_id), order, now).item(
            site_id, self._gateway.config.change_retention_days
        )
        write = requests.transact_put(self._table, item, Missing("page_id"))
        return Logged(place, order, write)

    def refused(self, site_id: str, place: Place, error: ConditionFailedError, which: int) -> None:
        """Notes that a transaction was refused whose element `which` would have logged a change.

        If it was for another reason the number is free for another change. If a reader has used it up, the
        next one will do; if another process has, this one looks for another lane.
        """
        lane = self._lanes.get(site_id)
        if lane is None or lane.name != place.lane:
            return
        if error.reasons[which] != "ConditionalCheckFailed":
            heapq.heappush(lane.free, (place.number, self._clock.monotonic()))
        elif (error.items[which] or {}).get("kind") != {"S": VOID}:
            self._lanes.pop(site_id)

    def forget(self, site_id: str) -> None:
        """Forgets the lane of a site that is deleted."""
        self._lanes.pop(site_id, None)

    async def close(self) -> None:
        """Lets other processes go on with the lanes at once."""
        while self._lanes:
            await self._leave(*self._lanes.popitem())

    async def _take(self, site_id: str) -> Place:
        """A number for the next change of a site."""
        lane = self._lanes.setdefault(site_id, _Lane())
        self._lanes.move_to_end(site_id)
        async with lane.lock:
            now = self._clock.monotonic()
            if lane.name is None or now - lane.sure_at > _SURE_SECONDS:
                if lane.name is None or not await self._is_own(site_id, lane.name):
                    await self._hold(site_id, lane)
                lane.sure_at = now
        assert lane.name is not None  # noqa: S101 # held now
        if len(self._lanes) > _LANES:
            await self._leave(*self._lanes.popitem(last=False))
        while lane.free:
            number, taken_at = heapq.heappop(lane.free)
            if now - taken_at < _REUSE_SECONDS:
                return Place(lane.name, number)
        lane.next += 1
        return Place(lane.name, lane.next - 1)

    async def _leave(self, site_id: str, lane: _Lane) -> None:
        if lane.name is None:
            return
        update = Update(put={"next": {"N": str(lane.next)}})
        is_mine = Compare("holder", "=", {"S": self.me})
        request = requests.update_request(self._table, change_shard_key(site_id, lane.name), update, is_mine)
        try:
            await self._gateway.call("UpdateItem", request)
        except RagcrawlDynamoError as error:
            # Others will take it over in an hour; it can not be told from one whose holder was killed.
            logger.debug("lane %s of site %r was not given up: %s", lane.name, site_id, error)

    async def _is_own(self, site_id: str, name: str) -> bool:
        response = await self._gateway.call(
            "GetItem", requests.get_request(self._table, change_shard_key(site_id, name))
        )
        return response.get("Item", {}).get("holder") == {"S": self.me}

    async def _hold(self, site_id: str, lane: _Lane) -> None:
        """Takes over a lane that nobody uses, or makes one."""
        now = self.now()
        lane.free.clear()
        for record in await self._candidates(site_id, now):
            name = change_shard_of(record)
            first = await self._next_number(site_id, name, record, now)
            if first is not None and await self._take_over(site_id, name, record, first, now):
                lane.name, lane.next = name, first
                return
        name = secrets.token_hex(4)
        item: Item = {**change_shard_key(site_id, name), **self._held(1, now)}
        await self._gateway.call("PutItem", requests.put_request(self._table, item))
        lane.name, lane.next = name, 1

    async def _candidates(self, site_id: str, now: datetime) -> list[Item]:
        """Lanes that were given up, or have been held for long."""
        long_ago = moment_text(now - timedelta(hours=LATEST_HOURS))
        records = await self.records(site_id)
        found = [each for each in records if "next" in each or each["held_since"]["S"] < long_ago]
        random.shuffle(found)
        return sorted(found, key=lambda each: "next" not in each)[:_TRIES]

    async def _next_number(self, site_id: str, name: str, record: Item, now: datetime) -> int | None:
        """With which number to go on in a lane; None if it is in use."""
        if "next" in record:
            return int(record["next"]["N"])
        query = Query(self._table, change_shard_partition(site_id, name), forward=False)
        response = await self._gateway.call("Query", requests.query_request(query, limit=1))
        # Where all changes have expired, nobody can tell.
        for item in response["Items"]:
            last = Entry.of(name, item)
            if now - last.at >= timedelta(hours=LATEST_HOURS):
                return last.place.number + 1
        return None

    async def _take_over(self, site_id: str, name: str, record: Item, first: int, now: datetime) -> bool:
        as_read: Condition = AllOf(
            (
                Compare("holder", "=", record["holder"]),
                Compare("next", "=", record["next"]) if "next" in record else Missing("next"),
            )
        )
        put: dict[Path, Value] = {}
        put.update(self._held(first, now))
        update = Update(put=put, remove=("next",))
        try:
            await self._gateway.call(
                "UpdateItem",
                requests.update_request(self._table, change_shard_key(site_id, name), update, as_read),
            )
        except ConditionFailedError as error:
            # Ours by our own first attempt, perhaps, whose answer was lost.
            return bool(error.item and error.item.get("holder") == {"S": self.me})
        return True

    def _held(self, first: int, now: datetime) -> Item:
        return {
            "holder": {"S": self.me},
            "first": {"N": str(first)},
            "held_since": {"S": moment_text(now)},
        }
