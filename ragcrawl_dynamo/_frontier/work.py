"""Defines the work of hosts: from when on, and in how many shards, they have items to claim."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Work:
    """The work of a host: items that can be claimed.

    Attributes:
        at: From when on the host has an item to claim.
        shards: The least number of shards of the host's queue.
    """

    at: datetime
    shards: int = 1

    def merged(self, other: Work) -> Work:
        """Returns the work of both together."""
        return Work(min(self.at, other.at), max(self.shards, other.shards))


class WorkByHost(dict[str, Work]):
    """Work that has to be announced to other processes, by host."""

    def note(self, host: str, work: Work) -> None:
        """Adds work of a host."""
        noted = self.get(host)
        self[host] = work if noted is None else noted.merged(work)
