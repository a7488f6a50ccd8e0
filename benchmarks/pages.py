"""Writes the figures of all data files into the pages, and draws their plots (`make docs-figures`).

It measures nothing. A test compares the pages with the data files.

    python -m benchmarks.pages
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import bodies, cycle, mutants, report, scale
from benchmarks.adapters import run as adapters
from benchmarks.adapters import soak as soak_adapters
from benchmarks.frontier import page as frontier
from benchmarks.machine import ROOT
from benchmarks.report import Part, Record
from benchmarks.speed import growth, hooks
from benchmarks.speed import page as speed

# The parts of pages by the name of the data file. Each file also has the part "origin".
PARTS: dict[str, Mapping[str, Part]] = {
    "adapters": adapters.PARTS,
    "bodies": bodies.PARTS,
    "cycle": cycle.PARTS,
    "frontier": frontier.PARTS,
    "growth": growth.PARTS,
    "hooks": hooks.PARTS,
    **dict.fromkeys(sorted(path.stem for path in report.DATA.glob("mutants_*.json")), mutants.PARTS),
    "partitions": scale.PARTS,
    "soak-adapters": soak_adapters.PARTS,
    "speed": speed.PARTS,
}

# Plots by the name of the data file: the page's file, the script, and the function that chooses the data.
PLOTS: dict[str, tuple[Path, str, Callable[[Any], Any]]] = {
    "growth": (ROOT / "docs" / "growth.svg", "plot_growth.py", lambda figures: figures),
    "speed": (ROOT / "docs" / "benchmarks.svg", "plot.py", speed.bars),
}


def pages() -> list[Path]:
    """Returns the pages that may have regions. Decision records have none: they are history."""
    paths = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    return sorted(page for page in paths if page.parent.name != "decisions")


def render(name: str, part: str) -> list[str]:
    """Returns the lines of a region."""
    return lines_of(report.load(name), name, part)


def lines_of(record: Record, name: str, part: str) -> list[str]:
    """Returns the lines of a part, made of the content of a data file alone."""
    return [record.origin.sentences()] if part == "origin" else PARTS[name][part](record.figures)


def main() -> None:
    """Writes the pages, and draws the plots whose data have changed."""
    for page in pages():
        text = page.read_text()
        if (new := report.filled(text, render)) != text:
            page.write_text(new)
            print(f"{page.relative_to(ROOT)} is written")
    for name, (path, script, choose) in PLOTS.items():
        data = choose(report.load(name).figures)
        if speed.drawn(path) != data:
            speed.draw(script, data, path)
            print(f"{path.relative_to(ROOT)} is drawn")


if __name__ == "__main__":
    main()
