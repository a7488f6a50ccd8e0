"""Crawls Python's own documentation server into DynamoDB, and reads the result back.

`python -m pydoc` serves a page for every module of the standard library. The pages link to each other: a real
site that every machine has. Two worker processes with four tasks each claim its public top-level modules from
the frontier of the run, fetch them, extract links and markdown, and save pages and versions. They share only
the tables. More workers could join from other machines.

Then the site is crawled again, with conditional requests for the known pages, and once more after one page
was edited. After each pass, the change feed of the site returns the pages to index: all, none, and one.

    python -m examples.crawl_docs                                     # on this machine: no account, no Docker
    python -m examples.crawl_docs --engine moto                       # and no Java, even if there is one
    python -m examples.crawl_docs --endpoint-url http://127.0.0.1:8000    # DynamoDB Local that runs already
    python -m examples.crawl_docs --region eu-central-1               # AWS, with the usual credentials

With a fixed `--port` the pages keep their URLs, so the next call finds them in the tables.
"""

import argparse
import asyncio
import multiprocessing
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from multiprocessing.process import BaseProcess
from multiprocessing.queues import SimpleQueue
from typing import Any
from urllib.parse import urljoin, urlsplit
from uuid import uuid4

import aiohttp
from aiohttp import web
from bs4 import BeautifulSoup
from markdownify import MarkdownConverter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from examples.demo_engine import ENGINES, Engine, run_engine
from examples.demo_report import Pass, Units, gains, table_of_passes
from ragcrawl_dynamo import (
    Claim,
    CrawlRun,
    DynamoDBConfig,
    Frontier,
    FrontierItem,
    InvalidArgumentError,
    Page,
    PageVersion,
    RunStatus,
    Site,
    StorageBackend,
    StorageConfig,
    create_storage_backend,
    normalize_url,
)
from ragcrawl_dynamo.models import utc_now
from ragcrawl_dynamo.testing import local_config

SITE_ID = "pydoc"
# A public top-level module: neither _private nor a sub.module.
PAGE_PATH = re.compile(r"/[a-z]\w*\.html", re.IGNORECASE)
HREF = re.compile(r'href="([^"]*)"')
# Parts of a page that change with every start of pydoc: addresses, and its working directory.
VOLATILE = re.compile(r"(?<=0x)[0-9a-f]{6,}|(?<=handle )[0-9a-f]{6,}|/tmp/tmp\w+")

console = Console(highlight=False)


def digest(text: str) -> str:
    """Returns a stable id for a URL or a body."""
    return sha256(text.encode()).hexdigest()[:32]


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
    """A copy of pydoc's pages as they were at the beginning, with an ETag for each page.

    Pages that pydoc serves change without an edit: they show addresses, and the modules imported so far.
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
                links = [urljoin(origin, link) for link in HREF.findall(html)]
                paths = {urlsplit(link).path for link in in_scope(links, origin)}
                left += sorted(paths - self._pages.keys() - set(left))

    def edit(self, name: str) -> None:
        """Changes one page."""
        self._pages[f"/{name}"] += "<p>This page was edited.</p>"

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers a request, with 304 if the client has the present page."""
        html = self._pages.get(request.path)
        if html is None:
            return web.Response(status=404)
        etag = digest(html)
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


@dataclass(frozen=True)
class Extract:
    """The content of a page, extracted from its HTML."""

    title: str
    markdown: str
    text: str
    links: list[str]


def extract(html: str, url: str) -> Extract:
    """Extracts links, markdown and text of a page."""
    soup = BeautifulSoup(html, "lxml")
    return Extract(
        title=soup.title.get_text() if soup.title else "",
        markdown=MarkdownConverter().convert_soup(soup),
        text=soup.get_text(" ", strip=True),
        links=links_of(soup, url),
    )


def links_of(soup: BeautifulSoup, url: str) -> list[str]:
    """Returns all links of a page to http(s) URLs."""
    links = set()
    for tag in soup.find_all("a", href=True):
        # Other URLs, such as mailto:, are refused.
        with suppress(InvalidArgumentError):
            links.add(normalize_url(urljoin(url, str(tag["href"]))))
    return sorted(links)


