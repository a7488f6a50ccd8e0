"""Candidates are claimed; with writes that are scripted, in virtual time."""

from __future__ import annotations

from typing import Any, cast

import pytest

from ragcrawl_dynamo._dynamodb.outcomes import Failed, Refused
from ragcrawl_dynamo._frontier.candidates import Candidate
from ragcrawl_dynamo._frontier.host_updates import ReserveLeases, ReturnLeases
from ragcrawl_dynamo._frontier.item_store import Lease
from ragcrawl_dynamo._frontier.lease_issuer import IssuedLeases, LeaseIssuer, LeaseTerms
from ragcrawl_dynamo._frontier.queue_reader import QueueReader
from ragcrawl_dynamo.errors import ServerFaultError, ThrottledError
from tests.support.factories import START
from tests.support.fake_run import FakeRun
from tests.support.hosts import at, candidate, known, leased, names, record

BUSY = ThrottledError("busy", code="Busy", operation="UpdateItem", table=None)
THROTTLED = Failed(BUSY, may_be_applied=False)
DOWN = Failed(ServerFaultError("down", code="Down", operation="UpdateItem", table=None))


class Issuing:
    """A run in which the items of hosts are chosen, and then claimed."""

    def __init__(self, **hosts: Any) -> None:
        self.run = FakeRun()
        self.issuer = LeaseIssuer(self.run, QueueReader(self.run), cast("Any", self))
        self.uncertain: list[str] = []
        self.bench = self.run.view.bench
        for name, (items, host_record) in hosts.items():
            queue = [candidate(item, age=9 - i, host=name) for i, item in enumerate(items)]
            self.run.fake_queues.shards[name, 0] = queue
            host = known(*queue, host=name, record=host_record and record(name, **host_record))
            self.bench.hosts[name] = host
            self.bench.settle(host)

    def check(self, tried: list[tuple[Candidate, Lease]]) -> None:
        self.uncertain += [candidate.item_id for candidate, _ in tried]

    async def issue(self, count: int = 9, *, seconds: float = 30) -> IssuedLeases:
        return await self.issue_to(self.choose(count), seconds=seconds)

    def choose(self, count: int = 9) -> list[Candidate]:
        return self.bench.choose(count, START, 0.0).candidates

    async def issue_to(self, chosen: list[Candidate], *, seconds: float = 30) -> IssuedLeases:
        return await self.issuer.issue(chosen, [LeaseTerms(seconds, f"w{i}") for i in range(9)])


async def test_issued_leases_are_noted_on_the_workbench_and_counted() -> None:
    issuing = Issuing(a=(("a0", "a1"), None))
    issued = await issuing.issue()
    assert [lease.item.item_id for lease in issued.values()] == ["a0", "a1"]
    lease = issued[0].lease
    # Other processes wait until the clocks cannot differ by so much.
    assert (lease.owner, lease.begins_at, lease.ends_at, lease.free_at) == ("w0", START, at(30), at(32))
    host = issuing.bench.hosts["a"]
    waits = host.waiting["a0"]
    assert (waits.until, waits.is_own, waits.candidate.expired_token) == (at(32), True, lease.token)
    assert issuing.run.fake_counters.moves == [("a", "pending", "in_progress")] * 2
    assert lease.deadline == 30.0
    assert (issuing.issuer.tried, issuing.issuer.granted, host.tried, host.picked) == (2, 2, set(), 0)
    assert not issued[0].has_slot
    assert host.pace is not None
    assert host.pace.count == 2


async def test_leases_of_limited_hosts_are_reserved_first() -> None:
    issuing = Issuing(a=(("a0", "a1"), {"max_in_flight": 2}), b=(("b0",), {"delay": 3}), c=(("c0",), None))
    issued = await issuing.issue()
    (updates,) = issuing.run.fake_hosts.updates
    by_item = {lease.item.item_id: lease for lease in issued.values()}
    tokens = {by_item[name].lease.token: at(32) for name in ("a0", "a1")}
    assert updates["a"] == ReserveLeases(tokens, START)
    assert updates.keys() == {"a", "b"}
    assert {name: lease.has_slot for name, lease in by_item.items()} == {
        "a0": True,
        "a1": True,
        "b0": False,
        "c0": False,
    }
    hosts = issuing.bench.hosts
    assert hosts["a"].record is not None
    assert hosts["a"].record.slots == tokens
    assert issuing.bench.hosts["b"].record == record("b", delay=3, next_at=at(3))


