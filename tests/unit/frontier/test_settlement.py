"""The end and the renewal of leases, and the updates of hosts, counts and workbench that follow."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from ragcrawl_dynamo import ClockSkewError, FrontierStatus, LeaseLostError, PartialBatchError
from ragcrawl_dynamo._dynamodb.conditional_writes import ConditionalUpdate
from ragcrawl_dynamo._dynamodb.outcomes import Applied, Failed, Refused
from ragcrawl_dynamo._frontier.claim import Claim
from ragcrawl_dynamo._frontier.host_updates import EndLeases, ExtendLeases
from ragcrawl_dynamo._frontier.item_store import candidate_of
from ragcrawl_dynamo._frontier.notifier import Notifier
from ragcrawl_dynamo._frontier.settlement import Return, Settlement
from ragcrawl_dynamo._frontier.work import Work
from ragcrawl_dynamo._schema.queue_order import queue_order, rank
from ragcrawl_dynamo._utils.clock import SystemClock
from tests.support.hosts import at, record
from tests.support.stored_run import BUSY, HOST, StoredRun

COMPLETED, PENDING = FrontierStatus.COMPLETED, FrontierStatus.PENDING
SKIPPED = FrontierStatus.SKIPPED
ANOTHER = {"lease_token": "another"}


class Settling:
    """A run with claims, whose items get the given outcomes."""

    def __init__(self) -> None:
        self.run = StoredRun()
        self.settlement = Settlement(self.run, Notifier(self.run))

    def fail(self, claim: Claim) -> None:
        """Lets the write of a claim fail."""
        self.run.store.outcomes[claim.item.item_id] = Failed(BUSY)

    def refuse(self, claim: Claim, **stored: Any) -> None:
        """Refuses the write of a claim; its item is stored with other values."""
        self.run.store.outcomes[claim.item.item_id] = Refused()
        self.run.store.store(claim.item.model_copy(update=stored))

    def take_away(self, claim: Claim) -> None:
        """Refuses the write of a claim, because another worker has claimed the item."""
        self.refuse(claim, **ANOTHER)

    def finish(self, claims: Sequence[Claim], status: FrontierStatus) -> list[ConditionalUpdate]:
        return [self.run.items.finish(claim.item, status, self.run.clock.now()) for claim in claims]

    async def complete(self, *claims: Claim) -> None:
        await self.settlement.end(claims, self.finish(claims, COMPLETED), COMPLETED)

    def returned(self, claim: Claim, retry_in: float | None = None, **changed: Any) -> Return:
        item = claim.item.model_copy(update=changed)
        update = self.run.items.release(item, changed)
        if retry_in is None:
            return Return(claim, update, item)
        return Return(claim, self.run.items.retry(item, at(retry_in), "broken", {}), item, at(retry_in))


# Ends of leases.


async def test_completed_item_is_counted_and_leaves_the_workbench() -> None:
    settling = Settling()
    claim, other = settling.run.claim("a"), settling.run.claim("b")
    await settling.complete(claim)
    assert (claim.ended, claim.settled_as, claim.lost) == (True, COMPLETED, False)
    assert (other.ended, other.settled_as) == (False, None)
    assert settling.run.stored_counters.moves == [(HOST, "in_progress", "completed")]
    assert list(settling.run.waiting()) == ["b"]
    assert "a" in settling.run.view.bench.hosts[HOST].ended
    assert settling.run.store.coalesced == 1


async def test_end_of_a_lease_stores_the_write_that_it_was_given() -> None:
    settling = Settling()
    claims = [settling.run.claim("a"), settling.run.claim("b")]
    updates = settling.finish(claims, SKIPPED)
    await settling.settlement.end(claims, updates, SKIPPED)
    assert settling.run.store.batches == [updates]
    assert [claim.settled_as for claim in claims] == [SKIPPED, SKIPPED]
    # Nothing was refused, so nothing has to be read.
    assert settling.run.store.reads == []


@pytest.mark.parametrize(
    "stored",
    [ANOTHER, {"status": SKIPPED}, None],
    ids=["claimed by another worker", "settled otherwise", "deleted"],
)
async def test_lease_that_does_not_hold_the_item_any_more_is_lost(stored: dict[str, Any] | None) -> None:
    settling = Settling()
    claim, other = settling.run.claim("a"), settling.run.claim("b")
    settling.refuse(claim, **(stored or {}))
    if stored is None:
        del settling.run.store.stored["a"]
    with pytest.raises(LeaseLostError) as caught:
        await settling.complete(claim, other)
    assert caught.value.claims == (claim,)
    assert (claim.ended, claim.lost, claim.settled_as) == (True, True, None)
    assert settling.run.lost == [claim]
    # All other claims were settled.
    assert (other.ended, other.lost, other.settled_as) == (True, False, COMPLETED)
    assert settling.run.stored_counters.moves == [(HOST, "in_progress", "completed")]
    # The item may be open: the queue of its host is read again.
    assert (settling.run.waiting(), settling.run.view.bench.hosts[HOST].is_all) == ({}, False)


async def test_end_that_an_earlier_call_has_stored_succeeds_and_is_not_counted_again() -> None:
    settling = Settling()
    claim = settling.run.claim("a")
    settling.refuse(claim, status=COMPLETED)
    await settling.complete(claim)
    assert (claim.ended, claim.settled_as, settling.run.lost) == (True, COMPLETED, [])
    assert settling.run.stored_counters.moves == []
    assert settling.run.store.reads == [["a"]]
    # The item may be open again.
    assert (settling.run.waiting(), settling.run.view.bench.hosts[HOST].is_all) == ({}, False)


async def test_write_that_found_the_item_in_another_state_is_not_taken_for_its_end() -> None:
    """An update can be answered with the item as a later write has left it."""
    settling = Settling()
    claim = settling.run.claim("a")
    settling.take_away(claim)
    settling.run.store.outcomes["a"] = Applied(settling.run.store.stored["a"])
    with pytest.raises(LeaseLostError):
        await settling.complete(claim)


async def test_item_whose_end_failed_keeps_its_claim() -> None:
    settling = Settling()
    failed, done, lost = (settling.run.claim(name) for name in "abc")
    settling.fail(failed)
    settling.take_away(lost)
    with pytest.raises(PartialBatchError) as caught:
        await settling.complete(failed, done, lost)
    assert (failed.ended, failed.settled_as) == (False, None)
    assert caught.value.saved == 1
    assert [claim for claim, _ in caught.value.failures] == [failed, lost]
    errors = [error for _, error in caught.value.failures]
    assert errors[0] is BUSY
    assert isinstance(errors[1], LeaseLostError)
    assert "a" in settling.run.waiting()
    # Refused items are read, not those whose write failed.
    assert settling.run.store.reads == [["c"]]


async def test_claims_that_were_settled_before_count_as_saved_in_a_partial_batch() -> None:
    settling = Settling()
    failed, before, done = (settling.run.claim(name) for name in "abc")
    settling.fail(failed)
    settling.refuse(before, status=COMPLETED)
    with pytest.raises(PartialBatchError) as caught:
        await settling.complete(failed, before, done)
    assert caught.value.saved == 2


async def test_lost_lease_is_reported_once() -> None:
    settling = Settling()
    claim = settling.run.claim("a")
    settling.take_away(claim)
    for _ in range(2):
        with pytest.raises(LeaseLostError):
            await settling.complete(claim)
    assert settling.run.lost == [claim]


async def test_host_whose_settlements_are_throttled_is_paused() -> None:
    settling = Settling()
    claims = [settling.run.claim("a", domain="fast"), settling.run.claim("b", domain="slow")]
    settling.run.store.throttled = {1: 3.0}
    await settling.complete(*claims)
    assert {name: host.paused_until for name, host in settling.run.view.bench.hosts.items()} == {
        "fast": None,
        "slow": at(3),
    }


# In-flight slots.


async def test_slots_of_ended_leases_are_given_back() -> None:
    settling = Settling()
    claims = [
        settling.run.claim("a", has_slot=True),
        settling.run.claim("b", has_slot=True),
        settling.run.claim("c", has_slot=True, domain="other"),
        settling.run.claim("d", has_slot=False),
    ]
    await settling.complete(*claims)
    assert settling.run.stored_hosts.updates == [
        {HOST: EndLeases(("token of a", "token of b")), "other": EndLeases(("token of c",))}
    ]


async def test_slot_of_a_lost_lease_is_given_back_and_that_of_an_unknown_one_is_not() -> None:
    settling = Settling()
    lost, before, unknown = (settling.run.claim(name, has_slot=True) for name in "abc")
    settling.take_away(lost)
    settling.refuse(before, status=COMPLETED)
    settling.fail(unknown)
    with pytest.raises(PartialBatchError):
        await settling.complete(lost, before, unknown)
    assert settling.run.stored_hosts.updates == [{HOST: EndLeases(("token of b", "token of a"))}]


async def test_host_with_a_free_slot_wakes_claims_that_wait() -> None:
    settling = Settling()
    claim = settling.run.claim("a", has_slot=True)
    host = settling.run.view.bench.hosts[HOST]
    full = record(HOST, max_in_flight=1, slots={"token of a": at(32)}, place=queue_order(rank(0.0, at(0))))
    settling.run.stored_hosts.records[HOST] = host.record = full
    host.order = full.order
    settling.run.view.changed.clear()
    await settling.complete(claim)
    assert host.record is not None
    assert host.record.slots == {}
    assert settling.run.view.changed.is_set()


async def test_leases_without_slots_leave_the_hosts_alone() -> None:
    settling = Settling()
    settling.run.view.changed.clear()
    await settling.complete(settling.run.claim("a"))
    assert settling.run.stored_hosts.updates == []
    assert not settling.run.view.changed.is_set()


async def test_settlement_succeeds_if_the_slots_cannot_be_given_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    settling = Settling()
    settling.run.stored_hosts.error = BUSY
    settling.run.view.changed.clear()
    claims = [
        settling.run.claim("a", has_slot=True),
        settling.run.claim("b", has_slot=True, domain="other"),
    ]
    await settling.complete(*claims)
    assert "2 hosts could not be updated" in caplog.text
    assert settling.run.view.changed.is_set()


# Renewals.


async def test_renewed_lease_lasts_from_now_on() -> None:
    settling = Settling()
    claim = settling.run.claim("a")
    settling.run.clock.advance(10)
    await settling.settlement.renew([claim], 60.0)
    ((update,),) = settling.run.store.batches
    assert isinstance(update, ConditionalUpdate)
    assert update.update.put["lease_expires_at"] == {
        "S": at(70).isoformat(timespec="microseconds").replace("+00:00", "Z")
    }
    assert (claim.expires_at, claim.deadline) == (at(70), 70.0)
    assert (claim.ended, claim.settled_as) == (False, None)
    # Other workers may claim the item when its lease is over by all clocks.
    assert settling.run.waiting() == {"a": at(72)}
    assert settling.run.stored_counters.moves == []


async def test_renewal_does_not_shorten_a_lease() -> None:
    settling = Settling()
    claim = settling.run.claim("a")
    await settling.settlement.renew([claim], 5.0)
    assert (claim.expires_at, claim.deadline) == (at(30), 30.0)
    assert settling.run.waiting() == {"a": at(32)}


async def test_renewed_lease_goes_on_by_the_clock_of_its_claim_if_the_clock_was_set_back() -> None:
    settling = Settling()
    claim = settling.run.claim("a")
    settling.run.clock.advance(10)
    # The time of day was at(20) 10 s before its end, and is at(10) now.
    claim.expires_at, claim.deadline = at(40), 30.0
    await settling.settlement.renew([claim], 30.0)
    assert (claim.expires_at, claim.deadline) == (at(50), 40.0)


async def test_lease_that_is_renewed_after_the_clock_was_set_forward_lasts_by_the_present_time() -> None:
    settling = Settling()
    claim = settling.run.claim("a")
    settling.run.clock.advance(10)
    claim.expires_at, claim.deadline = at(20), 30.0
    await settling.settlement.renew([claim], 30.0)
    assert claim.expires_at == at(40)


async def test_slots_of_renewed_leases_last_as_long_as_the_leases() -> None:
    settling = Settling()
    claims = [settling.run.claim("a", has_slot=True), settling.run.claim("b", has_slot=True)]
    claims[1].expires_at, claims[1].deadline = at(100), 100.0
    lost = settling.run.claim("c", has_slot=True)
    settling.take_away(lost)
    with pytest.raises(LeaseLostError):
        await settling.settlement.renew([*claims, lost], 60.0)
    assert settling.run.stored_hosts.updates == [{HOST: ExtendLeases(("token of a", "token of b"), at(102))}]


async def test_renewal_reports_a_lease_that_another_worker_has() -> None:
    settling = Settling()
    claim, other = settling.run.claim("a"), settling.run.claim("b")
    settling.take_away(claim)
    with pytest.raises(LeaseLostError) as caught:
        await settling.settlement.renew([claim, other], 60.0)
    assert caught.value.claims == (claim,)
    assert (claim.ended, claim.lost, settling.run.lost) == (True, True, [claim])
    assert (claim.expires_at, other.expires_at) == (at(30), at(60))
    assert list(settling.run.waiting()) == ["b"]
    assert not settling.run.view.bench.hosts[HOST].is_all


async def test_renewal_of_a_settled_claim_is_refused_but_no_lost_lease_is_reported() -> None:
    """Another task of this process may have settled the claim while the renewal was under way."""
    settling = Settling()
    claim = settling.run.claim("a")
    settling.refuse(claim, status=COMPLETED)
    with pytest.raises(LeaseLostError):
        await settling.settlement.renew([claim], 60.0)
    assert (claim.ended, claim.lost, settling.run.lost) == (True, False, [])


async def test_renewal_that_failed_leaves_the_lease_as_it_was() -> None:
    settling = Settling()
    claim, other = settling.run.claim("a"), settling.run.claim("b")
    settling.fail(claim)
    with pytest.raises(PartialBatchError) as caught:
        await settling.settlement.renew([claim, other], 60.0)
    assert (caught.value.saved, list(caught.value.failures)) == (1, [(claim, BUSY)])
    assert (claim.ended, claim.expires_at, claim.deadline) == (False, at(30), 30.0)


async def test_renewal_is_refused_if_the_clock_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    settling = Settling()
    claim = settling.run.claim("a")
    monkeypatch.setattr(settling.run, "clock", SystemClock())
    settling.run._gateway.server_clock.offset = 1.5
    with pytest.raises(ClockSkewError):
        await settling.settlement.renew([claim], 60.0)
    assert settling.run.store.batches == []


# Commits.


async def test_commit_that_completed_an_item_ends_its_claim_and_is_counted() -> None:
    settling = Settling()
    claim = settling.run.claim("a", has_slot=True)
    await settling.settlement.note_completed(claim, is_counted=False)
    assert (claim.ended, claim.settled_as) == (True, COMPLETED)
    assert settling.run.stored_counters.moves == [(HOST, "in_progress", "completed")]
    assert settling.run.stored_hosts.updates == [{HOST: EndLeases(("token of a",))}]
    assert settling.run.waiting() == {}


async def test_commit_that_an_earlier_call_has_counted_is_not_counted_again() -> None:
    settling = Settling()
    await settling.settlement.note_completed(settling.run.claim("a"), is_counted=True)
    assert settling.run.stored_counters.moves == []


@pytest.mark.parametrize(
    ("before", "after"),
    [({"settled_as": SKIPPED}, SKIPPED), ({"lost": True}, None)],
    ids=["settled before", "lost before"],
)
async def test_commit_does_not_change_how_a_claim_was_settled_before(
    before: dict[str, Any], after: FrontierStatus | None
) -> None:
    settling = Settling()
    claim = settling.run.claim("a")
    for name, value in before.items():
        setattr(claim, name, value)
    await settling.settlement.note_completed(claim, is_counted=True)
    assert claim.settled_as is after


# Items that go back into the queue.


async def test_released_item_can_be_claimed_at_once() -> None:
    settling = Settling()
    claim = settling.run.claim("a")
    await settling.settlement.put_back([settling.returned(claim)])
    assert (claim.ended, claim.settled_as) == (True, PENDING)
    assert settling.run.stored_counters.moves == [(HOST, "in_progress", "pending")]
    assert (settling.run.ready(), settling.run.waiting()) == (["a"], {})


async def test_released_item_is_announced_with_a_change_that_only_the_mark_shows() -> None:
    settling = Settling()
    claim = settling.run.claim("a")
    await settling.settlement.put_back([settling.returned(claim)])
    order = queue_order(rank(0.0, at(-60)))
    assert settling.run.stored_hosts.announced == [{HOST: Work(order, is_changed=True)}]


async def test_item_that_is_tried_later_waits_and_is_counted_as_delayed() -> None:
    settling = Settling()
    claim = settling.run.claim("a")
    await settling.settlement.put_back([settling.returned(claim, retry_in=20)])
    assert settling.run.stored_counters.moves == [(HOST, "in_progress", "delayed")]
    assert (settling.run.ready(), settling.run.waiting()) == ([], {"a": at(20)})
    order = queue_order(rank(0.0, at(-60)), at(20))
    assert settling.run.stored_hosts.announced == [{HOST: Work(order, is_changed=False)}]


async def test_claim_of_an_item_that_was_put_back_has_the_new_values() -> None:
    settling = Settling()
    claim = settling.run.claim("a")
    await settling.settlement.put_back([settling.returned(claim, priority=3.0)])
    assert claim.item.priority == 3.0
    # Claims of this process take it by its new priority.
    host = settling.run.view.bench.hosts[HOST]
    assert [candidate.rank for candidate in host.ready] == [rank(3.0, at(-60))]


async def test_item_that_an_earlier_call_has_put_back_is_announced_again_and_not_offered() -> None:
    settling = Settling()
    claim = settling.run.claim("a")
    settling.refuse(claim, status=PENDING)
    await settling.settlement.put_back([settling.returned(claim, priority=3.0)])
    assert claim.item.priority == 3.0
    assert [list(work) for work in settling.run.stored_hosts.announced] == [[HOST]]
    assert settling.run.ready() == []


async def test_item_that_may_be_back_in_the_queue_is_announced() -> None:
    settling = Settling()
    claim, lost = settling.run.claim("a"), settling.run.claim("b", domain="other")
    settling.fail(claim)
    settling.take_away(lost)
    with pytest.raises(PartialBatchError):
        await settling.settlement.put_back([settling.returned(claim, priority=3.0), settling.returned(lost)])
    assert claim.item.priority == 0.0
    # That of a lost lease is not: its present worker does that.
    assert [list(work) for work in settling.run.stored_hosts.announced] == [[HOST]]
    assert settling.run.ready() == []


async def test_item_is_put_back_though_other_workers_cannot_be_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    settling = Settling()
    settling.run.stored_hosts.error = BUSY
    claim = settling.run.claim("a")
    await settling.settlement.put_back([settling.returned(claim)])
    assert settling.run.ready() == ["a"]
    assert "items of 1 hosts are back in the queue" in caplog.text
    assert list(settling.run.view.unannounced) == [HOST]


async def test_put_back_of_lost_leases_announces_nothing() -> None:
    settling = Settling()
    claim = settling.run.claim("a")
    settling.take_away(claim)
    with pytest.raises(LeaseLostError):
        await settling.settlement.put_back([settling.returned(claim)])
    assert settling.run.stored_hosts.announced == []


async def test_put_back_of_nothing_sends_nothing() -> None:
    settling = Settling()
    await settling.settlement.put_back([])
    assert settling.run.store.batches == []


def test_candidate_of_a_return_is_what_the_index_will_show() -> None:
    settling = Settling()
    put_back = settling.returned(settling.run.claim("a"), retry_in=7)
    assert put_back.candidate == candidate_of(put_back.item, at(7))


# Backoff.


@pytest.mark.parametrize(
    ("failures", "seconds"), [(0, 2.0), (1, 4.0), (4, 32.0), (10, 2048.0), (11, 3600.0), (5000, 3600.0)]
)
def test_delay_of_the_next_attempt_doubles_up_to_its_maximum(
    failures: int, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    spreads: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        spreads.append((low, high))
        return high

    monkeypatch.setattr(random, "uniform", uniform)
    assert Settling().settlement.backoff(failures) == seconds
    # It is shortened at random by up to a half.
    assert spreads == [(0.5, 1.0)]


def test_smallest_delay_reaches_its_maximum_too() -> None:
    run = StoredRun(frontier_retry_delay=1e-14, frontier_max_retry_delay=3000.0)
    assert 1500.0 <= Settlement(run, Notifier(run)).backoff(5000) <= 3000.0
