"""Measures the units of storing and reading the pages of a real site, and compares with others in one run.

The site is the one of the demo, Python's documentation server; the engine is DynamoDB Local, which counts the
units. Each page is one `save_version` and one `save_page`; then each current version is read.

    python -m benchmarks.bodies
"""

import asyncio
import json
import sys
import tempfile
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urldefrag, urljoin

import aiohttp

from benchmarks.machine import ROOT, markdown
from benchmarks.report import Origin, Part, save
from examples.crawl_docs import SITE_ID, Content, extract
from examples.demo_site import is_page, pydoc_server
from ragcrawl_dynamo import (
    DynamoDBBackend,
    Page,
    PageVersion,
    RagcrawlDynamoError,
    normalize_url,
    page_id,
)
from ragcrawl_dynamo._dynamodb.client import open_client
from ragcrawl_dynamo._dynamodb.codec import encode_fields
from ragcrawl_dynamo._dynamodb.sizes import MAX_ITEM_BYTES, item_size
from ragcrawl_dynamo._dynamodb.values import Item
from ragcrawl_dynamo._schema.keys import version_key
from ragcrawl_dynamo.testing import local_config, run_dynamodb_local

PEER = ROOT / ".venv-peers" / "bin" / "python"


@dataclass(frozen=True)
class Result:
    """The units of all pages, and how many pages are stored."""

    name: str
    write: float
    read: float
    stored: int
    lost: int


async def fetch_corpus() -> list[tuple[PageVersion, Page]]:
    """Returns every page of the site, as the demo would store it."""
    async with pydoc_server() as start_url, aiohttp.ClientSession() as http:
        queue = deque([normalize_url(urljoin(start_url, "index.html"))])
        seen = set(queue)
        pairs = []
        while queue:
            url = queue.popleft()
            async with http.get(url) as response:
                html = await response.text()
            content = await asyncio.to_thread(extract, html)
            pairs.append(make_pair(url, content))
            for link in content["links"]:
                # Without its fragment: a page is fetched once, not once for each of its sections.
                linked = urldefrag(urljoin(url, link)).url
                if is_page(linked, start_url) and linked not in seen:
                    queue.append(linked)
                    seen.add(linked)
        return pairs


def make_pair(url: str, content: Content) -> tuple[PageVersion, Page]:
    """Makes a version and its page."""
    page = Page(page_id=page_id(url), site_id=SITE_ID, url=url, status_code=200)
    version = PageVersion.of(
        page,
        "run_0123456789ab",
        markdown=content["markdown"],
        html=content["html"],
        plain_text=content["text"],
        title=content["title"],
        outlinks=list(dict.fromkeys(urljoin(url, link) for link in content["links"])),
        content_type="text/html",
        fetch_latency_ms=12.345678,
        extraction_latency_ms=123.456789,
    )
    return version, page.model_copy(
        update={
            "current_version_id": version.version_id,
            "content_hash": version.content_hash,
            "last_crawled": version.crawled_at,
            "last_changed": version.crawled_at,
            "depth": 1,
            "version_count": 1,
        }
    )


def totals(backend: DynamoDBBackend) -> tuple[float, float]:
    """Returns the write and read units so far."""
    counters = backend.metrics().values()
    return sum(counter.write_units for counter in counters), sum(counter.read_units for counter in counters)


async def measure_this_package(endpoint: str, corpus: list[tuple[PageVersion, Page]]) -> Result:
    """Measures this package."""
    stored = 0
    async with DynamoDBBackend(local_config(endpoint)) as backend:
        for version, page in corpus:
            await backend.save_version(version)
            await backend.save_page(page)
        written, read_before = totals(backend)
        for version, page in corpus:
            stored += await backend.get_current_version(SITE_ID, page.page_id) == version
        read = totals(backend)[1] - read_before
    return Result("ragcrawl_dynamo", written, read, stored, len(corpus) - stored)


async def measure_single_items(endpoint: str, corpus: list[tuple[PageVersion, Page]]) -> Result:
    """Measures one uncompressed item for each version, in the same tables with the same indexes."""
    config = local_config(endpoint)
    table = f"{config.table_prefix}versions"
    write = read = 0.0
    stored = 0
    async with DynamoDBBackend(config) as backend, open_client(config) as client:
        for version, page in corpus:
            key = version_key(version.page_id, version.version_id, version.site_id)
            item: Item = {**encode_fields(version, "PageVersion"), **key, "indexed_site": {"S": SITE_ID}}
            if item_size(item) > MAX_ITEM_BYTES:
                continue
            put = await client.put_item(TableName=table, Item=item, ReturnConsumedCapacity="TOTAL")
            await backend.save_page(page)
            write += put["ConsumedCapacity"]["CapacityUnits"]
            got = await client.get_item(
                TableName=table, Key=key, ConsistentRead=True, ReturnConsumedCapacity="TOTAL"
            )
            read += got["ConsumedCapacity"]["CapacityUnits"] + 1  # and the page, which names it
            stored += 1
        write += totals(backend)[0]
    return Result("one uncompressed item a version", write, read, stored, len(corpus) - stored)


async def measure_ragcrawl(endpoint: str, corpus: list[tuple[PageVersion, Page]]) -> Result:
    """Measures ragcrawl 0.0.2 with its own backend, in an environment of its own."""
    pairs = [(version.model_dump(mode="json"), page.model_dump(mode="json")) for version, page in corpus]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(pairs, file)
        file.flush()
        process = await asyncio.create_subprocess_exec(
            *(PEER, ROOT / "benchmarks" / "peer_ragcrawl.py", endpoint, file.name),
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate()
    if process.returncode:
        raise RagcrawlDynamoError("the peer failed")
    return Result("ragcrawl 0.0.2", **json.loads(output.splitlines()[-1]))


async def main() -> dict[str, Any]:
    """Measures all, and returns the figures for docs/cost.md."""
    corpus = await fetch_corpus()
    with run_dynamodb_local(ROOT / ".dynamodb-local") as endpoint:
        results = [
            await measure_ragcrawl(endpoint, corpus),
            await measure_single_items(endpoint, corpus),
            await measure_this_package(endpoint, corpus),
        ]
    if results[-1].lost:
        sys.exit("this package lost pages")
    return {"pages": len(corpus), "results": [asdict(result) for result in results]}


def units(figures: dict[str, Any]) -> list[str]:
    """Formats the units as a table."""
    results = [Result(**result) for result in figures["results"]]
    ours = results[-1].write / results[-1].stored
    rows = [["", "write units a page", "to this package", "read units a read", "stored", "lost"]]
    for result in results:
        write = result.write / result.stored
        counts = (f"{result.read / result.stored:.1f}", f"{result.stored}", f"{result.lost}")
        rows.append([result.name, f"{write:.1f}", f"{write / ours:.1f} x", *counts])
    return markdown(rows)


PARTS: dict[str, Part] = {"units": units}


if __name__ == "__main__":
    origin = Origin.here("make bench-bodies")
    figures = asyncio.run(main())
    print("\n".join(units(figures)))
    save("bodies", origin, figures)
