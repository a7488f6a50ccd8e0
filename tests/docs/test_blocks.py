"""Every block of Python in README and docs runs, and every link between them leads somewhere."""

import asyncio
import os
import re
import sys
from pathlib import Path
from uuid import uuid4

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def blocks() -> list[tuple[str, str]]:
    return [
        (f"{page.name} {number}", code)
        for page in PAGES
        for number, code in enumerate(BLOCK.findall(page.read_text()), 1)
    ]


@pytest.mark.parametrize(("name", "code"), blocks(), ids=[name for name, _ in blocks()])
async def test_a_block_runs(name: str, code: str, dynamodb_local_endpoint: str, tmp_path: Path) -> None:
    """Against DynamoDB Local, though it is written for AWS."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error::RuntimeWarning", "-c", code),
        env={
            **os.environ,
            "AWS_ENDPOINT_URL_DYNAMODB": dynamodb_local_endpoint,
            # DynamoDB Local has a database for each key.
            "AWS_ACCESS_KEY_ID": f"docs{uuid4().hex[:12]}",
            "AWS_SECRET_ACCESS_KEY": "local",
        },
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    assert b"Traceback" not in errors


def test_there_are_blocks() -> None:
    assert len(blocks()) >= 9


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()] == []
