"""How a claim chooses, looks, and chooses again; with tables in memory, in virtual time."""

from __future__ import annotations

from datetime import datetime

import pytest

from ragcrawl_dynamo._dynamodb.outcomes import Applied, Failed, Refused
from ragcrawl_dynamo._frontier import scheduler as module
from ragcrawl_dynamo._frontier.claim import Claim
from ragcrawl_dynamo._frontier.lease_issuer import LeaseTerms
from ragcrawl_dynamo._frontier.scheduler import ClaimResult, Scheduler
from ragcrawl_dynamo._frontier.unused_leases import UnusedLeases
from ragcrawl_dynamo._schema.queue_order import split_place
from ragcrawl_dynamo._schema.records import RunControl, RunState
from ragcrawl_dynamo.errors import FrontierCancelledError, ServerFaultError, ThrottledError
from tests.support.fake_run import FakeRun
from tests.support.hosts import at, candidate, leased, listed, record

DOWN = ServerFaultError("down", code="Down", operation="UpdateItem", table=None)
BUSY = ThrottledError("busy", code="Busy", operation="UpdateItem", table=None)


class Claiming:
    """A run with hosts of free items, of which no process knows anything."""

    def __init__(self, **hosts: str) -> None:
        self.run = FakeRun(buckets=1)
        self.run.set_share(0)
        self.scheduler = Scheduler(self.run, UnusedLeases(self.run, self.release))
        self.bench, self.queues, self.writes = self.run.view.bench, self.run.fake_queues, self.run.fake_items
        for age, (host, items) in enumerate(hosts.items()):
            self.run.list_host(host, listed(age=99 - age))
            self.run.fake_hosts.move_outcomes[host] = Refused()
            for i, item in enumerate(items.split()):
                self.queues.shards[host, 0].append(candidate(item, age=99 - age - i / 100, host=host))

    async def release(self, claims: list[Claim]) -> None:
        """Releases nothing."""

    async def result(self, count: int, *, is_thorough: bool = True) -> ClaimResult:
        return await self.scheduler.claim([LeaseTerms(30, "w")] * count, is_thorough=is_thorough)

    async def claim(self, count: int, *, is_thorough: bool = True) -> list[str]:
        leases = (await self.result(count, is_thorough=is_thorough)).leases
        return [leases[i].item.item_id for i in range(len(leases))]


async def test_claim_takes_the_best_of_all_hosts_in_turns() -> None:
    claiming = Claiming(a="a0 a1 a2", b="b0 b1", c="c0")
    assert await claiming.claim(4) == ["a0", "b0", "c0", "a1"]
    assert await claiming.claim(9) == ["b1", "a2"]
    assert await claiming.claim(1) == []
    result = await claiming.result(1)
    # After the third look that showed nothing, the queues are not read for four seconds.
    assert (result.leases, result.next_at) == ({}, at(4))


async def test_claim_divides_the_wanted_items_among_the_hosts_that_it_looks_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted: list[tuple[int, int]] = []
    claiming = Claiming(a="a0", b="b0", c="c0")
    look = claiming.scheduler._reader.look

    async def note(hosts: list[object], count: int, now: object) -> None:
        wanted.append((len(hosts), count))
        await look(hosts, count, now)  # type: ignore[arg-type]

    monkeypatch.setattr(claiming.scheduler._reader, "look", note)
    await claiming.claim(10)
    assert wanted[0] == (3, 4)


async def test_claim_looks_again_at_idle_hosts_only_if_it_would_return_nothing_more() -> None:
    claiming = Claiming(a="a0 a1")
    assert await claiming.claim(1) == ["a0"]
    assert claiming.queues.looks == ["a"]
    assert await claiming.claim(1) == ["a1"]
    assert claiming.queues.looks == ["a"]
    claiming.queues.shards["a", 0].append(candidate("new", host="a"))
    assert await claiming.claim(1) == ["new"]
    assert claiming.queues.looks == ["a", "a"]


async def test_claim_that_is_not_thorough_looks_again_once_a_second() -> None:
    claiming = Claiming(a="a0")
    assert await claiming.claim(9, is_thorough=False) == ["a0"]
    claiming.queues.shards["a", 0].append(candidate("new", host="a"))
    assert await claiming.claim(1, is_thorough=False) == []
    claiming.run.clock.advance(1)
    assert await claiming.claim(1, is_thorough=False) == ["new"]


