"""Stores the hosts of a run, with their limits and leases in flight, and lists those that have work.

Key `#{run_id}#{bucket}` / `host#{host}`. by_queue lists the hosts of a bucket that have work under
`#{run_id}#{bucket}`: first those that have items to claim, by the rank of the best one, then those that wait,
by moment. A record is updated only if it is as it was read.
"""

from __future__ import annotations

import asyncio
import heapq
import secrets
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.batching import read_all
from ragcrawl_dynamo._dynamodb.codec import from_item, to_item
from ragcrawl_dynamo._dynamodb.conditional_writes import (
    ConditionalInsert,
    ConditionalUpdate,
    ConditionalWrites,
)
from ragcrawl_dynamo._dynamodb.expressions import AllOf, BeginsWith, Compare, Condition, Path, Update
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.outcomes import (
    Applied,
    Outcome,
    is_held_up,
    raise_if_all_failed,
    raise_if_failed,
)
from ragcrawl_dynamo._dynamodb.requests import Query
from ragcrawl_dynamo._dynamodb.retry import full_jitter
from ragcrawl_dynamo._dynamodb.values import Item, Key, Value
from ragcrawl_dynamo._dynamodb.write_token import WriteToken
from ragcrawl_dynamo._frontier.control_reads import ControlReads
from ragcrawl_dynamo._frontier.control_store import ControlStore
from ragcrawl_dynamo._frontier.counts import NAMES, OPEN_STATES, UnwrittenCounts
from ragcrawl_dynamo._frontier.host_updates import AnnounceWork, HostUpdate
from ragcrawl_dynamo._frontier.work import Listed, Work
from ragcrawl_dynamo._schema.keys import HOST_PREFIX, bucket_of, host_key, host_of, hosts_partition
from ragcrawl_dynamo._schema.queue_order import due_bound, host_order, split_facts
from ragcrawl_dynamo._schema.records import HostRecord, RunControl
from ragcrawl_dynamo._schema.tables import Tables
from ragcrawl_dynamo._utils.concurrency import gather
from ragcrawl_dynamo.errors import ThrottledError

# An announcement of at least this number of hosts does not read them first, if at least this share of the
# announcement before was new.
_MANY_HOSTS = 100
_MOSTLY_NEW = 0.9

# The attributes that a host loses when it leaves the list.
NOT_LISTED = ("place", "only_item", "queue", "queue_order")

# How many times a host is read and updated if other processes change it in between.
_UPDATE_ATTEMPTS = 16

# How many records one request reads when all hosts are read. A page without a bound holds thousands of them.
_PER_PAGE = 500


@dataclass(frozen=True, slots=True)
class Updated:
    """A host that was updated.

    Attributes:
        order_before: The sort key of the host in the list before the update; None if it was not listed.
        record: The record of the host after the update.
    """

    order_before: str | None
    record: HostRecord