def version_of(item: FrontierItem, html: str, content: Extract, **fields: Any) -> PageVersion:
    """Returns the version for one fetch of a page."""
    return PageVersion(
        version_id=digest(content.markdown + item.run_id),
        page_id=item.item_id,
        site_id=SITE_ID,
        run_id=item.run_id,
        markdown=content.markdown,
        html=html,
        plain_text=content.text,
        content_hash=digest(content.markdown),
        url=item.url,
        title=content.title,
        word_count=len(content.text.split()),
        char_count=len(content.markdown),
        outlinks=content.links,
        **fields,
    )


def in_scope(links: list[str], start_url: str) -> list[str]:
    """Returns the links to pages of this site."""
    site = urlsplit(start_url).netloc
    split_links = [(link, urlsplit(link)) for link in links]
    return [link for link, parts in split_links if parts.netloc == site and PAGE_PATH.fullmatch(parts.path)]


@dataclass
class Crawler:
    """Handles the items that one worker process claims."""

    backend: StorageBackend
    frontier: Frontier
    http: aiohttp.ClientSession
    start_url: str

    async def handle(self, claim: Claim) -> None:
        """Fetches one page and saves its content. If it raises, the item is tried again later."""
        item = claim.item
        started = time.perf_counter()
        known = await self.backend.get_page(SITE_ID, item.item_id)
        unless = {"If-None-Match": known.etag} if known is not None and known.etag else {}
        async with self.http.get(item.url, headers=unless) as response:
            html = await response.text()
        page = Page(
            page_id=item.item_id,
            site_id=SITE_ID,
            url=item.url,
            depth=item.depth,
            referrer_url=item.referrer_url,
            status_code=response.status,
            etag=response.headers.get("ETag"),
        )
        if response.status == HTTPStatus.NOT_MODIFIED:
            await self.backend.commit_page(page, claim=claim)
            return
        fetched = time.perf_counter()
        content = await asyncio.to_thread(extract, html, item.url)
        extracted = time.perf_counter()
        version = version_of(
            item,
            html,
            content,
            content_type=response.content_type,
            status_code=response.status,
            fetch_latency_ms=1000 * (fetched - started),
            extraction_latency_ms=1000 * (extracted - fetched),
        )
        # Writes the body and the links first, then version, page and item in one transaction.
        await self.backend.commit_page(
            page, version, claim=claim, discovered=in_scope(content.links, self.start_url)
        )


async def work(config: DynamoDBConfig, engine: str, run_id: str, start_url: str, tasks: int) -> Units:
    """Claims items from the frontier of the run until it is finished, in one worker process."""
    async with (
        create_storage_backend(StorageConfig(backend=config)) as backend,
        aiohttp.ClientSession() as http,
    ):
        frontier = backend.frontier(SITE_ID, run_id)
        crawler = Crawler(backend, frontier, http, start_url)
        async with frontier.worker(concurrency=tasks, worker_id=f"process {os.getpid()}") as worker:
            await worker.run(crawler.handle)
    return Units.of(backend.metrics(), engine)


def work_in_process(results: "SimpleQueue[Units]", *arguments: Any) -> None:
    """Runs in a worker process."""
    results.put(asyncio.run(work(*arguments)))


