"""Describes the machine of a measurement, and prints its results as a table of Markdown."""

import os
import platform
from datetime import UTC, datetime
from pathlib import Path


def described() -> str:
    """Returns the day and a description of the machine."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return f"{datetime.now(UTC):%Y-%m-%d}: {model}, {os.cpu_count()} cores, {system}"


def markdown(rows: list[list[str]]) -> list[str]:
    """Formats rows, the first of which is the head, as lines of a Markdown table."""
    return ["| " + " | ".join(row) + " |" for row in (rows[0], ["---"] * len(rows[0]), *rows[1:])]
