from datetime import UTC, datetime, timedelta

import pytest

from ragcrawl_dynamo import (
    DynamoDBBackend,
    DynamoDBConfig,
    FrontierStatus,
    InvalidArgumentError,
    NotFoundError,
)
from ragcrawl_dynamo.testing import ManualClock
from tests.support.factories import START, make_item


async def test_get_frontier_items_returns_what_save_frontier_item_stored(backend: DynamoDBBackend) -> None:
    item = make_item("item #1", priority=-1.5, retry_count=2, last_error="", scheduled_at=START, depth=4)
    await backend.save_frontier_item(item)
    assert await backend.get_frontier_items("run") == [item]


async def test_get_frontier_items_by_run_and_status(backend: DynamoDBBackend) -> None:
    for i in range(12):
        status = FrontierStatus.PENDING if i % 4 else FrontierStatus.COMPLETED
        await backend.save_frontier_item(make_item(f"i{i:02}", status=status))
    await backend.save_frontier_item(make_item("other", "other-run"))
    assert len(await backend.get_frontier_items("run")) == 12
    completed = await backend.get_frontier_items("run", status="completed")
    assert sorted(item.item_id for item in completed) == ["i00", "i04", "i08"]
    assert len(await backend.get_frontier_items("run", status=FrontierStatus.FAILED)) == 0


async def test_get_frontier_items_limit_counts_matches(backend: DynamoDBBackend) -> None:
    for i in range(12):
        status = FrontierStatus.PENDING if i % 4 == 3 else FrontierStatus.COMPLETED
        await backend.save_frontier_item(make_item(f"i{i:02}", status=status))
    first = await backend.get_frontier_items("run", status="pending", limit=2)
    rest = await backend.get_frontier_items("run", status="pending", limit=2, cursor=first.cursor)
    assert (len(first), len(rest)) == (2, 1)
    assert sorted(item.item_id for item in [*first, *rest]) == ["i03", "i07", "i11"]


async def test_update_frontier_status_sets_the_times_of_the_status(backend: DynamoDBBackend) -> None:
    await backend.save_frontier_item(make_item())
    before = datetime.now(UTC)
    started = await backend.update_frontier_status("run", "item", FrontierStatus.IN_PROGRESS)
    assert started.started_at is not None
    assert before <= started.started_at <= datetime.now(UTC)
    assert started.completed_at is None
    failed = await backend.update_frontier_status("run", "item", "failed", error="timed out")
    assert (failed.status, failed.last_error) == (FrontierStatus.FAILED, "timed out")
    assert failed.started_at == started.started_at
    assert failed.completed_at is not None
    again = await backend.update_frontier_status("run", "item", "pending")
    assert (again.started_at, again.completed_at, again.last_error) == (None, None, "timed out")
    assert await backend.get_frontier_items("run") == [again]


async def test_update_frontier_status_of_an_absent_item_raises(backend: DynamoDBBackend) -> None:
    with pytest.raises(NotFoundError, match="frontier item 'item' of run 'run' does not exist"):
        await backend.update_frontier_status("run", "item", "completed")
    assert await backend.get_frontier_items("run") == []


async def test_update_frontier_status_refuses_an_unknown_status(backend: DynamoDBBackend) -> None:
    with pytest.raises(InvalidArgumentError, match="status: must be one of pending, in_progress"):
        await backend.update_frontier_status("run", "item", "done")
    with pytest.raises(InvalidArgumentError, match="status"):
        await backend.get_frontier_items("run", status="done")


async def test_clear_frontier_clears_one_run_only(backend: DynamoDBBackend) -> None:
    for i in range(30):
        await backend.save_frontier_item(make_item(f"i{i}"))
    await backend.save_frontier_item(make_item("kept", "other-run"))
    assert await backend.clear_frontier("run") == 30
    assert await backend.clear_frontier("run") == 0
    assert [item.item_id for item in await backend.get_frontier_items("other-run")] == ["kept"]


async def test_get_frontier_items_goes_by_the_clock_of_the_backend(
    dynamodb_config: DynamoDBConfig, backend: DynamoDBBackend
) -> None:
    clock = ManualClock()
    config = dynamodb_config.model_copy(update={"frontier_ttl_days": 1})
    async with DynamoDBBackend(config, clock=clock) as expiring:
        await expiring.save_frontier_item(make_item("i", status="completed"))
        assert len(await expiring.get_frontier_items("run")) == 1
        clock.advance(25 * 3600)
        assert await expiring.get_frontier_items("run") == []


async def test_get_frontier_items_leaves_out_expired_items(
    dynamodb_config: DynamoDBConfig, backend: DynamoDBBackend
) -> None:
    async with DynamoDBBackend(dynamodb_config.model_copy(update={"frontier_ttl_days": 1})) as expiring:
        long_ago = datetime.now(UTC) - timedelta(days=1, minutes=1)
        await expiring.save_frontier_item(make_item("old", status="completed", completed_at=long_ago))
        await expiring.save_frontier_item(make_item("new", status="completed"))
        await expiring.save_frontier_item(make_item("waiting", discovered_at=long_ago))
        items = await backend.get_frontier_items("run")
        assert [item.item_id for item in items] == ["new", "waiting"]
        # The engine may or may not have removed it by itself.
        assert await backend.clear_frontier("run") in (2, 3)