async def watch(frontier: Frontier, processes: Sequence[BaseProcess]) -> None:
    """Shows the progress of the workers until they have ended."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("crawling", total=None)
        while True:
            ended = not any(process.is_alive() for process in processes)
            stats = await frontier.stats()
            progress.update(task, total=stats.total, completed=stats.total - stats.open)
            if ended:
                return
            await asyncio.sleep(0.5)


async def crawl_site(
    backend: StorageBackend, start_url: str, args: argparse.Namespace
) -> tuple[CrawlRun, Units]:
    """Saves a run, starts workers that crawl, and completes it. Returns the run and the workers' units."""
    latest = await backend.get_latest_run(SITE_ID)
    run = CrawlRun(
        run_id=f"run_{uuid4().hex[:12]}",
        site_id=SITE_ID,
        status=RunStatus.RUNNING,
        started_at=utc_now(),
        seeds=[start_url],
        is_sync=latest is not None,
        parent_run_id=latest.run_id if latest else None,
    )
    await backend.save_run(run)
    frontier = backend.frontier(SITE_ID, run.run_id)
    # An unchanged page answers 304 without links, so a sync starts with the known pages.
    known = await backend.get_pages_needing_recrawl(SITE_ID)
    await frontier.add([urljoin(start_url, "index.html"), *(page.url for page in known)])
    # Each worker is a fork of a process that has only imported modules: a fork of this one would share its
    # connections, and an interpreter of its own would import them again.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["aiohttp.web", "examples.demo_report", "markdownify", "rich.progress"])
    consumed: SimpleQueue[Units] = context.SimpleQueue()
    arguments = (consumed, args.config, args.engine.name, run.run_id, start_url, args.tasks)
    workers = [context.Process(target=work_in_process, args=arguments) for _ in range(args.processes)]
    for worker in workers:
        worker.start()
    try:
        await watch(frontier, workers)
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()
    units = Units()
    while not consumed.empty():
        units += consumed.get()
    await frontier.is_finished()
    return await backend.complete_run(SITE_ID, run.run_id), units


async def index(backend: StorageBackend) -> tuple[int, str]:
    """Reads the change feed as an indexer does. Returns the number of changes that are new, and a text."""
    changes = [change async for change in backend.iter_changes(SITE_ID, "demo")]
    kinds = Counter(change.kind for change in changes)
    text = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "nothing"
    paths = [urlsplit(change.page.url).path for change in changes]
    return len(changes), text if len(paths) > 3 else " ".join([text, *paths])


async def crawl_and_index(
    backend: StorageBackend, mirror: Mirror, start_url: str, args: argparse.Namespace
) -> None:
    """Crawls the site several times, and reads the change feed after each pass."""
    await backend.save_site(Site(site_id=SITE_ID, name="Python documentation server", seeds=[start_url]))
    bodies = (await backend.get_content_usage(SITE_ID)).versions
    passes = []
    for number in range(1, args.passes + 1):
        name = f"{number}"
        if args.edit and number == args.passes:
            mirror.edit(args.edit)
            name += f", {args.edit} edited"
        before, bodies_before = Units.of(backend.metrics(), args.engine.name), bodies
        started = time.perf_counter()
        run, units = await crawl_site(backend, start_url, args)
        seconds = time.perf_counter() - started
        changes, feed = await index(backend)
        units += Units.of(backend.metrics(), args.engine.name) - before
        bodies = (await backend.get_content_usage(SITE_ID)).versions
        passes.append(Pass(name, seconds, run.stats, bodies - bodies_before, feed, changes, units))
    console.print(table_of_passes(passes))
    console.print(*gains(passes, args.engine.name), sep="\n", soft_wrap=True)


