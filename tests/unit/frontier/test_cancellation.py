"""When a cancelled run is finished; with items in memory."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from ragcrawl_dynamo import FrontierStatus
from ragcrawl_dynamo._dynamodb.values import Item, moment_text
from ragcrawl_dynamo._frontier.cancellation import holds_no_lease
from tests.support.factories import make_item
from tests.support.hosts import at
from tests.support.stored_run import StoredRun

IN_PROGRESS = FrontierStatus.IN_PROGRESS


def scanned(item_id: str, lease_expires_at: datetime | None) -> Item:
    """Returns what a scan reads of an item."""
    item: Item = {"item_id": {"S": item_id}}
    return (
        item
        if lease_expires_at is None
        else item | {"lease_expires_at": {"S": moment_text(lease_expires_at)}}
    )


async def test_run_without_leased_items_is_finished() -> None:
    run = StoredRun()
    assert await holds_no_lease(run)
    assert run.store.scans == [((IN_PROGRESS,), ("lease_expires_at",))]
    assert run.store.reads == []


@pytest.mark.parametrize(
    ("seconds", "is_finished"),
    [(10, False), (-1, False), (-3.0, True), (-2.999, False), (-9, True), (None, True)],
)
async def test_lease_counts_until_it_is_over_by_all_clocks(seconds: float | None, is_finished: bool) -> None:
    run = StoredRun(frontier_max_clock_skew=3.0)
    run.store.pages = [[scanned("a", None if seconds is None else at(seconds))]]
    assert await holds_no_lease(run) is is_finished
    # The next call begins with this item.
    assert run.view.open_items == ([] if is_finished else ["a"])


async def test_items_are_read_up_to_the_first_lease() -> None:
    run = StoredRun()
    run.store.pages = [[scanned("a", None)], [scanned("b", at(-9)), scanned("c", at(9)), scanned("d", at(9))]]
    assert not await holds_no_lease(run)
    assert run.view.open_items == ["c"]


@pytest.mark.parametrize(
    ("fields", "is_finished"),
    [
        ({"status": IN_PROGRESS, "lease_expires_at": at(10)}, False),
        ({"status": IN_PROGRESS, "lease_expires_at": at(-3)}, True),
        ({"status": IN_PROGRESS}, True),
        ({"status": FrontierStatus.COMPLETED, "lease_expires_at": at(10)}, True),
    ],
    ids=["leased", "lease over", "without a lease", "settled"],
)
async def test_item_that_was_leased_is_asked_for_first(fields: dict[str, Any], is_finished: bool) -> None:
    run = StoredRun(frontier_max_clock_skew=3.0)
    run.store.store(make_item("a", **fields))
    run.view.open_items = ["deleted", "a"]
    assert await holds_no_lease(run) is is_finished
    assert run.store.reads == [["deleted", "a"]]
    # The run is only read if the item does not answer it.
    assert len(run.store.scans) == is_finished
    assert run.view.open_items == ([] if is_finished else ["deleted", "a"])
