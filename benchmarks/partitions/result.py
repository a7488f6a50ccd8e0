"""Stores the measurements, so that benchmarks/scale.py can compute with them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from benchmarks.partitions.crawls import Measured, Recovery

RESULT = Path(__file__).parent / "measured.json"


@dataclass(frozen=True)
class Measurements:
    """The measurements of `make bench-partitions`.

    Attributes:
        measured_on: The day and the machine.
        crawls: The scenarios.
        waiting: A worker that waits; its units are those of a second.
        recovery: How long work stands still.
        sizes: Mean bytes on disk, by "table primary key" and "table/index primary key".
    """

    measured_on: str
    crawls: list[Measured]
    waiting: Measured
    recovery: Recovery
    sizes: dict[str, float]

    def save(self, path: Path = RESULT) -> None:
        """Writes the result."""
        data = {
            "measured_on": self.measured_on,
            "recovery": asdict(self.recovery),
            "sizes": self.sizes,
            "waiting": asdict(self.waiting),
            "crawls": [asdict(crawl) for crawl in self.crawls],
        }
        path.write_text(json.dumps(data, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path = RESULT) -> Self:
        """Reads the result of the benchmark."""
        data = json.loads(path.read_text())
        return cls(
            data["measured_on"],
            [Measured.from_json(crawl) for crawl in data["crawls"]],
            Measured.from_json(data["waiting"]),
            Recovery(**data["recovery"]),
            data["sizes"],
        )

    def crawl(self, hosts: int, processes: int = 4, *, delayed: bool = False) -> Measured:
        """Returns one scenario."""
        return next(
            crawl
            for crawl in self.crawls
            if (crawl.scenario.hosts, crawl.scenario.processes, crawl.scenario.delay > 0)
            == (hosts, processes, delayed)
        )
