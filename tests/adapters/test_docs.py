"""Runs the Python blocks in the documentation of the adapters whose crawlers are installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.adapters.conftest import CRAWLERS
from tests.adapters.site import Site
from tests.docs.blocks import BLOCK, run_block

DOCS = Path(__file__).parents[2] / "docs" / "adapters"


@pytest.mark.parametrize("crawler", [name for name in CRAWLERS if find_spec(name)])
async def test_adapter_docs_blocks_run(
    crawler: str, site: Site, dynamodb_local_endpoint: str, tmp_path: Path
) -> None:
    (code,) = BLOCK.findall((DOCS / f"{crawler}.md").read_text())
    site.pages = 7
    local_code = code.replace("https://docs.example.org/", site.url).replace("docs.example.org", "localhost")
    await run_block(local_code, dynamodb_local_endpoint, tmp_path)
    del site.hits["/robots.txt"]
    assert sorted(site.hits.items()) == [(f"/p/{number}", 1) for number in range(7)]
