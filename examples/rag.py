"""Crawls a site, keeps a search index of it up to date, and answers questions with a link to the section.

    make demo-rag                                           # on this machine: no account, no Docker, no model
    make demo-rag ARGS="--ask 'how do I make a temporary file?'"     # from the index of the last call
    make demo-rag ARGS="--url https://docs.example.org/ --limit 200 --ask 'how do I install it?'"
    make demo-rag ARGS="--embedder BAAI/bge-small-en-v1.5"      # needs sentence-transformers

The site is Python's own documentation server. `sync_index` follows its change feed into a file of SQLite
with the extension sqlite-vec. Then three pages are edited and one is deleted: the next sync embeds three
pages, and removes one. With 30 questions, the demo measures how often the right page is among the first five
passages.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from examples.crawl_docs import settings
from examples.demo_engine import ENGINES, known_engine, run_engine
from examples.demo_pages import extract, split
from examples.demo_report import Units
from examples.demo_search import Answer, Embedder, HashedWords, SentenceModel, SqliteIndex
from examples.demo_site import Mirror, is_page, serving
from ragcrawl_dynamo import Store, Task, connect
from ragcrawl_dynamo.integrations import SyncReport, reset_index, sync_index

CONSUMER = "search"
QUESTIONS = Path(__file__).with_name("demo_questions.json")
INDEX = Path(__file__).parent.parent / "build" / "rag.sqlite"

EDITED = ("json.html", "shlex.html", "textwrap.html")
DELETED = "colorsys.html"

NEWS = "News: the mascot of the module is now a squirrel that likes hazelnuts and walnuts."

SAMPLES = (
    "split a command line into arguments the way a shell does",
    "which lines of my program allocate the most memory?",
)
# The first one has an answer after the edits, and the second one before them.
ABOUT_CHANGES = ("which mascot likes hazelnuts and walnuts?", "convert a color from RGB to HSV")

# A pipe has no width: the tables fit into 110 columns.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)


@dataclass(frozen=True)
class Step:
    """A crawl with the sync after it.

    Attributes:
        crawled: The pages that were crawled.
        crawl_seconds: How long the crawl took.
        sync_seconds: How long the sync took.
        report: The report of the sync.
        units: The capacity units that the sync consumed.
    """

    crawled: int
    crawl_seconds: float
    sync_seconds: float
    report: SyncReport
    units: Units


class Demo:
    """Crawls the site, and syncs the index."""

    def __init__(self, store: Store, index: SqliteIndex, start_url: str, args: argparse.Namespace) -> None:
        self._store = store
        self._site_id = args.site_id
        self._index = index
        self._start_url = start_url
        self._args = args

    async def run(self) -> Step:
        """Crawls the site once, and brings the index up to date."""
        started = time.perf_counter()
        crawled = await self._crawl()
        crawl_seconds = time.perf_counter() - started
        return await self.sync(crawled, crawl_seconds)

    async def sync(self, crawled: int = 0, crawl_seconds: float = 0.0) -> Step:
        """Brings the index up to date."""
        before = Units.of(self._store.metrics(), self._args.engine.name)
        started = time.perf_counter()
        with progress_of("syncing") as show:
            report = await sync_index(
                *(self._store, self._site_id, CONSUMER, self._index, split),
                on_progress=lambda report: show(report.indexed + report.unchanged),
            )
        seconds = time.perf_counter() - started
        units = Units.of(self._store.metrics(), self._args.engine.name) - before
        return Step(crawled, crawl_seconds, seconds, report, units)

    async def _crawl(self) -> int:
        args, start_url = self._args, self._start_url
        rules: dict[str, Any] = (
            {"seeds": [start_url], "host_delay": args.delay, "host_max_items": args.limit}
            if args.url
            else {
                "seeds": [urljoin(start_url, "index.html")],
                "follow": partial(is_page, site_url=start_url),
            }
        )
        async with aiohttp.ClientSession() as http, self._store.crawl(self._site_id, **rules) as crawl:
            with console.status("crawling"):
                await crawl.work(partial(fetch, http), concurrency=8)
        return crawl.run.stats.pages_crawled


async def fetch(http: aiohttp.ClientSession, task: Task) -> None:
    """Fetches one page and saves it. If this raises, the page is tried again later."""
    async with http.get(task.url, headers=task.conditional_headers) as response:
        is_html = response.content_type == "text/html"
        html = await response.text() if response.status == HTTPStatus.OK and is_html else None
        # The client has followed the redirects.
        redirects = [hop.status for hop in response.history]
        common: dict[str, Any] = {
            "headers": response.headers,
            "url": str(response.url),
            "redirects": redirects,
        }
    if html is not None:
        content = await asyncio.to_thread(extract, html)
        await task.save(response.status, **common, **content)
    elif response.status != HTTPStatus.OK:
        await task.save(response.status, **common)


@contextmanager
def progress_of(name: str) -> Iterator[Any]:
    """Shows the progress of a step as a number of pages."""
    columns = (
        TextColumn("{task.description}"),
        MofNCompleteColumn(),
        TextColumn("pages"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task(name, total=None)
        yield lambda count: progress.update(bar, completed=count)


def recall(index: SqliteIndex, questions: Sequence[dict[str, Any]], limit: int = 5) -> list[str]:
    """Returns the questions for which no right page is among the first passages."""
    return [
        labeled["question"]
        for labeled in questions
        if not {answer.page for answer in index.search(labeled["question"], limit)} & set(labeled["pages"])
    ]


def show_answers(question: str, answers: Sequence[Answer], most: int) -> None:
    """Prints the first answers to a question: their section, the link to it, and how the text begins."""
    console.print(f"\n[bold]{question}")
    for answer in answers[:most]:
        lines = (line.strip(" `#*-") for line in answer.text.replace("**", "").splitlines())
        head = " ".join(line for line in lines if line)[:200]
        console.print(
            f"  {answer.similarity:.2f} {answer.section}\n       {answer.link}", markup=False, soft_wrap=True
        )
        console.print(f"       {head}", markup=False)


def table_of_steps(steps: dict[str, Step], engine: str) -> Table:
    """Lists what each step did. The keys name the steps."""
    units = () if engine == "moto" else ("read units", "write units")
    table = Table("step", "pages", "crawl s", "sync s", "embedded", "removed", "chunks", *units)
    for name, step in steps.items():
        report = step.report
        crawl = (f"{step.crawled}", f"{step.crawl_seconds:.1f}") if step.crawled else ("", "")
        done = (f"{report.indexed}", f"{report.removed}", f"{report.embedded_chunks:,}")
        cost = () if engine == "moto" else (f"{step.units.reads:,.1f}", f"{step.units.writes:,.1f}")
        table.add_row(name, *crawl, f"{step.sync_seconds:.1f}", *done, *cost)
    return table


async def ask_and_edit(demo: Demo, index: SqliteIndex, mirror: Mirror) -> Step:
    """Asks questions, edits some pages and deletes one, and asks again."""
    for question in (*SAMPLES, *ABOUT_CHANGES):
        show_answers(question, index.search(question), 1)
    for name in EDITED:
        mirror.edit(name, NEWS)
    mirror.remove(DELETED)
    step = await demo.run()
    for question in ABOUT_CHANGES:
        show_answers(f"after the edits: {question}", index.search(question), 3)
    return step


def show_recall(index: SqliteIndex) -> None:
    """Prints how often the right page is among the first five passages."""
    questions = json.loads(QUESTIONS.read_text())["measured"]
    missed = recall(index, questions)
    answered = len(questions) - len(missed)
    console.print(f"recall@5: {answered / len(questions):.2f}, {answered} of {len(questions)} questions")
    console.print(*(f"  not found: {question}" for question in missed), sep="\n")


async def main(args: argparse.Namespace) -> None:
    """Crawls, syncs, asks, edits and syncs again; or only asks."""
    args.site_id = urlsplit(args.url).netloc if args.url else "pydoc"
    embedder: Embedder = SentenceModel(args.embedder) if args.embedder else HashedWords()
    if args.ask and not args.url and args.index.exists():
        with closing(SqliteIndex(args.index, embedder)) as index:
            if len(index):
                show_answers(args.ask, index.search(args.ask), 5)
                return
    async with AsyncExitStack() as stack:
        if args.endpoint_url or args.region:
            args.engine = known_engine(args.endpoint_url, args.region)
        else:
            args.engine = await stack.enter_async_context(run_engine(args.engine))
            # The tables are new too.
            args.index.unlink(missing_ok=True)
        index = stack.enter_context(closing(SqliteIndex(args.index, embedder)))
        store = await stack.enter_async_context(connect(settings(args, args.engine)))
        console.print(f"pages in {args.engine.description}; index in {args.index}", soft_wrap=True)
        if index.is_new:
            await reset_index(store, args.site_id, CONSUMER)
        mirror = Mirror()
        if not args.url:
            with console.status("reading pydoc's pages"):
                await mirror.load()
        start_url = args.url or await stack.enter_async_context(serving(mirror, args.port))
        demo = Demo(store, index, start_url, args)
        steps = {"first crawl": await demo.run(), "nothing new": await demo.sync()}
        if args.ask:
            show_answers(args.ask, index.search(args.ask), 5)
        elif not args.url:
            show_recall(index)
            steps[f"{len(EDITED)} edited, 1 gone"] = await ask_and_edit(demo, index, mirror)
        console.print("", table_of_steps(steps, args.engine.name), sep="\n")
        console.print(f"{len(index):,} chunks in the index, embedded by {embedder.name}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Crawl a site, keep a search index of it, answer questions.")
    parser.add_argument("--ask", help="a question; answered from the index of the last call, if there is one")
    parser.add_argument("--url", help="where to begin, instead of Python's documentation server")
    parser.add_argument("--limit", type=int, default=200, help="the most links of the site of --url")
    parser.add_argument(
        "--delay", type=float, default=0.5, help="seconds between fetches from the host of --url"
    )
    parser.add_argument("--embedder", help="a model of sentence-transformers, by name or folder")
    parser.add_argument("--index", type=Path, default=INDEX, help="the file of the index")
    parser.add_argument("--engine", choices=ENGINES, default="auto", help="what to run on this machine")
    parser.add_argument("--endpoint-url", help="a running engine, such as http://127.0.0.1:8000")
    parser.add_argument("--region", help="AWS region; without --endpoint-url, store in AWS itself")
    parser.add_argument("--table-prefix", default="ragcrawl_demo_rag_")
    parser.add_argument(
        "--port", type=int, default=0, help="port of the documentation server; 0 for a free one"
    )
    asyncio.run(main(parser.parse_args()))