async def test_claim_that_has_something_looks_again_for_more_once_a_second() -> None:
    claiming = Claiming(a="a0", b="b0")
    assert await claiming.claim(9) == ["a0", "b0"]
    a, b = claiming.queues.shards["a", 0], claiming.queues.shards["b", 0]
    a.append(candidate("a1", host="a"))
    assert await claiming.claim(1) == ["a1"]
    b.append(candidate("b1", host="b"))
    claiming.bench.hosts["a"].offer(candidate("a2", host="a"))
    claiming.bench.settle(claiming.bench.hosts["a"])
    looks = len(claiming.queues.looks)
    assert await claiming.claim(9) == ["a2"]
    assert len(claiming.queues.looks) == looks
    assert await claiming.claim(9) == ["b1"]
    claiming.run.clock.advance(1)
    a.append(candidate("a3", host="a"))
    claiming.bench.hosts["b"].offer(candidate("b2", host="b"))
    claiming.bench.settle(claiming.bench.hosts["b"])
    assert sorted(await claiming.claim(9)) == ["a3", "b2"]


async def test_claim_looks_again_until_it_has_something(monkeypatch: pytest.MonkeyPatch) -> None:
    claiming = Claiming(a="a0")
    await claiming.claim(1)
    looks = 0

    async def look_again(wanted: int, now: datetime) -> bool:
        nonlocal looks
        looks += 1
        # Each look finds one more item; the first of them is leased already.
        host = claiming.bench.hosts["a"]
        host.offer(candidate(f"new{looks}", host="a"))
        claiming.bench.settle(host)
        return True

    monkeypatch.setattr(claiming.scheduler._idle, "look_again", look_again)
    claiming.writes.outcomes["claim new1"] = Refused()
    assert await claiming.claim(9) == ["new2"]
    assert looks == 2


async def test_claim_chooses_again_if_other_processes_were_faster() -> None:
    claiming = Claiming(a=" ".join(f"a{i:02}" for i in range(60)))
    for i in range(30):
        claiming.writes.outcomes[f"claim a{i:02}"] = Refused()
        claiming.queues.leases[f"a{i:02}"] = ("token", at(20))
    assert await claiming.claim(2) == ["a30", "a31"]
    # It has read by key the items that it had not tried yet.
    assert len(claiming.writes.claims) < 10


async def test_claim_chooses_a_limited_number_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ATTEMPTS", 3)
    claiming = Claiming(a="a0")
    # The claim is refused, although nobody has leased the item.
    claiming.writes.outcomes["claim a0"] = Refused()
    assert await claiming.claim(1) == []
    assert claiming.writes.claims == ["a0"] * 3


async def test_candidates_are_given_back_if_a_look_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    claiming = Claiming(a="a0 a1")
    await claiming.claim(1)
    claiming.run.list_host("b", listed(priority=-1))

    async def fail(*arguments: object) -> None:
        raise DOWN

    claiming.run.clock.advance(1)
    with monkeypatch.context() as patched:
        patched.setattr(claiming.queues, "look", fail)
        with pytest.raises(ServerFaultError):
            await claiming.claim(2)
    assert await claiming.claim(1) == ["a1"]


async def test_claim_returns_its_items_if_a_later_request_fails() -> None:
    claiming = Claiming(a="a0 a1")
    claiming.writes.outcomes["claim a1"] = Failed(DOWN)
    assert await claiming.claim(2) == ["a0"]
    with pytest.raises(ServerFaultError):
        await claiming.claim(2)
    del claiming.writes.outcomes["claim a1"]
    assert await claiming.claim(2) == ["a1"]


async def test_claim_from_a_paused_run_is_empty_and_from_a_cancelled_one_an_error() -> None:
    claiming = Claiming(a="a0")
    claiming.run.fake_control = RunControl(run="run", site_id="site", state=RunState.PAUSED)
    assert await claiming.claim(1) == []
    claiming.run.fake_control = RunControl(run="run", site_id="site", state=RunState.CANCELLED)
    with pytest.raises(FrontierCancelledError):
        await claiming.claim(1)
    assert claiming.writes.claims == []
    claiming.run.fake_control = RunControl(run="run", site_id="site")
    assert await claiming.claim(1) == ["a0"]


async def test_limits_that_were_changed_are_read_before_the_next_lease() -> None:
    claiming = Claiming(a="a0 a1")
    claiming.run.fake_control = RunControl(run="run", site_id="site", limits_changed_by="x")
    place = split_place(listed(age=99))
    claiming.run.fake_hosts.records["a"] = record("a", place=place)
    assert await claiming.claim(1) == ["a0"]
    claiming.run.fake_hosts.records["a"] = record("a", place=place, blocked_until=at(9))
    claiming.run.fake_control = RunControl(run="run", site_id="site", limits_changed_by="y")
    # The list shows the host as it was before.
    assert await claiming.claim(1) == []


async def test_claim_notes_the_shares_after_processes_came_or_went() -> None:
    claiming = Claiming(a="a0 a1")
    await claiming.claim(1)
    claiming.run.set_share()
    await claiming.claim(1)
    assert claiming.bench.hosts["a"].is_own
    claiming.run.is_membership_changed = True
    await claiming.claim(1)
    assert not claiming.bench.hosts["a"].is_own


