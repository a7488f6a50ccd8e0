"""Runs servers that answer in place of AWS, over real sockets."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Self

import orjson
from aiohttp import web


@asynccontextmanager
async def http_server(
    handler: Callable[[web.Request], Awaitable[web.Response]], context: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """Answers every request with `handler`; yields the URL, of https if there is a context."""
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}" if context is None else f"https://localhost:{port}"
    finally:
        await runner.cleanup()


def refusing(code: str, message: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        await request.read()
        body = orjson.dumps({"__type": f"com.amazon.coral.service#{code}", "message": message})
        return web.Response(status=400, body=body, content_type="application/x-amz-json-1.0")

    return answer


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class TunnelProxy:
    """Forwards https as a proxy does, without seeing the contents.

    Attributes:
        url: Its URL, once it is entered.
        asked: The host and port of each connection.
    """

    url: str

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.append(asyncio.create_task(self._tunnel(reader, writer)))

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
        self.asked.append(target)
        host, _, port = target.rpartition(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        try:
            await asyncio.gather(_pipe(reader, far_writer), _pipe(far_reader, writer))
        finally:
            # The other side is told to close: aiohttp leaves a connection open whose certificate it refuses.
            for end in (writer, far_writer):
                end.close()
                with suppress(OSError):
                    await end.wait_closed()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
        writer.close()
