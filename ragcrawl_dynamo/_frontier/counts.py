"""Defines the counts of items by state, as users see them and as a process adds them up."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["FrontierStats"]

# The states in which an item is open, and all states in which items are counted.
OPEN_STATES = ("pending", "delayed", "in_progress")
NAMES = (*OPEN_STATES, "completed", "failed", "skipped")


@dataclass(frozen=True, slots=True)
class FrontierStats:
    """How many items are in which state.

    Attributes:
        pending: Items that can be claimed, as far as the limits of their hosts allow.
        delayed: Items that wait for a moment: that of `not_before`, or the next attempt after a failure. An
            item whose moment has come counts as delayed until it is claimed.
        in_progress: Leased items. An item whose lease has expired counts here until it is claimed again.
        completed: Items whose work is done.
        failed: Dead letters.
        skipped: Items that were not crawled on purpose.
    """

    pending: int = 0
    delayed: int = 0
    in_progress: int = 0
    completed: int = 0
    failed: int = 0
    skipped: int = 0

    @classmethod
    def estimated(cls, counts: FrontierStats) -> FrontierStats:
        """Returns the counts with 0 for negative ones, which a killed process can leave behind."""
        return cls(**{name: max(0, getattr(counts, name)) for name in NAMES})

    @property
    def open(self) -> int:
        """The number of items that are pending, delayed or in progress."""
        return self.pending + self.delayed + self.in_progress

    @property
    def total(self) -> int:
        """The number of all items."""
        return self.open + self.completed + self.failed + self.skipped


def stats_of(item: Mapping[str, Any]) -> FrontierStats:
    """Returns the counts that an item stores. Some can be negative after a process was killed."""
    return FrontierStats(**{name: int(item[name]["N"]) for name in NAMES if name in item})


class UnwrittenCounts:
    """The amounts by which the stored counts have to be increased.

    Attributes:
        by_host: For each host, the amount for each of its counts.
        total: The amount for each count of the run.
        since: When `Counters.seconds_until_due` first saw the oldest amount, in seconds of the monotonic
            clock; None if it has not seen any.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Drops all amounts."""
        self.by_host: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.total: Counter[str] = Counter()
        self.since: float | None = None

    @property
    def is_empty(self) -> bool:
        """Whether no amount has to be stored.

        The amounts of the run can remain alone: new hosts are stored with theirs.
        """
        return not self.by_host and not any(self.total.values())

    def take(self, only: Container[str] | None) -> tuple[dict[str, Counter[str]], Counter[str]]:
        """Takes the amounts of some hosts, or all amounts with those of the run."""
        if only is not None:
            hosts = [host for host in self.by_host if host in only]
            return {host: self.by_host.pop(host) for host in hosts}, Counter()
        taken = dict(self.by_host), self.total
        self.clear()
        return taken

    def put_back(self, by_host: Mapping[str, Counter[str]], total: Counter[str]) -> None:
        """Adds amounts that were taken and not stored."""
        self.total.update(total)
        for host, counts in by_host.items():
            self.by_host[host].update(counts)
