"""Reads the queues of hosts: their items by the index by_queue, and by key which of these are leased.

by_queue lists the open items of a shard under `{run_id}#{host}#{shard}`, leased or not. An item leaves it
when it becomes final.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.batching import read_all
from ragcrawl_dynamo._dynamodb.expressions import Between, Condition
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.requests import Query
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._dynamodb.values import Key, unescape
from ragcrawl_dynamo._frontier.candidates import Candidate, candidate_at
from ragcrawl_dynamo._schema.keys import frontier_key, host_queue
from ragcrawl_dynamo._schema.queue_order import TIMED, due_bound
from ragcrawl_dynamo.models import FrontierItem, FrontierStatus

# How many items of a shard whose moment has come are read besides the ready ones.
_DUE_READ = 25

# The attributes that tell whether an item can be claimed.
_LEASE_ATTRIBUTES = ("status", "queue_order", "lease_token", "lease_expires_at")


@dataclass(frozen=True, slots=True)
class Look:
    """The result of a read of a shard.

    Attributes:
        candidates: The first items, in the order of the index.
        due: Some of the items further down whose moment has come.
        is_all: Whether there are no others.
    """

    candidates: list[Candidate]
    due: list[Candidate]
    is_all: bool


class QueueIndex:
    """The queues of one run's hosts, as by_queue shows them."""

    def __init__(self, gateway: Gateway, table: Table[FrontierItem], run_id: str) -> None:
        self._gateway = gateway
        self._table = table
        self._run_id = run_id

    async def look(self, host: str, shard: int, wanted: int, known: Container[str], now: datetime) -> Look:
        """Reads the first items of a shard, leased ones too; eventually consistent.

        A read that DynamoDB throttles is not tried again.

        Args:
            host: The host.
            shard: The shard.
            wanted: How many items are wanted that are not known.
            known: The ids of items that are known to be leased or to have left the queue.
            now: The present moment.

        Raises:
            ServiceError: The shard could not be read.
        """
        candidates: list[Candidate] = []
        missing, start = wanted, None
        while missing > 0:
            page, start = await self._read(host, shard, None, missing, start, once=True)
            candidates += page
            missing -= sum(candidate.item_id not in known for candidate in page)
            if start is None:
                return Look(candidates, [], is_all=True)
        due: list[Candidate] = []
        if candidates[-1].moment is None:
            is_due = Between("queue_order", {"S": TIMED}, {"S": due_bound(now)})
            due, _ = await self._read(host, shard, is_due, _DUE_READ, once=True)
        return Look(candidates, due, is_all=False)

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
        candidates, _ = await self._read(host, shard, None, 1)
        return candidates[0].item_id if candidates else None

    async def _read(
        self,
        host: str,
        shard: int,
        sort: Condition | None,
        limit: int,
        start: Key | None = None,
        *,
        once: bool = False,
    ) -> tuple[list[Candidate], Key | None]:
        """Reads one page of a shard; returns its items, and the key after which the next page begins."""
        query = Query(self._table, host_queue(self._run_id, host, shard), index="by_queue", sort=sort)
        request = requests.query_request(query, limit=limit, start=start)
        async with self._gateway.permit("Query", self._table.name, once=once) as budget:
            response = await self._gateway.call("Query", request, budget=budget)
        candidates = [
            candidate_at(unescape(item["item_id"]["S"]), host, item["queue_order"]["S"])
            for item in response["Items"]
        ]
        return candidates, response.get("LastEvaluatedKey")
