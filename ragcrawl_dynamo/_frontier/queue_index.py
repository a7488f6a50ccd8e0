"""Reads the queues of hosts: what by_queue shows of them, and by key which of their items are leased.

by_queue lists the open items of a shard under `{run_id}#{host}#{shard}`, leased or not. An item leaves it
when it becomes final.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.batching import read_all
from ragcrawl_dynamo._dynamodb.expressions import Between, Condition
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.requests import Query
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._dynamodb.values import unescape
from ragcrawl_dynamo._frontier.candidates import Candidate, candidate_at
from ragcrawl_dynamo._schema.keys import frontier_key, host_queue
from ragcrawl_dynamo._schema.queue_order import TIMED, due_bound
from ragcrawl_dynamo.models import FrontierItem, FrontierStatus

# How many items of a shard whose moment has come are read besides the ready ones.
_DUE_READ = 25

# The attributes that tell whether an item can be claimed.
_LEASE_ATTRIBUTES = ("status", "queue_order", "lease_token", "lease_expires_at")


class QueueIndex:
    """The queues of one run's hosts, as by_queue shows them."""

    def __init__(self, gateway: Gateway, table: Table[FrontierItem], run_id: str) -> None:
        self._gateway = gateway
        self._table = table
        self._run_id = run_id

    async def look(self, host: str, shard: int, limit: int, now: datetime) -> tuple[list[Candidate], bool]:
        """Returns the first candidates of a shard, leased ones too; eventually consistent.

        Those that wait for a moment come last. If there are more than `limit` candidates, some more that
        are due already are read as well.

        Returns:
            The candidates in the order of the index, and whether they are all.
        """
        candidates, is_all = await self._candidates(host, shard, None, limit)
        if not is_all and candidates and candidates[-1].moment is None:
            due = Between("queue_order", {"S": TIMED}, {"S": due_bound(now)})
            candidates += (await self._candidates(host, shard, due, _DUE_READ))[0]
        return candidates, is_all

    async def read_known(
        self, candidates: Sequence[Candidate]
    ) -> dict[str, tuple[Candidate, datetime | None] | None]:
        """Reads the items of candidates; strongly consistent.

        Returns:
            By id: the candidate as its item is now, and the moment at which its lease ends, or None without a
            lease; None instead if the item has left the queue.
        """
        keys = [frontier_key(self._run_id, candidate.item_id) for candidate in candidates]
        stored = await read_all(self._gateway, self._table, keys, _LEASE_ATTRIBUTES)
        items = {unescape(item["item_id"]["S"]): item for item in stored}
        known: dict[str, tuple[Candidate, datetime | None] | None] = {}
        for candidate in candidates:
            item = items.get(candidate.item_id)
            if item is None or "queue_order" not in item:
                known[candidate.item_id] = None
                continue
            current = candidate_at(candidate.item_id, candidate.host, item["queue_order"]["S"])
            ends_at = None
            if item["status"]["S"] == FrontierStatus.IN_PROGRESS and "lease_expires_at" in item:
                current = replace(current, expired_token=item["lease_token"]["S"])
                ends_at = datetime.fromisoformat(item["lease_expires_at"]["S"])
            known[candidate.item_id] = current, ends_at
        return known

    async def first_id(self, host: str, shard: int) -> str | None:
        """Returns the id of the first item of a shard, or None; eventually consistent."""
        candidates, _ = await self._candidates(host, shard, None, 1)
        return candidates[0].item_id if candidates else None

    async def _candidates(
        self, host: str, shard: int, sort: Condition | None, limit: int
    ) -> tuple[list[Candidate], bool]:
        query = Query(self._table, host_queue(self._run_id, host, shard), index="by_queue", sort=sort)
        response = await self._gateway.call("Query", requests.query_request(query, limit=limit))
        candidates = [
            candidate_at(unescape(item["item_id"]["S"]), host, item["queue_order"]["S"])
            for item in response["Items"]
        ]
        return candidates, "LastEvaluatedKey" not in response
