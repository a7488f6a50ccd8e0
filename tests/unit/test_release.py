"""tools/release.sh refuses to release what is not ready, before it builds anything."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "release.sh"

COMMAND = ("bash", "tools/release.sh")

# The author of commits, and no settings of the machine's user.
GIT = ("git", "-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")


def git(project: Path, *arguments: str) -> None:
    subprocess.run((*GIT, *arguments), cwd=project, check=True, capture_output=True)


def commit(project: Path, **files: str) -> None:
    """Writes files, whose names have `__` for a slash, and commits them."""
    for name, text in files.items():
        path = project / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    git(project, "add", "--all")
    git(project, "commit", "--message", "x")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository that can be released, as far as the script looks before it builds."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    package = tmp_path / "ragcrawl_dynamo"
    for folder in (package, tmp_path / "tools"):
        folder.mkdir()
    (package / "__init__.py").write_text('__version__ = "1.2.3"\n')
    shutil.copy(SCRIPT, tmp_path / "tools")
    git(tmp_path, "init", "--initial-branch", "main")
    commit(tmp_path, CHANGELOG_md="## 1.2.3 - 2027-01-31\n", changelog_d__README_md="x\n")
    return tmp_path


def refusal(project: Path) -> str:
    result = subprocess.run(COMMAND, cwd=project, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert not (project / "build").exists()
    return result.stderr


def test_release_refuses_another_branch(project: Path) -> None:
    git(project, "switch", "--create", "other")
    assert "the branch is 'other'" in refusal(project)


def test_release_refuses_a_tree_with_changes(project: Path) -> None:
    (project / "new").touch()
    assert "the tree has changes" in refusal(project)


def test_release_refuses_a_version_that_the_changelog_does_not_begin_with(project: Path) -> None:
    commit(project, CHANGELOG_md="## 1.2.4 - 2027-02-01\n\n## 1.2.3 - 2027-01-31\n")
    assert "__version__ is 1.2.3, but CHANGELOG.md begins with '## 1.2.4 - 2027-02-01'" in refusal(project)


def test_release_refuses_changes_that_are_not_in_the_changelog(project: Path) -> None:
    commit(project, changelog_d__a_fixed_md="Mended.\n")
    assert "changelog.d/a.fixed.md" in refusal(project)


def test_release_refuses_a_version_that_is_tagged_on_another_commit(project: Path) -> None:
    git(project, "tag", "v1.2.3")
    commit(project, more_txt="x")
    assert "the tag v1.2.3 is on another commit" in refusal(project)
