"""The blocks on the page about search indexes: their output, and that they take pages of the tutorial."""

from __future__ import annotations

import asyncio
from pathlib import Path
from textwrap import indent
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import web

from ragcrawl_dynamo import DynamoDBBackend, connect
from ragcrawl_dynamo._utils.clock import SystemClock
from ragcrawl_dynamo.integrations import SyncReport, sync_index
from ragcrawl_dynamo.testing import drop_tables, local_config
from tests.docs.blocks import BLOCK, run_block
from tests.support.deaths import Death, KilledError, MortalIndex, mortal
from tests.support.factories import make_version
from tests.support.http_server import http_server
from tests.support.indexes import MemoryIndex, split, write

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "rag.md"


def names_of(block: str) -> dict[str, Any]:
    """Returns what a block defines, without running its program."""
    names: dict[str, Any] = {}
    exec(block.replace("\nasyncio.run(main())\n", ""), names)  # noqa: S102 # it is a block of our docs
    return names


async def test_program_of_a_search_index_prints_the_output_on_the_page(
    dynamodb_local_endpoint: str, tmp_path: Path
) -> None:
    text = PAGE.read_text()
    program = BLOCK.findall(text)[0]
    output = await run_block(program, dynamodb_local_endpoint, tmp_path)
    assert f"It prints:\n\n{indent(output, '    ')}\n" in text


async def test_program_of_a_search_index_takes_pages_of_the_crawler_on_the_page_about_crawls(
    dynamodb_local_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The crawler of crawling.md stores HTML and text, and no Markdown."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", dynamodb_local_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", f"docs{uuid4().hex[:12]}")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")

    async def answer(request: web.Request) -> web.Response:
        if request.path != "/":
            return web.Response(status=404)
        text = "<title>Lamps</title><p>Before.</p><h1>Bulbs</h1><p>Unscrew the bulb.</p>"
        return web.Response(text=text, content_type="text/html")

    async with http_server(answer) as url:
        await names_of(BLOCK.findall((DOCS / "crawling.md").read_text())[0])["main"](url)
        program = names_of(BLOCK.findall(PAGE.read_text())[0])
        index = program["Index"](str(tmp_path / "index.sqlite"))
        async with connect(table_prefix="docs_") as store:
            report = await sync_index(store, "docs", "search", index, program["split"])
        assert report == SyncReport(indexed=1, embedded_chunks=1)
        assert index.ask("How do I change a bulb?") == ("", f"{url}/")


@pytest.mark.parametrize(
    ("text", "passages"),
    [
        ("Before.\n\n# A\n\nText.\n\n## B", ["Before.\n\n", "# A\n\nText.\n\n", "## B"]),
        ("# A\n\nText.", ["# A\n\nText."]),
        ("No heading.", ["No heading."]),
    ],
)
def test_splitter_of_the_page_drops_no_text(text: str, passages: list[str]) -> None:
    program = names_of(BLOCK.findall(PAGE.read_text())[0])
    assert [passage.text for passage in program["split"](make_version(markdown=text))] == passages


async def test_clock_of_the_page_ends_the_wait_for_a_sync_that_was_killed(
    dynamodb_local_endpoint: str,
) -> None:
    (block,) = [code for code in BLOCK.findall(PAGE.read_text()) if "def sync_after_a_kill" in code]
    config, index = local_config(dynamodb_local_endpoint), MemoryIndex()
    async with DynamoDBBackend(config) as backend:
        await write(backend, "a", "text", "lamps")
    death = Death(12)
    async with mortal(config, SystemClock(), death) as dying:
        with pytest.raises(KilledError):
            await sync_index(dying, "lamps", "search", MortalIndex(index, death), split)
    syncing = names_of(block)["sync_after_a_kill"](config, index, split)
    assert await asyncio.wait_for(syncing, 30) == SyncReport(indexed=1, embedded_chunks=1)
    await drop_tables(config)
