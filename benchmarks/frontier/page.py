"""Formats the results of the scenarios for docs/frontier.md."""

from __future__ import annotations

from typing import Any

from benchmarks.frontier.measure import Row
from benchmarks.machine import markdown
from benchmarks.report import Part


def results(figures: dict[str, Any]) -> list[str]:
    """Formats all rows as a table."""
    rows = [Row(**row) for row in figures["rows"]]
    table = [[row.scenario, row.promised, row.measured, row.verdict] for row in rows]
    return markdown([["scenario", "promised", "measured", ""], *table])


PARTS: dict[str, Part] = {"results": results}
