"""Reads queue items, and builds their conditional writes: items are added, leased, and settled or renewed.

Key `{digit}#{run_id}` / `{item_id}`. An open item is in by_queue under `{run_id}#{host}#{shard}`, leased or
not. Its sort key there, `queue_order`, says its priority, its age and the end of its delay; a lease does not
change it. The index only shows candidates: a claim is a write on the condition that the item still has the
sort key that the index showed, and no lease that runs.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from ragcrawl_dynamo._dynamodb.batching import read_all
from ragcrawl_dynamo._dynamodb.coalescing import CoalescedWrites
from ragcrawl_dynamo._dynamodb.codec import from_item, to_item
from ragcrawl_dynamo._dynamodb.conditional_writes import (
    ConditionalInsert,
    ConditionalUpdate,
    ConditionalWrites,
)
from ragcrawl_dynamo._dynamodb.expressions import (
    AllOf,
    AnyOf,
    Compare,
    Condition,
    Missing,
    Path,
    Update,
)
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.outcomes import Outcome
from ragcrawl_dynamo._dynamodb.pagination import read_pages
from ragcrawl_dynamo._dynamodb.requests import Query
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._dynamodb.values import Item, Value, encode_value, unescape
from ragcrawl_dynamo._dynamodb.write_token import WriteToken
from ragcrawl_dynamo._frontier.candidates import Candidate, candidate_at
from ragcrawl_dynamo._frontier.work import Work
from ragcrawl_dynamo._schema.attributes import EXPIRES_AT, OUTCOME_STATUS, expiry
from ragcrawl_dynamo._schema.keys import control_key, frontier_key, host_queue, items_partitions, shard_of
from ragcrawl_dynamo._schema.queue_order import queue_order, rank, split_order
from ragcrawl_dynamo._schema.records import RunControl
from ragcrawl_dynamo.models import FrontierItem, FrontierStatus


@dataclass(frozen=True, slots=True)
class Lease:
    """The lease that a claim writes into an item.

    Attributes:
        token: A random text that no other lease has.
        owner: The name of the worker.
        begins_at: When the lease begins.
        ends_at: When the worker has to stop, unless it renews the lease.
        free_at: When other workers may claim the item: `frontier_max_clock_skew` after `ends_at`.
        deadline: `ends_at` by the monotonic clock, in seconds.
    """

    token: str
    owner: str
    begins_at: datetime
    ends_at: datetime
    free_at: datetime
    deadline: float


class ItemStore:
    """The queue items of one run."""

    def __init__(
        self, gateway: Gateway, table: Table[FrontierItem], writes: ConditionalWrites, run_id: str
    ) -> None:
        self._gateway = gateway
        self._table = table
        self._writes = writes
        self._coalesced = CoalescedWrites(gateway, table, writes)
        self._run_id = run_id

    async def read_states(
        self, item_ids: Sequence[str], *, with_control: bool
    ) -> tuple[dict[str, Item], Item | None]:
        """Reads the state of those of the given items that are stored; strongly consistent.

        Args:
            item_ids: The ids of the items.
            with_control: Whether to read the control of the run by the same request.

        Returns:
            The attributes in STATE_ATTRIBUTES of each item, by id; and the control, if it was read and there
            is one.
        """
        keys = [frontier_key(self._run_id, item_id) for item_id in item_ids]
        names: tuple[str, ...] = STATE_ATTRIBUTES
        key = control_key(self._run_id)
        if with_control:
            keys.insert(0, key)
            names += tuple(RunControl.model_fields)
        items = await read_all(self._gateway, self._table, keys, names)
        control = next((item for item in items if item["run_id"] == key["run_id"]), None)
        return {unescape(item["item_id"]["S"]): item for item in items if item is not control}, control

    def encode(self, item: FrontierItem, shards: int) -> ConditionalInsert:
        """Builds the write that adds an item.

        Raises:
            InvalidInputError: The item cannot be stored.
        """
        order = queue_order(rank_of(item), item.scheduled_at)
        shard = zlib.crc32(item.item_id.encode()) % shards
        queue = host_queue(item.run_id, item.domain, shard)
        token = WriteToken.new("added_by")
        extra: Item = {"queue": {"S": queue}, "queue_order": {"S": order}, **token.attributes}
        return ConditionalInsert(to_item(self._table, item, extra), token)

    async def run(
        self,
        writes: Sequence[ConditionalInsert | ConditionalUpdate],
        *,
        once: bool = False,
        seconds: float | None = None,
    ) -> list[Outcome]:
        """Does conditional writes, each one independent of the others; see ConditionalWrites.run."""
        return await self._writes.run(writes, once=once, seconds=seconds)

    async def run_coalesced(
        self,
        writes: Sequence[ConditionalUpdate],
        on_throttled: Callable[[int, float], None] | None = None,
    ) -> list[Outcome]:
        """Does conditional writes in batches with those of concurrent calls; see CoalescedWrites.run."""
        return await self._coalesced.run(writes, on_throttled)

    async def close(self) -> None:
        """Sends the writes that wait."""
        await self._coalesced.close()

    def claim(self, candidate: Candidate, lease: Lease, max_attempts: int) -> ConditionalUpdate:
        """Builds the write that leases an item, if it is where the candidate was seen and no lease runs.

        An expired lease counts as a failed attempt. After the last attempt the condition does not hold, and
        `give_up` does.
        """
        put: dict[Path, Value] = {
            "status": {"S": FrontierStatus.IN_PROGRESS},
            "lease_token": {"S": lease.token},
            "lease_owner": _encoded("lease_owner", lease.owner),
            "lease_expires_at": _encoded("lease_expires_at", lease.ends_at),
            "started_at": _encoded("started_at", lease.begins_at),
        }
        increment: dict[Path, Value] = {"attempt": {"N": "1"}}
        condition = self._is_free(candidate, lease.begins_at)
        if candidate.expired_token is not None:
            increment["retry_count"] = {"N": "1"}
            put["last_error"] = {"S": _EXPIRED}
            condition = AllOf((condition, Compare("retry_count", "<", {"N": str(max_attempts - 1)})))
        update = Update(put=put, increment=increment)
        return ConditionalUpdate(
            frontier_key(self._run_id, candidate.item_id),
            update,
            condition,
            WriteToken("lease_token", {"S": lease.token}),
        )

    def give_up(
        self, candidate: Candidate, token: str, now: datetime, max_attempts: int
    ) -> ConditionalUpdate:
        """Builds the write that makes an item a dead letter, if the lease of its last attempt has expired."""
        last_attempt = Compare("retry_count", ">=", {"N": str(max_attempts - 1)})
        update = Update(
            put={
                **self.final(FrontierStatus.FAILED, now),
                "lease_token": {"S": token},
                "last_error": {"S": _EXPIRED},
            },
            increment={"retry_count": {"N": "1"}},
            remove=LEFT_BY_FINAL,
        )
        condition = AllOf((self._is_free(candidate, now), last_attempt))
        return ConditionalUpdate(
            frontier_key(self._run_id, candidate.item_id),
            update,
            condition,
            WriteToken("lease_token", {"S": token}),
        )

    def finish(
        self,
        item: FrontierItem,
        status: FrontierStatus,
        now: datetime,
        error: str | None = None,
        outcome: Item | None = None,
    ) -> ConditionalUpdate:
        """Builds the write that ends a lease with a final status.

        Args:
            item: The leased item.
            status: The final status.
            now: The moment of the settlement.
            error: The `last_error` to store; None keeps the stored one.
            outcome: More attributes to store, such as the outcome of a commit.

        Raises:
            InvalidValueError: The error cannot be stored.
        """
        put = self.final(status, now)
        put.update(outcome or {})
        if error is not None:
            put["last_error"] = _encoded("last_error", error)
        increment: dict[Path, Value] = {"retry_count": {"N": "1"}} if status is FrontierStatus.FAILED else {}
        return self._under_lease(item, Update(put=put, increment=increment, remove=LEFT_BY_FINAL))

    def retry(self, item: FrontierItem, at: datetime, error: str, more: Item) -> ConditionalUpdate:
        """Builds the write that ends a lease after a failure, delays the item, and stores `more` with it.

        Raises:
            InvalidValueError: The error cannot be stored.
        """
        put: dict[Path, Value] = {
            "status": {"S": FrontierStatus.PENDING},
            "scheduled_at": _encoded("scheduled_at", at),
            "last_error": _encoded("last_error", error),
            "queue_order": {"S": queue_order(rank_of(item), at)},
        }
        put.update(more)
        update = Update(put=put, increment={"retry_count": {"N": "1"}}, remove=("lease_expires_at",))
        return self._under_lease(item, update)

    def release(self, item: FrontierItem, changed: Iterable[str] = ()) -> ConditionalUpdate:
        """Builds the write that ends a lease and makes the item ready again.

        Args:
            item: The leased item, with its new values.
            changed: The names of the fields whose values are new.

        Raises:
            InvalidValueError: A new value cannot be stored.
        """
        put: dict[Path, Value] = {name: _encoded(name, getattr(item, name)) for name in changed}
        put |= {"status": {"S": FrontierStatus.PENDING}, "queue_order": {"S": queue_order(rank_of(item))}}
        return self._under_lease(item, Update(put=put, remove=("lease_expires_at", "started_at")))

    def renew(self, item: FrontierItem, ends_at: datetime) -> ConditionalUpdate:
        """Builds the write that renews a lease."""
        put: dict[Path, Value] = {"lease_expires_at": _encoded("lease_expires_at", ends_at)}
        return self._under_lease(item, Update(put=put))

    def requeue(self, item: FrontierItem, token: str) -> ConditionalUpdate:
        """Builds the write that puts a dead letter back into the queue; its failures are forgotten."""
        return self._enqueue(item, token, FrontierStatus.FAILED, retry_count=0)

    def adopt(self, item: FrontierItem, token: str) -> ConditionalUpdate:
        """Builds the write that puts a pending item into the queue that was saved as a plain record."""
        return self._enqueue(item, token, FrontierStatus.PENDING, retry_count=item.retry_count)

    async def read(self, item_ids: Sequence[str]) -> dict[str, FrontierItem]:
        """Returns those of the given items that are stored, by id; strongly consistent."""
        return {item_id: self.decode(item) for item_id, item in (await self.read_stored(item_ids)).items()}

    async def read_stored(self, item_ids: Sequence[str]) -> dict[str, Item]:
        """Returns the same items as they are stored, with the attributes that are not fields of the model."""
        keys = [frontier_key(self._run_id, item_id) for item_id in item_ids]
        items = await read_all(self._gateway, self._table, keys)
        return {unescape(item["item_id"]["S"]): item for item in items}

    async def scan(
        self, *statuses: FrontierStatus, attributes: Sequence[str] | None = None
    ) -> AsyncGenerator[list[Item], None]:
        """Iterates over all items of the run, or those with a given status, in lists; strongly consistent."""
        conditions = [Compare("status", "=", {"S": status}) for status in statuses]
        names = (*self._table.primary_key, *attributes) if attributes is not None else None
        only = AnyOf(conditions) if conditions else None
        for partition in items_partitions(self._run_id):
            query = Query(self._table, partition, filter=only, attributes=names)
            async with aclosing(read_pages(self._gateway, query, ranges=_RANGES)) as pages:
                async for _, items in pages:
                    yield items

    def decode(self, item: Item) -> FrontierItem:
        """Decodes an item."""
        return from_item(self._table, item)

    def _is_free(self, candidate: Candidate, now: datetime) -> Condition:
        """The condition that an item is where the candidate was seen, and that no lease of it runs."""
        is_there = Compare("queue_order", "=", {"S": candidate.order})
        if candidate.expired_token is None:
            return AllOf((is_there, Compare("status", "=", {"S": FrontierStatus.PENDING})))
        skew = timedelta(seconds=self._gateway.config.frontier_max_clock_skew)
        return AllOf(
            (
                is_there,
                Compare("status", "=", {"S": FrontierStatus.IN_PROGRESS}),
                Compare("lease_token", "=", {"S": candidate.expired_token}),
                Compare("lease_expires_at", "<=", _encoded("lease_expires_at", now - skew)),
            )
        )

    def final(self, status: FrontierStatus, now: datetime) -> dict[Path, Value]:
        """Returns the attributes that an item gets when it becomes final; it loses LEFT_BY_FINAL."""
        put: dict[Path, Value] = {
            "status": {"S": status},
            "completed_at": _encoded("completed_at", now),
        }
        return put | expiry(self._gateway.config.frontier_ttl_days, now)

    def _under_lease(self, item: FrontierItem, update: Update) -> ConditionalUpdate:
        """Builds the write of an update on the condition that the item still has its lease."""
        token: Value = {"S": item.lease_token or ""}
        is_held = AllOf(
            (
                Compare("lease_token", "=", token),
                Compare("status", "=", {"S": FrontierStatus.IN_PROGRESS}),
            )
        )
        write = WriteToken.new(_CHANGED_BY)
        marked = replace(update, put={**update.put, **write.assignment})
        return ConditionalUpdate(frontier_key(self._run_id, item.item_id), marked, is_held, write)

    def _enqueue(
        self, item: FrontierItem, token: str, status: FrontierStatus, *, retry_count: int
    ) -> ConditionalUpdate:
        update = Update(
            put={
                # Claims increase these numbers, which must exist for that.
                "attempt": {"N": str(item.attempt)},
                "retry_count": {"N": str(retry_count)},
                "status": {"S": FrontierStatus.PENDING},
                "lease_token": {"S": token},
                "queue": {"S": host_queue(self._run_id, item.domain, 0)},
                "queue_order": {"S": queue_order(rank_of(item))},
            },
            remove=("lease_expires_at", "completed_at", "scheduled_at", EXPIRES_AT, OUTCOME_STATUS),
        )
        condition = AllOf((Compare("status", "=", {"S": status}), Missing("queue")))
        return ConditionalUpdate(
            frontier_key(self._run_id, item.item_id),
            update,
            condition,
            WriteToken("lease_token", {"S": token}),
        )


# The attributes that tell the state of an item, and its work.
STATE_ATTRIBUTES = ("status", "domain", "queue", "queue_order")

# How many ranges of a run are read at once. With four, the pages take 20 MB of memory.
_RANGES = 2

# The attribute that holds the write token of the latest update under a lease.
_CHANGED_BY = "changed_by"

# The attributes that an item loses when it leaves the queue.
LEFT_BY_FINAL = ("queue", "queue_order", "lease_expires_at")

_EXPIRED = "the lease expired: its worker died, hung or lost the connection"


def work_of(item: Item) -> Work | None:
    """Returns the work that an item is for its host; None if the item is not in the queue."""
    if "queue" not in item:
        return None
    shards = 1 << shard_of(item["queue"]["S"]).bit_length()
    return Work(item["queue_order"]["S"], shards, item_id=unescape(item["item_id"]["S"]))


def state_of(item: Item) -> str:
    """Returns the state in which an item is counted."""
    status = item["status"]["S"]
    if status == FrontierStatus.PENDING and "queue_order" in item:
        moment, _ = split_order(item["queue_order"]["S"])
        return status if moment is None else "delayed"
    return status


def candidate_of(item: FrontierItem, moment: datetime | None) -> Candidate:
    """Returns the candidate that the index will show for an item that can be claimed from a moment on."""
    return candidate_at(item.item_id, item.domain, queue_order(rank_of(item), moment))


def rank_of(item: FrontierItem) -> str:
    """Returns the rank of an item, which sorts by priority and age."""
    return rank(item.priority, item.discovered_at)


def payload_of(text: str) -> Item:
    """Returns the attribute of a payload.

    Raises:
        InvalidValueError: The payload cannot be stored.
    """
    return {"payload": _encoded("payload", text)}


def _encoded(field: str, value: Any) -> Value:
    return encode_value(value, model="FrontierItem", field=field)
