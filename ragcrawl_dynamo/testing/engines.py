"""Starts a DynamoDB on this machine: moto's server, in this process, or AWS's DynamoDB Local, in Java."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

__all__ = ["local_dynamodb", "run_dynamodb_local", "run_moto"]

_START_TIMEOUT = 30.0


@asynccontextmanager
async def local_dynamodb(dynamodb_local: Path | str | None = None) -> AsyncIterator[str]:
    """A DynamoDB on a free port of 127.0.0.1, for as long as the context lasts.

    Args:
        dynamodb_local: Folder with DynamoDBLocal.jar, to run AWS's engine; moto's server otherwise, which is
            slower and knows no transactions that can be trusted.

    Yields:
        The endpoint's URL. Any credentials do.

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
def run_moto() -> Iterator[str]:
    """Runs moto's server in a thread; yields its URL.

    It serves one request at a time, since moto itself is not atomic: without that, two conditional writes of
    one item at once can both succeed.

    Raises:
        RuntimeError: moto is not installed.
    """
    try:
        from moto.server import ThreadedMotoServer
    except ImportError as error:
        raise RuntimeError("moto is not installed: pip install 'ragcrawl-dynamo[local]'") from error
    # Its log of requests goes to stderr where logging is not configured.
    requests_log = logging.getLogger("werkzeug")
    if requests_log.level == logging.NOTSET:
        requests_log.setLevel(logging.WARNING)
    # moto would listen on every interface by default.
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _serve_one_at_a_time(server)
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@contextmanager
def run_dynamodb_local(folder: Path | str, port: int = 0) -> Iterator[str]:
    """Runs DynamoDB Local, in memory; yields its URL.

    Args:
        folder: Where DynamoDBLocal.jar and DynamoDBLocal_lib are.
        port: Where to listen; 0 for a free port.

    Raises:
        RuntimeError: The jar or Java is missing, or the engine does not answer within 30 s.
    """
    folder = Path(folder)
    if not (folder / "DynamoDBLocal.jar").exists():
        raise RuntimeError(f"there is no DynamoDBLocal.jar in {folder}")
    port = port or _free_port()
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
    except FileNotFoundError as error:
        raise RuntimeError("java is not installed: DynamoDB Local needs Java 17 or newer") from error
    try:
        _wait_for(process, port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _serve_one_at_a_time(server: Any) -> None:
    wsgi_server = server._server
    several_at_a_time = wsgi_server.app
    lock = threading.Lock()

    def one_at_a_time(environ: Any, start_response: Any) -> list[bytes]:
        with lock:
            return list(several_at_a_time(environ, start_response))

    wsgi_server.app = one_at_a_time


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"DynamoDB Local did not answer on port {port} within {_START_TIMEOUT:.0f} s")
