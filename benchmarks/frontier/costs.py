"""Measures capacity units: those of an item's life, and those of a page from claim to commit."""

from __future__ import annotations

from benchmarks import cycle
from benchmarks.bodies import fetch_corpus
from benchmarks.frontier.measure import RUN, SITE, Lab, Row, cost_of, page
from examples.demo_site import PAGE_PATH
from ragcrawl_dynamo import Claim, DynamoDBBackend

BATCH = 100


async def life_of_an_item(lab: Lab) -> list[Row]:
    """Measures the write units of adding, claiming, renewing and completing the items of one host."""
    items = BATCH * lab.size(10, 2)
    async with lab.tables("item") as config, DynamoDBBackend(config) as backend:
        frontier = backend.frontier(SITE, RUN)
        # The host is stored: what is measured is an item's.
        await frontier.add([page(0, items)])
        await frontier.complete(await frontier.claim(1))
        await frontier.stats()
        claims: list[Claim] = []

        async def claim_all() -> None:
            for _ in range(items // BATCH):
                claims.extend(await frontier.claim(BATCH))

        add = await cost_of(backend, frontier.add(page(0, i) for i in range(items)), items)
        claim = await cost_of(backend, claim_all(), items)
        renew = await cost_of(backend, frontier.renew(claims, 60.0), items)
        complete = await cost_of(backend, frontier.complete(claims), items)
    assert len(claims) == items, len(claims)  # noqa: S101 # an average over less would mean nothing
    units = [cost.write_units for cost in (add, claim, renew, complete)]
    return [
        Row(
            f"write units of an item's life, {items:,} items of one host, {BATCH} a call",
            "claim 1, renew 1",
            "add {:.2f}, claim {:.2f}, renew {:.2f}, complete {:.2f}".format(*units),
            # The writes of a call for all its items together are less than a tenth of a unit for each item.
            claim.write_units < 1.1 and renew.write_units < 1.1,
        )
    ]


async def claim_to_commit(lab: Lab) -> list[Row]:
    """Measures the write units of a new page and of an unchanged one; see benchmarks/cycle.py."""
    pairs = await fetch_corpus()
    corpus = {item.url: (version, item) for version, item in pairs if PAGE_PATH.search(item.url)}
    start_url = next(iter(corpus))
    async with lab.tables("item") as config:
        _, new, first = await cycle.cycle(config, corpus, start_url, "first")
        _, unchanged, second = await cycle.cycle(config, corpus, start_url, "second")
    assert (first, second) == ("created", "unchanged")  # noqa: S101 # the rows say so
    return [
        Row(
            f"{what}, claim to commit: write units by AWS's rule, mean of {len(corpus)}",
            promised,
            f"{units:.1f}",
            units <= most,
        )
        for what, units, most, promised in (
            ("a page found unchanged", unchanged, 6.5, "≤ 6.5"),
            ("a new page of Python's documentation", new, 26, "≤ 26 (stretch 24)"),
        )
    ]
