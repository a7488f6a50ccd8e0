"""A site to crawl: a tree of pages with different texts, served on a port of this machine."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_WORDS = [
    f"{a}{b}" for a in ("ba", "ko", "li", "me", "nu", "ra", "so", "ti") for b in ("den", "far", "gul", "m")
]


class Site:
    """The pages that are served, and the requests for them.

    Attributes:
        url: URL of the first page.
        pages: Number of pages: /p/0 to /p/N-1. A page links to up to two others.
        seconds: Seconds that a response takes.
        hits: Number of requests for every path.
        gone: Numbers of the pages with status 404.
        failing: Numbers of the pages with status 503.
        edition: Word in the text of all pages.
        robots: Text of robots.txt; an empty one is not served.
    """

    def __init__(self, port: int, pages: int, seconds: float) -> None:
        self.url = f"http://localhost:{port}/p/0"
        self.pages = pages
        self.seconds = seconds
        self.hits: Counter[str] = Counter()
        self.gone: set[int] = set()
        self.failing: set[int] = set()
        self.edition = "first"
        self.robots = ""

    @property
    def urls(self) -> set[str]:
        """URLs of all pages."""
        return {self.url[:-1] + str(number) for number in range(self.pages)}

    def hits_by_url(self) -> dict[str, int]:
        """Returns the number of requests for every URL."""
        return {f"{self.url[: -len('/p/0')]}{path}": hits for path, hits in self.hits.items()}

    def page(self, number: int) -> str:
        """Returns the HTML of a page: 2 KB of text, 60 KB for every tenth page."""
        chosen = random.Random(number)  # noqa: S311 # text
        words = " ".join(chosen.choices(_WORDS, k=9000 if number % 10 == 9 else 300))
        links = [link for link in (2 * number + 1, 2 * number + 2) if link < self.pages]
        anchors = "".join(f'<li><a href="/p/{link}">Page {link}</a></li>' for link in (0, *links))
        return (
            f"<html><head><title>Page {number}</title></head><body><h1>Page {number}</h1>"
            f"<p>The {self.edition} edition. {words}.</p><ul>{anchors}</ul></body></html>"
        )


@contextmanager
def serve(pages: int = 63, seconds: float = 0.0) -> Iterator[Site]:
    """Serves a site until the end of the `with` block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path.startswith("http"):
                # The client takes this server for a proxy.
                self.path = urlsplit(self.path)._replace(scheme="", netloc="").geturl()
            site.hits[self.path] += 1
            time.sleep(site.seconds)
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            kind, _, number = self.path.partition("?")[0].rpartition("/")
            known = kind == "/p" and number.isdigit() and int(number) < site.pages
            status = 200 if known and int(number) not in site.gone else 404
            if known and int(number) in site.failing:
                status = 503
            if self.path == "/robots.txt":
                status = 200 if site.robots else 404
            body = (
                site.robots if not known else site.page(int(number)) if status == 200 else "nothing"
            ).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 # as the base class wants it

        def log_message(self, *args: object) -> None:
            """Logs nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """Ignores connections that killed clients have broken."""

    server = Server(("127.0.0.1", 0), Handler)
    site = Site(server.server_port, pages, seconds)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
