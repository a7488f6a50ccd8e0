"""Serves the site that the demo crawls: the pages of Python's own documentation server."""

import asyncio
import re
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiohttp import web

# A public top-level module: neither _private nor a sub.module.
PAGE_PATH = re.compile(r"/[a-z]\w*\.html", re.IGNORECASE)
HREF = re.compile(r'href="([^"]*)"')
# Parts of a page that change with every start of pydoc: addresses, and its working directory.
VOLATILE = re.compile(r"(?<=0x)[0-9a-f]{6,}|(?<=handle )[0-9a-f]{6,}|/tmp/tmp\w+")


def is_page(url: str, site_url: str) -> bool:
    """Returns whether a URL is the URL of a page of the site."""
    parts = urlsplit(url)
    return parts.netloc == urlsplit(site_url).netloc and bool(PAGE_PATH.fullmatch(parts.path))


@asynccontextmanager
async def pydoc_server() -> AsyncIterator[str]:
    """Runs Python's documentation server on a free port of the loopback interface; yields its URL."""
    # pydoc lists and imports the modules in its working directory, so it gets an empty one. Its pages show
    # the environment, and sets in the order of their hashes, so these are fixed.
    with tempfile.TemporaryDirectory() as empty:
        server = await asyncio.create_subprocess_exec(
            *(sys.executable, "-s", "-S", "-P", "-m", "pydoc", "-n", "127.0.0.1", "-p", "0"),
            cwd=empty,
            env={"BROWSER": "true", "PYTHONHASHSEED": "0"},  # the page of antigravity opens a browser
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert server.stdout is not None  # noqa: S101 # it is a pipe
        try:
            line = (await server.stdout.readline()).decode()
            if (match := re.search(r"http://\S+", line)) is None:
                raise RuntimeError(f"pydoc did not start: {line!r}")
            yield match.group().replace("localhost", "127.0.0.1")
        finally:
            server.kill()
            # Reads to the end, so that the pipe is closed before the event loop.
            await server.communicate()


class Mirror:
    """A copy of pydoc's pages, made at the start, with an ETag for each page.

    The pages that pydoc serves change without an edit: they contain memory addresses, and the names of the
    modules that are imported so far.
    """

    def __init__(self) -> None:
        self._pages: dict[str, str] = {}

    async def load(self) -> None:
        """Fetches all pages, one after the other."""
        async with pydoc_server() as origin, aiohttp.ClientSession() as http:
            left = ["/index.html"]
            while left:
                path = left.pop()
                async with http.get(urljoin(origin, path)) as response:
                    html = VOLATILE.sub("", await response.text())
                self._pages[path] = html
                links = (urljoin(origin, link) for link in HREF.findall(html))
                paths = {urlsplit(link).path for link in links if is_page(link, origin)}
                left += sorted(paths - self._pages.keys() - set(left))

    def edit(self, name: str, text: str = "This page was edited.") -> None:
        """Adds a paragraph to the end of one page."""
        before, _, after = self._pages[f"/{name}"].rpartition("</body>")
        self._pages[f"/{name}"] = f"{before}<p>{text}</p></body>{after}"

    def remove(self, name: str) -> None:
        """Removes one page. Other pages still link to it."""
        del self._pages[f"/{name}"]

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers a request, with 304 if the client has the current page."""
        html = self._pages.get(request.path)
        if html is None:
            return web.Response(status=404)
        etag = sha256(html.encode()).hexdigest()
        known = request.if_none_match or ()
        response = (
            web.Response(status=304)
            if any(known_etag.value == etag for known_etag in known)
            else web.Response(text=html, content_type="text/html")
        )
        response.etag = etag
        return response


@asynccontextmanager
async def serving(mirror: Mirror, port: int) -> AsyncIterator[str]:
    """Serves the mirror on a port of the loopback interface, 0 for a free one; yields its URL."""
    runner = web.ServerRunner(web.Server(mirror.serve))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()
