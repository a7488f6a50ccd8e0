"""Describes the machine, the engine and the code of a measurement, and formats tables of Markdown."""

import os
import platform
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent

# The code that a benchmark runs.
CODE = ("ragcrawl_dynamo", "benchmarks", "examples", "tests/adapters", ":!benchmarks/data")


def machine() -> str:
    """Describes the machine."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return f"{model}, {os.cpu_count()} cores, {system}"


def engine() -> str:
    """Names DynamoDB Local and its version, by its release notes."""
    notes = (ROOT / ".dynamodb-local" / "README.txt").read_text()
    version = re.search(r"^\d{4}-\d\d-\d\d \((\S+)\)", notes, re.MULTILINE)
    return f"DynamoDB Local {version[1] if version else '(unknown version)'}"


def commit() -> str:
    """Returns the commit that is checked out; "and changes" follows if the code differs from it."""
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", *CODE)
    return _git("rev-parse", "--short=7", "HEAD") + " and changes" * bool(changed)


def markdown(rows: list[list[str]]) -> list[str]:
    """Formats rows, the first of which is the head, as lines of a Markdown table."""
    return ["| " + " | ".join(row) + " |" for row in (rows[0], ["---"] * len(rows[0]), *rows[1:])]


def _git(*args: str) -> str:
    """Returns the output of a git command."""
    command = ("git", "-C", str(ROOT), *args)
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
