"""Starts processes for tests; none of them outlives its test.

A worker is a fork of a process that has imported what workers need: that takes a few milliseconds, where
starting Python and importing the package takes half a second of CPU.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.context import ForkServerProcess
from multiprocessing.synchronize import Barrier
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["ragcrawl_dynamo.testing", "tests.support.factories", "tests.support.fakes"])


def start(target: Callable[..., None], *arguments: Any) -> ForkServerProcess:
    """Runs a function of a module in a process of its own, which ends with this one at the latest."""
    process = _CONTEXT.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def barrier(count: int) -> Barrier:
    """Returns a barrier at which so many workers wait for each other."""
    return _CONTEXT.Barrier(count)


async def ended(process: ForkServerProcess) -> int:
    """Returns the exit code of a process, once it has ended; the signal that killed it is negative."""
    # Not in a thread: starting another process looks at this one too, and one of the two would miss its end.
    has_ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(process.sentinel, has_ended.set)
    try:
        await has_ended.wait()
    finally:
        loop.remove_reader(process.sentinel)
    process.join()
    assert process.exitcode is not None
    return process.exitcode


async def kill(process: ForkServerProcess) -> None:
    """Kills a process, if it has not ended, and waits until it has."""
    process.kill()
    await ended(process)


async def run_command(*command: str, **options: Any) -> tuple[int, str, str]:
    """Runs a command; returns its exit code, output and errors. Its child processes end with it."""
    process = await asyncio.create_subprocess_exec(
        *command,
        **options,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        output, errors = await process.communicate()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()
