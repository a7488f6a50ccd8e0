"""Runs the Python blocks in the documentation of the frameworks that are installed, after a crawl."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.docs.blocks import BLOCK, run_block
from tests.frameworks.conftest import PACKAGES

DOCS = Path(__file__).parents[2] / "docs" / "integrations"

CRAWLED = '''
import asyncio

from ragcrawl_dynamo import connect


JSON = f"""# json

Encodes and decodes.{" It is a text format." * 50}

## Basic Usage[\N{PILCROW SIGN}](#basic-usage "Link to this heading")

To indent the output, pass `indent`. How many spaces do you want?

## Exceptions

It raises JSONDecodeError if the text is not valid.
"""


async def crawled(kind="markdown"):
    async with connect(table_prefix="docs_") as store:
        pages = {"https://docs.example.org/json": JSON, "https://docs.example.org/csv": "# csv\\n\\nTables."}
        async with store.crawl("docs", seeds=list(pages), host_delay=0) as run:

            async def handle(task):
                await task.save(200, **{kind: pages[task.url]})

            await run.work(handle)


asyncio.run(crawled())
'''

# As the crawler on the page about crawls stores pages: without Markdown, and so without headings.
CRAWLED_AS_TEXT = CRAWLED.replace('kind="markdown"', 'kind="text"').replace("#", "")


FRAMEWORKS = pytest.mark.parametrize(
    "framework", [name for name, package in PACKAGES.items() if find_spec(package)]
)


async def run_framework(framework: str, crawl: str, endpoint: str, folder: Path) -> str:
    """Returns the output of the block of a framework after a crawl."""
    (code,) = BLOCK.findall((DOCS / f"{framework.replace('_', '-')}.md").read_text())
    # All blocks use one database, and each begins with an index that nobody has filled.
    return await run_block((crawl + code).replace('"docs_"', f'"{framework}_"'), endpoint, folder)


@FRAMEWORKS
@pytest.mark.parametrize(
    ("crawl", "expected"),
    [
        (CRAWLED, "json > Basic Usage https://docs.example.org/json#basic-usage"),
        (CRAWLED_AS_TEXT, "None https://docs.example.org/json"),
    ],
    ids=["markdown", "text"],
)
async def test_framework_docs_block_finds_the_section_or_the_page_without_markdown(
    framework: str, crawl: str, expected: str, dynamodb_local_endpoint: str, tmp_path: Path
) -> None:
    output = await run_framework(framework, crawl, dynamodb_local_endpoint, tmp_path)
    report, answer = output.splitlines()
    assert "indexed=2" in report
    assert answer == expected
