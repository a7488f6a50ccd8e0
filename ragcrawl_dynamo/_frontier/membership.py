"""Keeps the processes that claim from a run, so that each of them begins with a share of hosts and items.

Key `#{run_id}#members` / `member#{process}`. Shares only keep processes from trying the same items. A process
with nothing left in its share claims from the shares of others, and the conditional writes of the claims
decide.

A process has the hosts of some buckets, and a part of the items of every host whose queue is too long to be
read at once. Buckets are assigned by rendezvous hashing with a bound: few of them move when a process comes
or goes, and no process has more than its number.
"""

from __future__ import annotations

import secrets
import zlib
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.batching import delete_all
from ragcrawl_dynamo._dynamodb.expressions import BeginsWith
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.requests import Query
from ragcrawl_dynamo._dynamodb.table import Table
from ragcrawl_dynamo._dynamodb.values import Item, moment_text
from ragcrawl_dynamo._schema.keys import MEMBER_PREFIX, member_key, members_partition

# Seconds between two signs of life at most, and seconds without one after which a process counts as gone.
_BEAT_SECONDS = 10.0
_ALIVE_SECONDS = 30.0

# Seconds until the processes are read again after they have changed. The time doubles while they do not. Each
# of the processes reads all of them, so it grows with the square of their number beyond 100.
_SOON_SECONDS = 0.25
_MANY_PROCESSES = 100


class Membership:
    """The processes that claim from one run. `me` is the id of this process."""

    def __init__(self, gateway: Gateway, table: Table[Any], run_id: str, site_id: str) -> None:
        self.me: str = secrets.token_hex(6)
        self._gateway = gateway
        self._table = table
        self._run_id = run_id
        self._site_id = site_id
        self._ids = [self.me]
        self._shares: dict[int, frozenset[int]] = {}
        self._read_at: float | None = None
        self._interval = 0.0

    @property
    def count(self) -> int:
        """The number of processes."""
        return len(self._ids)

    @property
    def is_active(self) -> bool:
        """Whether this process has claimed."""
        return self._read_at is not None

    def share(self, buckets: int) -> frozenset[int]:
        """Returns which of a number of buckets are in the share of this process."""
        if buckets not in self._shares:
            self._shares[buckets] = frozenset(
                bucket for bucket, process in assign(self._ids, buckets).items() if process == self.me
            )
        return self._shares[buckets]

    def owns_part(self, item_id: str) -> bool:
        """Returns whether an item of a long queue is in the share of this process."""
        return self._number(item_id) == 0

    def distance(self, item_id: str) -> int:
        """Returns how late this process should try an item of another process's share, from 1 on.

        Each process gives the same items other numbers, so that few processes try one item at the same time.
        """
        return 1 + self._number(item_id)

    def _number(self, item_id: str) -> int:
        number = zlib.crc32(item_id.encode("utf-8", "surrogatepass")) - self._ids.index(self.me)
        return number % len(self._ids)

    async def refresh(self, now: datetime, monotonic: float) -> bool:
        """Gives a sign of life and reads the other processes, if it is time for that.

        Returns:
            Whether other processes claim from the run than before.
        """
        if self._read_at is not None and monotonic - self._read_at < self._interval:
            return False
        self._read_at = monotonic
        sign_of_life: Item = {
            **member_key(self._run_id, self.me),
            "site_id": {"S": self._site_id},
            "seen_at": {"S": moment_text(now)},
        }
        await self._gateway.call("PutItem", requests.put_request(self._table, sign_of_life))
        only_members = BeginsWith("item_id", {"S": MEMBER_PREFIX})
        query = Query(self._table, members_partition(self._run_id), sort=only_members)
        response = await self._gateway.call("Query", requests.query_request(query))
        oldest = moment_text(now - timedelta(seconds=_ALIVE_SECONDS))
        members = response["Items"]
        ids = [
            member["item_id"]["S"].removeprefix(MEMBER_PREFIX)
            for member in members
            if member["seen_at"]["S"] >= oldest
        ]
        soon = min(_BEAT_SECONDS, _SOON_SECONDS * max(1.0, len(ids) / _MANY_PROCESSES) ** 2)
        doubled = min(_BEAT_SECONDS, max(soon, 2 * self._interval))
        is_changed = ids != self._ids
        self._interval = soon if is_changed else doubled
        if is_changed:
            self._ids = ids if self.me in ids else [*ids, self.me]
            self._shares.clear()
        gone = [
            {name: member[name] for name in self._table.primary_key}
            for member in members
            if member["seen_at"]["S"] < oldest
        ]
        await delete_all(self._gateway, self._table, gone)
        return is_changed

    async def leave(self) -> None:
        """Removes this process, so that others get its share at once."""
        if self._read_at is not None:
            key = member_key(self._run_id, self.me)
            await self._gateway.call("DeleteItem", requests.delete_request(self._table, key))
            self._read_at = None


def assign(processes: Sequence[str], buckets: int) -> dict[int, str]:
    """Assigns buckets to processes.

    Each bucket goes to the process that its hash prefers, unless that process has its number of buckets
    already: an equal part, rounded up.
    """
    most = -(-buckets // len(processes))
    counts: Counter[str] = Counter()
    owners: dict[int, str] = {}
    for bucket in range(buckets):
        free = (process for process in processes if counts[process] < most)
        owners[bucket] = max(free, key=lambda process: zlib.crc32(f"{process}/{bucket}".encode()))
        counts[owners[bucket]] += 1
    return owners
