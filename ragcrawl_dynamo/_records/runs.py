"""Saves and reads crawl runs, lists them newest first, and adds to their stats from many workers."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from datetime import datetime
from typing import Any, TypedDict
from uuid import uuid4
from weakref import WeakValueDictionary

from pydantic import ValidationError

from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.batching import delete_all
from ragcrawl_dynamo._dynamodb.codec import encode_fields, from_item, to_item
from ragcrawl_dynamo._dynamodb.expressions import (
    AllOf,
    AnyOf,
    Compare,
    Condition,
    Exists,
    Missing,
    Path,
    Update,
)
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.pagination import Slice, iterate, read_pages, read_slice_by_index
from ragcrawl_dynamo._dynamodb.requests import Query
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._dynamodb.values import Item, Key, Value, encode_value, unescape
from ragcrawl_dynamo._dynamodb.write_token import WriteToken
from ragcrawl_dynamo._schema.keys import run_key, run_partition, site_partition
from ragcrawl_dynamo._utils.validation import check_kind, first_of
from ragcrawl_dynamo.errors import (
    AmbiguousIdError,
    ConditionFailedError,
    InvalidArgumentError,
    NotFoundError,
)
from ragcrawl_dynamo.models import CrawlRun, CrawlStats, RunStatus

# The attribute that holds, for each writer, the write token of its latest addition to the stats. If a request
# that is sent again finds its token there, it was applied before and only its answer was lost.
_WRITERS = "stats_writers"

# Over how many tokens the additions of all processes' live stats are spread. With a token for each process
# the item would grow by 60 bytes a process, and each addition takes a write unit for 1 KB.
_LIVE_WRITERS = 8

# The fields of the stats that cannot be added to, and why.
_NOT_ADDABLE = {
    "avg_fetch_latency_ms": "an average cannot be added to: add to total_fetch_time_ms",
    "domains_sample": "a sample cannot be added to: complete_run() stores it",
}

# AWS: "Constraints in Amazon DynamoDB", expression parameters.
_MAX_EXPRESSION_BYTES = 4096

_IS_OPEN = AnyOf(
    (
        Compare("status", "=", {"S": RunStatus.PENDING}),
        Compare("status", "=", {"S": RunStatus.RUNNING}),
    )
)


class StatsDeltas(TypedDict, total=False):
    """The stats that `add_run_stats` can add: numbers, or maps of numbers that are added key by key."""

    pages_discovered: int
    pages_crawled: int
    pages_failed: int
    pages_skipped: int
    pages_changed: int
    pages_unchanged: int
    pages_new: int
    pages_deleted: int
    total_bytes_downloaded: int
    total_fetch_time_ms: float
    total_extraction_time_ms: float
    errors_by_type: Mapping[str, int]
    errors_by_domain: Mapping[str, int]
    status_codes: Mapping[int, int]
    domains_crawled: int


class RunStore:
    """Key `{site_id}` / `{run_id}`; by_run_id finds a run without its site, by_created_at sorts by time."""

    def __init__(self, gateway: Gateway, table: Table[CrawlRun]) -> None:
        self._gateway = gateway
        self._table = table
        self._writer = uuid4().hex[:12]
        self._live_writer = f"live{secrets.randbelow(_LIVE_WRITERS)}"
        self._additions: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def save(self, run: CrawlRun) -> None:
        """Saves a run with its stats, and replaces a stored one with the same key."""
        check_kind("run", run, CrawlRun)
        item = to_item(self._table, run, {_WRITERS: {"M": {}}})
        await self._gateway.call("PutItem", requests.put_request(self._table, item))

    async def start(self, run: CrawlRun, now: datetime) -> CrawlRun:
        """Saves a run as running, unless it is stored; see StorageBackend.start_run."""
        check_kind("run", run, CrawlRun)
        started = run.model_copy(update={"status": RunStatus.RUNNING, "started_at": run.started_at or now})
        item = to_item(self._table, started, {_WRITERS: {"M": {}}})
        is_new = Missing(self._table.partition_key)
        try:
            await self._gateway.call("PutItem", requests.put_request(self._table, item, is_new))
        except ConditionFailedError as error:
            stored = self._decode(error.item or {})
        else:
            return started
        gets_mark = run.has_first_links and not stored.has_first_links
        if not (stored.status is RunStatus.PENDING or (stored.status is RunStatus.RUNNING and gets_mark)):
            return stored
        put: dict[Path, Value] = {"status": {"S": RunStatus.RUNNING}}
        if gets_mark:
            put["has_first_links"] = {"BOOL": True}
        update = Update(put=put, default={"started_at": item["started_at"]})
        key = run_key(run.site_id, run.run_id)
        try:
            request = requests.update_request(self._table, key, update, _IS_OPEN)
            response = await self._gateway.call("UpdateItem", request)
        except ConditionFailedError as error:
            # Another process has completed the run, or deleted it.
            if not error.item:
                raise NotFoundError(
                    f"run {run.run_id!r} of site {run.site_id!r} was deleted by another process while it was "
                    f"started: start it again, if it is still wanted"
                ) from None
            return self._decode(error.item)
        return self._decode(response["Attributes"])

    async def get(self, site_id: str | None, run_id: str) -> CrawlRun | None:
        """Returns one run, or None; without a site it is looked up in by_run_id (eventually consistent).

        Raises:
            AmbiguousIdError: The site is None, and several sites have a run with this id.
            InvalidArgumentError: There is no such run, but there is one with the ids swapped.
        """
        is_found = site_id is None
        if site_id is None:
            sites = await self._sites_of(run_id)
            if not sites:
                return None
            if len(sites) > 1:
                raise AmbiguousIdError(f"run_id {run_id!r} is in use in {len(sites)} sites: pass site_id")
            site_id = sites[0]
        response = await self._gateway.call(
            "GetItem", requests.get_request(self._table, run_key(site_id, run_id))
        )
        if "Item" in response:
            return self._decode(response["Item"])
        if not is_found:
            await check_id_order(self._gateway, self._table, site_id, run_id)
        return None

    async def get_completed(self, site_id: str, run_id: str) -> CrawlRun:
        """Returns a run that is completed or partial: it has seen every page of its site that it could.

        Raises:
            NotFoundError: The run does not exist.
            InvalidArgumentError: The run has another status.
        """
        run = await self.get(site_id, run_id)
        if run is None:
            raise NotFoundError(f"run {run_id!r} of site {site_id!r} does not exist: check both ids")
        if run.status not in (RunStatus.COMPLETED, RunStatus.PARTIAL):
            raise InvalidArgumentError(
                "run_id",
                f"run {run_id!r} has status {run.status}: end it with complete_run() first, since only then "
                f"is it known which pages it has not seen",
            )
        return run

    async def get_latest(self, site_id: str) -> CrawlRun | None:
        """Returns a site's newest run, or None; strongly consistent."""
        return next(iter(await self.listing(site_id, 1, None)), None)

    def iterate(self, site_id: str) -> AsyncIterator[CrawlRun]:
        """Iterates over all runs of a site, newest first."""
        return iterate(lambda cursor: self.listing(site_id, 100, cursor))

    async def listing(self, site_id: str, limit: int, cursor: str | None) -> Slice[CrawlRun]:
        """Returns a slice of a site's runs, newest first; strongly consistent."""
        partition = site_partition(site_id)
        query = Query(self._table, partition, index="by_created_at", forward=False)
        return await read_slice_by_index(self._gateway, query, self._decode, limit=limit, cursor=cursor)

    async def add_stats(
        self, site_id: str, run_id: str, deltas: dict[str, Any], *, live_since: datetime | None = None
    ) -> CrawlRun:
        """Adds to a run's stats atomically; returns the updated run.

        Args:
            site_id: The run's site.
            run_id: The run.
            deltas: Fields of CrawlStats, with the amounts to add.
            live_since: For a run that is crawled, by when it was. A pending run is running then, and one that
                has ended stays as it is. If an answer is lost, the addition may be counted twice, until
                `complete_run` counts again.
        """
        key = run_key(site_id, run_id)
        update = self._addition(deltas)
        # One addition to a run at a time: the record keeps only this writer's latest write token.
        lock = self._additions.setdefault((site_id, run_id), asyncio.Lock())
        async with lock:
            return await self._add(key, update, f"run {run_id!r} of site {site_id!r}", live_since)

    async def complete(
        self, site_id: str, run_id: str, status: RunStatus, stats: CrawlStats, **fields: Any
    ) -> CrawlRun:
        """Sets the status, the stats and other fields of a run; returns the updated run."""
        encoded = encode_fields(
            CrawlRun(run_id=run_id, site_id=site_id, status=status, stats=stats, **fields), "CrawlRun"
        )
        put: dict[Path, Value] = {
            name: encoded[name] for name in ("status", "stats", *fields) if name in encoded
        }
        # Drops the tokens of all writers that have added to the stats, also of killed ones.
        put[_WRITERS] = {"M": {}}
        request = requests.update_request(
            self._table, run_key(site_id, run_id), Update(put=put), Exists(self._table.partition_key)
        )
        try:
            response = await self._gateway.call("UpdateItem", request)
        except ConditionFailedError:
            raise NotFoundError(
                f"run {run_id!r} of site {site_id!r} does not exist: create it with save_run()"
            ) from None
        return self._decode(response["Attributes"])

    async def count(self, site_id: str) -> int:
        """Returns how many runs a site has."""
        query = Query(self._table, site_partition(site_id), attributes=("run_id",))
        async with aclosing(read_pages(self._gateway, query, rest_counts=True)) as pages:
            return sum([count async for count, _ in pages])

    async def keys(self, site_id: str) -> AsyncGenerator[list[Key], None]:
        """Iterates over the keys of all runs of a site, in lists."""
        query = Query(self._table, site_partition(site_id), attributes=self._table.primary_key)
        async with aclosing(read_pages(self._gateway, query)) as pages:
            async for _, keys in pages:
                yield keys

    async def delete(self, keys: list[Key]) -> int:
        """Deletes runs; returns how many."""
        return await delete_all(self._gateway, self._table, keys)

    async def _sites_of(self, run_id: str) -> list[str]:
        query = Query(self._table, run_partition(run_id), index="by_run_id", attributes=("site_id",))
        response = await self._gateway.call("Query", requests.query_request(query))
        return [unescape(item["site_id"]["S"]) for item in response["Items"]]

    async def _add(self, key: Key, update: Update, name: str, live_since: datetime | None) -> CrawlRun:
        writer = self._writer if live_since is None else self._live_writer
        token = WriteToken((_WRITERS, writer), {"S": uuid4().hex})
        conditions: list[Condition] = [Exists(self._table.partition_key), token.is_absent]
        put: dict[Path, Value] = dict(token.assignment)
        default: dict[Path, Value] = {}
        if live_since is not None:
            conditions.append(_IS_OPEN)
            put["status"] = {"S": RunStatus.RUNNING}
            default["started_at"] = encode_value(live_since, model="CrawlRun", field="started_at")
        marked = Update(put=put, default=default, increment=update.increment)
        condition = AllOf(conditions)
        request = requests.update_request(self._table, key, marked, condition)
        if len(request["UpdateExpression"]) > _MAX_EXPRESSION_BYTES:
            raise InvalidArgumentError(
                "deltas", f"has too many counters for one request, {len(update.increment)}: use several calls"
            )
        try:
            response = await self._gateway.call("UpdateItem", request)
        except ConditionFailedError as error:
            if not error.item:
                raise NotFoundError(f"{name} does not exist: create it with save_run()") from None
            # The first attempt was applied and its answer was lost; or the run has ended.
            return self._decode(error.item)
        return self._decode(response["Attributes"])

    def _addition(self, deltas: dict[str, Any]) -> Update:
        """Builds the update that adds `deltas`, fields of CrawlStats."""
        for name, reason in _NOT_ADDABLE.items():
            if name in deltas:
                raise InvalidArgumentError(name, reason)
        if not isinstance(deltas.get("domains_crawled", 0), int):
            raise InvalidArgumentError(
                "domains_crawled", "must be a number: how many hosts are new to the run, not their names"
            )
        try:
            checked = CrawlStats.model_validate(deltas)
        except ValidationError as error:
            raise InvalidArgumentError(*first_of(error)) from None
        increment: dict[Path, Value] = {}
        for name in deltas:
            amount = getattr(checked, name)
            if not amount:
                continue
            value = encode_value(amount, model="CrawlStats", field=name)
            if "M" in value:
                increment |= {("stats", name, key): number for key, number in value["M"].items()}
            else:
                increment["stats", name] = value
        return Update(increment=increment)

    def _decode(self, item: Item) -> CrawlRun:
        return from_item(self._table, item)