async def test_block_that_is_over_needs_no_reservation() -> None:
    issuing = Issuing(a=(("a0",), {"blocked_until": START}))
    assert len(await issuing.issue()) == 1
    assert issuing.run.fake_hosts.updates == [{}]


async def test_host_that_another_process_has_changed_is_not_claimed_from() -> None:
    issuing = Issuing(a=(("a0",), {"delay": 3}), b=(("b0",), None))
    issuing.run.fake_hosts.changed = {"a"}
    issued = await issuing.issue()
    assert [lease.item.item_id for lease in issued.values()] == ["b0"]
    assert issuing.run.fake_items.claims == ["b0"]
    # Its record is read again, and its item is tried again.
    host = issuing.bench.hosts["a"]
    assert (host.record, names(host.ready)) == (None, ["a0"])


@pytest.mark.parametrize(
    "limits",
    [
        {"delay": 3, "next_at": at(0.001)},
        {"max_in_flight": 2, "slots": {"other": at(9)}},
        {"blocked_until": at(5)},
    ],
)
async def test_limits_that_were_read_after_the_choice_are_kept(limits: dict[str, Any]) -> None:
    # The links that this process adds to a host let it read the record, in which another has reserved.
    issuing = Issuing(a=(("a0", "a1"), {"max_in_flight": 2}), b=(("b0",), None))
    chosen = issuing.choose()
    assert names(chosen) == ["a0", "b0", "a1"]
    host = issuing.bench.hosts["a"]
    newer = record("a", place=chosen[0].order, **limits)
    issuing.bench.note_update(newer, host.order, 0.0, is_own=True)
    issued = await issuing.issue_to(chosen)
    assert [lease.item.item_id for lease in issued.values()] == ["b0"]
    assert issuing.run.fake_items.claims == ["b0"]
    assert issuing.run.fake_hosts.updates == [{}]
    assert (names(host.ready), host.record, host.picked) == (["a0", "a1"], newer, 0)


@pytest.mark.parametrize("is_listed", [True, False])
async def test_limits_that_became_unknown_after_the_choice_forbid_leases(is_listed: bool) -> None:
    issuing = Issuing(a=(("a0",), {"delay": 3}))
    host = issuing.bench.hosts["a"]
    if not is_listed:
        host.order = None
    chosen = issuing.choose()
    issuing.bench.recheck_limits(0.0)
    assert await issuing.issue_to(chosen) == {}
    assert (issuing.run.fake_items.claims, names(host.ready)) == ([], ["a0"])
    assert issuing.bench.choose(1, START, 0.0).looks == [host]


async def test_leases_begin_when_they_are_reserved_not_when_items_are_chosen() -> None:
    issuing = Issuing(a=(("a0",), {"delay": 3}))
    chosen = issuing.choose()
    issuing.run.clock.advance(2)
    issued = await issuing.issue_to(chosen)
    assert (issued[0].lease.begins_at, issued[0].lease.ends_at) == (at(2), at(32))
    host_record = issuing.bench.hosts["a"].record
    assert host_record is not None
    assert host_record.next_at == at(5)


async def test_host_that_is_forgotten_after_the_choice_is_not_claimed_from() -> None:
    # It may have limits.
    issuing = Issuing(a=(("a0",), {"delay": 3}), b=(("b0",), None))
    chosen = issuing.choose()
    issuing.bench.remove("a", 0.0)
    assert [lease.item.item_id for lease in (await issuing.issue_to(chosen)).values()] == ["b0"]
    assert issuing.run.fake_items.claims == ["b0"]


async def test_host_that_is_forgotten_while_leases_are_reserved_is_no_error() -> None:
    issuing = Issuing(a=(("a0",), {"delay": 3}))
    issuing.run.fake_hosts.during_update = lambda: issuing.bench.remove("a", 0.0)
    assert len(await issuing.issue()) == 1


