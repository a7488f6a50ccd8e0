"""The completion of runs with many hosts."""

from __future__ import annotations

import asyncio

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig
from tests.support.engines import on_dynamodb_local
from tests.support.factories import make_item, make_run

pytestmark = on_dynamodb_local

HOSTS = 20_000


async def test_complete_run_of_twenty_thousand_hosts_stores_their_number_and_a_sample(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    """Their names would take 440 KB. An item of DynamoDB takes 400."""
    await backend.save_run(make_run())
    failed = [
        make_item(f"f{host:03}-{i}", status="failed", domain=f"failed-{host:03}.example", last_error=f"E{i}")
        for host in range(150)
        for i in range(1 + host // 50)
    ]
    completed = (
        make_item(f"i{i:05}", status="completed", domain=f"host-{i:05}.example.org") for i in range(HOSTS)
    )
    items = [*completed, *failed]
    for first in range(0, len(items), 1000):
        await asyncio.gather(*map(backend.save_frontier_item, items[first : first + 1000]))
    run = await backend.complete_run("site", "run")
    stats = run.stats
    assert (stats.pages_crawled, stats.pages_failed, stats.domains_crawled) == (HOSTS, 300, HOSTS)
    assert len(stats.domains_sample) == 100
    assert set(stats.domains_sample) < {f"host-{i:05}.example.org" for i in range(HOSTS)}
    # The hosts with the most failures.
    assert stats.errors_by_domain == {f"failed-{host:03}.example": 1 + host // 50 for host in range(50, 150)}
    assert stats.errors_by_type == {"E0": 150, "E1": 100, "E2": 50}
    assert await backend.get_run("site", "run") == run
    written = backend.metrics()["UpdateItem", f"{dynamodb_config.table_prefix}runs"]
    assert written.write_units <= 10


async def test_iter_hosts_has_all_hosts_that_were_crawled(backend: DynamoDBBackend) -> None:
    await backend.save_run(make_run())
    frontier = backend.frontier("site", "run")
    hosts = [f"h{i:03}.example" for i in range(150)]
    await frontier.add([f"https://{host}/" for host in hosts])
    claims = await frontier.claim(150)
    await frontier.complete(claims[:120])
    await frontier.skip(claims[120], "robots.txt")
    run = await backend.complete_run("site", "run")
    assert (run.stats.domains_crawled, len(run.stats.domains_sample)) == (120, 100)
    crawled = [host.host async for host in frontier.iter_hosts() if host.stats.completed]
    assert crawled == sorted(claim.item.domain for claim in claims[:120])
