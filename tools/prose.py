"""Checks the English of docs, docstrings, comments and messages: by proselint, and by phrases to avoid.

In Python files it also refuses names that do not say what they name.

`make lint` runs it on the whole repository, `python tools/prose.py FILE ...` on some files. It prints each
finding as `file:line: message`, and fails if there is one.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

from proselint.checks import __register__
from proselint.config import DEFAULT
from proselint.registry import CheckRegistry
from proselint.tools import LintFile

ROOT = Path(__file__).parent.parent

FOLDERS = ("ragcrawl_dynamo", "docs", "tests", "benchmarks", "examples", "tools", "changelog.d")

# Checks of proselint that are not for this text.
IGNORED_CHECKS = (
    "typography",  # the text is ASCII, so that it can be searched and typed
    "dates_times",  # "100 ms" is no time of day, and "from 2 to 4-8" no date
    "misc.capitalization",  # runs are called "monday"
)

# Phrases that readers stumbled over, and what to write instead.
PHRASES = {
    "can not": "cannot",
    "(?:is|are) told of": "is called after, or gets",
    "go(?:es)? on where": "resumes",
    "passed over": "missed, or left out",
    "the other way round": "swapped, or the opposite",
    "in vain": "say what was not achieved",
    "whatever": "every, any, regardless of",
    "whoever": "the caller, the process, the worker",
}

# How no docstring begins: its first line says what the thing does or is.
RIDDLES = frozenset({"Of", "That", "What", "Who", "Whose"})

# Names of variables, arguments and attributes that readers stumbled over, and examples of better ones.
EMPTY_NAMES = {
    "each": "its kind, such as page or claim",
    "found": "its kind, such as items or tables",
    "own": "whose and of which kind, such as own_token",
}

# Replaces text that is not prose: no check knows it, and no word is repeated across it.
BLANK = "·"


def markdown_prose(text: str) -> list[str]:
    """Returns the lines of a Markdown page without its code, comments and links."""

    def blank(match: re.Match[str]) -> str:
        return re.sub(r"[^\n]", BLANK, match[0])

    text = re.sub(r"^```.*?^```|^ {4}.*?$|<!--.*?-->", blank, text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"`[^`]+`|\]\([^)]*\)", blank, text)
    return [line or BLANK for line in text.splitlines()]


def python_prose(text: str, *, with_messages: bool) -> list[str]:
    """Returns the lines of a module with only its docstrings and comments, and its messages if asked."""
    lines = [BLANK] * (text.count("\n") + 2)
    docstrings = set()
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docstring = node.value
            docstrings.add(docstring)
            if isinstance(docstring.value, str):
                prose = markdown_prose(re.sub(r"(?m)^ +", "", docstring.value))
                lines[docstring.lineno - 1 : docstring.lineno - 1 + len(prose)] = prose
    if with_messages:
        for node in ast.walk(tree):
            is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
            if is_text and node not in docstrings and node.value.count(" ") > 1:
                message = re.sub(r"%\S*[a-z]|\n", f" {BLANK} ", node.value)
                lines[node.lineno - 1] += f" {message} {BLANK}"
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            (prose,) = markdown_prose(token.string.strip("# "))[:1] or [BLANK]
            lines[token.start[0] - 1] = prose
    return lines


def riddles(text: str) -> Iterator[tuple[int, str]]:
    """Yields the docstrings of a module, its classes and functions that begin like a riddle."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            word = (ast.get_docstring(node) or "").partition(" ")[0]
            if word in RIDDLES:
                yield node.body[0].lineno, f"a docstring begins with {word!r}: begin with a verb, or a name"


def empty_names(text: str) -> Iterator[tuple[int, str]]:
    """Yields the variables, arguments and attributes of a module that have one of `EMPTY_NAMES`."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case (
                ast.Name(id=str(name), ctx=ast.Store())
                | ast.Attribute(attr=str(name), ctx=ast.Store())
                | ast.arg(arg=str(name))
                | ast.MatchAs(name=str(name))
                | ast.MatchStar(name=str(name))
                | ast.ExceptHandler(name=str(name))
            ) if name.strip("_") in EMPTY_NAMES:
                yield node.lineno, f"the name {name!r} says nothing: write {EMPTY_NAMES[name.strip('_')]}"


def findings(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the line and the message of everything in a file that is not plain English."""
    text = path.read_text()
    if path.suffix == ".py":
        yield from riddles(text)
        yield from empty_names(text)
        lines = python_prose(text, with_messages="ragcrawl_dynamo" in path.parts)
    else:
        lines = markdown_prose(text)
    prose = "\n".join(lines)
    for result in LintFile(path.name, prose).lint(CONFIG):
        yield result.pos[0], f"{result.check_result.message} [{result.check_result.check_path}]"
    for phrase, instead in PHRASES.items():
        pattern = r"\b" + phrase.replace(" ", r"\s+") + r"\b"
        for match in re.finditer(pattern, prose, re.IGNORECASE):
            yield prose.count("\n", 0, match.start()) + 1, f"{match[0]!r}: write {instead}"


IGNORED = dict.fromkeys(IGNORED_CHECKS, False)
# The first key that a check falls under decides: those that are ignored stand first.
CONFIG = {**DEFAULT, "checks": IGNORED | DEFAULT["checks"] | IGNORED}


def register_checks() -> None:
    """Makes the checks of proselint known to its registry, once a process."""
    CheckRegistry().register_many(__register__)


def files() -> list[Path]:
    """Returns the pages at the top of the repository, and the pages and modules of its folders."""
    nested = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))
    return sorted(path for path in (*ROOT.glob("*.md"), *nested) if path.suffix in {".md", ".py"})


def main(paths: list[str]) -> None:
    """Prints the findings in the files with these paths, or in all files."""
    register_checks()
    count = 0
    for path in [Path(path).resolve() for path in paths] or files():
        for line, message in sorted(findings(path)):
            print(f"{path.relative_to(ROOT)}:{line}: {message}")
            count += 1
    sys.exit(count > 0)


if __name__ == "__main__":
    main(sys.argv[1:])
