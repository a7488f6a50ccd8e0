"""Runs crawlers as processes, and kills them half-way."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from tests.adapters.site import Site

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


async def kill_when(process: asyncio.subprocess.Process, is_due: Callable[[], Awaitable[bool]]) -> None:
    """Kills a process as soon as a condition holds. Fails if the process ends before."""
    async with asyncio.timeout(120):
        while not await is_due():
            assert process.returncode is None, (await process.communicate())[0].decode()[-5000:]
            await asyncio.sleep(0.02)
    process.kill()
    await process.communicate()
    assert process.returncode == -signal.SIGKILL


async def crawl_with_a_kill(
    example: str, site: Site, arguments: Sequence[str], is_half: Callable[[], Awaitable[bool]]
) -> str:
    """Lets two processes crawl a site together, kills one half-way and starts it again, until both end well.

    Then the crawl is finished: another process requests nothing from the site. Returns its output.
    """
    one, two = [await start(example, *arguments) for _ in range(2)]
    await kill_when(one, is_half)
    await asyncio.gather(finish(two), finish(await start(example, *arguments)))
    hits = site.hits.copy()
    assert {f"{site.url[:-4]}{path}" for path in hits} == site.urls
    output = await finish(await start(example, *arguments))
    assert site.hits == hits
    return output
