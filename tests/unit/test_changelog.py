"""CHANGELOG.md is made of the files in changelog.d, and begins with the version of the package."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ragcrawl_dynamo

ROOT = Path(__file__).parents[2]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["towncrier"]


def towncrier(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "towncrier", "build", "--dir", str(folder), "--version", "9.8.7")
    return subprocess.run((*command, *arguments), capture_output=True, text=True, check=False)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The settings and the template, and a changelog, without changes."""
    (tmp_path / "changelog.d").mkdir()
    for name in ("pyproject.toml", SETTINGS["template"], "changelog.d/README.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    head, marker, _ = CHANGELOG.partition("<!-- towncrier release notes start -->\n")
    assert marker, "towncrier writes a version below this line"
    (tmp_path / "CHANGELOG.md").write_text(f"{head}{marker}\n## 9.8.6 - 2027-01-01\n\nOlder.\n")
    return tmp_path


def write(project: Path, **changes: str) -> None:
    for name, text in changes.items():
        (project / "changelog.d" / f"{name.replace('_', '.')}.md").write_text(text)


def test_changelog_has_the_changes_by_type(project: Path) -> None:
    write(project, b_fixed="Of two\nlines.\n", z_added="Last.\n", a_added="First.\n", a_security="Secure.\n")
    write(project, a_summary="In short,\nall is well.\n", a_removed="Gone.\n")
    result = towncrier(project, "--yes", "--date", "2027-01-31")
    assert result.returncode == 0, result.stderr
    _, _, versions = (project / "CHANGELOG.md").read_text().partition("start -->\n")
    assert versions == (
        "\n## 9.8.7 - 2027-01-31\n\nIn short,\nall is well.\n"
        "\n### Added\n\n- First.\n- Last.\n"
        "\n### Removed\n\n- Gone.\n"
        "\n### Fixed\n\n- Of two\n  lines.\n"
        "\n### Security\n\n- Secure.\n"
        "\n## 9.8.6 - 2027-01-01\n\nOlder.\n"
    )
    assert {path.name for path in (project / "changelog.d").iterdir()} == set(SETTINGS["ignore"])


@pytest.mark.parametrize("name", ["a_bugfix", "a"])
def test_changelog_refuses_a_file_of_another_type(project: Path, name: str) -> None:
    write(project, **{name: "Mended.\n"})
    result = towncrier(project, "--draft")
    assert result.returncode == 1
    assert f"Invalid news fragment name: {name.replace('_', '.')}.md" in result.stderr


def test_changelog_can_be_made_of_the_files_here() -> None:
    result = towncrier(ROOT, "--draft")
    assert result.returncode == 0, result.stderr


def test_changelog_types_are_described() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "changelog.d" / "README.md").read_text(), re.MULTILINE)
    assert set(rows) == {kind["directory"] for kind in SETTINGS["type"]}


def test_changelog_begins_with_the_version_of_the_package() -> None:
    versions = re.findall(r"^## (\S+) - \d{4}-\d\d-\d\d$", CHANGELOG, re.MULTILINE)
    assert versions[0] == ragcrawl_dynamo.__version__
    assert len(set(versions)) == len(versions)
