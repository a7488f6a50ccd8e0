"""Stores the figures of benchmarks, and puts them into the regions of pages that are marked for them.

A benchmark describes its circumstances at its start, and stores its figures at its end, in one file of
benchmarks/data:

    origin = Origin.here("make bench-growth")
    ...
    save("growth", origin, figures)

A page has regions, which `benchmarks.pages` fills with what it makes of these files:

    <!-- benchmark: growth medians -->
    ...
    <!-- end -->
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from benchmarks import machine

DATA = Path(__file__).parent / "data"

REGION = re.compile(r"(<!-- benchmark: (\S+) (\S+) -->\n).*?(<!-- end -->\n)", re.DOTALL)

# Makes the lines of one part of a page from the figures of a file.
Part = Callable[[Any], list[str]]


@dataclass(frozen=True)
class Origin:
    """The circumstances of a measurement.

    Attributes:
        command: The command that measures.
        commit: The commit of the code that was measured.
        measured: The day.
        machine: The machine.
        engine: The engine; "" if there was none.
        load: The load average before the start; None if it is not known.
        note: Sentences on what else the reader has to know.
    """

    command: str
    commit: str
    measured: str
    machine: str
    engine: str
    load: float | None = None
    note: str = ""

    @classmethod
    def here(cls, command: str, *, engine: bool = True) -> Self:
        """Describes this machine and the code as it is now."""
        return cls(
            command,
            machine.commit(),
            f"{datetime.now(UTC):%Y-%m-%d}",
            machine.machine(),
            machine.engine() if engine else "",
            round(os.getloadavg()[0], 1),
        )

    def sentences(self) -> str:
        """Describes all of it for a page."""
        circumstances = [self.machine]
        if self.engine:
            circumstances.append(self.engine)
        if self.load is not None:
            circumstances.append(f"load {self.load:.1f} before the start")
        text = f"Measured by `{self.command}` at commit {self.commit} on {self.measured}: "
        return " ".join(filter(None, (f"{text}{', '.join(circumstances)}.", self.note)))


@dataclass(frozen=True)
class Record:
    """The content of a data file."""

    origin: Origin
    figures: Any


def is_full(parser: argparse.ArgumentParser, args: argparse.Namespace) -> bool:
    """Says whether a benchmark runs without options. Only then it stores its figures."""
    return vars(args) == vars(parser.parse_args([]))


def save(name: str, origin: Origin, figures: Any, folder: Path = DATA) -> None:
    """Writes a data file. A process that is killed meanwhile leaves the old file as it was."""
    path = folder / f"{name}.json"
    new = path.with_suffix(".new")
    new.write_text(json.dumps({**asdict(origin), "figures": figures}, indent=1, ensure_ascii=False) + "\n")
    new.replace(path)


def load(name: str, folder: Path = DATA) -> Record:
    """Reads a data file."""
    data = json.loads((folder / f"{name}.json").read_text())
    figures = data.pop("figures")
    return Record(Origin(**data), figures)


def filled(page: str, render: Callable[[str, str], list[str]]) -> str:
    """Returns a page whose regions have the lines that `render` returns for the name and the part."""

    def region(match: re.Match[str]) -> str:
        begin, name, part, end = match.groups()
        return "\n".join([begin, *render(name, part), "", end])

    return REGION.sub(region, page)
