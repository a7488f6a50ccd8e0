"""Lets each crawler crawl a site many times, kills one of its processes, and compares what is stored.

A site has 500 pages on five hosts, which link to each other. Some pages are linked only by redirects, by
another one from each page. Answers are late by up to 30 ms. For every tenth page, the first call of the
handler raises. Two processes of Crawlee or Scrapy share a crawl, and keep a delay between two requests to a
host. One of them is killed at a random moment; in half of the crawls a third one is started then. ragcrawl
has its queue in memory: its process is killed, and started again. Every crawl has a seed, which decides all
of this.

In the end all processes must have ended by themselves, each page must be stored once with its text, no link
of the queue may be left, and no page may have been fetched more often than it was claimed. Crawlee and
ragcrawl fetch a page once for each redirect that leads to it; Scrapy fetches it once.

    python -m benchmarks.adapters.soak                                # 100 crawls with each crawler
    python -m benchmarks.adapters.soak --crawlers scrapy --seeds 3 --pages 100 --first-seed 7
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from rich.console import Console

from benchmarks.adapters.broad import create_tables
from benchmarks.adapters.soak_site import Job, SoakSite, number_of, served
from benchmarks.machine import ROOT, markdown
from benchmarks.report import Origin, Part, is_full, save
from ragcrawl_dynamo import DynamoDBBackend, FrontierStatus
from ragcrawl_dynamo.testing import drop_tables, local_config, run_dynamodb_local

# Where each crawler's pages are stored: the id of a site.
PAGES_IN = {"crawlee": "docs/monday:dataset", "scrapy": "docs", "ragcrawl": "docs"}
RUN = "docs/monday"

HOSTS = 5
FAILING = 0.1
REDIRECTED = 0.05
SLOWEST_ANSWER = 0.03
HOST_DELAY = 0.005
LEASE_SECONDS = 4.0

console = Console(width=110)


@dataclass
class Outcome:
    """The errors of one crawl, and its figures.

    Attributes:
        wrong: Sentences.
        figures: Counts of the events.
    """

    wrong: list[str] = field(default_factory=list)
    figures: Counter[str] = field(default_factory=Counter)


async def start(crawler: str, job: Job) -> asyncio.subprocess.Process:
    """Starts a process that crawls."""
    return await asyncio.create_subprocess_exec(
        str(ROOT / f".venv-{crawler}/bin/python"),
        *("-m", f"benchmarks.adapters.soak_{crawler}", job.to_argument()),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def finish(name: str, process: asyncio.subprocess.Process, limit: float, outcome: Outcome) -> None:
    """Waits for the end of a process, and notes if it did not end well."""
    try:
        async with asyncio.timeout(limit):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        outcome.wrong.append(f"process {name} did not end within {limit:.0f} s")
    else:
        if process.returncode:
            outcome.wrong.append(f"process {name} ended with {process.returncode}: {output.decode()[-1500:]}")


async def crawl(crawler: str, site: SoakSite, job: Job, limit: float) -> Outcome:
    """Crawls the site once, and kills one of its processes."""
    chance = random.Random(f"kill/{job.seed}")  # noqa: S311 # a test load
    kill_after = site.pages * chance.uniform(0.1, 0.9)
    outcome = Outcome()
    processes = {"a": await start(crawler, job)}
    if crawler != "ragcrawl":
        processes["b"] = await start(crawler, job)
    killed = processes.pop("a")
    while len(site.hits) < kill_after and killed.returncode is None:  # noqa: ASYNC110 # another thread fills it
        await asyncio.sleep(0.01)
    if killed.returncode is not None:
        outcome.wrong.append(f"process a has ended early: {(await killed.communicate())[0].decode()[-1500:]}")
        for process in processes.values():
            process.kill()
        return outcome
    killed.kill()
    await killed.communicate()
    outcome.figures["killed processes"] += 1
    if crawler == "ragcrawl" or chance.random() < 0.5:
        processes["c"] = await start(crawler, job)
    await asyncio.gather(*(finish(name, process, limit, outcome) for name, process in processes.items()))
    return outcome


async def check(crawler: str, site: SoakSite, job: Job, outcome: Outcome) -> None:
    """Compares the stored pages with the site, and the number of fetches with the number of claims."""
    hits = Counter(hit.url for hit in site.hits)
    outcome.figures["fetches"] += sum(hits.values())
    async with DynamoDBBackend(job.config()) as backend:
        stored = [page async for page in backend.iter_pages(PAGES_IN[crawler])]
        texts = {version.url: version async for version in backend.iter_versions(PAGES_IN[crawler])}
        urls = Counter(page.url for page in stored)
        # ragcrawl stores a page under the first redirect to it, and after a restart under another one too.
        targets = {site.target(url) for url in urls} if crawler == "ragcrawl" else urls.keys()
        outcome.figures["pages"] += len(stored)
        outcome.wrong += [f"{url} is not stored" for url in sorted(site.urls - targets)]
        outcome.wrong += [f"{url} is stored, and not of the site" for url in sorted(targets - site.urls)]
        outcome.wrong += [f"{url} is stored {count} times" for url, count in urls.items() if count > 1]
        for page in stored:
            if crawler != "ragcrawl" and page.version_count != 1:
                outcome.wrong.append(f"{page.url} has {page.version_count} versions")
            number = number_of(page.url)
            if page.url not in texts or f"word{number + 59}" not in texts[page.url].markdown:
                outcome.wrong.append(f"{page.url} has another text")
        if crawler != "ragcrawl":
            await _check_queue(crawler, site, backend, hits, outcome)


async def _check_queue(
    crawler: str, site: SoakSite, backend: DynamoDBBackend, hits: Counter[str], outcome: Outcome
) -> None:
    attempts: Counter[str] = Counter()
    cursor = None
    while True:
        items = await backend.get_frontier_items(RUN, limit=1000, cursor=cursor)
        for item in items:
            attempts[item.url] += item.attempt
            if item.status is not FrontierStatus.COMPLETED:
                outcome.wrong.append(f"{item.url} is {item.status.value}: {item.last_error}")
        if (cursor := items.cursor) is None:
            break
    redirecting: defaultdict[str, int] = defaultdict(int)
    if crawler == "crawlee":
        for url in site.redirects:
            redirecting[site.target(url)] += hits[url]
    outcome.wrong += [
        f"{url} was fetched {count} times and claimed {attempts[url]} times"
        for url, count in hits.items()
        if count > attempts[url] + redirecting[url]
    ]
    outcome.figures["fetched again"] += sum(
        count - 1 - redirecting[url] for url, count in hits.items() if count > 1 + redirecting[url]
    )
    run = await backend.get_run("docs", RUN)
    if run is None or run.status.value != "completed":
        outcome.wrong.append(f"the run is {run and run.status.value}")
    outcome.wrong += [f"the queue's counters are wrong: {counted}" for counted in await _drift(backend)]


async def _drift(backend: DynamoDBBackend) -> list[str]:
    frontier = backend.frontier("docs", RUN)
    before = await frontier.stats()
    after = await frontier.recount()
    return [] if before == after else [f"{before} instead of {after}"]


async def soak(endpoint: str, crawler: str, seed: int, pages: int, limit: float) -> Outcome:
    """Crawls a new site once, with new tables."""
    prefix = f"soak-{crawler}-{seed}_"
    with (
        served(pages, HOSTS, seed, REDIRECTED, SLOWEST_ANSWER) as site,
        tempfile.TemporaryDirectory() as folder,
    ):
        urls = [site.url(0)] if crawler != "ragcrawl" else [site.url(number) for number in range(HOSTS)]
        job = Job(urls, endpoint, prefix, folder, seed, FAILING, HOST_DELAY, LEASE_SECONDS)
        await create_tables(endpoint, prefix)
        started = time.monotonic()
        try:
            outcome = await crawl(crawler, site, job, limit)
            outcome.figures["seconds"] = round(time.monotonic() - started)
            await check(crawler, site, job, outcome)
        finally:
            await drop_tables(local_config(endpoint, table_prefix=prefix))
    for sentence in outcome.wrong[:5]:
        console.print(f"{crawler}, seed {seed}: {sentence}", soft_wrap=True, markup=False)
    return outcome


async def soak_all(endpoint: str, args: argparse.Namespace) -> dict[str, list[Outcome]]:
    """Crawls with all crawlers and seeds, some crawls at once."""
    outcomes: dict[str, list[Outcome]] = {crawler: [] for crawler in args.crawlers}
    free = asyncio.Semaphore(args.at_once)

    async def one(crawler: str, seed: int) -> None:
        async with free:
            outcomes[crawler].append(await soak(endpoint, crawler, seed, args.pages, args.limit))
            if len(outcomes[crawler]) % 10 == 0:
                wrong = sum(bool(outcome.wrong) for outcome in outcomes[crawler])
                console.print(f"{crawler}: {len(outcomes[crawler])} crawls, {wrong} of them wrong")

    seeds = range(args.first_seed, args.first_seed + args.seeds)
    await asyncio.gather(*(one(crawler, seed) for seed in seeds for crawler in args.crawlers))
    return outcomes


def figures_of(outcomes: dict[str, list[Outcome]]) -> dict[str, dict[str, float]]:
    """Returns the sums of all crawls, by crawler."""
    figures: dict[str, dict[str, float]] = {}
    for crawler, crawls in outcomes.items():
        sums: Counter[str] = Counter()
        for outcome in crawls:
            sums.update(outcome.figures)
        figures[crawler] = {
            "crawls": len(crawls),
            "wrong": sum(bool(outcome.wrong) for outcome in crawls),
            **sums,
        }
    return figures


def crawls_table(figures: dict[str, dict[str, float]]) -> list[str]:
    """Formats the sums as a table."""
    columns = ("pages", "fetches", "fetched again", "killed processes")
    head = ["crawler", "crawls", "stored pages", *columns[1:], "seconds a crawl", "crawls with an error"]
    rows = [
        [
            crawler,
            f"{sums['crawls']}",
            # ragcrawl has no queue that tells why a page was fetched again.
            *(f"{sums[name]:,}" if name in sums else "-" for name in columns),
            f"{sums['seconds'] / sums['crawls']:.1f}" if "seconds" in sums else "-",
            f"{sums['wrong']}",
        ]
        for crawler, sums in figures.items()
    ]
    return markdown([head, *rows])


PARTS: dict[str, Part] = {"crawls": crawls_table}


def main() -> None:
    """Runs and prints; fails if anything is wrong."""
    parser = argparse.ArgumentParser(description="Soak the adapters.")
    parser.add_argument("--crawlers", nargs="+", choices=[*PAGES_IN], default=[*PAGES_IN])
    parser.add_argument("--seeds", type=int, default=100, help="crawls with each crawler")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--pages", type=int, default=500)
    parser.add_argument("--at-once", type=int, default=2, help="crawls at a time")
    parser.add_argument(
        "--limit", type=float, default=300.0, help="seconds after which a process is given up"
    )
    args = parser.parse_args()
    origin = Origin.here("make soak-adapters")
    with run_dynamodb_local(ROOT / ".dynamodb-local") as endpoint:
        outcomes = asyncio.run(soak_all(endpoint, args))
    figures = figures_of(outcomes)
    print("\n".join(crawls_table(figures)))
    if is_full(parser, args):
        save("soak-adapters", origin, figures)
    if any(sums["wrong"] for sums in figures.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
