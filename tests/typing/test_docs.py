"""Every block of Python in README and docs passes mypy in strict mode, as in a user's project."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.docs.blocks import BLOCK
from tests.support.processes import run_command

ROOT = Path(__file__).parents[2]


async def test_docs_blocks_are_typed(tmp_path: Path) -> None:
    files = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for number, code in enumerate(BLOCK.findall(page.read_text()), 1):
            files.append(tmp_path / f"{page.stem.replace('-', '_')}_{number}.py")
            files[-1].write_text(code)
    # The package itself is checked with its own settings.
    options = ("--strict", "--follow-imports=silent", "--config-file=")
    code, output, errors = await run_command(
        *(sys.executable, "-m", "mypy", *options, "--cache-dir", str(ROOT / ".mypy_cache" / "docs")),
        *map(str, files),
    )
    assert code == 0, output + errors
