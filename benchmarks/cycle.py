"""Measures the cost of a crawled page from claim to commit, on the demo's site and DynamoDB Local.

Pages are claimed in batches of 25; each is committed with its body and all links of its site. Two consumers
read the changes, one of them with content. Then the same run is made again, as a sync that finds nothing
changed. The units are measured with single requests, because the engine reports none for PartiQL batches; the
writes are the same. The requests are counted with PartiQL batches.

The engine counts 4 units for a transactional write of 1 KB, where AWS's rule is 2 (AWS: "DynamoDB on-demand
capacity mode"); both are printed.

    python -m benchmarks.cycle
"""

import asyncio
from dataclasses import asdict
from typing import Any
from urllib.parse import urldefrag

from benchmarks.bodies import fetch_corpus
from benchmarks.frontier import Cost, totals
from benchmarks.machine import ROOT, markdown
from benchmarks.report import Origin, Part, save
from examples.crawl_docs import SITE_ID
from examples.demo_site import PAGE_PATH
from ragcrawl_dynamo import CommitOutcome, DynamoDBBackend, DynamoDBConfig, Page, PageVersion
from ragcrawl_dynamo.testing import local_config, run_dynamodb_local

BATCH = 25

# Whether they read the content.
CONSUMERS = {"without content": False, "with content": True}


async def cycle(
    config: DynamoDBConfig, corpus: dict[str, tuple[PageVersion, Page]], start_url: str, run_id: str
) -> tuple[Cost, float, CommitOutcome]:
    """Crawls the corpus; returns the cost of a page, its write units by AWS's rule, and the outcome."""
    async with DynamoDBBackend(config) as backend:
        frontier = backend.frontier(SITE_ID, run_id)
        await frontier.add([start_url])
        before = totals(backend)
        done = 0
        outcomes: set[CommitOutcome] = set()
        while claims := await frontier.claim(BATCH):
            for claim in claims:
                version, page = corpus[claim.item.url]
                version = version.model_copy(update={"run_id": run_id})
                links = [link for link in version.outlinks if urldefrag(link).url in corpus]
                result = await backend.commit_page(page, version, claim=claim, discovered=links)
                outcomes.add(result.outcome)
                done += 1
        assert await frontier.is_finished()  # noqa: S101 # an average over less would mean nothing
        assert (done, len(outcomes)) == (len(corpus), 1)  # noqa: S101 # likewise
        requests, reads, writes = (
            after - first for after, first in zip(totals(backend), before, strict=True)
        )
        counters = backend.metrics().items()
        in_transactions = sum(
            counter.write_units for (name, _), counter in counters if name == "TransactWriteItems"
        )
        cost = Cost(requests / done, reads / done, writes / done)
        return cost, cost.write_units - in_transactions / 2 / done, outcomes.pop()


async def consume(config: DynamoDBConfig, consumer: str, *, include_content: bool) -> tuple[int, Cost]:
    """Reads new changes; returns their number, and the cost of one change or of a read that finds none."""
    async with DynamoDBBackend(config) as backend:
        # The pages that there are come first where a consumer is new: this one knows that there are none.
        if await backend.get_change_cursor(SITE_ID, consumer) is None:
            await backend.save_change_cursor(SITE_ID, consumer, str(await backend.get_change_cursor(SITE_ID)))
        before = totals(backend)
        count = 0
        async for change in backend.iter_changes(SITE_ID, consumer, include_content=include_content):
            assert (change.version is not None) == include_content  # noqa: S101 # what is measured
            count += 1
        requests, reads, writes = (
            after - first for after, first in zip(totals(backend), before, strict=True)
        )
        per = max(1, count)
        return count, Cost(requests / per, reads / per, writes / per)


async def main() -> dict[str, Any]:
    """Measures, and returns the figures for docs/cost.md."""
    pairs = await fetch_corpus()
    corpus = {page.url: (version, page) for version, page in pairs if PAGE_PATH.search(page.url)}
    start_url = next(iter(corpus))
    figures: dict[str, Any] = {"pages": len(corpus), "commits": {}, "changes": {}, "no changes": {}}
    with run_dynamodb_local(ROOT / ".dynamodb-local") as endpoint:
        batches = local_config(endpoint, conditional_batches="partiql")
        single = local_config(endpoint, conditional_batches="item")
        for config in (batches, single):
            for consumer, include_content in CONSUMERS.items():
                await consume(config, consumer, include_content=include_content)
        for run_id in ("first", "second"):
            cost, _, outcome = await cycle(batches, corpus, start_url, run_id)
            units, by_rule, _ = await cycle(single, corpus, start_url, run_id)
            figures["commits"][outcome] = {
                "requests": cost.requests,
                "read_units": units.read_units,
                "counted": units.write_units,
                "by_rule": by_rule,
            }
            for consumer, include_content in CONSUMERS.items():
                count, cost = await consume(single, consumer, include_content=include_content)
                figures["changes" if count else "no changes"][consumer] = asdict(cost)
    return figures


def units(figures: dict[str, Any]) -> list[str]:
    """Formats all costs as a table."""
    rows = [["", "requests", "write units", "as the engine counts them", "read units"]]
    for outcome, cost in figures["commits"].items():
        what = {"created": "new, with body, links and change", "unchanged": "crawled again, unchanged"}[
            outcome
        ]
        writes = (f"{cost['by_rule']:.1f}", f"{cost['counted']:.1f}")
        rows.append([f"a page: {what}", f"{cost['requests']:.2f}", *writes, f"{cost['read_units']:.1f}"])
    for key, what in (("changes", "a change"), ("no changes", "a read that finds no change")):
        for consumer, cost in figures[key].items():
            writes = (f"{cost['write_units']:.2f}",) * 2
            rows.append(
                [f"{what}, {consumer}", f"{cost['requests']:.2f}", *writes, f"{cost['read_units']:.2f}"]
            )
    return markdown(rows)


PARTS: dict[str, Part] = {"units": units}


if __name__ == "__main__":
    origin = Origin.here("make bench-cycle")
    figures = asyncio.run(main())
    print("\n".join(units(figures)))
    save("cycle", origin, figures)
