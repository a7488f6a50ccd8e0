"""Retention, garbage collection and the longest save go by the backend's clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest
import pytest_asyncio

from ragcrawl_dynamo import DeadlineExceededError, DynamoDBBackend, DynamoDBConfig, PruneReport
from ragcrawl_dynamo._dynamodb.client import open_client
from ragcrawl_dynamo.testing import ManualClock
from tests.support.factories import START, dense_text, hours, make_version
from tests.support.fakes import intercepting

HOUR = 3600.0
LARGE = dense_text(20)


@pytest.fixture
def clock() -> ManualClock:
    """A clock that is far from the time of day."""
    return ManualClock(START)


@pytest_asyncio.fixture
async def backend(
    dynamodb_backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, clock: ManualClock
) -> AsyncIterator[DynamoDBBackend]:
    async with DynamoDBBackend(dynamodb_config, clock=clock) as backend:
        yield backend


def writes_head(operation: str, request: Any) -> bool:
    """Whether a request writes the head of a single version."""
    return operation == "put_item" and "version_id" in request["Item"]


async def die_before_the_head(config: DynamoDBConfig, clock: ManualClock, version_id: str) -> None:
    """Saves a version as a worker does that is killed before it writes the head."""

    async def around(operation: str, request: Any, call: Any) -> Any:
        if writes_head(operation, request):
            raise asyncio.CancelledError
        return await call(**request)

    async with DynamoDBBackend(config, clock=clock, client_factory=intercepting(around)) as dying:
        with pytest.raises(asyncio.CancelledError):
            await dying.save_version(make_version(version_id, markdown=LARGE))


async def removed(backend: DynamoDBBackend, grace_hours: float = 24.0) -> int:
    """How many bodies a collection of garbage would remove now."""
    report = await backend.collect_garbage("site", grace_hours=grace_hours, dry_run=True)
    return report.bodies_removed


async def test_prune_versions_by_age_goes_by_the_clock(backend: DynamoDBBackend, clock: ManualClock) -> None:
    for age in range(4):
        await backend.save_version(make_version(f"v{age}", crawled_at=START - hours(24 * age + 1)))
    assert await backend.prune_versions("site", max_age_days=10) == PruneReport(4, 0, dry_run=False)
    clock.advance(8 * 24 * HOUR)
    report = await backend.prune_versions("site", max_age_days=10, allow_mass_deletion=True)
    assert report == PruneReport(4, 2, dry_run=False)
    left = await backend.list_versions("site", "page", include_content=False)
    assert [version.version_id for version in left] == ["v0", "v1"]
    clock.advance(-5 * 24 * HOUR)
    assert await backend.prune_versions("site", max_age_days=10) == PruneReport(2, 0, dry_run=False)


async def test_collect_garbage_leaves_a_body_within_its_grace_time_by_the_clock(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, clock: ManualClock
) -> None:
    await die_before_the_head(dynamodb_config, clock, "v1")
    clock.advance(23 * HOUR)
    assert await removed(backend) == 0
    assert await removed(backend, grace_hours=22) == 1
    clock.advance(2 * HOUR)
    assert await removed(backend) == 1
    assert (await backend.collect_garbage("site")).bodies_removed == 1
    assert await backend.collect_garbage("site") == await backend.collect_garbage("site", grace_hours=0)


async def test_collect_garbage_leaves_a_body_that_was_joined_within_its_grace_time_by_the_clock(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, clock: ManualClock
) -> None:
    await backend.save_version(make_version("v1", markdown=LARGE))
    clock.advance(23 * HOUR)
    await die_before_the_head(dynamodb_config, clock, "v2")
    async with open_client(dynamodb_config) as client:
        # As a save of another body over it does: it takes no user off the list.
        key: Any = {"page_id": {"S": "page"}, "version_key": {"S": "v1#site#"}}
        await client.delete_item(TableName=f"{dynamodb_config.table_prefix}versions", Key=key)
    clock.advance(2 * HOUR)
    assert await removed(backend) == 0
    assert await removed(backend, grace_hours=1.5) == 1
    clock.advance(23 * HOUR)
    assert await removed(backend) == 1


class TimeOfDayClock(ManualClock):
    """A clock whose time of day alone moves: that of a machine that was suspended."""

    def monotonic(self) -> float:
        return 0.0


class MonotonicClock(ManualClock):
    """A clock whose time of day stands still: it was set back meanwhile."""

    def now(self) -> datetime:
        return START


@pytest.mark.parametrize("clock_type", [ManualClock, TimeOfDayClock, MonotonicClock])
@pytest.mark.parametrize(("seconds", "is_saved"), [(HOUR - 1, True), (HOUR + 1, False)])
async def test_save_version_refuses_a_head_that_comes_an_hour_after_its_body_by_the_clock(
    backend: DynamoDBBackend,
    dynamodb_config: DynamoDBConfig,
    clock_type: type[ManualClock],
    seconds: float,
    is_saved: bool,
) -> None:
    clock = clock_type(START)

    async def stand_still(operation: str, request: Any, call: Any) -> Any:
        answer = await call(**request)
        if operation == "put_item" and "written_at" in request["Item"]:
            clock.advance(seconds)
        return answer

    version = make_version(markdown=LARGE)
    around = intercepting(stand_still)
    async with DynamoDBBackend(dynamodb_config, clock=clock, client_factory=around) as slow:
        if is_saved:
            assert await slow.save_version(version) == "v1"
        else:
            with pytest.raises(DeadlineExceededError, match="save the version again") as caught:
                await slow.save_version(version)
            assert caught.value.code == "SaveTooSlow"
    assert await backend.get_version("site", "page", "v1") == (version if is_saved else None)