async def test_refused_claim_is_read_again_and_its_reserved_lease_returned() -> None:
    issuing = Issuing(a=(("a0", "a1"), {"max_in_flight": 5}))
    issuing.run.fake_items.outcomes = {"claim a0": Refused()}
    issuing.run.fake_queues.leases = {"a0": ("token", at(20))}
    issued = await issuing.issue()
    assert [lease.item.item_id for lease in issued.values()] == ["a1"]
    reserve, give_back = issuing.run.fake_hosts.updates
    assert isinstance(reserve["a"], ReserveLeases)
    unused = set(reserve["a"].tokens) - {issued[1].lease.token}
    assert give_back == {"a": ReturnLeases(tuple(unused), START)}
    host = issuing.bench.hosts["a"]
    assert host.record is not None
    assert set(host.record.slots) == {issued[1].lease.token}
    assert (host.waiting["a0"].until, host.waiting["a0"].is_own) == (at(22), False)
    assert (issuing.issuer.tried, issuing.issuer.granted) == (2, 1)
    assert issuing.run.fake_items.given_up == []


async def test_failed_claims_are_tried_again_later() -> None:
    issuing = Issuing(a=(("a0", "a1"), None))
    issuing.run.fake_items.outcomes = {"claim a0": DOWN}
    issued = await issuing.issue()
    assert [lease.item.item_id for lease in issued.values()] == ["a1"]
    assert names(issuing.bench.hosts["a"].ready) == ["a0"]
    assert issuing.run.fake_queues.known == []


async def test_claim_raises_if_all_writes_failed_and_forgets_nothing() -> None:
    issuing = Issuing(a=(("a0", "a1"), {"max_in_flight": 5}))
    issuing.run.fake_items.outcomes = {"claim a0": DOWN, "claim a1": DOWN}
    with pytest.raises(ServerFaultError):
        await issuing.issue()
    host = issuing.bench.hosts["a"]
    assert (names(host.ready), host.picked) == (["a0", "a1"], 0)
    # The reserved leases are not in use.
    assert host.record is not None
    assert host.record.slots == {}


async def test_unused_leases_are_returned_to_a_host_that_was_changed_meanwhile() -> None:
    # Otherwise its slots would be taken until the leases end.
    issuing = Issuing(a=(("a0",), {"max_in_flight": 5}))
    hosts = issuing.run.fake_hosts
    issuing.run.fake_items.outcomes = {"claim a0": Refused()}
    issuing.run.fake_items.during_run = lambda: hosts.changed.add("a")
    assert await issuing.issue() == {}
    await issuing.run.tasks.join()
    reserve, tried, returned = hosts.updates
    assert isinstance(reserve["a"], ReserveLeases)
    assert tried == returned == {"a": ReturnLeases(tuple(reserve["a"].tokens), START)}
    # The record is read again before the next lease.
    assert issuing.bench.hosts["a"].record is None


async def test_item_whose_last_lease_has_expired_becomes_a_dead_letter() -> None:
    issuing = Issuing(a=((), None))
    host = issuing.bench.hosts["a"]
    for item in ("dead", "alive"):
        host.offer(leased(candidate(item, host="a")))
    host.offer(candidate("new", host="a"))
    issuing.bench.settle(host)
    issuing.run.fake_items.outcomes = {
        "claim dead": Refused(),
        "claim alive": Refused(),
        "claim new": Refused(),
        "give up alive": Refused(),
    }
    assert await issuing.issue() == {}
    # Only an item that was leased can be given up.
    assert sorted(issuing.run.fake_items.given_up) == ["alive", "dead"]
    assert issuing.run.fake_counters.moves == [("a", "in_progress", "failed")]
    assert sorted(issuing.run.fake_queues.known) == ["alive", "dead", "new"]


async def test_expired_lease_that_is_claimed_again_is_counted_once() -> None:
    issuing = Issuing(a=((), None))
    issuing.bench.hosts["a"].offer(leased(candidate("a0", host="a")))
    issuing.bench.settle(issuing.bench.hosts["a"])
    assert len(await issuing.issue()) == 1
    assert issuing.run.fake_counters.moves == [("a", "in_progress", "in_progress")]