class HostStore:
    """The host records of one run."""

    def __init__(
        self,
        gateway: Gateway,
        tables: Tables,
        writes: ConditionalWrites,
        control: ControlStore,
        reads: ControlReads,
    ) -> None:
        self._gateway = gateway
        self._table = tables.hosts
        self._writes = writes
        self._control = control
        self._reads = reads
        self.run_id: str = control.run_id
        self.site_id: str = control.site_id
        # The share of hosts that were new in the last announcement.
        self._share_new = 0.0

    @property
    def buckets(self) -> int:
        """The number of buckets. It is final once the run's control is stored and was read."""
        return self._control.buckets

    def bucket_of(self, host: str) -> int:
        """Returns the bucket of a host."""
        return bucket_of(host, self.buckets)

    def key(self, host: str) -> Key:
        """Returns the key of a host's record."""
        return host_key(self.run_id, host, self.bucket_of(host))

    async def read(self, hosts: Iterable[str]) -> dict[str, HostRecord]:
        """Returns the records of those of the given hosts that are stored; strongly consistent."""
        await self._control.know_buckets()
        keys = [self.key(host) for host in hosts]
        records = [from_item(self._table, item) for item in await read_all(self._gateway, self._table, keys)]
        return {record.host: record for record in records}

    async def _read_with_control(
        self, hosts: Iterable[str]
    ) -> tuple[RunControl | None, dict[str, HostRecord]]:
        """Returns the run's control, by a read that begins after the call, and records as `read` does."""
        await self._control.know_buckets()
        if not self._reads.may_begin():
            following, records_read = await gather([self._reads.following(), self.read(hosts)])
            return following, records_read
        keys = [self._control.key, *(self.key(host) for host in hosts)]
        items = await read_all(self._gateway, self._table, keys)
        control = None
        if items and items[0]["item_id"] == self._control.key["item_id"]:
            control = self._control.decode(items.pop(0))
        records = [from_item(self._table, item) for item in items]
        return control, {record.host: record for record in records}

    async def read_list(
        self, bucket: int, until: datetime, limit: int, after: Listed | None = None
    ) -> tuple[list[Listed], bool]:
        """Returns the next hosts of a bucket that have work until a moment; eventually consistent.

        Returns:
            The hosts in the order of the list, and whether they are the last ones.
        """
        sort = Compare("queue_order", "<=", {"S": due_bound(until)})
        query = Query(self._table, hosts_partition(self.run_id, bucket), index="by_queue", sort=sort)
        start = None
        if after is not None:
            order: Item = {"queue": {"S": query.partition}, "queue_order": {"S": after.order}}
            start = host_key(self.run_id, after.host, bucket) | order
        response = await self._gateway.call("Query", requests.query_request(query, limit=limit, start=start))
        hosts = [Listed(host_of(item), item["queue_order"]["S"]) for item in response["Items"]]
        return hosts, "LastEvaluatedKey" not in response

    async def iterate_counts(self) -> AsyncIterator[tuple[str, Item]]:
        """Iterates over all hosts of the run with their counts, in no order; strongly consistent."""
        await self._control.know_buckets()
        for bucket in range(self.buckets):
            async for item in self._iterate(bucket, _PER_PAGE, NAMES):
                yield host_of(item), item

    async def iterate(self) -> AsyncIterator[tuple[HostRecord, Item]]:
        """Iterates over all hosts of the run with their items, by name; strongly consistent."""
        await self._control.know_buckets()
        readers = [self._iterate(bucket, _PER_PAGE // 4, None) for bucket in range(self.buckets)]
        firsts = [await anext(reader, None) for reader in readers]
        heap = [(first["item_id"]["S"], i, first) for i, first in enumerate(firsts) if first is not None]
        heapq.heapify(heap)
        while heap:
            _, i, item = heap[0]
            yield from_item(self._table, item), item
            following = await anext(readers[i], None)
            if following is None:
                heapq.heappop(heap)
            else:
                heapq.heapreplace(heap, (following["item_id"]["S"], i, following))

    async def _iterate(
        self, bucket: int, per_page: int, attributes: Sequence[str] | None
    ) -> AsyncGenerator[Item, None]:
        """Iterates over the hosts of a bucket by name; with their keys and some attributes, or with all."""
        only_hosts = BeginsWith("item_id", {"S": HOST_PREFIX})
        names = None if attributes is None else (*self._table.primary_key, *attributes)
        partition = hosts_partition(self.run_id, bucket)
        query = Query(self._table, partition, sort=only_hosts, attributes=names)
        start = None
        while True:
            request = requests.query_request(query, limit=per_page, start=start)
            response = await self._gateway.call("Query", request)
            for item in response["Items"]:
                yield item
            if (start := response.get("LastEvaluatedKey")) is None:
                return

    async def get_item(self, host: str) -> Item | None:
        """Returns the item of one host, with its counts, or None; strongly consistent."""
        await self._control.know_buckets()
        request = requests.get_request(self._table, self.key(host))
        return (await self._gateway.call("GetItem", request)).get("Item")

    async def try_update(
        self,
        records: Mapping[str, HostRecord],
        updates: Mapping[str, HostUpdate],
        *,
        on_held_up: Callable[[str], None] | None = None,
        seconds: float | None = None,
    ) -> dict[str, HostRecord]:
        """Updates hosts, unless another process has changed them since they were read.

        Args:
            records: The hosts as they were read.
            updates: The updates.
            on_held_up: If given, updates that DynamoDB throttles are not tried again. It is called with
                their hosts, and with those for which there was no answer in time.
            seconds: How long a request may take, `call_timeout` by default.

        Returns:
            The updated records. Hosts that another process has changed are left out.

        Raises:
            ServiceError: All updates failed that were not held up.
        """
        updated: dict[str, HostRecord] = {}
        writes: dict[str, ConditionalUpdate] = {}
        for host, update in updates.items():
            before = records[host]
            after = update.apply(before)
            if after == before:
                updated[host] = before
                continue
            updated[host] = after.model_copy(update={"revision": secrets.token_hex(6)})
            writes[host] = self._write(before, updated[host])
        is_once = on_held_up is not None
        outcomes = await self._writes.run(list(writes.values()), once=is_once, seconds=seconds)
        waited_for: list[Outcome] = []
        for host, outcome in zip(writes, outcomes, strict=True):
            if not isinstance(outcome, Applied):
                del updated[host]
            if on_held_up is not None and is_held_up(outcome):
                on_held_up(host)
            else:
                waited_for.append(outcome)
        raise_if_all_failed(waited_for)
        return updated

    async def update(self, updates: Mapping[str, HostUpdate]) -> list[Updated]:
        """Reads and updates hosts, again and again while other processes change them in between.

        Returns:
            The updates. Hosts that are not stored are left out.

        Raises:
            ServiceError: All updates of an attempt failed, or other processes changed a host each time.
        """
        remaining = dict(updates)
        updated: list[Updated] = []
        if not remaining:
            return updated
        config = self._gateway.config
        for failures in range(1, _UPDATE_ATTEMPTS + 1):
            records = await self.read(remaining)
            remaining = {host: update for host, update in remaining.items() if host in records}
            done = await self.try_update(records, remaining)
            updated += [Updated(records[host].order, record) for host, record in done.items()]
            remaining = {host: update for host, update in remaining.items() if host not in done}
            if not remaining:
                return updated
            await asyncio.sleep(full_jitter(config, min(failures, 4)))
        names = ", ".join(list(remaining)[:3])
        raise ThrottledError(
            f"other processes changed {len(remaining)} hosts at each of {_UPDATE_ATTEMPTS} attempts, such as "
            f"{names}: try again",
            code="Contention",
            operation="UpdateItem",
            table=self._table.name,
        )

    async def move(self, moves: Sequence[tuple[Listed, str | None]]) -> list[Outcome]:
        """Moves hosts to other places of the list, or out of it, if they are where they were seen.

        A host leaves the list only if no item of it is open by its stored counts. A move that DynamoDB
        throttles fails at once.

        Args:
            moves: The hosts, and their new places; None takes a host out of the list.
        """
        return await self._writes.run([self._move(listed, place) for listed, place in moves], once=True)

    async def announce(self, work: Mapping[str, Work], unwritten: UnwrittenCounts) -> list[Updated]:
        """Lists hosts, and stores those that are new. It is called after the items are stored.

        It also removes the proof that the run is finished.

        Args:
            work: The work of the hosts.
            unwritten: Amounts by which stored counts have to be increased. Those of new hosts are taken.

        Returns:
            The hosts as they are now.
        """
        # An insert of a known host costs five times a read, and says the same.
        are_new = len(work) >= _MANY_HOSTS and self._share_new >= _MOSTLY_NEW
        control, records = await self._read_with_control([] if are_new else work)
        if control is None:
            control = await self._control.make()
        await self._control.reopen(control)
        updates = {host: AnnounceWork(host_work) for host, host_work in work.items()}
        new = {
            host: update.apply(self._new(control, host))
            for host, update in updates.items()
            if host not in records
        }
        taken = {host: unwritten.by_host.pop(host, Counter()) for host in new}
        outcomes = await self._writes.run([self._insert(new[host], taken[host]) for host in new])
        # Another process may have stored a new host first, perhaps with another place.
        inserted = {host for host, outcome in zip(new, outcomes, strict=True) if isinstance(outcome, Applied)}
        self._share_new = len(inserted) / max(1, len(work))
        for host in new.keys() - inserted:
            unwritten.by_host[host].update(taken[host])
        raise_if_failed(outcomes)
        other_updates = {
            host: update
            for host, update in updates.items()
            if host not in inserted and (host in new or update.apply(records[host]) != records[host])
        }
        unchanged = (record for host, record in records.items() if host not in other_updates)
        return [
            *(Updated(None, new[host]) for host in inserted),
            *(Updated(record.order, record) for record in unchanged),
            *await self.update(other_updates),
        ]

    async def ensure(self, host: str) -> None:
        """Stores a host without work, unless it is stored already."""
        if host in await self.read([host]):
            return
        record = self._new(await self._reads.recent() or await self._control.make(), host)
        raise_if_failed(await self._writes.run([self._insert(record, Counter())]))

    def _new(self, control: RunControl, host: str) -> HostRecord:
        return HostRecord(
            run=self.run_id,
            host=host,
            site_id=control.site_id,
            bucket=self.bucket_of(host),
            delay=control.host_delay,
            max_in_flight=control.host_max_in_flight,
            revision=secrets.token_hex(6),
        )

    def _insert(self, record: HostRecord, counts: Counter[str]) -> ConditionalInsert:
        item = to_item(self._table, record, {name: {"N": str(counts[name])} for name in NAMES})
        return ConditionalInsert(item, _revision(record))

    def _move(self, listed: Listed, place: str | None) -> ConditionalUpdate:
        token = WriteToken.new("revision")
        put: dict[Path, Value] = {**token.assignment}
        remove: tuple[str, ...] = ()
        is_there: Condition = Compare("queue_order", "=", {"S": listed.order})
        if place is None:
            remove = NOT_LISTED
            is_there = AllOf((is_there, *(Compare(name, "=", {"N": "0"}) for name in OPEN_STATES)))
        else:
            order = host_order(place, replace(split_facts(listed.order), only_item=""))
            remove = ("only_item",)
            put |= {"place": {"S": place}, "queue_order": {"S": order}}
        update = Update(put=put, remove=remove)
        return ConditionalUpdate(self.key(listed.host), update, is_there, token)

    def _write(self, before: HostRecord, after: HostRecord) -> ConditionalUpdate:
        old_item, new_item = to_item(self._table, before), to_item(self._table, after)
        put: dict[Path, Any] = {
            name: value for name, value in new_item.items() if old_item.get(name) != value
        }
        update = Update(put=put, remove=[name for name in old_item if name not in new_item])
        return ConditionalUpdate(
            self.key(before.host), update, _revision(before).is_present, _revision(after)
        )


def _revision(record: HostRecord) -> WriteToken:
    return WriteToken("revision", {"S": record.revision})
