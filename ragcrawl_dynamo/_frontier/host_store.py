"""Stores the hosts of a run, with their limits and leases in flight, and reads the due list.

Key `#{run_id}` / `host#{host}`. by_queue lists the hosts that have work under `#{run_id}`, by the moment at
which each is due. A record is updated only if it is as it was read.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.batching import read_all
from ragcrawl_dynamo._dynamodb.codec import from_item, to_item
from ragcrawl_dynamo._dynamodb.conditional_writes import (
    Applied,
    ConditionalInsert,
    ConditionalUpdate,
    ConditionalWrites,
    Failed,
    Outcome,
)
from ragcrawl_dynamo._dynamodb.expressions import BeginsWith, Path, Update
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.requests import Query
from ragcrawl_dynamo._dynamodb.retry import full_jitter
from ragcrawl_dynamo._dynamodb.values import Item, moment_text
from ragcrawl_dynamo._dynamodb.write_token import WriteToken
from ragcrawl_dynamo._frontier.control_store import ControlStore
from ragcrawl_dynamo._frontier.counters import ZERO_COUNTS
from ragcrawl_dynamo._frontier.host_updates import AnnounceWork, HostUpdate
from ragcrawl_dynamo._frontier.work import Work
from ragcrawl_dynamo._schema.keys import HOST_PREFIX, due_list, host_key, host_of, records_partition
from ragcrawl_dynamo._schema.records import HostRecord, RunControl
from ragcrawl_dynamo._schema.tables import Tables
from ragcrawl_dynamo.errors import ThrottledError

# How many hosts one read of the due list returns.
DUE_LIST_READ = 250


@dataclass(frozen=True, slots=True)
class DueList:
    """A part of the due list: hosts that have work, with the moment at which each is due, in this order."""

    hosts: list[tuple[str, datetime]]

    def ready(self, now: datetime) -> list[str]:
        """Returns the hosts that are due."""
        return [host for host, due in self.hosts if due <= now]

    def next_due(self, now: datetime) -> datetime | None:
        """Returns when the next host is due; None if all are due already."""
        return next((due for _, due in self.hosts if due > now), None)


class HostStore:
    """The host records of one run."""

    def __init__(
        self, gateway: Gateway, tables: Tables, writes: ConditionalWrites, control: ControlStore
    ) -> None:
        self._gateway = gateway
        self._table = tables.hosts
        self._writes = writes
        self._control = control
        self._run_id = control.run_id

    async def read(self, hosts: Iterable[str] = ()) -> tuple[RunControl | None, dict[str, HostRecord]]:
        """Returns the run's control and those of the given hosts that are stored; strongly consistent."""
        keys = [self._control.key, *(host_key(self._run_id, host) for host in hosts)]
        control: RunControl | None = None
        records: dict[str, HostRecord] = {}
        for item in await read_all(self._gateway, self._table, keys):
            if item["item_id"] == self._control.key["item_id"]:
                control = self._control.decode(item)
            else:
                record = from_item(self._table, item)
                records[record.host] = record
        return control, records

    async def due_list(self, start: tuple[str, datetime] | None = None) -> DueList:
        """Returns the part of the due list after `start`; eventually consistent."""
        query = Query(self._table, due_list(self._run_id), index="by_queue")
        after = None
        if start is not None:
            order: Item = {"queue": {"S": query.partition}, "queue_order": {"S": moment_text(start[1])}}
            after = host_key(self._run_id, start[0]) | order
        request = requests.query_request(query, limit=DUE_LIST_READ, start=after)
        items = (await self._gateway.call("Query", request))["Items"]
        return DueList([(host_of(item), datetime.fromisoformat(item["queue_order"]["S"])) for item in items])

    async def iterate(self) -> AsyncIterator[tuple[HostRecord, Item]]:
        """Iterates over all hosts of the run with their items, ordered by name; strongly consistent."""
        only_hosts = BeginsWith("item_id", {"S": HOST_PREFIX})
        query = Query(self._table, records_partition(self._run_id), sort=only_hosts)
        start = None
        while True:
            response = await self._gateway.call("Query", requests.query_request(query, start=start))
            for item in response["Items"]:
                yield from_item(self._table, item), item
            if (start := response.get("LastEvaluatedKey")) is None:
                return

    async def get_item(self, host: str) -> Item | None:
        """Returns the item of one host, with its counts, or None; strongly consistent."""
        request = requests.get_request(self._table, host_key(self._run_id, host))
        return (await self._gateway.call("GetItem", request)).get("Item")

    async def try_update(
        self, records: Mapping[str, HostRecord], updates: Mapping[str, HostUpdate]
    ) -> dict[str, HostRecord]:
        """Updates hosts, unless another process has changed them since they were read.

        Returns:
            The updated records. Hosts that another process has changed are left out.

        Raises:
            ServiceError: All updates failed.
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
        outcomes = await self._writes.run(list(writes.values()))
        for host, outcome in zip(writes, outcomes, strict=True):
            if not isinstance(outcome, Applied):
                del updated[host]
        _raise_if_all_failed(outcomes)
        return updated

    async def update(self, updates: Mapping[str, HostUpdate]) -> dict[str, HostRecord]:
        """Reads and updates hosts, again and again while other processes change them in between.

        Returns:
            The updated records. Hosts that are not stored are left out.

        Raises:
            ServiceError: All updates of an attempt failed, or other processes changed a host each time.
        """
        remaining = dict(updates)
        updated: dict[str, HostRecord] = {}
        if not remaining:
            return updated
        config = self._gateway.config
        for failures in range(1, config.retry_attempts + 8):
            _, records = await self.read(remaining)
            remaining = {host: update for host, update in remaining.items() if host in records}
            updated |= await self.try_update(records, remaining)
            remaining = {host: update for host, update in remaining.items() if host not in updated}
            if not remaining:
                return updated
            await asyncio.sleep(full_jitter(config, min(failures, 4)))
        names = ", ".join(list(remaining)[:3])
        raise ThrottledError(
            f"{len(remaining)} hosts were changed by other processes each time, such as {names}: try again",
            code="Contention",
            operation="UpdateItem",
            table=self._table.name,
        )

    async def announce(self, work: Mapping[str, Work]) -> tuple[dict[str, HostRecord], dict[str, HostRecord]]:
        """Puts hosts on the due list, and stores those that are new. It is called after the items are stored.

        It also removes the proof that the run is finished.

        Returns:
            The hosts whose record was stored or updated; and the other hosts.
        """
        control, records = await self.read(work)
        if control is None:
            control = await self._control.make()
        if control.verifying or control.finished_by:
            await self._control.reopen()
        updates = {host: AnnounceWork(host_work.at, host_work.shards) for host, host_work in work.items()}
        new = {
            host: update.apply(self._new(control, host))
            for host, update in updates.items()
            if host not in records
        }
        outcomes = await self._writes.run([self._insert(record) for record in new.values()])
        _raise_if_failed(outcomes)
        # Another process may have stored a new host first, perhaps with another moment.
        inserted = {host for host, outcome in zip(new, outcomes, strict=True) if isinstance(outcome, Applied)}
        other_updates = {
            host: update
            for host, update in updates.items()
            if host not in inserted and (host in new or update.apply(records[host]) != records[host])
        }
        woken = {host: new[host] for host in inserted} | await self.update(other_updates)
        return woken, {host: record for host, record in records.items() if host not in woken}

    async def ensure(self, host: str) -> None:
        """Stores a host without work, unless it is stored already."""
        control, records = await self.read([host])
        if host in records:
            return
        record = self._new(control or await self._control.make(), host)
        _raise_if_failed(await self._writes.run([self._insert(record)]))

    def _new(self, control: RunControl, host: str) -> HostRecord:
        return HostRecord(
            run=self._run_id,
            host=host,
            site_id=control.site_id,
            delay=control.host_delay,
            max_in_flight=control.host_max_in_flight,
            revision=secrets.token_hex(6),
        )

    def _insert(self, record: HostRecord) -> ConditionalInsert:
        return ConditionalInsert(to_item(self._table, record, ZERO_COUNTS), _revision(record))

    def _write(self, before: HostRecord, after: HostRecord) -> ConditionalUpdate:
        old_item, new_item = to_item(self._table, before), to_item(self._table, after)
        put: dict[Path, Any] = {
            name: value for name, value in new_item.items() if old_item.get(name) != value
        }
        update = Update(put=put, remove=[name for name in old_item if name not in new_item])
        key = host_key(self._run_id, before.host)
        return ConditionalUpdate(key, update, _revision(before).is_present, _revision(after))


def _revision(record: HostRecord) -> WriteToken:
    return WriteToken("revision", {"S": record.revision})


def _raise_if_failed(outcomes: Sequence[Outcome]) -> None:
    """Raises the first error among outcomes, if there is one.

    Raises:
        ServiceError: A write failed.
    """
    for outcome in outcomes:
        if isinstance(outcome, Failed):
            raise outcome.error


def _raise_if_all_failed(outcomes: Sequence[Outcome]) -> None:
    """Raises the first error if all writes failed.

    Raises:
        ServiceError: All writes failed.
    """
    if outcomes and all(isinstance(outcome, Failed) for outcome in outcomes):
        _raise_if_failed(outcomes)
