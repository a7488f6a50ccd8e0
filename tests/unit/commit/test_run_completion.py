"""The status and the stats of a run that is completed; with fakes of the stores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from ragcrawl_dynamo import CrawlStats, InvalidArgumentError, RunStatus
from ragcrawl_dynamo._commit.run_completion import RunCompletion
from ragcrawl_dynamo.testing import ManualClock
from tests.support.factories import START, make_run


def item(status: str, host: str = "a.example", **attributes: Any) -> Any:
    """A frontier item as it is stored."""
    return {"status": {"S": status}, "domain": {"S": host}, **attributes}


class FakeCompletion:
    """The stores around the completion of a run, whose items come by pages."""

    def __init__(self, *pages: list[Any], is_sync: bool = False) -> None:
        self.clock = ManualClock(START)
        self.services = SimpleNamespace(clock=self.clock)
        self.completed: list[Any] = []
        self.recorded: list[Any] = []
        self.closed: list[tuple[str, str]] = []
        self.attributes: set[str] = set()
        self._pages = pages
        self._is_sync = is_sync

    def queue(self, site_id: str, run_id: str) -> Any:
        assert (site_id, run_id) == ("site", "run")
        return SimpleNamespace(run=SimpleNamespace(items=self))

    async def scan(self, *, attributes: Sequence[str]) -> AsyncIterator[list[Any]]:
        self.attributes = set(attributes)
        for page in self._pages:
            yield page

    async def complete(
        self, site_id: str, run_id: str, status: RunStatus, stats: CrawlStats, **fields: Any
    ) -> Any:
        # The run can be worked on until it is stored as completed.
        assert self.closed == []
        self.completed.append((site_id, run_id, status, stats, fields))
        return make_run(status=status, stats=stats, is_sync=self._is_sync)

    async def count(self, site_id: str, include_tombstones: bool | None = None) -> int:
        assert site_id == "site"
        return {None: 3, False: 50, True: 99}[include_tombstones]

    async def record_crawl(self, site_id: str, **fields: Any) -> None:
        self.recorded.append((site_id, fields))

    async def close_run(self, site_id: str, run_id: str) -> None:
        self.closed.append((site_id, run_id))

    async def run_to_end(self, status: Any = "completed") -> Any:
        stores: list[Any] = [self, self, self, self]
        return await RunCompletion(*stores).complete("site", "run", status)

    @property
    def stats(self) -> CrawlStats:
        ((_, _, _, stats, _),) = self.completed
        assert isinstance(stats, CrawlStats)
        return stats


async def test_complete_run_stores_the_totals_of_all_its_items() -> None:
    completion = FakeCompletion(
        [item("completed", depth={"N": "4"}, outcome={"S": "created"}), item("skipped")],
        [item("completed", outcome={"S": "changed"})],
    )
    completion.clock.advance(5)
    run = await completion.run_to_end()
    ((site_id, run_id, status, stats, fields),) = completion.completed
    assert (site_id, run_id, status) == ("site", "run", RunStatus.COMPLETED)
    assert (stats.pages_discovered, stats.pages_crawled, stats.pages_skipped) == (3, 2, 1)
    assert (stats.pages_new, stats.pages_changed) == (1, 1)
    moment = START + timedelta(seconds=5)
    assert fields == {"completed_at": moment, "frontier_size": 3, "max_depth_reached": 4}
    assert run.stats == stats
    # What is not read is not counted.
    assert {"status", "depth", "domain", "last_error", "outcome", "outcome_status"} <= completion.attributes


@pytest.mark.parametrize(
    ("states", "asked", "stored"),
    [
        (["completed", "skipped"], "completed", RunStatus.COMPLETED),
        (["completed", "pending"], "completed", RunStatus.PARTIAL),
        (["in_progress"], RunStatus.COMPLETED, RunStatus.PARTIAL),
        (["completed", "failed"], "completed", RunStatus.PARTIAL),
        ([], "completed", RunStatus.COMPLETED),
        (["pending", "failed"], "failed", RunStatus.FAILED),
        (["pending"], RunStatus.CANCELLED, RunStatus.CANCELLED),
        (["completed"], "partial", RunStatus.PARTIAL),
    ],
)
async def test_complete_run_with_items_that_are_not_done_is_partial(
    states: list[str], asked: Any, stored: RunStatus
) -> None:
    completion = FakeCompletion([item(state) for state in states])
    await completion.run_to_end(asked)
    assert completion.completed[0][2] is stored


async def test_complete_run_refuses_a_status_that_is_not_final() -> None:
    completion = FakeCompletion()
    with pytest.raises(InvalidArgumentError, match="status: must be one of completed"):
        await completion.run_to_end("running")
    assert completion.completed == completion.closed == []


async def test_complete_run_counts_hosts() -> None:
    completion = FakeCompletion(
        [item("completed", "b.example"), item("completed", "a.example"), item("pending", "c.example")],
        [item("completed", "a.example"), item("failed", "a.example"), item("failed", "d.example")],
        [item("failed", "d.example"), item("failed", "")],
    )
    await completion.run_to_end()
    stats = completion.stats
    assert (stats.domains_crawled, stats.domains_sample) == (2, ["a.example", "b.example"])
    # A map of DynamoDB has no empty keys.
    assert stats.errors_by_domain == {"a.example": 1, "d.example": 2, "unknown": 1}
    assert stats.pages_failed == 4


async def test_complete_run_names_a_hundred_hosts() -> None:
    """Those with the most items, sorted by name."""
    often = [item("completed", "z.example"), item("failed", "z.example")] * 2
    completion = FakeCompletion(
        [item("completed", f"h{i:03}") for i in range(150)],
        [item("failed", f"h{i:03}") for i in range(150)],
        often,
    )
    await completion.run_to_end()
    stats = completion.stats
    names = [*(f"h{i:03}" for i in range(99)), "z.example"]
    assert stats.domains_crawled == 151
    assert stats.domains_sample == names
    assert sorted(stats.errors_by_domain) == names


@pytest.mark.parametrize("is_sync", [False, True])
async def test_complete_run_records_the_crawl_in_its_site(is_sync: bool) -> None:
    completion = FakeCompletion([item("completed")], is_sync=is_sync)
    await completion.run_to_end()
    # Tombstones are no pages that the site has.
    fields = {"total_pages": 50, "total_runs": 3, "moment": START, "is_sync": is_sync}
    assert completion.recorded == [("site", fields)]


async def test_complete_run_closes_the_queue_of_the_run() -> None:
    completion = FakeCompletion()
    await completion.run_to_end()
    assert completion.closed == [("site", "run")]
