"""Remembers what one process knows of a run's queue. It may be out of date; the tables decide."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from ragcrawl_dynamo._frontier.candidates import Candidate, HostCandidates
from ragcrawl_dynamo._frontier.counters import UnwrittenCounts
from ragcrawl_dynamo._frontier.seen_links import SeenLinks
from ragcrawl_dynamo._frontier.work import WorkByHost

# For how many hosts a process remembers the number of links that it added, and of shards.
_HOSTS_REMEMBERED = 100_000


class LocalView:
    """What one process remembers of a run.

    Attributes:
        changed: Set when a waiting claim should try again.
        candidates: The candidates of each host.
        avoided: Hosts at which other processes were faster, and until when this process prefers other hosts.
        due_list_read_at: When the due list was read; None if it has to be read again.
        seen_links: The ids of items that are known to be in the queue.
        links_added: How many links this process has added to each host.
        shards: Over how many shards each host's queue is spread.
        unannounced: Work that could not be announced yet.
        unwritten_counts: Counts that are not stored yet.
        open_items: The ids of up to 100 items that were open when the whole run was last read.
        open_host: A host that had open items when the index was last read.
    """

    def __init__(self, seen_links: int) -> None:
        """`seen_links` is the number of links to remember."""
        self.changed = asyncio.Event()
        self.unwritten_counts = UnwrittenCounts()
        self.seen_links = SeenLinks(seen_links)
        self._latest = datetime.min.replace(tzinfo=UTC)
        self.clear()

    def clear(self) -> None:
        """Forgets everything. It is called after the run's items were deleted."""
        self.candidates: dict[str, HostCandidates] = {}
        self.avoided: dict[str, datetime] = {}
        self.due_list_read_at: datetime | None = None
        self.seen_links.clear()
        self.links_added: Counter[str] = Counter()
        self.shards: dict[str, int] = {}
        self.unannounced = WorkByHost()
        self.unwritten_counts.clear()
        self.open_items: list[str] = []
        self.open_host: str | None = None
        self.changed.set()

    def drop_expired(self, now: datetime) -> None:
        """Drops candidates that are too old or used up, and avoided hosts whose time is over."""
        self.candidates = {
            host: host_candidates
            for host, host_candidates in self.candidates.items()
            if host_candidates.candidates and host_candidates.keep_until > now
        }
        self.avoided = {host: until for host, until in self.avoided.items() if until > now}

    def drop_candidates(self, hosts: Iterable[str]) -> None:
        """Drops the candidates of hosts, so that their queues are read again."""
        for host in hosts:
            self.candidates.pop(host, None)

    def offer(self, candidate: Candidate) -> None:
        """Adds a candidate that this process has made claimable."""
        if (host_candidates := self.candidates.get(candidate.host)) is not None:
            host_candidates.offer(candidate)

    def close_host(self, host: str, until: datetime | None) -> None:
        """Keeps a host's candidates from being claimed until its limits allow a lease."""
        if host in self.candidates and until is not None:
            self.candidates[host].open_at = until

    def avoid(self, host: str, until: datetime) -> None:
        """Lets this process prefer other hosts until a moment. Other processes were faster at this one."""
        self.candidates.pop(host, None)
        self.avoided[host] = until

    def look_again(self, hosts: Iterable[str] = ()) -> None:
        """Lets the next claim read the due list again, and the queues of the given hosts."""
        self.drop_candidates(hosts)
        self.due_list_read_at = None
        self.changed.set()

    def note_shards(self, shards: Mapping[str, int]) -> None:
        """Remembers over how many shards the queues of hosts are spread."""
        if len(self.shards) > _HOSTS_REMEMBERED:
            self.shards.clear()
        self.shards |= shards

    def note_link_added(self, host: str) -> None:
        """Counts a link that this process has added to a host."""
        if len(self.links_added) > _HOSTS_REMEMBERED:
            self.links_added.clear()
        self.links_added[host] += 1

    def next_moment(self, now: datetime) -> datetime:
        """Returns `now`, or a moment just after the previous one: links of one priority keep their order."""
        self._latest = max(now, self._latest + timedelta(microseconds=1))
        return self._latest
