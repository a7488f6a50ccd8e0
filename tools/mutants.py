"""Tests the tests of a room: changes one thing in its code at a time, and runs the tests that reach it.

`make mutants ROOM=_commit` runs it, and writes the mutants that no test has noticed into
`build/mutants/_commit.md`.
mutmut makes the mutants, and forks a process for each. The tests are those of the room in tests/unit, and
those in tests/contract on moto, which answers in the same process. A mutant that breaks a type counts as
noticed, since `make lint` checks types. Of a room with more mutants than two cores can try in a quarter of an
hour, a share is tried, which is chosen by the names of the mutants.
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
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mutmut.mutation.data import SourceFileMutationData

ROOT = Path(__file__).parent.parent

# At most this many mutants are tried: 2 cores need a quarter of an hour for them.
MOST_TRIED = 2500

# The share of the mutants that a room's tests must notice.
FLOOR = 0.85

NOTICED = frozenset({"killed", "timeout", "caught by type check"})

# mutmut's exit code of a mutant that was left out.
SKIPPED = 34


def prepare(folder: Path, room: str, modules: list[str], kinds: tuple[str, ...]) -> None:
    """Copies what the mutants need into a folder, with mutmut's settings for the room.

    Args:
        folder: The folder.
        room: The folder of the package whose code is changed.
        modules: The modules of it to change; all if there are none.
        kinds: The folders of tests whose tests of the room are run.
    """
    for name in ("ragcrawl_dynamo", "tests", "tools"):
        # Mutants of files that have not changed keep their results.
        shutil.copytree(
            ROOT / name,
            folder / name,
            dirs_exist_ok=True,
            ignore=shutil.ignore_patterns("__pycache__"),
            copy_function=_copy_if_changed,
        )
    subject = room.removeprefix("_")
    tests = [path for kind in kinds if (ROOT / (path := f"tests/{kind}/{subject}")).exists()]
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
    from mutmut.utils import file_utils

    Path("mutants").mkdir(exist_ok=True)
    file_utils.copy_src_dir()
    file_utils.copy_also_copy_files()
    file_utils.setup_source_paths()
    mutmut.create_mutants(2)
    known = [(data, name) for data in load(room) for name in data.exit_code_by_key]
    share = max(1, -(-len(known) // most))
    for data, name in known:
        if zlib.crc32(name.encode()) % share:
            data.exit_code_by_key[name] = SKIPPED
        elif data.exit_code_by_key[name] == SKIPPED:
            data.exit_code_by_key[name] = None
    for data in {id(data): data for data, _ in known}.values():
        data.save()
    mutmut._run((), 2)


def load(room: str) -> list[SourceFileMutationData]:
    """Loads what is known of the mutants of each module."""
    from mutmut.mutation.data import SourceFileMutationData

    loaded = []
    for meta in sorted(Path("mutants", "ragcrawl_dynamo", room).glob("*.meta")):
        data = SourceFileMutationData(path=Path("ragcrawl_dynamo", room, meta.name.removesuffix(".meta")))
        data.load()
        loaded.append(data)
    return loaded


def report(room: str, target: Path, seconds: float) -> bool:
    """Prints how many mutants of each module were noticed, and writes the others into a file.

    Returns:
        Whether the share of those that were noticed is large enough.
    """
    from mutmut.mutation.diff_apply import get_diff_for_mutant
    from mutmut.stats import status_by_exit_code

    totals: Counter[str] = Counter()
    lines = []
    print(f"{'module':<24}{'tried':>8}{'noticed':>9}{'survived':>10}{'no test':>9}{'share':>8}")
    for data in load(room):
        statuses = Counter(status_by_exit_code[code] for code in data.exit_code_by_key.values())
        skipped = statuses.pop("skipped", 0)
        if statuses:
            print_row(Path(data.path).stem, statuses)
        totals += statuses
        totals["skipped"] += skipped
        for name, code in data.exit_code_by_key.items():
            if (status := status_by_exit_code[code]) not in NOTICED and code != SKIPPED:
                diff = get_diff_for_mutant(name, path=data.path).splitlines()
                changed = "\n".join(line for line in diff[2:] if line[:1] in "+-")
                lines.append(f"## {name}: {status}\n\n```diff\n{changed}\n```\n")
    skipped = totals.pop("skipped", 0)
    print_row("all", totals)
    print(f"{skipped} left out; {seconds:.0f} s. The others: {target.relative_to(ROOT)}")
    target.write_text("\n".join(lines))
    return share_of(totals) >= FLOOR


def share_of(statuses: Counter[str]) -> float:
    """Returns which share of the mutants was noticed."""
    return sum(statuses[status] for status in NOTICED) / statuses.total()


def print_row(name: str, statuses: Counter[str]) -> None:
    """Prints the figures of one module."""
    noticed = sum(statuses[status] for status in NOTICED)
    survived, untested = statuses["survived"], statuses["no tests"]
    share = share_of(statuses)
    print(f"{name:<24}{statuses.total():>8,}{noticed:>9,}{survived:>10,}{untested:>9,}{share:>8.1%}")


def main() -> None:
    """Runs one room."""
    parser = argparse.ArgumentParser(description="Changes a room, one thing at a time, and runs its tests.")
    parser.add_argument("room", help="a folder of ragcrawl_dynamo, such as _commit")
    parser.add_argument("modules", nargs="*", help="only these modules of it")
    parser.add_argument("--most", type=int, default=MOST_TRIED, help="try at most about so many mutants")
    parser.add_argument("--unit", action="store_true", help="run unit tests only, without those on moto")
    arguments = parser.parse_args()
    folder = ROOT / "build" / "mutants" / arguments.room
    folder.mkdir(parents=True, exist_ok=True)
    kinds = ("unit",) if arguments.unit else ("unit", "contract")
    prepare(folder, arguments.room, arguments.modules, kinds)
    os.chdir(folder)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    started = time.monotonic()
    run(arguments.room, arguments.most)
    sys.exit(not report(arguments.room, folder.with_suffix(".md"), time.monotonic() - started))


if __name__ == "__main__":
    main()
