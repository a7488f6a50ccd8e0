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
    "phrase", ["it can not be", "who is\ntold of it", "a word that is for all intensive purposes"]
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


def test_prose_leaves_out_code(prose: ModuleType, tmp_path: Path) -> None:
    page = "Call `can not`.\n\n```python\ncan not\n```\n\n[page](can not)\n"
    assert found_lines(prose, tmp_path, "page.md", page) == []
    assert found_lines(prose, tmp_path, "module.py", "can = not_ = 1\ncan, not_\n") == []
