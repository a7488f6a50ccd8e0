"""A site to crawl: a tree of pages, each with text of its own, on a port of this machine."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_WORDS = [
    f"{a}{b}" for a in ("ba", "ko", "li", "me", "nu", "ra", "so", "ti") for b in ("den", "far", "gul", "m")
]


class Site:
    """What is served, and what was asked for.

    Attributes:
        url: Of its first page.
        pages: How many there are: /p/0 to /p/N-1, each of which links to two more.
        seconds: How long an answer takes.
        hits: How often each path was asked for.
        gone: Numbers of pages that are answered by 404.
        failing: Numbers of pages that are answered by 503.
        edition: Part of every page's text.
        robots: robots.txt.
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
        """All pages."""
        return {self.url[:-1] + str(number) for number in range(self.pages)}

    def page(self, number: int) -> str:
        """A page's HTML: 2 KB of text, every tenth page 60 KB."""
        chosen = random.Random(number)  # noqa: S311 # text
        words = " ".join(chosen.choices(_WORDS, k=9000 if number % 10 == 9 else 300))
        links = [each for each in (2 * number + 1, 2 * number + 2) if each < self.pages]
        anchors = "".join(f'<li><a href="/p/{each}">Page {each}</a></li>' for each in (0, *links))
        return (
            f"<html><head><title>Page {number}</title></head><body><h1>Page {number}</h1>"
            f"<p>The {self.edition} edition. {words}.</p><ul>{anchors}</ul></body></html>"
        )


@contextmanager
def serve(pages: int = 63, seconds: float = 0.0) -> Iterator[Site]:
    """A site, for as long as the context lasts."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
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
            """Not on stderr."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """Killed clients break connections."""

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
