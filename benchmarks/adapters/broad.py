"""Lets Crawlee and Scrapy crawl many small hosts, with their default storages and with DynamoDB Local.

Every host is an address of this machine's loopback network (127.1.0.1, 127.1.0.2, ...), which Linux has
without any setup. All crawls of a round follow one another, so that they meet the same load.

    python -m benchmarks.adapters.broad [--crawlers scrapy] [--hosts 200] [--pages 5] [--rounds 1]

`make bench-adapters` measures the same for docs/adapters/costs.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from benchmarks.machine import ROOT, markdown
from ragcrawl_dynamo import DynamoDBBackend
from ragcrawl_dynamo.testing import local_config, run_dynamodb_local
from tests.adapters.site import Site

# The crawlers, and their own storages. The first one is the default.
STORAGES = {
    "scrapy": {"own": "queue in memory, items as JSON lines"},
    "crawlee": {"own": "files", "memory": "memory"},
}

# With DynamoDB a crawl takes at most so many times the seconds that it takes with the default storage.
PROMISE = 3.0

Rounds = dict[str, dict[str, list[dict[str, Any]]]]
Medians = dict[str, dict[str, dict[str, float]]]


async def crawl(crawler: str, urls: list[str], *args: str) -> dict[str, Any]:
    """Runs a crawl in a process of its own, and returns its measurements."""
    process = await asyncio.create_subprocess_exec(
        str(ROOT / f".venv-{crawler}/bin/python"),
        *("-m", f"benchmarks.adapters.crawl_{crawler}", ",".join(urls), *args),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    if process.returncode:
        raise SystemExit(errors.decode()[-3000:])
    measurements: dict[str, Any] = json.loads(output.decode().splitlines()[-1])
    return measurements


@asynccontextmanager
async def serve_hosts(hosts: int, pages: int) -> AsyncIterator[list[str]]:
    """Serves sites of `pages` pages on several hosts. Returns the URLs of their first pages."""
    site = Site(0, pages, 0.0)
    # Scrapy's own filter lets start requests pass twice: pages link to the second page instead of the first.
    bodies = {
        f"/p/{number}".encode(): site.page(number).replace('"/p/0"', '"/p/1"').encode()
        for number in range(pages)
    }

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                path = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1]
                status = b"200 OK" if path in bodies else b"404 Not Found"
                body = bodies.get(path, b"nothing")
                writer.write(
                    b"HTTP/1.1 %b\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: %d\r\n\r\n%b"
                    % (status, len(body), body)
                )
                await writer.drain()
        writer.close()

    addresses = [f"127.1.{host // 250}.{host % 250 + 1}" for host in range(hosts)]
    async with await asyncio.start_server(answer, addresses, 0) as server:
        names = [socket.getsockname() for socket in server.sockets]
        yield [f"http://{address}:{port}/p/0" for address, port in names]


async def measure(endpoint: str, crawlers: list[str], hosts: int, pages: int, rounds: int) -> Rounds:
    """Returns the measurements of all crawls, by crawler and storage."""
    results: Rounds = {name: {} for name in crawlers}
    async with serve_hosts(hosts, pages) as urls:
        for number in range(rounds):
            for name in crawlers:
                for storage in (*STORAGES[name], "dynamodb"):
                    with tempfile.TemporaryDirectory() as folder:
                        args = [storage, folder]
                        if storage == "dynamodb":
                            args = [storage, endpoint, f"broad-{name}{number}_", "auto"]
                            await create_tables(endpoint, args[2])
                        result = await crawl(name, urls, *args)
                    if result["pages"] != hosts * pages:
                        raise SystemExit(f"{name} on {storage} crawled {result['pages']} pages")
                    results[name].setdefault(storage, []).append(result)
    return results


async def create_tables(endpoint: str, prefix: str) -> None:
    """Creates the tables of a crawl before it is measured, since a deployment creates them once."""
    async with DynamoDBBackend(local_config(endpoint, table_prefix=prefix)):
        pass


def medians(results: Rounds) -> Medians:
    """Returns the medians of all crawls, by crawler and storage: in all, a second, or of a page."""
    return {
        name: {
            storage: {
                "seconds": statistics.median(run["seconds"] for run in runs),
                "rate": statistics.median(run["pages"] / run["seconds"] for run in runs),
                "cpu": statistics.median(run["cpu"] / run["pages"] for run in runs) * 1000,
                "requests": statistics.median(run["requests"] / run["pages"] for run in runs),
            }
            for storage, runs in storages.items()
        }
        for name, storages in results.items()
    }


def verdicts(crawls: Medians) -> Iterator[str]:
    """Yields a sentence for each crawler: whether the promise is kept."""
    for name, storages in crawls.items():
        times = storages["dynamodb"]["seconds"] / storages["own"]["seconds"]
        yield f"{name}: {times:.1f}, {'kept' if times <= PROMISE else '**missed**'}."


def rows(crawls: Medians) -> list[list[str]]:
    """Returns a table of medians."""
    table = [["crawler", "storage", "seconds", "times the default", "pages/s", "CPU, ms", "requests"]]
    for name, storages in crawls.items():
        for storage, costs in storages.items():
            table.append(
                [
                    name,
                    STORAGES[name].get(storage, "DynamoDB"),
                    f"{costs['seconds']:.1f}",
                    f"{costs['seconds'] / storages['own']['seconds']:.1f}",
                    f"{costs['rate']:.0f}",
                    f"{costs['cpu']:.1f}",
                    f"{costs['requests']:.2f}" if storage == "dynamodb" else "-",
                ]
            )
    return table


def main(crawlers: list[str], hosts: int, pages: int, rounds: int) -> None:
    """Measures, and prints a table."""
    with run_dynamodb_local(ROOT / ".dynamodb-local") as endpoint:
        results = asyncio.run(measure(endpoint, crawlers, hosts, pages, rounds))
    print("\n".join(markdown(rows(medians(results)))))
    print(*verdicts(medians(results)))
    for name, storages in results.items():
        print(name, json.dumps(storages["dynamodb"][-1]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crawlers", nargs="+", choices=[*STORAGES], default=[*STORAGES])
    parser.add_argument("--hosts", type=int, default=200)
    parser.add_argument("--pages", type=int, default=5, help="pages of each host, at least 2")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    main(options.crawlers, options.hosts, options.pages, options.rounds)
