"""The examples, run as a user runs them."""

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


async def run_example(name: str, *args: str) -> str:
    """The output of an example; fails where it fails or warns."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error::ResourceWarning", str(EXAMPLES / name), *args),
        env={**os.environ, "COLUMNS": "140", "NO_COLOR": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = (part.decode() for part in await process.communicate())
    assert process.returncode == 0, errors
    assert "Warning" not in errors
    return output


def figure(output: str, name: str) -> int:
    match = re.search(rf"│ {name} +│ ([\d,]+)", output)
    assert match is not None, output
    return int(match[1].replace(",", ""))


async def test_the_demo_stores_a_real_site(dynamodb_local_endpoint: str) -> None:
    output = await run_example("crawl_docs.py", "--endpoint-url", dynamodb_local_endpoint)
    assert figure(output, "pages") >= 190
    assert figure(output, "versions") == figure(output, "pages")
    assert figure(output, "raw bytes") > 5 * figure(output, "stored bytes") > 1_000_000
    assert 5 < figure(output, "write units of a version") < 15
    assert figure(output, "  pages_crawled") == figure(output, "pages")
    assert figure(output, "frontier items failed") == 0
    # Both worker processes took part.
    assert len(re.findall(r"process \d+: \d+", output)) == 2
    assert "json.html" in output


async def test_the_quickstart_runs() -> None:
    assert "https://example.com/" in await run_example("quickstart.py")


def test_every_example_is_run_here() -> None:
    source = Path(__file__).read_text()
    assert [name for each in EXAMPLES.glob("[!_]*.py") if (name := each.name) not in source] == []


@pytest.fixture(autouse=True)
def no_settings_of_the_developer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("RAGCRAWL_DYNAMO_")]:
        monkeypatch.delenv(name)
