"""When the outcomes of commits are written to the run, and what is added; with a fake of the runs."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from ragcrawl_dynamo import NotFoundError, ServerFaultError
from ragcrawl_dynamo._commit.live_stats import LiveStats
from ragcrawl_dynamo._frontier.run_queue import RunQueue
from ragcrawl_dynamo.testing import ManualClock
from tests.support.factories import START, make_item
from tests.support.fake_run import FakeRun
from tests.support.hosts import at

if TYPE_CHECKING:
    import pytest

DOWN = ServerFaultError("down", code="Down", operation="UpdateItem", table=None)
CREATED: Any = {"outcome": {"S": "created"}, "outcome_bytes": {"N": "7"}}


class FakeRuns:
    """Notes what is added to the stats of runs; `errors` are raised instead, one after the other."""

    def __init__(self) -> None:
        self.added: list[tuple[str, dict[str, Any], datetime | None]] = []
        self.errors: list[Exception] = []
        self.during_addition = asyncio.Event()
        self.during_addition.set()

    async def add_stats(
        self, site_id: str, run_id: str, deltas: dict[str, Any], *, live_since: datetime | None
    ) -> None:
        await self.during_addition.wait()
        assert site_id == "site"
        self.added.append((run_id, deltas, live_since))
        if self.errors:
            raise self.errors.pop(0)


class Live:
    """The live stats of a process in which commits complete items."""

    def __init__(self, processes: int = 1) -> None:
        self.clock = ManualClock(START)
        self.runs = FakeRuns()
        self.stats = LiveStats(cast("Any", self.runs), self.clock)
        self.new_hosts = 0
        self.processes = processes

    def queue(self, processes: int) -> RunQueue:
        """The queue of a run from which so many processes claim."""
        run = FakeRun(processes=processes)
        run.counters = cast("Any", SimpleNamespace(take_new_hosts=self._take_new_hosts))
        return cast("RunQueue", SimpleNamespace(run=run))

    def note(self, run_id: str = "run", outcome: Any = CREATED) -> None:
        self.stats.note(make_item("item", run_id), outcome, self.queue(self.processes))

    async def pass_time(self, seconds: float) -> int:
        """Lets time pass; returns how many additions were sent by then."""
        await settled()
        self.clock.advance(seconds)
        await settled()
        return len(self.runs.added)

    async def write_at_once(self) -> int:
        """Notes a commit, and writes the stats once they are due; returns how many writes there were."""
        self.note()
        self.clock.advance(1)
        self.stats.flush_if_due()
        return await self.pass_time(0)

    def _take_new_hosts(self) -> int:
        taken, self.new_hosts = self.new_hosts, 0
        return taken


async def settled() -> None:
    """Lets the tasks that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_live_stats_of_a_run_are_written_together() -> None:
    live = Live()
    live.note()
    live.note(outcome={"outcome": {"S": "changed"}, "outcome_status": {"N": "200"}})
    live.new_hosts = 2
    live.clock.advance(5)
    await live.stats.flush()
    deltas = {
        "pages_crawled": 2,
        "pages_new": 1,
        "pages_changed": 1,
        "total_bytes_downloaded": 7,
        "status_codes": {200: 1},
        "domains_crawled": 2,
    }
    # The average, the sample and what was discovered cannot be added up.
    assert live.runs.added == [("run", deltas, at(5))]


async def test_live_stats_of_several_runs_are_written_apart() -> None:
    live = Live()
    live.note("first")
    live.note("second")
    live.note("second")
    await live.stats.flush()
    counts = {run_id: deltas["pages_crawled"] for run_id, deltas, _ in live.runs.added}
    assert counts == {"first": 1, "second": 2}


async def test_live_stats_of_a_run_without_anything_new_do_not_stop_those_of_others() -> None:
    live = Live()
    live.note("first")
    await live.stats.flush()
    live.note("second")
    await live.stats.flush()
    assert [run_id for run_id, _, _ in live.runs.added] == ["first", "second"]


