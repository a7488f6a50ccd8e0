"""Writes the list of modules in docs/architecture.md, from the first line of each module's docstring.

Run `python tools/rooms.py`. A test fails if the list is out of date.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ragcrawl_dynamo"
PAGE = ROOT / "docs" / "architecture.md"

BEGIN = "<!-- modules: begin; `python tools/rooms.py` writes what follows -->\n"
END = "<!-- modules: end -->\n"

# From the top of the order of imports to its bottom.
ROOMS = (
    *(
        "_crawl",
        "_commit",
        "_frontier",
        "_content",
        "_changes",
        "_indexing",
        "_records",
        "_schema",
        "_dynamodb",
    ),
    "_utils",
    *("adapters", "integrations", "cli", "testing", "errors"),
)


def summary(module: Path) -> str:
    """Returns the first line of a module's docstring, for a table's cell."""
    docstring = ast.get_docstring(ast.parse(module.read_text())) or ""
    return docstring.partition("\n")[0].replace("|", "\\|").replace("<->", "↔")


def modules(room: str) -> str:
    """Returns a room's modules, as a table; packages in it are named by their folder."""
    folder = PACKAGE / room
    rows = []
    for path in sorted(folder.rglob("*.py")):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name != "__init__":
            rows.append(f"| `{name.removesuffix('__init__')}` | {summary(path)} |\n")
    return "".join(
        (f"### `{room}/`\n\n", f"{summary(folder / '__init__.py')}\n\n", "| module | |\n|---|---|\n", *rows)
    )


def written(page: str) -> str:
    """Returns the text of the page with an up-to-date list of modules."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return "".join((before, BEGIN, "\n", "\n".join(modules(room) for room in ROOMS), "\n", END, after))


if __name__ == "__main__":
    if unknown := {path.parent.name for path in PACKAGE.glob("*/__init__.py")} - set(ROOMS):
        sys.exit(f"{', '.join(sorted(unknown))}: new rooms; add them to ROOMS in {Path(__file__).name}")
    PAGE.write_text(written(PAGE.read_text()))
