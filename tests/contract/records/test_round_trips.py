"""Any record that the codec accepts comes back from the engine as it was."""

from typing import Any

from hypothesis import HealthCheck, given, settings

from ragcrawl_dynamo import DynamoDBBackend
from tests.support import factories

# One engine and one backend serve all examples of a test: they write over each other's items, or beside them.
through_an_engine = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(factories.sites)
@through_an_engine
async def test_site_round_trip(backend: DynamoDBBackend, record: Any) -> None:
    await backend.save_site(record)
    assert await backend.get_site(record.site_id) == record


@given(factories.runs)
@through_an_engine
async def test_crawl_run_round_trip(backend: DynamoDBBackend, record: Any) -> None:
    await backend.save_run(record)
    assert await backend.get_run(record.site_id, record.run_id) == record


@given(factories.pages)
@through_an_engine
async def test_page_round_trip(backend: DynamoDBBackend, record: Any) -> None:
    await backend.save_page(record)
    assert await backend.get_page(record.site_id, record.page_id) == record
    by_url = await backend.get_page_by_url(record.site_id, record.url)
    assert by_url is not None


@given(factories.versions)
@through_an_engine
async def test_page_version_round_trip(backend: DynamoDBBackend, record: Any) -> None:
    await backend.save_version(record)
    assert await backend.get_version(record.site_id, record.page_id, record.version_id) == record


@given(factories.frontier_items)
@through_an_engine
async def test_frontier_item_round_trip(backend: DynamoDBBackend, record: Any) -> None:
    await backend.save_frontier_item(record)
    assert record in await backend.get_frontier_items(record.run_id)
