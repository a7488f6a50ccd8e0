"""The objects that the parts of a run's queue share: notes of this process's own writes, and its share."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ragcrawl_dynamo import Claim, ClockSkewError, ThrottledError
from ragcrawl_dynamo._dynamodb.codec import to_item
from ragcrawl_dynamo._frontier import context as module
from ragcrawl_dynamo._frontier.context import FrontierServices, RunContext
from ragcrawl_dynamo._frontier.host_store import Updated
from ragcrawl_dynamo._frontier.item_store import STATE_ATTRIBUTES
from ragcrawl_dynamo._frontier.link_rules import LinkRules
from ragcrawl_dynamo._schema.records import RunControl
from ragcrawl_dynamo._schema.tables import CONTROLS, Tables
from ragcrawl_dynamo._utils.clock import SystemClock
from ragcrawl_dynamo.errors import BackendStateError
from ragcrawl_dynamo.testing import ManualClock
from tests.support.factories import make_item
from tests.support.fake_run import FakeRun
from tests.support.fakes import open_gateway
from tests.support.hosts import HOST, at, candidate, known, leased, listed, names, record
from tests.support.written import MemoryTable, key_of

CONTROL = RunControl(run="run", site_id="site", buckets=4)


def run_with(**fields: Any) -> FakeRun:
    """A run with one known host."""
    run = FakeRun(buckets=4)
    run.view.bench.hosts[HOST] = known(**fields)
    return run


# Offers of this process's own items


def test_offered_item_of_a_host_whose_queue_is_known_is_ready() -> None:
    run = run_with()
    run.offer(candidate("a"))
    assert names(run.view.bench.hosts[HOST].ready) == ["a"]
    assert names(run.view.bench.choose(9, at(0), 0.0).candidates) == ["a"]


def test_offered_items_keep_the_order_of_the_queue() -> None:
    run = run_with()
    for name, priority, age in (("b", 0.0, 5.0), ("a", 1.0, 0.0), ("d", 0.0, 1.0), ("c", 0.0, 3.0)):
        run.offer(candidate(name, priority, age))
    assert names(run.view.bench.hosts[HOST].ready) == list("abcd")


def test_offered_item_behind_the_known_ones_waits_for_a_look() -> None:
    # Other items that are not known may come before it.
    run = FakeRun()
    host = run.view.bench.hosts[HOST] = known(is_all=False)
    host.note_look([candidate("known", age=5)], is_all=False, now=at(0), distance=lambda _: 0)
    run.offer(candidate("later", age=1))
    run.offer(candidate("before", age=9))
    assert names(host.ready) == ["before", "known"]


def test_offered_item_that_is_delayed_waits() -> None:
    run = run_with()
    run.offer(candidate("late", ready_at=at(5)))
    run.offer(candidate("due", ready_at=at(0)))
    host = run.view.bench.hosts[HOST]
    assert (names(host.ready), list(host.waiting)) == (["due"], ["late"])
    assert run.view.bench.next_moment() == at(5)


def test_offered_item_is_open_again() -> None:
    run = run_with()
    host = run.view.bench.hosts[HOST]
    host.end("a")
    assert "a" in host.ended
    run.offer(candidate("a"))
    assert "a" not in host.ended


def test_item_of_an_unknown_host_is_not_offered() -> None:
    run = run_with()
    run.offer(candidate("a", host="unknown"))
    assert list(run.view.bench.hosts) == [HOST]


# Leases of this process


def test_renewed_lease_waits_for_its_new_end() -> None:
    run = run_with()
    host = run.view.bench.hosts[HOST]
    item = leased(candidate("a"))
    host.wait(item, at(30), is_own=True)
    run.note_renewed(make_item("a", domain=HOST), at(60))
    waits = host.waiting["a"]
    assert (waits.until, waits.candidate, waits.is_own) == (at(60), item, True)


def test_renewed_lease_of_an_unknown_item_or_host_is_ignored() -> None:
    run = run_with()
    run.note_renewed(make_item("a", domain=HOST), at(60))
    run.note_renewed(make_item("a", domain="unknown"), at(60))
    assert run.view.bench.hosts[HOST].waiting == {}


def test_ended_lease_leaves_nothing_to_wait_for() -> None:
    run = run_with()
    host = run.view.bench.hosts[HOST]
    host.wait(leased(candidate("a")), at(30), is_own=True)
    run.view.bench.settle(host)
    run.note_ended(make_item("a", domain=HOST))
    run.note_ended(make_item("a", domain="unknown"))
    assert (host.waiting, "a" in host.ended) == ({}, True)
    # It is idle now.
    assert list(run.view.bench.idle) == [HOST]


def test_lost_lease_lets_the_queue_be_read_again() -> None:
    run = run_with()
    host = run.view.bench.hosts[HOST]
    host.wait(leased(candidate("a"), "mine"), at(30), is_own=True)
    run.view.bench.settle(host)
    run.note_lost(make_item("a", domain=HOST, lease_token="mine"))  # noqa: S106 # no password
    assert (host.waiting, host.is_all) == ({}, False)
    assert run.view.bench.choose(1, at(0), 0.0).looks == [host]


@pytest.mark.parametrize("lost", [("a", HOST, "older"), ("b", HOST, "mine"), ("a", "unknown", "mine")])
def test_lost_lease_is_ignored_if_the_item_waits_for_another_one(lost: tuple[str, str, str]) -> None:
    run = run_with()
    host = run.view.bench.hosts[HOST]
    host.wait(leased(candidate("a"), "mine"), at(30), is_own=True)
    item_id, domain, token = lost
    run.note_lost(make_item(item_id, domain=domain, lease_token=token))
    assert (list(host.waiting), host.is_all) == (["a"], True)


# Hosts that are held up


def test_paused_host_is_left_out_for_some_seconds() -> None:
    run = run_with()
    run.pause_host(HOST, 3.0)
    assert run.view.bench.hosts[HOST].paused_until == at(3)


def test_host_is_held_up_longer_the_more_claims_in_a_row_it_held_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "full_jitter", lambda config, failures: 2.0 * failures)
    run = run_with()
    run.hold_up(HOST)
    assert run.view.bench.hosts[HOST].paused_until == at(2)
    run.hold_up(HOST)
    assert run.view.bench.hosts[HOST].paused_until == at(4)
    run.hold_up("unknown")
    assert list(run.view.bench.paused) == [HOST]


# Updated hosts


def test_updated_hosts_of_the_own_share_are_noted() -> None:
    run = FakeRun(buckets=4)
    run.set_share(1, 2)
    place = listed()[: -len("U01##")]
    run.note_updates(Updated(None, record(f"h{i}", bucket=i, place=place)) for i in range(4))
    assert list(run.view.bench.hosts) == ["h1", "h2"]


def test_process_that_has_not_claimed_yet_notes_a_thousand_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_HOSTS_BEFORE_CLAIMS", 2)
    run = FakeRun(buckets=1)
    run.set_share(0)
    place = listed()[: -len("U01##")]
    updates = [Updated(None, record(f"h{i}", place=place)) for i in range(3)]
    assert not run.membership.is_active
    run.note_updates(updates)
    assert len(run.view.bench.hosts) == 2
    # This process claims.
    run.membership._read_at = 0.0
    run.note_updates(updates)
    assert len(run.view.bench.hosts) == 3


def test_only_a_process_that_claims_owns_hosts() -> None:
    run = FakeRun(buckets=2)
    run.hosts.bucket_of = lambda host: int(host)  # type: ignore[method-assign]
    run.set_share(1)
    assert not run.owns("1")
    run.membership._read_at = 0.0
    assert [run.owns(host) for host in "01"] == [False, True]


# Shares of items


@pytest.mark.parametrize(
    ("is_all", "is_own_host", "is_own_part", "is_own"),
    [
        (True, True, False, True),
        (True, False, True, False),
        (False, True, False, False),
        (False, False, True, True),
    ],
)
def test_long_queue_belongs_to_all_processes_a_short_one_to_one(
    monkeypatch: pytest.MonkeyPatch, *, is_all: bool, is_own_host: bool, is_own_part: bool, is_own: bool
) -> None:
    run = FakeRun(processes=2)
    monkeypatch.setattr(run.membership, "owns_part", lambda item_id: is_own_part)
    monkeypatch.setattr(run.membership, "distance", lambda item_id: 7)
    host = known(is_all=is_all)
    host.is_own = is_own_host
    assert run.distance(host, candidate("a"), is_all=is_all) == (0 if is_own else 7)
    assert run.placed(host, candidate("a")).distance == (0 if is_own else 7)


def test_only_process_owns_all_items(monkeypatch: pytest.MonkeyPatch) -> None:
    run = FakeRun(processes=1)
    monkeypatch.setattr(run.membership, "owns_part", lambda item_id: False)
    assert run.distance(known(), candidate("a"), is_all=False) == 0


# A run on a client


class Run:
    """A run whose tables are items in memory."""

    def __init__(self, *items: Any, clock: Any = None) -> None:
        self.memory = MemoryTable(*items)
        self.clock = clock or ManualClock()
        self.opened = open_gateway(self.memory.answer)

    async def __aenter__(self) -> RunContext:
        gateway, _ = await self.opened.__aenter__()
        tables = Tables.of("")
        services = FrontierServices(gateway, tables, self.memory, self.clock, lambda claim: None)
        self.gateway = gateway
        return RunContext(services, CONTROL, LinkRules())

    async def __aexit__(self, *error: Any) -> None:
        await self.opened.__aexit__(*error)


async def stored_item(run: RunContext) -> Any:
    return run.items.encode(make_item("a"), 1).item


async def test_states_of_items_are_read_with_the_control_by_one_request() -> None:
    fake = Run(to_item(CONTROLS, CONTROL.model_copy(update={"buckets": 2})))
    async with fake as run:
        item = await stored_item(run)
        fake.memory.items[key_of(item)] = item
        states, control = await run.read_states(["a", "absent"])
    assert list(states) == ["a"]
    assert set(STATE_ATTRIBUTES) <= states["a"].keys()
    assert control is not None
    assert control.buckets == 2
    assert fake.memory.reads == ["control", "a", "absent"]


async def test_states_of_items_are_read_without_a_control_if_there_is_none() -> None:
    fake = Run()
    async with fake as run:
        assert await run.read_states(["a"]) == ({}, None)


async def test_control_is_read_by_the_next_shared_read_if_one_has_just_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = Run()
    async with fake as run:

        async def following() -> RunControl:
            return CONTROL

        monkeypatch.setattr(run.control_reads, "may_begin", lambda: False)
        monkeypatch.setattr(run.control_reads, "following", following)
        assert await run.read_states(["a"]) == ({}, CONTROL)
    assert fake.memory.reads == ["a"]


async def test_context_names_the_run_and_shares_its_parts() -> None:
    fake = Run()
    async with fake as run:
        assert (run.run_id, run.site_id, run.first_control) == ("run", "site", CONTROL)
        assert run.config is fake.gateway.config
        assert run.clock is fake.clock
        # The counts that announcements take are those that are added up.
        run.counters.move("a", None, "pending")
        assert run.view.unwritten_counts.by_host["a"]["pending"] == 1


async def test_cleared_run_has_no_view_and_reads_its_control_again() -> None:
    fake = Run(to_item(CONTROLS, CONTROL.model_copy(update={"buckets": 2})))
    async with fake as run:
        run.view.bench.hosts[HOST] = known()
        await run.control_reads.recent()
        assert run.hosts.buckets == 2
        run.clear()
        assert (run.view.bench.hosts, run.hosts.buckets) == ({}, 4)
        fake.memory.reads.clear()
        await run.control_reads.recent()
        assert fake.memory.reads == ["control"]


async def test_closed_backend_answers_nothing_from_memory() -> None:
    fake = Run()
    async with fake as run:
        run.require_open()
    with pytest.raises(BackendStateError):
        run.require_open()


@pytest.mark.parametrize(
    ("offset", "is_system", "is_off"),
    [(1.0, True, False), (1.01, True, True), (-1.01, True, True), (9.0, False, False)],
)
async def test_clock_may_be_off_by_half_of_the_allowed_skew(
    offset: float, *, is_system: bool, is_off: bool
) -> None:
    # The allowed skew is two seconds. A clock of a test is not the machine's.
    fake = Run(clock=SystemClock() if is_system else ManualClock())
    async with fake as run:
        assert run.config.frontier_max_clock_skew == 2.0
        fake.gateway.server_clock = cast("Any", SimpleNamespace(offset=offset))
        if not is_off:
            run.check_clock()
            return
        with pytest.raises(ClockSkewError, match="ahead" if offset > 0 else "behind"):
            run.check_clock()


async def test_work_of_claims_is_done_again_until_their_leases_count_as_lost() -> None:
    clock = ManualClock()
    fake = Run(clock=clock)
    busy = ThrottledError("busy", code="Busy", operation="UpdateItem", table=None)
    calls: list[float] = []

    async def work() -> None:
        calls.append(clock.monotonic())
        raise busy

    claim = Claim(make_item("a"), "w", at(30), deadline=5.0)
    async with fake as run:
        working = asyncio.create_task(run.while_leased([claim], work))
        for _ in range(10):
            for _ in range(10):
                await asyncio.sleep(0)
            clock.advance(1)
        with pytest.raises(ThrottledError):
            await working
    # It is tried each second. The allowed skew of the clocks is two seconds.
    assert calls == [0.0, 1.0, 2.0]


def test_updated_host_keeps_its_known_items_unless_another_process_has_changed_it() -> None:
    run = run_with()
    host = run.view.bench.hosts[HOST]
    host.offer(candidate("a"))
    place = candidate("a", priority=1).order
    run.note_updates([Updated(host.order, record(place=place))])
    assert names(host.ready) == ["a"]
    run.note_updates([Updated(listed(priority=9), record(place=place))])
    assert host.ready == []
