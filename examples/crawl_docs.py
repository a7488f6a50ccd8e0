"""Crawls Python's own documentation server into DynamoDB, and reads the result back.

`python -m pydoc` serves a page for every module of the standard library. The pages link to each other: a real
site that every machine has. Two worker processes with four tasks each crawl its public top-level modules.
They share only the tables. More workers could join from other machines.

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
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from http import HTTPStatus
from typing import Any, TypedDict
from urllib.parse import urljoin, urlsplit

import aiohttp
from html_to_markdown import ConversionOptions, convert
from lxml.html import document_fromstring
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from examples.demo_engine import ENGINES, Engine, known_engine, run_engine
from examples.demo_report import Pass, Units, gains, head_of_page, table_of_passes, table_of_site
from examples.demo_site import Mirror, is_page, serving
from ragcrawl_dynamo import Crawl, DynamoDBConfig, Frontier, Store, Task, connect
from ragcrawl_dynamo.testing import local_config

SITE_ID = "pydoc"

console = Console(highlight=False)


class Content(TypedDict):
    """The content of a page, as `Task.save` takes it."""

    html: str
    title: str | None
    markdown: str
    text: str
    links: list[str]
    extraction_latency_ms: float


def extract(html: str) -> Content:
    """Extracts title, markdown, text and links of a page."""
    started = time.perf_counter()
    markdown = convert(html, ConversionOptions(extract_metadata=False)).content or ""
    document = document_fromstring(html)
    return Content(
        html=html,
        title=document.findtext(".//title"),
        markdown=markdown,
        text=" ".join(" ".join(document.itertext()).split()),
        links=[str(link) for link in document.xpath("//a/@href")],
        extraction_latency_ms=1000 * (time.perf_counter() - started),
    )


async def fetch(http: aiohttp.ClientSession, task: Task) -> None:
    """Fetches one page and saves it. If this raises, the page is tried again later."""
    started = time.perf_counter()
    async with http.get(task.url, headers=task.conditional_headers) as response:
        html = await response.text()
    fetch_seconds = time.perf_counter() - started
    if response.status == HTTPStatus.OK:
        content = await asyncio.to_thread(extract, html)
        await task.save(response.status, headers=response.headers, fetch_seconds=fetch_seconds, **content)
    else:
        await task.save(response.status, headers=response.headers, fetch_seconds=fetch_seconds)


def crawl_of(store: Store, start_url: str, run_id: str | None = None) -> Crawl:
    """Returns a crawl of the site: the next one, or the one that other processes have begun."""
    return store.crawl(
        SITE_ID,
        name="Python documentation server",
        seeds=[urljoin(start_url, "index.html")],
        follow=partial(is_page, site_url=start_url),
        run_id=run_id,
    )


async def work(config: DynamoDBConfig, engine: str, start_url: str, run_id: str, tasks: int) -> Units:
    """Crawls until the run is finished, in one worker process. Returns the units that it has consumed."""
    async with connect(config) as store, aiohttp.ClientSession() as http:
        async with crawl_of(store, start_url, run_id) as crawl:
            await crawl.work(partial(fetch, http), concurrency=tasks, worker_id=f"process {os.getpid()}")
        return Units.of(store.metrics(), engine)


def work_in_process(*arguments: Any) -> Units:
    """Runs in a worker process."""
    return asyncio.run(work(*arguments))


async def watch(frontier: Frontier, workers: Sequence["asyncio.Future[Units]"]) -> None:
    """Shows the progress of the workers until they have ended."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("crawling", total=None)
        running = set(workers)
        while running:
            _, running = await asyncio.wait(running, timeout=0.5)
            stats = await frontier.stats()
            progress.update(bar, total=stats.total, completed=stats.total - stats.open)


async def crawl_site(store: Store, start_url: str, pool: Executor, args: argparse.Namespace) -> Pass:
    """Crawls the site once, and reads the change feed as an indexer does."""
    units_before = Units.of(store.metrics(), args.engine.name)
    bodies_before = (await store.get_content_usage(SITE_ID)).versions
    started = time.perf_counter()
    async with crawl_of(store, start_url) as crawl:
        arguments = (args.config, args.engine.name, start_url, crawl.run.run_id, args.tasks)
        loop = asyncio.get_running_loop()
        workers = [loop.run_in_executor(pool, work_in_process, *arguments) for _ in range(args.processes)]
        await watch(crawl.frontier, workers)
        units = sum([await worker for worker in workers], Units())
    seconds = time.perf_counter() - started
    changes = [change async for change in store.iter_changes(SITE_ID, "demo")]
    kinds = Counter(change.kind for change in changes)
    feed = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "nothing"
    if len(changes) <= 3:
        feed = " ".join([feed, *(urlsplit(change.page.url).path for change in changes)])
    return Pass(
        seconds=seconds,
        stats=crawl.run.stats,
        bodies=(await store.get_content_usage(SITE_ID)).versions - bodies_before,
        feed=feed,
        changes=len(changes),
        units=units + Units.of(store.metrics(), args.engine.name) - units_before,
    )


async def crawl_several_times(store: Store, mirror: Mirror, start_url: str, args: argparse.Namespace) -> None:
    """Crawls the site several times, and prints the results and the costs of each pass."""
    # Each worker is a fork of a process that has only imported modules: a fork of this one would share its
    # connections, and an interpreter of its own would import them again.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["examples.demo_report", "examples.demo_site", "html_to_markdown", "lxml.html", "rich.progress"]
    )
    passes = {}
    with ProcessPoolExecutor(args.processes, mp_context=context) as pool:
        for number in range(1, args.passes + 1):
            name = f"{number}"
            if args.edit and number == args.passes:
                mirror.edit(args.edit)
                name += f", {args.edit} edited"
            passes[name] = await crawl_site(store, start_url, pool, args)
    console.print(table_of_passes(passes))
    console.print(*gains(passes, args.engine.name), sep="\n", soft_wrap=True)


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
        store = await stack.enter_async_context(connect(args.config))
        with console.status("reading pydoc's pages"):
            mirror = Mirror()
            await mirror.load()
        start_url = await stack.enter_async_context(serving(mirror, args.port))
        await crawl_several_times(store, mirror, start_url, args)
        # From here on, it uses no data that the crawl left in memory.
        console.print(await table_of_site(store, SITE_ID))
        console.print(await head_of_page(store, SITE_ID, urljoin(start_url, "json.html")), markup=False)


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
