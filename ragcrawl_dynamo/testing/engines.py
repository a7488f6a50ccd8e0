"""Starts a DynamoDB engine on this machine: moto's server in this process, or AWS's DynamoDB Local."""

from __future__ import annotations

import asyncio
import errno
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

__all__ = ["local_dynamodb", "run_dynamodb_local", "run_moto"]

_START_TIMEOUT = 30.0


@asynccontextmanager
async def local_dynamodb(dynamodb_local: Path | str | None = None) -> AsyncIterator[str]:
    """Runs a DynamoDB engine on a free port of 127.0.0.1 until the context ends.

    Args:
        dynamodb_local: The folder of DynamoDBLocal.jar, to run AWS's engine. By default moto's server runs.
            It is slower, and its transactions are not reliable.

    Yields:
        The URL of the endpoint. It accepts any credentials.

    Raises:
        RuntimeError: moto or Java is not installed, or the engine did not start.
    """
    engine = run_moto() if dynamodb_local is None else run_dynamodb_local(dynamodb_local)
    endpoint = await asyncio.to_thread(engine.__enter__)
    try:
        yield endpoint
    finally:
        await asyncio.to_thread(engine.__exit__, None, None, None)


@contextmanager
def run_moto(port: int = 0) -> Iterator[str]:
    """Runs moto's server in a thread.

    The server handles one request at a time, because moto itself is not atomic: otherwise, two concurrent
    conditional writes of one item could both succeed.

    Args:
        port: The port to listen on; 0 for a free port.

    Yields:
        The URL of the endpoint. It accepts any credentials.

    Raises:
        RuntimeError: moto is not installed, or the port is in use.
    """
    try:
        from ragcrawl_dynamo.testing.moto_server import serve
        from ragcrawl_dynamo.testing.moto_tables import create_application, fast_tables
    except ImportError as error:
        raise RuntimeError("moto is not installed: pip install 'ragcrawl-dynamo[local]'") from error
    port = _usable_port(port)
    with fast_tables(), serve(create_application(), port) as endpoint:
        yield endpoint


@contextmanager
def run_dynamodb_local(folder: Path | str, port: int = 0) -> Iterator[str]:
    """Runs DynamoDB Local in memory.

    Args:
        folder: The folder of DynamoDBLocal.jar and DynamoDBLocal_lib.
        port: The port to listen on; 0 for a free port.

    Yields:
        The URL of the endpoint. It accepts any credentials.

    Raises:
        RuntimeError: The jar or Java is missing, the port is in use, or the engine does not answer within
            30 s.
    """
    folder = Path(folder)
    if not (folder / "DynamoDBLocal.jar").exists():
        raise RuntimeError(
            f"there is no DynamoDBLocal.jar in {folder}: download DynamoDB Local from AWS and unpack it there"
        )
    port = _usable_port(port)
    command = ["java", "-Djava.library.path=./DynamoDBLocal_lib", "-jar", "DynamoDBLocal.jar"]
    options = ["-inMemory", "-sharedDb", "-disableTelemetry", "-port", str(port)]
    try:
        process = subprocess.Popen(  # noqa: S603 # a fixed command
            [*command, *options],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        raise RuntimeError("java was not found: DynamoDB Local needs Java 17 or newer, install it") from None
    try:
        _wait_for(process, port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _usable_port(port: int) -> int:
    """Returns a port on which nothing listens: the given one, or a free one for 0.

    DynamoDB Local does not end if its port is in use, and another server there would be taken for it.
    """
    try:
        with socket.create_server(("127.0.0.1", port)) as probe:
            return int(probe.getsockname()[1])
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise RuntimeError(
            f"port {port} is in use: end the program that listens on it, or choose another port"
        ) from None


def _wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    while time.monotonic() < deadline:
        if (code := process.poll()) is not None:
            raise RuntimeError(
                f"DynamoDB Local ended with exit code {code} as it started: it needs Java 17 or newer"
            )
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"DynamoDB Local did not answer on port {port} within {_START_TIMEOUT:.0f} s")
