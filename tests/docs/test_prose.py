"""tools/prose.py finds phrases that are not plain English, and looks only at prose."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "prose.py"


@pytest.fixture(scope="module")
def prose() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prose", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.register_checks()
    return module


def found_lines(prose: ModuleType, folder: Path, name: str, text: str) -> list[int]:
    """Returns the lines of a file in which the tool finds something."""
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    return sorted(line for line, _ in prose.findings(file))


@pytest.mark.parametrize(
    "phrase",
    [
        "it can not be",
        "who is\ntold of it",
        "a word that is for all intensive purposes",
        "saved, whatever happens",
    ],
)
def test_prose_finds_a_phrase_on_a_page(prose: ModuleType, tmp_path: Path, phrase: str) -> None:
    assert found_lines(prose, tmp_path, "page.md", f"# Title\n\nThis is {phrase}.\n") == [3]


def test_prose_finds_a_phrase_in_docstrings_and_comments(prose: ModuleType, tmp_path: Path) -> None:
    text = 'def save():\n    """Saves.\n\n    It can not fail.\n    """\n    return 1  # can not fail\n'
    assert found_lines(prose, tmp_path, "module.py", text) == [4, 6]


def test_prose_finds_a_phrase_in_messages_of_the_package_only(prose: ModuleType, tmp_path: Path) -> None:
    text = 'text = f"the site {1} can not be read"\n'
    assert found_lines(prose, tmp_path, "ragcrawl_dynamo/module.py", text) == [1]
    assert found_lines(prose, tmp_path, "tests/module.py", text) == []


@pytest.mark.parametrize("word", ["What", "Of"])
def test_prose_finds_a_docstring_that_begins_like_a_riddle(
    prose: ModuleType, tmp_path: Path, word: str
) -> None:
    assert found_lines(prose, tmp_path, "module.py", f'class Page:\n    """{word} was read."""\n') == [2]


@pytest.mark.parametrize(
    "code",
    [
        "each = 1",
        "total = sum(own for own in pages)",
        "if found := pages:\n    pass",
        "def save(own):\n    pass",
        "def save(*, found=1):\n    pass",
        "self.found = 1",
        "class Page:\n    _own: int = 1",
        "for _, (each, page) in pages:\n    pass",
        "with pages as found:\n    pass",
        "lambda each: page",
        "match page:\n    case found: pass",
        "match pages:\n    case [_, *found]: pass",
        "try:\n    save()\nexcept ValueError as found:\n    pass",
    ],
)
def test_prose_finds_a_name_that_says_nothing(prose: ModuleType, tmp_path: Path, code: str) -> None:
    names = ("each", "found", "own")
    line = next(
        number for number, text in enumerate(code.splitlines(), 1) if any(name in text for name in names)
    )
    assert found_lines(prose, tmp_path, "module.py", f"{code}\n") == [line]


def test_prose_takes_names_that_contain_such_words(prose: ModuleType, tmp_path: Path) -> None:
    code = "own_token = page.found + each(own=1)\nfoundation, each_page = 1, 2\n"
    assert found_lines(prose, tmp_path, "module.py", code) == []


def test_prose_leaves_out_code(prose: ModuleType, tmp_path: Path) -> None:
    page = "Call `can not`.\n\n```python\ncan not\n```\n\n[page](can not)\n"
    assert found_lines(prose, tmp_path, "page.md", page) == []
    assert found_lines(prose, tmp_path, "module.py", "can = not_ = 1\ncan, not_\n") == []
