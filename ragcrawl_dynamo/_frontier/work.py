"""What hosts have to claim, as workers have to learn it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Work:
    """What a host has to claim.

    Attributes:
        at: From when on.
        shards: In how many shards at least.
    """

    at: datetime
    shards: int = 1

    def merged(self, other: Work) -> Work:
        """The work of both."""
        return Work(min(self.at, other.at), max(self.shards, other.shards))


class WorkByHost(dict[str, Work]):
    """Work that other processes have to learn of, by host."""

    def note(self, host: str, work: Work) -> None:
        """Adds work to what is known of a host's."""
        known = self.get(host)
        self[host] = work if known is None else known.merged(work)
