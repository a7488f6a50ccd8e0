"""What each operation costs in capacity units, as DynamoDB Local counts them."""

from collections.abc import Awaitable
from typing import Any

from ragcrawl_dynamo import DynamoDBBackend
from tests.engines import on_dynamodb_local
from tests.factories import make_item, make_page, make_run, make_site, make_version

pytestmark = on_dynamodb_local


async def units(backend: DynamoDBBackend, operation: Awaitable[Any]) -> tuple[float, float]:
    """Read and write units that an operation consumes."""

    def total() -> tuple[float, float]:
        counters = backend.metrics().values()
        return sum(each.read_units for each in counters), sum(each.write_units for each in counters)

    reads, writes = total()
    await operation
    return total()[0] - reads, total()[1] - writes


async def test_a_small_record_costs_one_unit_and_one_for_each_index_it_is_new_in(
    backend: DynamoDBBackend,
) -> None:
    assert await units(backend, backend.save_site(make_site())) == (0, 1)
    assert await units(backend, backend.save_run(make_run())) == (0, 3)
    assert await units(backend, backend.add_run_stats("site", "run", pages_crawled=1)) == (0, 1)
    assert await units(backend, backend.save_page(make_page())) == (0, 2)
    assert await units(backend, backend.save_page(make_page(depth=1))) == (0, 1)
    assert await units(backend, backend.save_version(make_version())) == (0, 3)
    assert await units(backend, backend.save_frontier_item(make_item())) == (0, 1)
    assert await units(backend, backend.update_frontier_status("run", "item", "completed")) == (0, 1)


async def test_a_look_up_costs_what_it_returns(backend: DynamoDBBackend) -> None:
    await backend.save_pages_bulk(make_page(f"p{i}", last_error="x" * 2000) for i in range(100))
    await backend.save_run(make_run())
    assert await units(backend, backend.get_page("site", "p1")) == (1, 0)
    # Half a unit for the index, which is read eventually consistent.
    assert await units(backend, backend.get_page_by_url("site", "https://example.com/p1")) == (1.5, 0)
    assert await units(backend, backend.get_run("run", "site")) == (1, 0)
    assert await units(backend, backend.get_run("run")) == (1.5, 0)
    assert await units(backend, backend.get_latest_run("site")) == (2, 0)


async def test_an_order_by_time_reads_keys_and_then_only_what_it_returns(backend: DynamoDBBackend) -> None:
    await backend.save_versions_bulk(make_version(f"v{i}", markdown="x" * 40_000) for i in range(20))
    # One unit for the index's keys, ten for 40 KB.
    assert await units(backend, backend.list_versions("page", limit=1)) == (11, 0)