async def summarize(backend: StorageBackend, start_url: str) -> None:
    """Prints the content of the tables. It uses no data that the crawl left in memory."""
    pages = await backend.count_pages(SITE_ID)
    usage = await backend.get_content_usage(SITE_ID)
    slowest: PageVersion | None = None
    async for version in backend.iter_versions(SITE_ID):
        if slowest is None or (version.fetch_latency_ms or 0) > (slowest.fetch_latency_ms or 0):
            slowest = version
    run = await backend.get_latest_run(SITE_ID)
    assert run is not None  # noqa: S101 # it was saved before
    table = Table("read back from the tables", "", show_header=True, header_style="bold")
    table.add_row("pages", f"{pages:,}")
    table.add_row("versions", f"{usage.versions:,}")
    table.add_row("raw bytes", f"{usage.raw_bytes:,}")
    table.add_row("stored bytes", f"{usage.stored_bytes:,}")
    # Computed by DynamoDB's rule for plain writes, because moto reports invented units.
    table.add_row("write units of a version", f"{usage.write_units / usage.versions:,.1f}")
    if slowest is not None:
        table.add_row("slowest page", f"{slowest.url} ({slowest.fetch_latency_ms:,.0f} ms)")
    table.add_row("latest run", f"{run.run_id}: {run.status}")
    for name, value in run.stats:
        if value:
            table.add_row(f"  {name}", f"{value:,.1f}" if isinstance(value, float) else f"{value}")
    items = await backend.get_frontier_items(run.run_id)
    workers = Counter(item.lease_owner for item in items)
    table.add_row("crawled by", ", ".join(f"{name}: {count}" for name, count in workers.items()))
    table.add_row("frontier items failed", f"{sum(item.status == 'failed' for item in items)}")
    console.print(table)

    url = urljoin(start_url, "json.html")
    page_by_url = await backend.get_page_by_url(SITE_ID, url)
    if page_by_url is not None:
        current = await backend.get_current_version(SITE_ID, page_by_url.page_id)
        if current is not None:
            console.print(f"\n[bold]{url}[/bold], the head of its markdown:")
            lines = [line for line in current.markdown.splitlines() if line.strip()]
            console.print("\n".join(f"  {line[:100]}" for line in lines[:12]), markup=False)


def known_engine(endpoint: str | None, region: str | None) -> Engine:
    """Returns the engine that the command line names. An endpoint on this machine is DynamoDB Local's."""
    if urlsplit(endpoint or "").hostname in ("127.0.0.1", "localhost", "::1"):
        return Engine("dynamodb-local", endpoint, f"DynamoDB Local at {endpoint}, as asked for")
    return Engine("aws", endpoint, f"AWS at {endpoint or region}, as asked for")


def settings(args: argparse.Namespace, engine: Engine) -> DynamoDBConfig:
    """Creates the settings from the command line."""
    # A site of one host needs one list of hosts, which each worker reads once a second.
    fields = {"table_prefix": args.table_prefix, "region": args.region or "us-east-1", "frontier_buckets": 1}
    if engine.name == "aws":
        return DynamoDBConfig(endpoint_url=engine.endpoint, **fields)
    return local_config(engine.endpoint or "", **fields)


async def main(args: argparse.Namespace) -> None:
    """Crawls the site, and prints the content of the tables."""
    async with AsyncExitStack() as stack:
        if args.endpoint_url or args.region:
            engine = known_engine(args.endpoint_url, args.region)
        else:
            engine = await stack.enter_async_context(run_engine(args.engine))
        args.engine, args.config = engine, settings(args, engine)
        console.print(f"storing in {engine.description}; tables {args.table_prefix}*", soft_wrap=True)
        backend = await stack.enter_async_context(create_storage_backend(StorageConfig(backend=args.config)))
        with console.status("reading pydoc's pages"):
            mirror = Mirror()
            await mirror.load()
        start_url = await stack.enter_async_context(serving(mirror, args.port))
        await crawl_and_index(backend, mirror, start_url, args)
        await summarize(backend, start_url)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Crawl Python's documentation server into DynamoDB.")
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="auto",
        help="what to run on this machine; auto prefers DynamoDB Local",
    )
    parser.add_argument("--endpoint-url", help="a running engine, such as http://127.0.0.1:8000")
    parser.add_argument("--region", help="AWS region; without --endpoint-url, store in AWS itself")
    parser.add_argument("--table-prefix", default="ragcrawl_demo_")
    parser.add_argument("--processes", type=int, default=2, help="worker processes")
    parser.add_argument("--tasks", type=int, default=4, help="pages that each process handles concurrently")
    parser.add_argument("--passes", type=int, default=3, help="how often the site is crawled")
    parser.add_argument(
        "--edit", default="json.html", help="page to edit before the last pass; empty for none"
    )
    parser.add_argument(
        "--port", type=int, default=0, help="port of the documentation server; 0 for a free one"
    )
    asyncio.run(main(parser.parse_args()))
