"""Units by partition key value, as the benchmark computes them, are those that DynamoDB Local reports."""

from typing import Any

import pytest

from benchmarks.partitions import Partition, PartitionUnits
from benchmarks.partitions.crawls import Crawl, Scenario
from benchmarks.partitions.kinds import RUN, SITE
from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig, RequestEvent
from ragcrawl_dynamo._schema.keys import is_host_list, items_partitions
from ragcrawl_dynamo.testing import drop_tables
from tests.support.engines import on_dynamodb_local

pytestmark = on_dynamodb_local

# DynamoDB Local counts a transactional write as two, and nothing for PartiQL and for what is not there.
REPORTED = {"GetItem", "BatchGetItem", "Query", "PutItem", "UpdateItem", "DeleteItem"}


def finds_all(event: RequestEvent) -> bool:
    answer: Any = event.response
    if event.operation == "BatchGetItem":
        ((name, keys),) = event.request["RequestItems"].items()
        return len(answer["Responses"].get(name, ())) == len(keys["Keys"])
    return event.operation not in {"GetItem", "Query"} or bool(answer.get("Item") or answer.get("Count"))


async def crawl(config: DynamoDBConfig, mode: str) -> tuple[PartitionUnits, list[tuple[Any, ...]]]:
    """Crawls 60 pages of 20 hosts with a delay: computed and reported units of each request."""
    units = PartitionUnits(config.table_prefix)
    compared: list[tuple[Any, ...]] = []

    def observe(event: RequestEvent) -> None:
        computed = units.observe(event)
        if event.error is None and event.operation in REPORTED and finds_all(event):
            compared.append((event.operation, event.table, computed, (event.read_units, event.write_units)))

    single = config.model_copy(update={"conditional_batches": mode})
    async with DynamoDBBackend(single, on_request=observe) as backend:
        scenario = Scenario(hosts=20, links=60, pages=60, delay=0.01, processes=1)
        work = Crawl(scenario, [backend], units)
        await work.begin()
        await work.work(0)
        pages = [page.page_id async for page in backend.iter_pages(SITE)]
        assert len(await backend.get_pages_bulk(SITE, pages)) == 60
    return units, compared


async def test_partition_units_are_those_that_the_engine_reports(dynamodb_config: DynamoDBConfig) -> None:
    _, compared = await crawl(dynamodb_config, "item")
    assert [row for row in compared if row[2] != row[3]] == []
    assert {operation for operation, *_ in compared} >= REPORTED - {"DeleteItem"}


async def test_partition_units_of_partiql_are_those_of_single_requests(
    dynamodb_config: DynamoDBConfig,
) -> None:
    items, queue = "frontier", "frontier/by_queue"
    single, _ = await crawl(dynamodb_config, "item")
    await drop_tables(dynamodb_config)
    batched, _ = await crawl(dynamodb_config, "partiql")
    for units in (single, batched):
        # Each page is added, claimed and, in a transaction, completed; it comes into the index and leaves.
        of_items = [units.spent.writes[Partition(items, value)] for value in items_partitions(RUN)]
        assert sum(of_items) == pytest.approx(60 * 4, rel=0.1)
        entries = [amount for key, amount in units.spent.writes.items() if is_queue(key, queue)]
        assert sum(entries) == pytest.approx(60 * 2, rel=0.1)


def is_queue(key: Partition, place: str) -> bool:
    return key.place == place and not is_host_list(key.value)
