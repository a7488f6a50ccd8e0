"""Tests the unit tests of a room: changes one thing in its code at a time, and runs the tests that reach it.

`make mutants ROOM=_commit` runs it, and writes the mutants that no test has noticed into
`build/mutants/_commit.md`. mutmut makes the mutants, and forks a process for each. A mutant that breaks a
type counts as noticed, since `make lint` checks types. Of a room with more mutants than two cores can try in
a quarter of an hour, a share is tried, which is chosen by the names of the mutants.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT, markdown
from benchmarks.report import Origin, Part, save

# At most this many mutants are tried: 2 cores need a quarter of an hour for them.
MOST_TRIED = 5000

# The share of the mutants that a room's tests must notice.
FLOOR = 0.85

NOTICED = frozenset({"killed", "timeout", "caught by type check"})

# mutmut's exit code of a mutant that was left out.
SKIPPED = 34


def prepare(folder: Path, room: str, modules: list[str]) -> None:
    """Copies what the mutants need into a folder, with mutmut's settings for the room.

    Args:
        folder: The folder.
        room: The folder of the package whose code is changed.
        modules: The modules of it to change; all if there are none.
    """
    for name in ("ragcrawl_dynamo", "tests", "benchmarks"):
        # Mutants of files that have not changed keep their results.
        shutil.copytree(
            ROOT / name,
            folder / name,
            dirs_exist_ok=True,
            ignore=shutil.ignore_patterns("__pycache__"),
            copy_function=_copy_if_changed,
        )
    tests = [f"tests/unit/{room.removeprefix('_')}"]
    only = [f"ragcrawl_dynamo/{room}/{name}.py" for name in modules] or [f"ragcrawl_dynamo/{room}/*"]
    settings = (ROOT / "pyproject.toml").read_text()
    settings += f"only_mutate = {only}\npytest_add_cli_args_test_selection = {tests}\n"
    (folder / "pyproject.toml").write_text(settings)


def _copy_if_changed(source: str, target: str) -> None:
    """Copies a file, unless the target is the same."""
    if not os.path.exists(target) or Path(source).read_bytes() != Path(target).read_bytes():
        shutil.copy(source, target)


def run(room: str, most: int) -> None:
    """Makes the mutants in the working folder, and tries them."""
    from mutmut import __main__ as mutmut
    from mutmut.stats import status_by_exit_code
    from mutmut.utils import file_utils

    Path("mutants").mkdir(exist_ok=True)
    file_utils.copy_src_dir()
    file_utils.copy_also_copy_files()
    file_utils.setup_source_paths()
    processes = os.cpu_count() or 2
    mutmut.create_mutants(processes)
    known = [(data, name) for data in load(room) for name in data.exit_code_by_key]
    share = max(1, -(-len(known) // most))
    for data, name in known:
        if zlib.crc32(name.encode()) % share:
            data.exit_code_by_key[name] = SKIPPED
        elif status_by_exit_code[data.exit_code_by_key[name]] not in NOTICED:
            # It was left out, or survived tests that may be better now.
            data.exit_code_by_key[name] = None
    for data in {id(data): data for data, _ in known}.values():
        data.save()
    # Which tests reach a function is known of the modules of the last run only.
    Path("mutants", "mutmut-stats.json").unlink(missing_ok=True)
    mutmut._run((), processes)


def load(room: str) -> list[Any]:
    """Loads what is known of the mutants of each module."""
    from mutmut.mutation.data import SourceFileMutationData

    loaded = []
    for meta in sorted(Path("mutants", "ragcrawl_dynamo", room).glob("*.meta")):
        data = SourceFileMutationData(path=Path("ragcrawl_dynamo", room, meta.name.removesuffix(".meta")))
        data.load()
        loaded.append(data)
    return loaded


def count(room: str, survivors: Path) -> dict[str, dict[str, int]]:
    """Counts the mutants of each module by their fate, and writes those that survived into a file."""
    from mutmut.mutation.diff_apply import get_diff_for_mutant
    from mutmut.stats import status_by_exit_code

    modules: dict[str, dict[str, int]] = {}
    lines = []
    for data in load(room):
        modules[Path(data.path).stem] = Counter(
            status_by_exit_code[c] for c in data.exit_code_by_key.values()
        )
        for name, code in data.exit_code_by_key.items():
            if (status := status_by_exit_code[code]) not in NOTICED and code != SKIPPED:
                diff = get_diff_for_mutant(name, path=data.path).splitlines()
                changed = "\n".join(line for line in diff[2:] if line[:1] in "+-")
                lines.append(f"## {name}: {status}\n\n```diff\n{changed}\n```\n")
    survivors.write_text("\n".join(lines))
    return modules


def table(figures: dict[str, Any]) -> list[str]:
    """Formats the counts of a room as a table."""
    modules: dict[str, Counter[str]] = {name: Counter(counts) for name, counts in figures["modules"].items()}
    modules["all"] = sum(modules.values(), Counter())
    rows = [["module", "mutants", "tried", "noticed", "of them by types", "survived", "share noticed"]]
    for name, counts in modules.items():
        tried, noticed = counts.total() - counts["skipped"], noticed_of(counts)
        if tried:
            numbers = (counts.total(), tried, noticed, counts["caught by type check"], tried - noticed)
            rows.append([name, *(f"{number:,}" for number in numbers), f"{100 * noticed / tried:.1f} %"])
    return markdown(rows)


def noticed_of(counts: Counter[str]) -> int:
    """Returns how many mutants were noticed."""
    return sum(counts[status] for status in NOTICED)


PARTS: dict[str, Part] = {"modules": table}


def main() -> None:
    """Runs one room. Without options it stores the counts for docs/mutants.md."""
    parser = argparse.ArgumentParser(description="Changes a room, one thing at a time, and runs its tests.")
    parser.add_argument("room", help="a folder of ragcrawl_dynamo, such as _commit")
    parser.add_argument("modules", nargs="*", help="only these modules of it")
    parser.add_argument("--most", type=int, default=MOST_TRIED, help="try at most about so many mutants")
    args = parser.parse_args()
    is_full = vars(args) == vars(parser.parse_args([args.room]))
    origin = Origin.here(f"make mutants ROOM={args.room}", engine=False)
    # mutmut does not make mutants of a file that it has copied without them.
    folder = ROOT / "build" / "mutants" / "-".join([args.room, *args.modules])
    if is_full:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    prepare(folder, args.room, args.modules)
    os.chdir(folder)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    started = time.monotonic()
    run(args.room, args.most)
    survivors = folder.with_suffix(".md")
    modules = count(args.room, survivors)
    figures = {"seconds": round(time.monotonic() - started), "modules": modules}
    print("\n".join(table(figures)))
    print(f"{figures['seconds']} seconds. The survivors: {survivors}")
    if is_full:
        save(f"mutants{args.room}", origin, figures)
    total = sum((Counter(counts) for counts in modules.values()), Counter())
    share = noticed_of(total) / (total.total() - total["skipped"])
    sys.exit(None if share >= FLOOR else f"the tests have noticed less than {FLOOR:.0%}")


if __name__ == "__main__":
    main()
