"""Every block of Python in README and docs runs, and every link between them leads somewhere."""

import re
from pathlib import Path

import pytest

from tests.docs.blocks import BLOCK, run_block

ROOT = Path(__file__).parents[2]
# Those of the adapters run where their crawlers are: tests/adapters/test_docs.py.
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def blocks() -> list[tuple[str, str]]:
    return [
        (f"{page.name} {number}", code)
        for page in PAGES
        for number, code in enumerate(BLOCK.findall(page.read_text()), 1)
    ]


@pytest.mark.parametrize(("name", "code"), blocks(), ids=[name for name, _ in blocks()])
async def test_docs_block_runs(name: str, code: str, dynamodb_local_endpoint: str, tmp_path: Path) -> None:
    await run_block(code, dynamodb_local_endpoint, tmp_path)


async def test_docs_cost_table_is_what_the_calculator_prints(
    dynamodb_local_endpoint: str, tmp_path: Path
) -> None:
    text = (ROOT / "docs" / "cost.md").read_text()
    (code,) = BLOCK.findall(text)
    assert f"It prints:\n\n{await run_block(code, dynamodb_local_endpoint, tmp_path)}\n" in text


def test_docs_have_blocks() -> None:
    assert len(blocks()) >= 9


ADAPTERS = [*(ROOT / "docs" / "adapters").glob("*.md")]


@pytest.mark.parametrize("page", [*PAGES, *ADAPTERS], ids=lambda page: page.name)
def test_docs_links_lead_to_files(page: Path) -> None:
    assert [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()] == []
