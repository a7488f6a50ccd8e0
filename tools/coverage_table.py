"""Prints the coverage that was measured, room by room, and fails if too few branches were taken.

`make test` measures all tests, `make test-unit-coverage` the unit tests of the rooms whose decisions matter
most. `.venv/bin/coverage report -m` names the lines that were missed.
"""

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

from coverage import Coverage

PACKAGE = "ragcrawl_dynamo"


def room(file: str) -> str:
    """Returns the folder of a file in the package; its own name at the top."""
    return Path(file).relative_to(PACKAGE).parts[0]


def main() -> None:
    """Reads the data of the last run, sums it up, prints it, and compares it with the floor."""
    parser = argparse.ArgumentParser(description="Prints the coverage of each room.")
    parser.add_argument("rooms", nargs="*", help="the rooms that are measured; all together by default")
    parser.add_argument(
        "--floor", type=float, default=0, help="how many percent of the branches are taken at least"
    )
    arguments = parser.parse_args()
    coverage = Coverage()
    coverage.load()
    with TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        coverage.json_report(outfile=str(report))
        files = json.loads(report.read_text())["files"]
    names = ("num_statements", "covered_lines", "num_branches", "covered_branches")
    sums: defaultdict[str, list[int]] = defaultdict(lambda: [0] * len(names))
    for file, figures in files.items():
        for key in (room(file), "all"):
            sums[key] = [
                total + figures["summary"][name] for total, name in zip(sums[key], names, strict=True)
            ]
    print(f"{'coverage':<16}{'lines':>8}{'covered':>10}{'branches':>10}{'covered':>10}")
    for key in sorted(sums, key=lambda key: (key == "all", key)):
        lines, covered_lines, branches, covered_branches = sums[key]
        if lines and (key in arguments.rooms or not arguments.rooms):
            print(
                f"{key:<16}{lines:>8,}{covered_lines / lines:>10.1%}"
                f"{branches:>10,}{percent(covered_branches, branches):>9.1f}%"
            )
    low = [key for key in arguments.rooms or ["all"] if percent(sums[key][3], sums[key][2]) < arguments.floor]
    if low:
        sys.exit(f"fewer than {arguments.floor:g} % of the branches were taken in: {', '.join(low)}")


def percent(covered: int, branches: int) -> float:
    """Returns how many percent of the branches were taken; 100 if there are none."""
    return 100 * covered / branches if branches else 100.0


if __name__ == "__main__":
    main()
