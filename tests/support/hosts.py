"""Makes hosts, items and limits as one process knows them, for tests of the queue's pure parts."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from ragcrawl_dynamo._frontier.candidates import Candidate, candidate_at
from ragcrawl_dynamo._frontier.host_candidates import HostCandidates
from ragcrawl_dynamo._schema.queue_order import HostFacts, host_order, queue_order, rank
from ragcrawl_dynamo._schema.records import HostRecord
from tests.support.factories import START

HOST = "a.example"


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def candidate(
    name: str, priority: float = 0.0, age: float = 0.0, host: str = HOST, ready_at: datetime | None = None
) -> Candidate:
    """Makes an item that was found `age` seconds before the start."""
    return candidate_at(name, host, queue_order(rank(priority, at(-age)), ready_at))


def leased(item: Candidate, token: str = "token") -> Candidate:
    """Makes an item that can be claimed after a lease."""
    return replace(item, expired_token=token)


def listed(
    priority: float = 0.0,
    age: float = 0.0,
    ready_at: datetime | None = None,
    *,
    has_limits: bool = False,
    shards: int = 1,
    mark: str = "",
    only_item: str = "",
) -> str:
    """Returns the sort key of a host in the list of hosts, by its best item."""
    place = queue_order(rank(priority, at(-age)), ready_at)
    return host_order(place, HostFacts(has_limits, shards, mark, only_item))


def record(host: str = HOST, **fields: Any) -> HostRecord:
    return HostRecord(**{"run": "run", "host": host, "site_id": "site", **fields})


def known(*items: Candidate, host: str = HOST, is_all: bool = True, **fields: Any) -> HostCandidates:
    """Makes a host whose queue was read at second 0, with the items that can be claimed."""
    fields = {"looked_at": 0.0, "order": listed(), "bucket": 0, **fields}
    known = HostCandidates(host, **fields)
    for item in items:
        known.offer(item)
    known.is_all = is_all
    return known


def names(items: list[Candidate]) -> list[str]:
    return [item.item_id for item in items]