async def test_item_that_cannot_be_decoded_is_not_issued_and_waits_for_its_lease() -> None:
    issuing = Issuing(a=(("corrupt",), {"max_in_flight": 5}))
    assert await issuing.issue() == {}
    host = issuing.bench.hosts["a"]
    assert host.waiting["corrupt"].until == at(32)
    assert issuing.run.fake_counters.moves == []
    assert host.record is not None
    assert host.record.slots == {}


async def test_issued_leases_are_returned_though_refused_items_cannot_be_read() -> None:
    issuing = Issuing(a=(("a0", "a1"), None))
    issuing.run.fake_items.outcomes = {"claim a0": Refused()}
    issuing.run.fake_queues.error = DOWN.error
    assert len(await issuing.issue()) == 1
    issuing = Issuing(a=(("a0",), None))
    issuing.run.fake_items.outcomes = {"claim a0": Refused()}
    issuing.run.fake_queues.error = DOWN.error
    with pytest.raises(ServerFaultError):
        await issuing.issue()


async def test_throttled_hosts_wait_and_the_others_are_issued() -> None:
    issuing = Issuing(a=(("a0", "a1"), None), b=(("b0",), None))
    issuing.run.fake_items.outcomes = {"claim a0": THROTTLED, "claim a1": THROTTLED}
    issued = await issuing.issue()
    assert [lease.item.item_id for lease in issued.values()] == ["b0"]
    host = issuing.bench.hosts["a"]
    # Nothing was refused, nothing is uncertain, and the items come next when the host does.
    assert (issuing.run.fake_queues.known, issuing.uncertain, names(host.ready)) == ([], [], ["a0", "a1"])
    assert host.paused_until is not None
    assert START <= host.paused_until <= at(4)
    assert issuing.choose() == []
    issuing.run.clock.advance(4)
    issuing.run.fake_items.outcomes = {}
    assert len(await issuing.issue_to(issuing.bench.choose(9, at(4), 4.0).candidates)) > 0
    assert (host.held_up, issuing.bench.paused) == (0, {})


async def test_claims_that_are_all_throttled_raise_nothing() -> None:
    issuing = Issuing(a=(("a0",), None))
    issuing.run.fake_items.outcomes = {"claim a0": THROTTLED}
    assert await issuing.issue() == {}


async def test_throttled_reservation_lets_the_host_wait_and_keeps_its_record() -> None:
    issuing = Issuing(a=(("a0",), {"max_in_flight": 5}), b=(("b0",), None))
    host = issuing.bench.hosts["a"]
    known_record = host.record
    issuing.run.fake_hosts.throttled = {"a"}
    issued = await issuing.issue()
    assert [lease.item.item_id for lease in issued.values()] == ["b0"]
    assert (host.record, names(host.ready), list(issuing.bench.paused)) == (known_record, ["a0"], ["a"])


async def test_claims_that_may_have_been_applied_are_checked() -> None:
    issuing = Issuing(a=(("a0", "a1"), None))
    issuing.run.fake_items.outcomes = {"claim a0": DOWN}
    assert len(await issuing.issue()) == 1
    assert issuing.uncertain == ["a0"]


async def test_claims_take_no_longer_than_half_of_the_useful_time_of_a_lease() -> None:
    issuing = Issuing(a=(("a0",), {"delay": 3}), b=(("b0",), None))
    issuing.run.fake_hosts.during_update = lambda: issuing.run.clock.advance(6)
    await issuing.issue(seconds=30)
    # Half of 28 seconds, of which the reservation has taken six.
    assert (issuing.run.fake_hosts.seconds, issuing.run.fake_items.seconds) == ([14], [8])


async def test_claims_that_begin_late_still_have_a_moment() -> None:
    issuing = Issuing(a=(("a0",), {"delay": 3}))
    issuing.run.fake_hosts.during_update = lambda: issuing.run.clock.advance(14)
    await issuing.issue(seconds=30)
    assert issuing.run.fake_items.seconds == [0.05]


