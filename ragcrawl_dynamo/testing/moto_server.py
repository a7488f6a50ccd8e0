"""Serves moto's WSGI application in a thread: one request at a time, on connections that stay open.

moto's own server answers a request on a connection and in a thread of its own, which takes as long as moto
takes for a small request.
"""

from __future__ import annotations

import asyncio
import io
import sys
import threading
from collections.abc import Coroutine, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any, TypeVar
from urllib.parse import unquote

from aiohttp import web

__all__ = ["serve"]

T = TypeVar("T")


@contextmanager
def serve(application: Any, port: int = 0) -> Iterator[str]:
    """Serves a WSGI application on a port of 127.0.0.1, by default a free one.

    Yields:
        The URL of the server.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="moto", daemon=True)
    thread.start()

    def run(coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    server = web.Application(client_max_size=0)  # of any size
    server.router.add_route("*", "/{path:.*}", partial(_answer, application))
    runner = web.AppRunner(server, access_log=None, shutdown_timeout=1)
    try:
        run(_start(runner, port))
        host, port = runner.addresses[0]
        yield f"http://{host}:{port}"
    finally:
        run(runner.cleanup())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _start(runner: web.AppRunner, port: int) -> None:
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()


async def _answer(application: Any, request: web.Request) -> web.Response:
    """Lets the application answer, in the thread of the event loop: so requests follow one another."""
    environ = _environ(request, await request.read())
    answer = web.Response()

    def start_response(status: str, headers: list[tuple[str, str]], _: Any = None) -> None:
        code, _, reason = status.partition(" ")
        answer.set_status(int(code), reason)
        answer.headers.extend(headers)

    with closing(application(environ, start_response)) as chunks:
        answer.body = b"".join(chunks)
    return answer


def _environ(request: web.Request, body: bytes) -> dict[str, Any]:
    """Describes a request as PEP 3333 says, and as moto expects it of Werkzeug."""
    path, _, query = request.raw_path.partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote(path, "latin-1"),
        "RAW_URI": request.raw_path,
        "QUERY_STRING": query,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    names = {}
    for name, value in request.headers.items():
        key = "HTTP_" + name.upper().replace("-", "_")
        environ[key] = f"{environ[key]},{value}" if key in environ else value
        names[key] = name
    # The body is read, so it has a length, even if the request gave none.
    environ.pop("HTTP_TRANSFER_ENCODING", None)
    environ["CONTENT_TYPE"] = environ.pop("HTTP_CONTENT_TYPE", "")
    environ["CONTENT_LENGTH"] = f"{len(body)}"
    # The names of S3's metadata may have underscores, which WSGI does not tell from hyphens.
    environ["moto.preserved_header_names"] = {key: name for key, name in names.items() if "_" in name}
    return environ
