"""Finds the runs that are open and takes the others out of by_queue, before the layout of queues changes.

The index is sparse: it lists open items, and hosts that have work. It lags, and it can list hosts of finished
runs and items of cancelled runs. So it only tells which runs to look at, and the items of a run decide.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.expressions import Compare, Exists, Update
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.pagination import read_pages
from ragcrawl_dynamo._dynamodb.requests import Query
from ragcrawl_dynamo._dynamodb.values import Item, Key
from ragcrawl_dynamo._schema.keys import control_key, is_host_list, run_of_queue, run_partition
from ragcrawl_dynamo._schema.records import RunState
from ragcrawl_dynamo._schema.tables import Tables
from ragcrawl_dynamo._utils.concurrency import gather_bounded
from ragcrawl_dynamo.errors import ConditionFailedError, OpenRunsError

# Entries that are taken out of the index at the same time.
_IN_FLIGHT = 16


class QueueEntries:
    """The entries of by_queue, of all runs."""

    def __init__(self, gateway: Gateway, tables: Tables) -> None:
        self._gateway = gateway
        self._table = tables.frontier

    async def clear(self) -> int:
        """Takes all entries out of the index if no run is open; returns how many.

        Raises:
            OpenRunsError: Runs are open. Nothing was changed.
        """
        # Whether a run is open, by run and whether an entry of it lists a host.
        decided: dict[tuple[str, bool], bool] = {}
        async with aclosing(self._pages()) as pages:
            async for entries in pages:
                for entry in entries:
                    queue = entry["queue"]["S"]
                    kind = run_of_queue(queue), is_host_list(queue)
                    if kind not in decided:
                        decided[kind] = await self._is_open(*kind)
        if open_runs := sorted({run_id for (run_id, _), is_open in decided.items() if is_open}):
            raise OpenRunsError(open_runs)
        removed = 0
        if decided:
            async with aclosing(self._pages()) as pages:
                async for entries in pages:
                    # A run that was opened meanwhile has entries that were not checked.
                    known = [
                        entry
                        for entry in entries
                        if (run_of_queue(entry["queue"]["S"]), is_host_list(entry["queue"]["S"])) in decided
                    ]
                    removed += sum(await gather_bounded(self._remove, known, _IN_FLIGHT))
        return removed

    async def _is_open(self, run_id: str, is_host: bool) -> bool:
        """Returns whether a run is open. The index lists a host or an item of it."""
        request = requests.get_request(self._table, control_key(run_id))
        control = (await self._gateway.call("GetItem", request)).get("Item", {})
        if control.get("state") == {"S": RunState.CANCELLED} or (is_host and "finished_by" in control):
            return False
        # Where version 1 has the items of a run.
        query = Query(
            self._table, run_partition(run_id), filter=Exists("queue"), attributes=self._table.primary_key
        )
        async with aclosing(read_pages(self._gateway, query)) as pages:
            async for _, items in pages:
                if items:
                    return True
        return False

    async def _remove(self, entry: Item) -> bool:
        """Takes one entry out of the index; returns whether it was still there."""
        key: Key = {name: entry[name] for name in self._table.primary_key}
        # In version 1 a host without `work_at` is one that seems to have no work.
        update = Update(remove=("queue", "queue_order", "work_at"))
        is_as_listed = Compare("queue_order", "=", entry["queue_order"])
        request = requests.update_request(self._table, key, update, is_as_listed)
        try:
            await self._gateway.call("UpdateItem", request)
        except ConditionFailedError:
            return False
        return True

    async def _pages(self) -> AsyncGenerator[list[Item], None]:
        """Iterates over the keys of all entries, page by page; eventually consistent."""
        start: Key | None = None
        while True:
            request = requests.scan_request(self._table, index="by_queue", start=start)
            response = await self._gateway.call("Scan", request)
            yield response["Items"]
            if (start := response.get("LastEvaluatedKey")) is None:
                return
