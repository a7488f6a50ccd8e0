"""Prints the coverage that `make test` measured, room by room.

`.venv/bin/coverage report -m` names the lines that were missed.
"""

import json
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

from coverage import Coverage

PACKAGE = "ragcrawl_dynamo"


def room(file: str) -> str:
    """Returns the folder of a file in the package; its own name at the top."""
    return Path(file).relative_to(PACKAGE).parts[0]


def main() -> None:
    """Reads the data of the last run, and prints the sums of each room."""
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
    print(f"{'coverage':<16}{'lines':>8}{'branches':>10}{'covered':>10}")
    for key in sorted(sums, key=lambda key: (key == "all", key)):
        lines, covered_lines, branches, covered_branches = sums[key]
        if lines:
            share = (covered_lines + covered_branches) / (lines + branches)
            print(f"{key:<16}{lines:>8,}{branches:>10,}{share:>10.1%}")


if __name__ == "__main__":
    main()
