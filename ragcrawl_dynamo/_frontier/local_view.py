"""What one process remembers of a run's queue: never the authority, and forgotten by one call."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from ragcrawl_dynamo._frontier.candidates import Candidate, HostCandidates
from ragcrawl_dynamo._frontier.counters import UnwrittenCounts
from ragcrawl_dynamo._frontier.seen_links import SeenLinks
from ragcrawl_dynamo._frontier.work import WorkByHost

# Hosts of which a process remembers how many links it added, and how many shards they have.
_HOSTS_REMEMBERED = 100_000


class LocalView:
    """What one process remembers of a run.

    Attributes:
        changed: Set when a waiting claim should look again.
        candidates: Items that are claimable as far as is known, by host.
        avoided: Hosts at which other processes were faster, and until when others are preferred.
        due_list_read_at: When the list of due hosts was read; None if it has to be read again.
        seen_links: Ids of items that are known to be in the queue.
        links_added: How many links this process added to each host.
        shards: How many shards each host's queue has.
        unannounced: Work that other processes could not be told of yet.
        unwritten_counts: Changes of the run's counts that are not written yet.
        open_items: Ids of some items that were open when the run was last read.
        open_host: A host that had open items when the index was last read.
    """

    def __init__(self, seen_links: int) -> None:
        """`seen_links` is how many links are remembered."""
        self.changed = asyncio.Event()
        self.unwritten_counts = UnwrittenCounts()
        self.seen_links = SeenLinks(seen_links)
        self._latest = datetime.min.replace(tzinfo=UTC)
        self.clear()

    def clear(self) -> None:
        """Forgets everything, after the run's items were deleted."""
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
        """Drops candidates that are too old, or used up, and hosts that need not be avoided any longer."""
        self.candidates = {
            host: known
            for host, known in self.candidates.items()
            if known.candidates and known.keep_until > now
        }
        self.avoided = {host: until for host, until in self.avoided.items() if until > now}

    def drop_candidates(self, hosts: Iterable[str]) -> None:
        """Drops the candidates of hosts whose queue changed."""
        for host in hosts:
            self.candidates.pop(host, None)

    def offer(self, candidate: Candidate) -> None:
        """Adds an item that this process made claimable."""
        if (known := self.candidates.get(candidate.host)) is not None:
            known.offer(candidate)

    def close_host(self, host: str, until: datetime | None) -> None:
        """Leaves a host's candidates alone until its limits allow a lease."""
        if host in self.candidates and until is not None:
            self.candidates[host].open_at = until

    def avoid(self, host: str, until: datetime) -> None:
        """Prefers other hosts until a moment, after other processes were faster at this one."""
        self.candidates.pop(host, None)
        self.avoided[host] = until

    def look_again(self, hosts: Iterable[str] = ()) -> None:
        """Lets the next claim read the list of due hosts, and the queues of some hosts, again."""
        self.drop_candidates(hosts)
        self.due_list_read_at = None
        self.changed.set()

    def note_shards(self, shards: Mapping[str, int]) -> None:
        """Remembers how many shards hosts have."""
        if len(self.shards) > _HOSTS_REMEMBERED:
            self.shards.clear()
        self.shards |= shards

    def note_link_added(self, host: str) -> None:
        """Counts a link that this process added."""
        if len(self.links_added) > _HOSTS_REMEMBERED:
            self.links_added.clear()
        self.links_added[host] += 1

    def next_moment(self, now: datetime) -> datetime:
        """The present, or just after the moment returned before: links of one priority keep their order."""
        self._latest = max(now, self._latest + timedelta(microseconds=1))
        return self._latest