async def test_nothing_is_issued_for_no_candidates() -> None:
    assert await Issuing().issue_to([]) == {}


async def test_throttled_claims_and_dead_letters_are_not_tried_again() -> None:
    issuing = Issuing(a=((), None))
    issuing.bench.hosts["a"].offer(leased(candidate("dead", host="a")))
    issuing.bench.settle(issuing.bench.hosts["a"])
    issuing.run.fake_items.outcomes = {"claim dead": Refused()}
    await issuing.issue()
    assert issuing.run.fake_items.given_up == ["dead"]
    assert issuing.run.fake_items.once == [True, True]


async def test_writes_of_all_claims_are_counted() -> None:
    issuing = Issuing(a=(("a0", "a1"), None))
    await issuing.issue(1)
    await issuing.issue(1)
    assert (issuing.issuer.tried, issuing.issuer.granted) == (2, 2)


@pytest.mark.parametrize(
    ("changed", "throttled", "refused", "is_beaten"),
    [
        ([], [], [], False),
        (["a"], [], [], True),
        # A host that is held up was not lost to another process.
        ([], ["a"], [], False),
        (["b"], ["a"], [], True),
        ([], [], ["claim b0"], True),
        (["a"], [], ["claim b0"], True),
    ],
)
async def test_process_is_beaten_if_others_were_faster(
    changed: list[str], throttled: list[str], refused: list[str], *, is_beaten: bool
) -> None:
    issuing = Issuing(a=(("a0",), {"delay": 3}), b=(("b0",), {"delay": 3}), c=(("c0",), None))
    issuing.run.fake_hosts.changed |= set(changed)
    issuing.run.fake_hosts.throttled |= set(throttled)
    issuing.run.fake_items.outcomes |= dict.fromkeys(refused, Refused())
    await issuing.issue()
    assert issuing.issuer.is_beaten is is_beaten


async def test_failed_claims_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    issuing = Issuing(a=(("a0", "a1"), None))
    issuing.run.fake_items.outcomes = {"claim a0": DOWN}
    await issuing.issue()
    assert "1 of 2 claims failed, the first with: " in caplog.text


async def test_unused_leases_of_a_throttled_host_are_returned_later() -> None:
    issuing = Issuing(a=(("a0",), {"max_in_flight": 5}), b=(("b0",), {"max_in_flight": 5}))
    hosts = issuing.run.fake_hosts
    issuing.run.fake_items.outcomes = {"claim a0": Refused()}
    issuing.run.fake_items.during_run = lambda: hosts.throttled.add("a")
    assert len(await issuing.issue()) == 1
    await issuing.run.tasks.join()
    _, tried, returned = hosts.updates
    assert tried == returned
    assert tried.keys() == {"a"}
    # The record of the other host is still known.
    other = issuing.bench.hosts["b"].record
    assert other is not None
    assert len(other.slots) == 1


async def test_unused_leases_that_cannot_be_returned_are_returned_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    issuing = Issuing(a=(("a0",), {"max_in_flight": 5}))
    hosts = issuing.run.fake_hosts
    issuing.run.fake_items.outcomes = {"claim a0": Refused()}

    def fail() -> None:
        raise DOWN.error

    def fail_from_now_on() -> None:
        hosts.during_update = fail

    issuing.run.fake_items.during_run = fail_from_now_on
    assert await issuing.issue() == {}
    await issuing.run.tasks.join()
    _, tried, returned = hosts.updates
    assert tried == returned
    assert caplog.text == ""


async def test_unused_leases_that_cannot_be_returned_later_either_are_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuing = Issuing(a=(("a0",), {"max_in_flight": 5}))
    hosts = issuing.run.fake_hosts
    issuing.run.fake_items.outcomes = {"claim a0": Refused()}
    issuing.run.fake_items.during_run = lambda: hosts.changed.add("a")

    async def fail(updates: object) -> None:
        raise BUSY

    monkeypatch.setattr(hosts, "update", fail)
    assert await issuing.issue() == {}
    await issuing.run.tasks.join()
    assert "unused leases of 1 hosts could not be returned" in caplog.text
