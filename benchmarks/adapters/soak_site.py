"""A made-up site for soaks of the adapters: hosts, redirects and slow answers, served on this machine."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from ragcrawl_dynamo import DynamoDBConfig
from ragcrawl_dynamo.testing import local_config


def number_of(url: str) -> int:
    """Returns the number of the page to which a link leads."""
    return int(urlsplit(url).path.split("/")[2])


class Hit(NamedTuple):
    """A request for a page.

    Attributes:
        at: When it came, by the monotonic clock of the site's process.
        url: The URL that it asked for.
    """

    at: float
    url: str


@dataclass(frozen=True)
class Job:
    """The job of a process that crawls. It is passed as JSON, as the only argument of the process.

    Attributes:
        urls: Where the crawl begins.
        endpoint: Endpoint of DynamoDB.
        prefix: Prefix of the tables.
        folder: Where processes note which handlers have failed.
        seed: The seed of all random numbers.
        failing: Share of the pages whose first handler raises.
        host_delay: Seconds between two requests to a host.
        lease_seconds: Seconds until others get the requests of a killed process.
    """

    urls: list[str]
    endpoint: str
    prefix: str
    folder: str
    seed: int
    failing: float
    host_delay: float
    lease_seconds: float

    @classmethod
    def from_arguments(cls) -> Self:
        """Reads the job of this process."""
        return cls(**json.loads(sys.argv[1]))

    def to_argument(self) -> str:
        """Returns the job as an argument for a process."""
        return json.dumps(asdict(self))

    def config(self) -> DynamoDBConfig:
        """Returns the settings of the backend: those of a user, on a local engine with one clock."""
        return local_config(
            self.endpoint, table_prefix=self.prefix, retry_attempts=None, frontier_max_clock_skew=0.2
        )

    def fail_once(self, url: str) -> None:
        """Raises an error for some pages, when their first handler of all processes calls it."""
        number = str(number_of(url))
        if random.Random(f"{self.seed}/{number}").random() >= self.failing:  # noqa: S311 # a test load
            return
        with suppress(FileExistsError):
            os.close(os.open(Path(self.folder) / number, os.O_CREAT | os.O_EXCL))
            raise RuntimeError(f"the first handler of page {number} fails")


class SoakSite:
    """Pages that link to each other, on several hosts. Some are linked by redirects only.

    Attributes:
        pages: How many pages there are. Page N has the path `/p/N`.
        hits: All requests for pages and redirects, in the order in which they came.
    """

    def __init__(self, pages: int, seed: int, redirected: float, slowest: float) -> None:
        self.pages: int = pages
        self.hits: list[Hit] = []
        self._chance = random.Random(seed)  # noqa: S311 # a test load
        self._slowest = slowest
        self._hosts: list[str] = []
        self._redirected = {number for number in range(1, pages) if self._chance.random() < redirected}
        self._links = {number: self._links_of(number) for number in range(pages)}

    def url(self, number: int) -> str:
        """Returns the URL of a page."""
        return f"{self._hosts[number % len(self._hosts)]}/p/{number}"

    def target(self, url: str) -> str:
        """Returns the URL to which a link leads in the end."""
        return self.url(number_of(url))

    @property
    def urls(self) -> set[str]:
        """The URLs of all pages."""
        return {self.url(number) for number in range(self.pages)}

    @property
    def redirects(self) -> set[str]:
        """The URLs of all links that redirect to a page."""
        return {
            self.link(number, source)
            for source, numbers in self._links.items()
            for number in numbers
            if number in self._redirected
        }

    def link(self, number: int, source: int) -> str:
        """Returns the URL of the link from a page to another one."""
        if number in self._redirected:
            return self.url(number).replace("/p/", "/r/") + f"/{source}"
        return self.url(number)

    def _links_of(self, number: int) -> list[int]:
        """Returns two pages that no page before has linked, and three of any."""
        children = [2 * number + 1, 2 * number + 2]
        others = [self._chance.randrange(self.pages) for _ in range(3)]
        return sorted({link for link in (*children, *others) if link < self.pages})

    def _answer(self, url: str) -> tuple[str, dict[str, str], str]:
        page = number_of(url)
        if "/r/" in url:
            return "302 Found", {"Location": self.url(page)}, ""
        anchors = "".join(
            f'<li><a href="{self.link(link, page)}">{link}</a></li>' for link in self._links[page]
        )
        text = " ".join(f"word{word}" for word in range(page, page + 60))
        body = (
            f"<html><head><title>Page {page}</title></head><body><h1>Page {page}</h1><p>{text}</p>"
            f"<ul>{anchors}</ul></body></html>"
        )
        return "200 OK", {"Content-Type": "text/html; charset=utf-8"}, body

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                status, fields, body = "404 Not Found", dict[str, str](), ""
                path = head.split(" ", 2)[1]
                if path != "/robots.txt":
                    url = f"http://{_host_of(head)}{path}"
                    self.hits.append(Hit(time.monotonic(), url))
                    status, fields, body = self._answer(url)
                    await asyncio.sleep(self._chance.uniform(0.0, self._slowest))
                fields |= {"Content-Length": str(len(body.encode()))}
                lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in fields.items())]
                writer.write(("\r\n".join(lines) + "\r\n\r\n" + body).encode())
                await writer.drain()
        writer.close()

    async def run(self, hosts: int, is_ready: threading.Event, is_over: threading.Event) -> None:
        """Serves the pages on addresses of this machine's loopback network until `is_over` is set."""
        addresses = [f"127.2.0.{host + 1}" for host in range(hosts)]
        async with await asyncio.start_server(self._serve, addresses, 0) as server:
            names = [socket.getsockname() for socket in server.sockets]
            self._hosts = [f"http://{address}:{port}" for address, port in names]
            is_ready.set()
            await asyncio.to_thread(is_over.wait)


def _host_of(head: str) -> str:
    """Returns the host that a request is for, with its port."""
    fields = (line.partition(": ") for line in head.split("\r\n")[1:])
    return next((value for field, _, value in fields if field.lower() == "host"), "")


@contextmanager
def served(pages: int, hosts: int, seed: int, redirected: float, slowest: float) -> Iterator[SoakSite]:
    """Serves a site in a thread until the end of the `with` block.

    Args:
        pages: How many pages there are.
        hosts: The number of hosts that serve them.
        seed: The seed of all random numbers.
        redirected: Share of the pages that are linked by redirects only.
        slowest: Seconds that an answer takes at most.
    """
    site = SoakSite(pages, seed, redirected, slowest)
    is_ready, is_over = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(site.run(hosts, is_ready, is_over)), daemon=True)
    thread.start()
    try:
        is_ready.wait(30)
        yield site
    finally:
        is_over.set()
        thread.join()
