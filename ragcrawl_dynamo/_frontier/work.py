"""Defines the work of hosts: where in the list of hosts a host belongs, by the items that it has to claim."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Work:
    """The work of a host: items that can be claimed.

    Attributes:
        place: The sort key of the best item in its host's queue.
        shards: The least number of shards of the host's queue.
        is_changed: Whether other processes may know something of the host's items that is no longer true.
        item_id: The id of the item, if it is one item and `place` is its sort key; None otherwise.
    """

    place: str
    shards: int = 1
    is_changed: bool = False
    item_id: str | None = None

    def merged(self, other: Work) -> Work:
        """Returns the work of both together."""
        is_changed = self.is_changed or other.is_changed
        item_id = self.item_id if (self.place, self.item_id) == (other.place, other.item_id) else None
        return Work(min(self.place, other.place), max(self.shards, other.shards), is_changed, item_id)


@dataclass(frozen=True, slots=True)
class Listed:
    """A host in the list of hosts.

    Attributes:
        host: The name of the host.
        order: The sort key of the host in the list.
    """

    host: str
    order: str


class WorkByHost(dict[str, Work]):
    """Work that has to be announced to other processes, by host."""

    def note(self, host: str, work: Work) -> None:
        """Adds work of a host."""
        noted = self.get(host)
        self[host] = work if noted is None else noted.merged(work)

    def note_all(self, work: WorkByHost) -> None:
        """Adds the work of several hosts."""
        for host, host_work in work.items():
            self.note(host, host_work)
