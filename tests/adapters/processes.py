"""Runs crawlers as processes, and kills them half-way."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from ragcrawl_dynamo import DynamoDBBackend, FrontierStats, FrontierStatus
from tests.adapters.site import Site
from tests.support.aws import SimulatedAWS

# The run that the examples crawl.
RUN_ID = "docs/monday"

EXAMPLES = Path(__file__).parents[2] / "examples" / "adapters"


async def start(example: str, *args: str) -> asyncio.subprocess.Process:
    """Starts an example, as its user does."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, str(EXAMPLES / example), *args),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def finish(process: asyncio.subprocess.Process) -> str:
    """Waits until a process has ended without an error, and returns its output."""
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()[-5000:]
    return output.decode()


async def wait_until(process: asyncio.subprocess.Process, is_due: Callable[[], Awaitable[bool]]) -> None:
    """Waits until a condition holds. Fails if the process ends before."""
    async with asyncio.timeout(120):
        while not await is_due():
            assert process.returncode is None, (await process.communicate())[0].decode()[-5000:]
            await asyncio.sleep(0.02)


async def kill_when(process: asyncio.subprocess.Process, is_due: Callable[[], Awaitable[bool]]) -> None:
    """Kills a process as soon as a condition holds. Fails if the process ends before."""
    await wait_until(process, is_due)
    process.kill()
    await process.communicate()
    assert process.returncode == -signal.SIGKILL


async def crawl_with_a_kill(
    example: str, site: Site, backend: DynamoDBBackend, endpoint: str, pages_in: str
) -> str:
    """Lets two processes crawl a site together, kills one half-way and starts it again, until both end well.

    Then each page is stored once, with its content. Each request for it had a lease of its own, and none came
    after the page was crawled. The crawl is finished: another process requests nothing. Returns its output.

    Args:
        example: The program, which crawls the run `docs/monday`.
        site: The site.
        backend: Reads the tables, from the engine itself.
        endpoint: The endpoint of the processes.
        pages_in: Where the pages are stored: the id of a site.
    """
    site.seconds = 0.4
    arguments = (
        *(site.url, "--endpoint-url", endpoint, "--table-prefix", backend.config.table_prefix),
        *("--lease-seconds", "6"),
    )

    async def has_begun() -> bool:
        return bool(site.hits)

    async def is_half() -> bool:
        return await backend.count_pages(pages_in) >= site.pages // 2

    one = await start(example, *arguments)
    # So it has leases when it is killed, however late the other one sees its links.
    await wait_until(one, has_begun)
    two = await start(example, *arguments)
    await kill_when(one, is_half)
    crawled = {item.url for item in await backend.get_frontier_items(RUN_ID, status=FrontierStatus.COMPLETED)}
    hits_at_kill = site.hits_by_url()
    await asyncio.gather(finish(two), finish(await start(example, *arguments)))

    hits = site.hits_by_url()
    items = await backend.get_frontier_items(RUN_ID)
    assert {item.url: item.status for item in items} == dict.fromkeys(site.urls, FrontierStatus.COMPLETED)
    assert hits.keys() == site.urls
    assert [item for item in items if hits[item.url] > item.attempt] == []
    assert {url: hits[url] for url in crawled} == {url: hits_at_kill[url] for url in crawled}
    assert await backend.frontier("docs", RUN_ID).recount() == FrontierStats(completed=site.pages)
    pages = [page async for page in backend.iter_pages(pages_in)]
    assert sorted(page.url for page in pages) == sorted(site.urls)
    assert {page.version_count for page in pages} == {1}
    bodies = {version.url: version.markdown async for version in backend.iter_versions(pages_in)}
    assert bodies.keys() == site.urls
    assert all("first edition" in text for text in bodies.values())

    output = await finish(await start(example, *arguments))
    assert site.hits_by_url() == hits
    return output


def check_bad_day(aws: SimulatedAWS) -> None:
    """Checks that a simulated AWS has refused, failed and throttled requests, and lost answers."""
    wanted = {"TransactionConflict", "ThrottlingError", "errors_before", "errors_after", "cuts_after"}
    missing = wanted - (+aws.events).keys()
    assert not missing, f"{missing} did not happen: {aws.events}"
