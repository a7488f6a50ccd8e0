"""Holds the measurements, with which benchmarks/scale.py computes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

from benchmarks.partitions.crawls import Measured, Recovery


@dataclass(frozen=True)
class Measurements:
    """The measurements of `make bench-partitions`.

    Attributes:
        crawls: The scenarios.
        waiting: A worker that waits; its units are those of a second.
        recovery: How long work stands still.
        sizes: Mean bytes on disk, by "table primary key" and "table/index primary key".
    """

    crawls: list[Measured]
    waiting: Measured
    recovery: Recovery
    sizes: dict[str, float]

    def to_figures(self) -> dict[str, Any]:
        """Returns the figures of the data file."""
        return {
            "recovery": asdict(self.recovery),
            "sizes": self.sizes,
            "waiting": asdict(self.waiting),
            "crawls": [asdict(crawl) for crawl in self.crawls],
        }

    @classmethod
    def of_figures(cls, figures: dict[str, Any]) -> Self:
        """Restores the measurements from the figures of the data file."""
        return cls(
            [Measured.from_json(crawl) for crawl in figures["crawls"]],
            Measured.from_json(figures["waiting"]),
            Recovery(**figures["recovery"]),
            figures["sizes"],
        )

    def crawl(self, hosts: int, processes: int = 4, *, delayed: bool = False) -> Measured:
        """Returns one scenario."""
        return next(
            crawl
            for crawl in self.crawls
            if (crawl.scenario.hosts, crawl.scenario.processes, crawl.scenario.delay > 0)
            == (hosts, processes, delayed)
        )