async def test_host_that_is_drained_is_moved_out_of_the_list() -> None:
    claiming = Claiming(a="a0")
    await claiming.claim(1)
    claiming.queues.shards["a", 0].clear()
    claiming.bench.hosts["a"].end("a0")
    claiming.run.fake_hosts.move_outcomes["a"] = Applied({})
    assert await claiming.claim(1) == []
    claiming.run.clock.advance(1)
    assert await claiming.claim(1) == []
    assert claiming.bench.hosts == {}


async def test_leases_that_are_issued_later_belong_to_the_terms_that_were_left() -> None:
    claiming = Claiming(a="a0 a1 a2")
    claiming.writes.outcomes["claim a1"] = Refused()
    claiming.queues.leases["a1"] = ("token", at(20))
    assert await claiming.claim(2) == ["a0", "a2"]


async def test_claim_takes_no_more_than_wanted_after_a_look() -> None:
    claiming = Claiming(a="a0 a1")
    await claiming.claim(1)
    claiming.run.list_host("b", listed(-1))
    claiming.queues.shards["b", 0] = [candidate(f"b{i}", -1, 9 - i, "b") for i in range(3)]
    claiming.run.clock.advance(1)
    assert await claiming.claim(2) == ["a1", "b0"]
    assert claiming.writes.claims == ["a0", "a1", "b0"]


async def test_claim_tries_expired_leases_without_reading_them_by_key() -> None:
    claiming = Claiming(a="a0 a1")
    await claiming.claim(1)
    host = claiming.bench.hosts["a"]
    host.offer(leased(candidate("expired", age=-5, host="a")))
    claiming.bench.settle(host)
    claiming.writes.outcomes["claim a1"] = Refused()
    claiming.queues.leases["a1"] = ("token", at(20))
    assert await claiming.claim(1) == ["expired"]
    assert "expired" not in claiming.queues.known


async def test_host_has_room_again_after_items_of_it_were_read_by_key() -> None:
    claiming = Claiming()
    claiming.run.list_host("a", listed(has_limits=True))
    claiming.run.fake_hosts.records["a"] = record("a", place=split_place(listed()), max_in_flight=1)
    claiming.queues.shards["a", 0] = [candidate(f"a{i}", age=9 - i, host="a") for i in range(3)]
    claiming.writes.outcomes["claim a0"] = Refused()
    claiming.queues.leases["a0"] = ("token", at(20))
    assert await claiming.claim(1, is_thorough=False) == ["a1"]


async def test_change_of_limits_is_noticed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    claiming = Claiming(a="a0 a1")
    changes: list[float] = []
    monkeypatch.setattr(claiming.bench, "recheck_limits", changes.append)
    for changed_by in (None, "x", "x", "y"):
        claiming.run.fake_control = RunControl(run="run", site_id="site", limits_changed_by=changed_by)
        await claiming.claim(1)
    assert len(changes) == 2


async def test_claim_that_gets_nothing_because_of_throttling_raises_an_error_with_a_pause() -> None:
    claiming = Claiming(a="a0", b="b0")
    claiming.writes.outcomes = {"claim a0": Failed(BUSY, may_be_applied=False)}
    result = await claiming.result(2)
    assert [lease.item.item_id for lease in result.leases.values()] == ["b0"]
    assert result.throttled is None
    result = await claiming.result(2)
    assert (result.leases, result.next_at) == ({}, claiming.bench.next_moment())
    assert result.throttled is not None
    assert "1 hosts, such as a" in str(result.throttled)
    # Items of throttled hosts are not read by key: nobody was faster.
    assert claiming.queues.known == []
    claiming.run.clock.advance(4)
    claiming.writes.outcomes = {}
    assert await claiming.claim(1) == ["a0"]


@pytest.mark.parametrize(("proof", "is_finished"), [("proof", True), (None, False)])
async def test_claim_says_whether_the_run_is_finished(proof: str | None, *, is_finished: bool) -> None:
    claiming = Claiming()
    claiming.run.fake_control = RunControl(run="run", site_id="site", finished_by=proof)
    assert (await claiming.result(1)).is_finished is is_finished


async def test_claim_from_throttled_hosts_only_names_the_first_three_of_them() -> None:
    claiming = Claiming(a="a0", b="b0", c="c0", d="d0")
    busy = Failed(BUSY, may_be_applied=False)
    claiming.writes.outcomes = {f"claim {host}0": busy for host in "abcd"}
    error = (await claiming.result(4)).throttled
    assert error is not None
    first = ", ".join(list(claiming.bench.paused)[:3])
    assert f"4 hosts, such as {first}, or" in str(error)
    assert (error.code, error.operation, error.table) == ("Throttled", "claim", None)
