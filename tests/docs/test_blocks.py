"""Every block of Python in README and docs runs, and every link between them leads somewhere."""

import re
from pathlib import Path

import pytest

from tests.docs.blocks import BLOCK, run_block

ROOT = Path(__file__).parents[2]
# Those of the adapters and integrations run where their crawlers and frameworks are: test_docs.py in
# tests/adapters and tests/frameworks.
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

LINK = re.compile(r"\]\(([^)#:]*)(?:#([^)]*))?\)")

# Code may have Markdown with links that do not belong to the page.
CODE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)

# Text of the code that names a page.
NAMED_PAGE = re.compile(r"\bdocs/[\w/-]+\.md\b")


def blocks() -> list[tuple[str, str]]:
    return [
        (f"{page.name} {number}", code)
        for page in PAGES
        for number, code in enumerate(BLOCK.findall(page.read_text()), 1)
    ]


@pytest.mark.parametrize(("name", "code"), blocks(), ids=[name for name, _ in blocks()])
async def test_docs_block_runs(name: str, code: str, dynamodb_local_endpoint: str, tmp_path: Path) -> None:
    await run_block(code, dynamodb_local_endpoint, tmp_path)


async def test_docs_cost_table_is_the_output_of_the_calculator(
    dynamodb_local_endpoint: str, tmp_path: Path
) -> None:
    text = (ROOT / "docs" / "cost.md").read_text()
    (code,) = BLOCK.findall(text)
    assert f"It prints:\n\n{await run_block(code, dynamodb_local_endpoint, tmp_path)}\n" in text


def test_docs_have_blocks() -> None:
    assert len(blocks()) >= 9


# They have no blocks.
LINKED = [*PAGES, *sorted((ROOT / "docs").glob("*/*.md"))]


def anchors(page: Path) -> set[str]:
    """The anchors that Python-Markdown gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_docs_links_lead_to_files_and_headings(page: Path) -> None:
    missing = []
    for link, anchor in LINK.findall(CODE.sub("", page.read_text())):
        target = page.parent / link if link else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            missing.append(f"{link}#{anchor}")
    assert missing == []


def test_code_names_pages_that_exist() -> None:
    folders = ("ragcrawl_dynamo", "tests", "benchmarks", "tools", "examples")
    files = [ROOT / "mkdocs.yml", ROOT / "Makefile"]
    files += [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    named = {name for file in files for name in NAMED_PAGE.findall(file.read_text())}
    assert sorted(name for name in named if not (ROOT / name).exists()) == []