async def check_id_order(gateway: Gateway, table: Table[CrawlRun], site_id: str, run_id: str) -> None:
    """Checks, after a run was not found, that its ids are not swapped. No type tells them apart.

    Raises:
        InvalidArgumentError: There is a run `site_id` of a site `run_id`.
    """
    if site_id == run_id:
        return
    request = requests.get_request(table, run_key(run_id, site_id))
    if "Item" in await gateway.call("GetItem", request):
        raise swapped_ids(site_id, run_id)


def swapped_ids(site_id: str, run_id: str) -> InvalidArgumentError:
    """Returns the error of a call in which the ids of site and run are swapped."""
    return InvalidArgumentError(
        "site_id",
        f"{site_id!r} is the id of a run of site {run_id!r}, so the two are swapped: the id of the site "
        "comes first, as in get_run(site_id, run_id) and frontier(site_id, run_id)",
    )


def check_final_status(status: Any) -> RunStatus:
    """Returns a status that ends a run.

    Raises:
        InvalidArgumentError: The status does not end a run.
    """
    final = (RunStatus.COMPLETED, RunStatus.PARTIAL, RunStatus.FAILED, RunStatus.CANCELLED)
    if status not in final:
        raise InvalidArgumentError("status", f"must be one of {', '.join(final)}, not {status!r}")
    return RunStatus(status)