async def test_live_stats_are_written_once() -> None:
    live = Live()
    live.note()
    await live.stats.flush()
    await live.stats.flush()
    assert len(live.runs.added) == 1


async def test_live_stats_of_hosts_that_are_counted_later_are_written_by_the_next_flush() -> None:
    live = Live()
    live.note()
    await live.stats.flush()
    live.new_hosts = 1
    await live.stats.flush()
    assert live.runs.added[1:] == [("run", {"domains_crawled": 1}, START)]
    await live.stats.flush()
    live.new_hosts = 1
    await live.stats.flush()
    # Once there was nothing to write, nobody looks for hosts until the next commit.
    assert len(live.runs.added) == 2


async def test_live_stats_are_due_a_second_after_the_first_commit() -> None:
    live = Live()
    live.note()
    live.stats.flush_if_due()
    assert await live.pass_time(0.5) == 0
    live.note()
    live.stats.flush_if_due()
    assert await live.pass_time(0.4) == 0
    # Even if nothing else is committed.
    assert await live.pass_time(0.1) == 1
    await live.stats.close()


async def test_live_stats_are_written_at_once_if_they_are_due() -> None:
    live = Live()
    assert await live.write_at_once() == 1


async def test_live_stats_are_kept_for_a_second_again_after_they_were_written() -> None:
    live = Live()
    await live.write_at_once()
    live.clock.advance(10)
    live.note()
    live.stats.flush_if_due()
    assert await live.pass_time(0.9) == 1
    assert await live.pass_time(0.1) == 2
    await live.stats.close()


async def test_live_stats_without_a_commit_are_never_due() -> None:
    live = Live()
    live.stats.flush_if_due()
    assert await live.pass_time(100) == 0
    await live.stats.close()


async def test_live_stats_are_written_the_less_often_the_more_processes_there_are() -> None:
    """All processes together write a hundred times a second at most."""
    live = Live(processes=300)
    live.note("first")
    # Another run has fewer processes.
    live.processes = 1
    live.note("second")
    live.stats.flush_if_due()
    assert await live.pass_time(2.9) == 0
    assert await live.pass_time(0.2) == 2
    await live.stats.close()


async def test_live_stats_are_not_written_while_they_are_being_written() -> None:
    live = Live()
    live.runs.during_addition.clear()
    live.note()
    live.clock.advance(1)
    live.stats.flush_if_due()
    await live.pass_time(0)
    live.note()
    live.clock.advance(5)
    live.stats.flush_if_due()
    await live.pass_time(0)
    live.runs.during_addition.set()
    # The interval is decided anew.
    assert await live.pass_time(0.9) == 1
    assert await live.pass_time(0.1) == 2
    await live.stats.close()


async def test_live_stats_of_a_run_that_was_never_saved_are_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    live = Live()
    live.runs.errors = [NotFoundError("run")]
    live.note("first")
    live.note("second")
    await live.stats.flush()
    assert [run_id for run_id, _, _ in live.runs.added] == ["first", "second"]
    assert caplog.text == ""


async def test_live_stats_that_are_not_written_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    live = Live()
    live.runs.errors = [DOWN]
    live.note("first")
    live.note("second")
    with caplog.at_level(logging.WARNING):
        await live.stats.flush()
    # The commits that are lost are counted when the run is completed. Those of other runs are written.
    assert [run_id for run_id, _, _ in live.runs.added] == ["first", "second"]
    assert "run 'first': its stats could not be updated" in caplog.text


async def test_close_writes_what_is_left() -> None:
    live = Live()
    live.note()
    live.stats.flush_if_due()
    await live.stats.close()
    assert len(live.runs.added) == 1
    # Nothing waits to write any more.
    assert await live.pass_time(100) == 1


async def test_close_waits_for_what_is_being_written() -> None:
    live = Live()
    live.runs.during_addition.clear()
    live.note()
    live.clock.advance(1)
    live.stats.flush_if_due()
    await live.pass_time(0)
    closing = asyncio.create_task(live.stats.close())
    await live.pass_time(0)
    assert not closing.done()
    live.runs.during_addition.set()
    await closing
    assert len(live.runs.added) == 1
