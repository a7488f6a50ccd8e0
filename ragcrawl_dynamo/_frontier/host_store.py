"""Host records and the control of a run: limits, turns, pause and cancel, and who proves a run finished.

Keys `#{run_id}` / `host#{host}` and `#{run_id}` / `control`; by_queue lists the hosts that have work under
`#{run_id}`, by the moment at which each is due. A record changes from the state that it was read in, or not
at all.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
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
)
from ragcrawl_dynamo._dynamodb.expressions import (
    AllOf,
    AnyOf,
    BeginsWith,
    Compare,
    Condition,
    Exists,
    Missing,
    Path,
    Update,
)
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.requests import Query
from ragcrawl_dynamo._dynamodb.retry import full_jitter
from ragcrawl_dynamo._dynamodb.values import Item, Value, encode_value, moment_text
from ragcrawl_dynamo._dynamodb.write_token import WriteToken
from ragcrawl_dynamo._frontier.counters import ZERO_COUNTS
from ragcrawl_dynamo._schema.keys import (
    HOST_PREFIX,
    control_key,
    host_key,
    host_of,
    records_partition,
    turns_queue,
)
from ragcrawl_dynamo._schema.records import HostRecord, RunControl, RunState
from ragcrawl_dynamo._schema.tables import Tables
from ragcrawl_dynamo.errors import (
    ConditionFailedError,
    FrontierCancelledError,
    ThrottledError,
)

# Hosts of one look at the turns.
TURNS_READ = 250

# After that many seconds without a sign of life, whoever proves a run finished is taken for dead.
_VERIFICATION_SECONDS = 60

Mutation = Callable[[HostRecord], HostRecord]


@dataclass(frozen=True, slots=True)
class Turns:
    """The first hosts that have work, in the order in which they are due."""

    hosts: list[tuple[str, datetime]]

    def ready(self, now: datetime) -> list[str]:
        """Those that are due."""
        return [host for host, due in self.hosts if due <= now]

    def next_due(self, now: datetime) -> datetime | None:
        """When the first of the others is."""
        return next((due for _, due in self.hosts if due > now), None)


class HostStore:
    """The host records and the control of one run."""

    def __init__(
        self, gateway: Gateway, tables: Tables, writes: ConditionalWrites, first: RunControl
    ) -> None:
        """`first` is what the run's control is made of, if there is none."""
        self._gateway = gateway
        self._hosts = tables.hosts
        self._controls = tables.controls
        self._writes = writes
        self._first = first
        self._run = first.run
        self._control_key = control_key(first.run)

    async def read(self, hosts: Iterable[str] = ()) -> tuple[RunControl | None, dict[str, HostRecord]]:
        """The control and some hosts, absent ones left out; strongly consistent."""
        keys = [self._control_key, *(host_key(self._run, host) for host in hosts)]
        control: RunControl | None = None
        found: dict[str, HostRecord] = {}
        for item in await read_all(self._gateway, self._hosts, keys):
            if item["item_id"] == self._control_key["item_id"]:
                control = from_item(self._controls, item)
            else:
                record = from_item(self._hosts, item)
                found[record.host] = record
        return control, found

    async def turns(self, start: tuple[str, datetime] | None = None) -> Turns:
        """The hosts that have work, the first due first, after `start`; eventually consistent."""
        query = Query(self._hosts, turns_queue(self._run), index="by_queue")
        after = None
        if start is not None:
            order: Item = {"queue": {"S": query.partition}, "queue_order": {"S": moment_text(start[1])}}
            after = host_key(self._run, start[0]) | order
        response = await self._gateway.call(
            "Query", requests.query_request(query, limit=TURNS_READ, start=after)
        )
        return Turns(
            [(host_of(each), datetime.fromisoformat(each["queue_order"]["S"])) for each in response["Items"]]
        )

    async def iterate(self) -> AsyncIterator[tuple[HostRecord, Item]]:
        """All hosts of the run with their items, by name; strongly consistent."""
        only_hosts = BeginsWith("item_id", {"S": HOST_PREFIX})
        query = Query(self._hosts, records_partition(self._run), sort=only_hosts)
        start = None
        while True:
            response = await self._gateway.call("Query", requests.query_request(query, start=start))
            for item in response["Items"]:
                yield from_item(self._hosts, item), item
            if (start := response.get("LastEvaluatedKey")) is None:
                return

    async def get_item(self, host: str) -> Item | None:
        """One host's item, with its counters."""
        request = requests.get_request(self._hosts, host_key(self._run, host))
        return (await self._gateway.call("GetItem", request)).get("Item")

    async def try_change(
        self, records: Mapping[str, HostRecord], mutations: Mapping[str, Mutation]
    ) -> dict[str, HostRecord]:
        """Changes hosts as they were read; those that someone else changed meanwhile are left out.

        Raises:
            ServiceError: No change could be made.
        """
        changed: dict[str, HostRecord] = {}
        writes: dict[str, ConditionalUpdate] = {}
        for host, mutation in mutations.items():
            before = records[host]
            after = mutation(before)
            if after == before:
                changed[host] = before
                continue
            changed[host] = after.model_copy(update={"revision": secrets.token_hex(6)})
            writes[host] = self._change(before, changed[host])
        outcomes = await self._writes.run(list(writes.values()))
        for host, outcome in zip(writes, outcomes, strict=True):
            if not isinstance(outcome, Applied):
                del changed[host]
        raise_if_all_failed(outcomes)
        return changed

    async def change(self, mutations: Mapping[str, Mutation]) -> dict[str, HostRecord]:
        """Changes hosts from whatever state they are in; those that do not exist are left out.

        Raises:
            ServiceError: A change could not be made.
        """
        left = dict(mutations)
        done: dict[str, HostRecord] = {}
        if not left:
            return done
        for failures in range(1, self._gateway.config.retry_attempts + 8):
            _, records = await self.read(left)
            left = {host: each for host, each in left.items() if host in records}
            done |= await self.try_change(records, left)
            left = {host: each for host, each in left.items() if host not in done}
            if not left:
                return done
            await asyncio.sleep(full_jitter(self._gateway.config, min(failures, 4)))
        raise ThrottledError(
            f"{len(left)} hosts were changed by others each time: {', '.join(list(left)[:3])}",
            code="Contention",
            operation="UpdateItem",
            table=self._hosts.name,
        )

    async def wake(
        self, work: Mapping[str, tuple[datetime, int]]
    ) -> tuple[dict[str, HostRecord], dict[str, HostRecord]]:
        """Lets hosts have work from a moment on, in that many shards at least; makes those that are absent.

        It reads them after the work is durable. Also takes back that the run is finished, or about to be
        proven so.

        Returns:
            The hosts that were asleep or absent, as they are then; and the others, as they are.
        """
        control, records = await self.read(work)
        if control is None:
            control = await self._make_control()
        if control.verifying or control.finished_by:
            await self.reopen()
        made = {host: self._new(control, host).woken(*work[host]) for host in work.keys() - records.keys()}
        outcomes = await self._writes.run([self._insert(each) for each in made.values()])
        raise_if_failed(outcomes)
        # Of those to be made, someone else was faster at some, perhaps with another moment.
        inserted = {
            host for host, outcome in zip(made, outcomes, strict=True) if isinstance(outcome, Applied)
        }
        asleep = [
            host for host in work if host in records and records[host].woken(*work[host]) != records[host]
        ]
        changed = await self.change(
            {host: _waking(*work[host]) for host in (*asleep, *(made.keys() - inserted))}
        )
        woken = {host: made[host] for host in inserted} | changed
        return woken, {host: each for host, each in records.items() if host not in woken}

    async def ensure(self, host: str) -> None:
        """Makes a host without work, if it is absent."""
        control, records = await self.read([host])
        if host in records:
            return
        record = self._new(control or await self._make_control(), host)
        raise_if_failed(await self._writes.run([self._insert(record)]))

    async def set_state(self, state: RunState) -> None:
        """Pauses, resumes or cancels the run.

        Raises:
            FrontierCancelledError: It is cancelled already, which is final.
        """
        is_not_cancelled = AnyOf((Missing("state"), Compare("state", "<>", {"S": RunState.CANCELLED})))
        allowed: Condition = is_not_cancelled
        if state is RunState.CANCELLED:
            allowed = AnyOf((is_not_cancelled, Compare("state", "=", {"S": state})))
        try:
            await self._update_control({"state": {"S": state}}, allowed)
        except ConditionFailedError as error:
            raise FrontierCancelledError from error

    async def begin_verification(self, now: datetime) -> str | None:
        """A token with which the run may be proven finished; None while someone else is at it."""
        token = secrets.token_hex(8)
        dead = moment_text(now - timedelta(seconds=_VERIFICATION_SECONDS))
        free = AnyOf((Missing("verifying"), Compare("verifying_since", "<", {"S": dead})))
        own = Compare("verifying", "=", {"S": token})
        put: dict[Path, Value] = {
            "verifying": {"S": token},
            "verifying_since": encode_value(now, model="RunControl", field="verifying_since"),
        }
        try:
            await self._update_control(put, AnyOf((free, own)))
        except ConditionFailedError:
            return None
        return token

    async def keep_verification(self, token: str, now: datetime) -> bool:
        """Says that the proof goes on; False if something was added since it began."""
        own = Compare("verifying", "=", {"S": token})
        since = encode_value(now, model="RunControl", field="verifying_since")
        try:
            await self._update_control({"verifying_since": since}, own)
        except ConditionFailedError:
            return False
        return True

    async def end_verification(self, token: str, counts: Mapping[str, int] | None) -> bool:
        """Records the proof, with what was counted, or that there is none.

        Returns:
            Whether the run is finished; False if something was added since the proof began.
        """
        own = Compare("verifying", "=", {"S": token})
        put: dict[Path, Value] = {}
        if counts is not None:
            put["finished_by"] = {"S": token}
            put["final_counts"] = encode_value(dict(counts), model="RunControl", field="final_counts")
        try:
            await self._update_control(put, own, remove=("verifying", "verifying_since"))
        except ConditionFailedError as error:
            # Recorded by our own first attempt, perhaps, whose answer was lost.
            return bool(counts and error.item and error.item.get("finished_by") == {"S": token})
        return counts is not None

    async def reopen(self) -> None:
        """Takes back that the run is finished, or about to be proven so."""
        await self._update_control({}, remove=("verifying", "verifying_since", "finished_by"))

    async def _make_control(self) -> RunControl:
        put = requests.put_request(
            self._controls, to_item(self._controls, self._first), Missing(self._controls.partition_key)
        )
        try:
            await self._gateway.call("PutItem", put)
        except ConditionFailedError as error:
            return from_item(self._controls, error.item) if error.item else self._first
        return self._first

    async def _update_control(
        self, put: Mapping[Path, Value], condition: Condition | None = None, remove: Sequence[str] = ()
    ) -> None:
        exists = Exists(self._controls.partition_key)
        allowed = exists if condition is None else AllOf((exists, condition))
        update = Update(put=put, remove=remove)
        request = requests.update_request(self._controls, self._control_key, update, allowed)
        try:
            await self._gateway.call("UpdateItem", request)
        except ConditionFailedError as error:
            if error.item:
                raise
            await self._make_control()
            await self._gateway.call("UpdateItem", request)

    def _new(self, control: RunControl, host: str) -> HostRecord:
        return HostRecord(
            run=self._run,
            host=host,
            site_id=control.site_id,
            delay=control.host_delay,
            max_in_flight=control.host_max_in_flight,
            revision=secrets.token_hex(6),
        )

    def _insert(self, record: HostRecord) -> ConditionalInsert:
        return ConditionalInsert(to_item(self._hosts, record, ZERO_COUNTS), _revision(record))

    def _change(self, before: HostRecord, after: HostRecord) -> ConditionalUpdate:
        old, new = to_item(self._hosts, before), to_item(self._hosts, after)
        put: dict[Path, Any] = {name: value for name, value in new.items() if old.get(name) != value}
        unchanged = Compare("revision", "=", {"S": before.revision})
        update = Update(put=put, remove=[name for name in old if name not in new])
        return ConditionalUpdate(host_key(self._run, before.host), update, unchanged, _revision(after))


def _revision(record: HostRecord) -> WriteToken:
    return WriteToken("revision", {"S": record.revision})


def raise_if_failed(outcomes: Iterable[Any]) -> None:
    """Raises the first error among outcomes.

    Raises:
        ServiceError: There is one.
    """
    for outcome in outcomes:
        if isinstance(outcome, Failed):
            raise outcome.error


def raise_if_all_failed(outcomes: list[Any]) -> None:
    """Raises the first error if nothing else came of it.

    Raises:
        ServiceError: Every outcome is one.
    """
    if outcomes and all(isinstance(each, Failed) for each in outcomes):
        raise_if_failed(outcomes)


def _waking(at: datetime, shards: int) -> Mutation:
    return lambda record: record.woken(at, shards)
