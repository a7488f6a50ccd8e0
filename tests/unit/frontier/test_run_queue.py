"""How the parts of a run's queue are composed: in which order they act, and what waiting claims do."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ragcrawl_dynamo import (
    Claim,
    FrontierStats,
    FrontierStatus,
    HostStatus,
    InvalidArgumentError,
    InvalidInputError,
    LeaseLostError,
    PartialBatchError,
    RunState,
    ThrottledError,
)
from ragcrawl_dynamo._dynamodb.conditional_writes import ConditionalUpdate
from ragcrawl_dynamo._dynamodb.outcomes import Applied, Failed, Refused
from ragcrawl_dynamo._dynamodb.values import moment_text
from ragcrawl_dynamo._frontier import run_queue as module
from ragcrawl_dynamo._frontier.lease_issuer import LeaseTerms
from ragcrawl_dynamo._frontier.link_rules import LinkRules
from ragcrawl_dynamo._frontier.run_queue import RunQueue
from ragcrawl_dynamo._frontier.scheduler import ClaimResult
from ragcrawl_dynamo._frontier.work import Work
from ragcrawl_dynamo._schema.queue_order import queue_order, rank
from ragcrawl_dynamo._schema.records import RunControl
from ragcrawl_dynamo._schema.tables import Tables
from ragcrawl_dynamo._utils.urls import link_id
from tests.support.factories import make_item
from tests.support.hosts import at, record
from tests.support.stored_run import BUSY, HOST, StoredRun, id_of

COMPLETED, FAILED, SKIPPED = FrontierStatus.COMPLETED, FrontierStatus.FAILED, FrontierStatus.SKIPPED
A = "https://a.example/"
TERMS = [LeaseTerms(30.0, "worker")]


class FakeClaims:
    """Answers claims from a script: each answer has claims and a result; the last one is repeated.

    Attributes:
        thorough: Whether each call was thorough.
        during: Called with the number of the call.
    """

    def __init__(self) -> None:
        self.answers: list[tuple[list[Claim], ClaimResult]] = [([], ClaimResult())]
        self.thorough: list[bool] = []
        self.terms: list[Sequence[LeaseTerms]] = []
        self.during: Callable[[int], object] = lambda number: None

    async def claim(
        self, terms: Sequence[LeaseTerms], *, is_thorough: bool
    ) -> tuple[list[Claim], ClaimResult]:
        self.thorough.append(is_thorough)
        self.terms.append(terms)
        self.during(len(self.thorough))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class Queue:
    """A queue whose run is a StoredRun.

    Attributes:
        pauses: How long claims have waited between their tries.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        self.run = StoredRun(**settings)
        monkeypatch.setattr(module, "RunContext", lambda *arguments: self.run)
        services = cast("Any", SimpleNamespace(gateway=None, tables=Tables.of("")))
        self.queue = RunQueue(services, self.run.first_control, LinkRules())
        self.claims = FakeClaims()
        self.queue._claims = cast("Any", self.claims)
        self.pauses: list[float] = []
        self.queue._notifier.wait_for_change = self._wait  # type: ignore[method-assign] # virtual time
        monkeypatch.setattr(random, "uniform", self._uniform)
        self.spreads: list[tuple[float, float]] = []
        self.spread = 1.0

    def _uniform(self, low: float, high: float) -> float:
        self.spreads.append((low, high))
        return self.spread

    async def _wait(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.run.clock.advance(seconds)
        assert len(self.pauses) < 100

    @property
    def writes(self) -> list[ConditionalUpdate]:
        writes = [write for batch in self.run.store.batches for write in batch]
        return [write for write in writes if isinstance(write, ConditionalUpdate)]

    @property
    def put(self) -> Any:
        """The attributes that the only write puts."""
        (write,) = self.writes
        return write.update.put


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    return Queue(monkeypatch)


# Links.


async def test_add_announces_first_what_earlier_calls_could_not(queue: Queue) -> None:
    work = Work(queue_order(rank(0.0, at(0))))
    queue.run.view.unannounced.note("left", work)
    (result,) = await queue.queue.add([A], {})
    assert (result.url, result.added) == (A, True)
    assert [list(work) for work in queue.run.stored_hosts.announced] == [["left"], ["a.example"]]


async def test_add_checks_the_clock_first(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue.run, "check_clock", raising(BUSY))
    with pytest.raises(ThrottledError):
        await queue.queue.add([A], {})
    assert queue.run.store.batches == []


async def test_add_passes_its_options_on(queue: Queue) -> None:
    progress: list[int] = []
    await queue.queue.add(["b"], {"depth": 4}, A, progress.append)
    ((write,),) = queue.run.store.batches
    item = queue.run.items.decode(write.item)  # type: ignore[union-attr] # it is an insert
    assert (item.url, item.depth, progress) == (f"{A}b", 4, [1])


@pytest.mark.parametrize(("key", "item_id"), [(A, A), ("HTTPS://a.example#x", A), ("a key", "a key")])
async def test_get_finds_an_item_by_its_key_or_any_spelling_of_its_url(
    queue: Queue, key: str, item_id: str
) -> None:
    stored = queue.run.store.store(make_item(link_id(item_id)))
    assert await queue.queue.get(key) == stored
    assert queue.run.controls.checked == 1


async def test_get_prefers_the_item_with_the_key(queue: Queue) -> None:
    """A URL can be the `unique_key` of another item."""
    url = "HTTPS://a.example#x"
    by_key = queue.run.store.store(make_item(link_id(url)))
    queue.run.store.store(make_item(link_id(A)))
    assert await queue.queue.get(url) == by_key


async def test_get_reads_one_item_if_the_url_is_in_normal_form(queue: Queue) -> None:
    assert await queue.queue.get(A) is None
    assert queue.run.store.reads == [[link_id(A)]]


# Claims.


async def test_claim_returns_what_it_gets_at_once(queue: Queue) -> None:
    claim = queue.run.claim()
    queue.claims.answers = [([claim], ClaimResult())]
    assert await queue.queue.claim(TERMS, 10.0) == [claim]
    assert (queue.claims.terms, queue.pauses) == ([TERMS], [])
    assert queue.run.opened == 1
    assert queue.run.stored_counters.due_checks == 1


async def test_claim_that_does_not_wait_is_thorough_and_returns_nothing(queue: Queue) -> None:
    assert await queue.queue.claim(TERMS, 0.0) == []
    assert (queue.claims.thorough, queue.pauses) == ([True], [])


async def test_waiting_claim_tries_every_second_and_is_thorough_at_last(queue: Queue) -> None:
    assert await queue.queue.claim(TERMS, 2.5) == []
    assert queue.pauses == [1.0, 1.0, 0.5]
    assert queue.claims.thorough == [False, False, False, True]


async def test_pauses_of_waiting_claims_are_spread(queue: Queue) -> None:
    queue.spread = 0.8
    await queue.queue.claim(TERMS, 1.6)
    assert queue.pauses == [0.8, 0.8]
    assert set(queue.spreads) == {(0.8, 1.2)}


async def test_waiting_claim_tries_again_when_an_item_is_due(queue: Queue) -> None:
    claim = queue.run.claim()
    queue.claims.answers = [([], ClaimResult(next_at=at(0.25))), ([claim], ClaimResult())]
    assert await queue.queue.claim(TERMS, 10.0) == [claim]
    assert queue.pauses == [0.25]


async def test_waiting_claim_pauses_even_if_an_item_is_due_already(queue: Queue) -> None:
    queue.claims.answers = [([], ClaimResult(next_at=at(-5))), ([], ClaimResult(next_at=at(60)))]
    await queue.queue.claim(TERMS, 1.0)
    assert queue.pauses == pytest.approx([0.001, 0.999])


async def test_waiting_claim_ends_when_the_run_is_finished(queue: Queue) -> None:
    queue.claims.answers = [([], ClaimResult()), ([], ClaimResult(is_finished=True))]
    assert await queue.queue.claim(TERMS, 60.0, until_finished=True) == []
    assert len(queue.claims.thorough) == 2


async def test_waiting_claim_waits_on_after_the_end_unless_told_otherwise(queue: Queue) -> None:
    queue.claims.answers = [([], ClaimResult(is_finished=True))]
    await queue.queue.claim(TERMS, 2.0)
    assert len(queue.claims.thorough) == 3


async def test_news_that_come_during_a_try_are_not_missed(queue: Queue) -> None:
    """Only what was known before the try is forgotten."""
    queue.run.view.changed.set()
    seen: list[bool] = []

    def during(number: int) -> None:
        seen.append(queue.run.view.changed.is_set())
        queue.run.view.changed.set()

    queue.claims.during = during
    await queue.queue.claim(TERMS, 0.0)
    assert (seen, queue.run.view.changed.is_set()) == ([False], True)


async def test_claim_announces_what_earlier_calls_could_not(queue: Queue) -> None:
    queue.run.view.unannounced.note("left", Work(queue_order(rank(0.0, at(0)))))
    await queue.queue.claim(TERMS, 0.0)
    assert [list(work) for work in queue.run.stored_hosts.announced] == [["left"]]


async def test_claim_checks_the_clock_before_each_try(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    checks: list[None] = []
    monkeypatch.setattr(queue.run, "check_clock", lambda: checks.append(None))
    await queue.queue.claim(TERMS, 2.0)
    assert len(checks) == len(queue.claims.thorough) == 3


async def test_held_up_claim_tries_again_until_the_call_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queue = Queue(monkeypatch, call_timeout=3.0)
    queue.claims.answers = [([], ClaimResult(throttled=BUSY))]
    with pytest.raises(ThrottledError):
        await queue.queue.claim(TERMS, 2.0)
    # It waits 2 s for items, and 3 s for DynamoDB.
    assert queue.run.clock.monotonic() == 4.0
    assert queue.claims.thorough == [False, False, True, True, True]


async def test_held_up_claim_gives_up_after_its_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = Queue(monkeypatch, retry_attempts=3)
    queue.claims.answers = [([], ClaimResult(throttled=BUSY))]
    with pytest.raises(ThrottledError):
        await queue.queue.claim(TERMS, 2.0)
    assert queue.claims.thorough == [False, False, True, True, True]


async def test_held_up_claim_returns_what_it_gets_then(queue: Queue) -> None:
    claim = queue.run.claim()
    queue.claims.answers = [([], ClaimResult(throttled=BUSY)), ([claim], ClaimResult())]
    assert await queue.queue.claim(TERMS, 0.0) == [claim]
    assert queue.pauses == [1.0]


# Settlements.


async def test_complete_stores_the_payload_and_ends_the_claims(queue: Queue) -> None:
    claims = [queue.run.claim("a"), queue.run.claim("b")]
    await queue.queue.complete(claims, "result", [])
    assert [id_of(write) for write in queue.writes] == ["a", "b"]
    for write in queue.writes:
        assert write.update.put["payload"] == {"S": "result"}
        assert write.update.put["status"] == {"S": "completed"}
        assert write.update.put["completed_at"] == {"S": moment_text(at(0))}
    assert all(claim.settled_as is COMPLETED for claim in claims)
    assert queue.run.stored_counters.due_checks == 1


async def test_complete_completes_the_other_urls_after_the_claims(queue: Queue) -> None:
    claim = queue.run.claim("a")
    await queue.queue.complete([claim], None, [A])
    assert [[id_of(write) for write in batch] for batch in queue.run.store.batches] == [["a"], [link_id(A)]]
    assert "payload" not in queue.writes[0].update.put
    # The rules of the run decide which link a URL is.
    assert queue.run.controls.checked == 1
    assert queue.run.stored_counters.due_checks == 2


async def test_complete_leaves_the_other_urls_if_a_lease_was_lost(queue: Queue) -> None:
    claim = queue.run.claim("a")
    queue.run.store.outcomes["a"] = Refused()
    del queue.run.store.stored["a"]
    with pytest.raises(LeaseLostError):
        await queue.queue.complete([claim], None, [A])
    assert len(queue.run.store.batches) == 1


@pytest.mark.parametrize(
    ("payload", "also"),
    [("x" * 500_000, ()), (None, ["mailto:a"])],
    ids=["payload too large", "no URL"],
)
async def test_complete_refuses_what_cannot_be_stored_before_it_writes(
    queue: Queue, payload: str | None, also: Sequence[str]
) -> None:
    with pytest.raises(InvalidInputError):
        await queue.queue.complete([queue.run.claim("a")], payload, also)
    assert queue.run.store.batches == []


async def test_complete_is_tried_again_while_the_lease_lasts(queue: Queue) -> None:
    claim = queue.run.claim("a")
    queue.run.store.outcomes["a"] = Failed(BUSY)
    completing = asyncio.create_task(queue.queue.complete([claim], None, [A]))
    await queue.run.clock.wait_for_sleeper()
    assert not completing.done()
    queue.run.store.outcomes["a"] = Applied(queue.run.store.stored["a"] | {"status": {"S": "completed"}})
    queue.run.store.outcomes[link_id(A)] = Failed(BUSY)
    queue.run.clock.advance(1.0)
    for _ in range(50):
        await asyncio.sleep(0)
    assert claim.ended
    queue.run.store.outcomes.clear()
    queue.run.clock.advance(1.0)
    await completing
    assert [[id_of(write) for write in batch] for batch in queue.run.store.batches] == [
        ["a"],
        ["a"],
        [link_id(A)],
        [link_id(A)],
    ]


async def test_skip_stores_the_reason(queue: Queue) -> None:
    await queue.queue.end([queue.run.claim("a")], SKIPPED, "robots.txt")
    assert (queue.put["status"], queue.put["last_error"]) == ({"S": "skipped"}, {"S": "robots.txt"})


async def test_end_stores_the_outcome_of_a_commit_and_a_payload(queue: Queue) -> None:
    claim = queue.run.claim("a")
    await queue.queue.end([claim], SKIPPED, None, "text", {"outcome_status": {"N": "404"}})
    assert (queue.put["outcome_status"], queue.put["payload"]) == ({"N": "404"}, {"S": "text"})
    assert "last_error" not in queue.put


async def test_failed_item_is_tried_again_after_the_default_delay(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue.queue._settlement, "backoff", lambda failures: 10.0 * (failures + 1))
    claim = queue.run.claim("a", retry_count=2)
    assert await queue.queue.fail(claim, "HTTP 503", None, retry=True)
    assert queue.put["scheduled_at"] == {"S": moment_text(at(30))}
    assert queue.put["last_error"] == {"S": "HTTP 503"}
    assert "payload" not in queue.put
    assert claim.settled_as is FrontierStatus.PENDING
    assert queue.run.waiting() == {"a": at(30)}
    assert queue.run.stored_counters.due_checks == 1


async def test_failed_item_is_tried_again_after_the_given_delay_with_its_new_payload(queue: Queue) -> None:
    claim = queue.run.claim("a")
    assert await queue.queue.fail(claim, "HTTP 503", 7.0, retry=True, payload="text")
    assert queue.put["scheduled_at"] == {"S": moment_text(at(7))}
    assert queue.put["payload"] == {"S": "text"}
    assert queue.run.stored_counters.moves == [(HOST, "in_progress", "delayed")]


@pytest.mark.parametrize(
    ("failures", "retry", "is_dead"), [(3, True, False), (4, True, True), (5, True, True), (0, False, True)]
)
async def test_item_is_a_dead_letter_after_its_last_attempt(
    queue: Queue, failures: int, retry: bool, is_dead: bool
) -> None:
    claim = queue.run.claim("a", retry_count=failures)
    outcome = {"outcome_status": {"N": "503"}}
    result = await queue.queue.fail(claim, "HTTP 503", 1.0, retry=retry, payload="text", outcome=outcome)  # type: ignore[arg-type] # an item
    assert result is not is_dead
    assert queue.put["status"] == {"S": "failed" if is_dead else "pending"}
    assert (queue.put["last_error"], queue.put["payload"]) == ({"S": "HTTP 503"}, {"S": "text"})
    # Only a final item keeps the outcome of its fetch.
    assert ("outcome_status" in queue.put) is is_dead


async def test_released_items_are_ready_again(queue: Queue) -> None:
    claims = [queue.run.claim("a"), queue.run.claim("b")]
    await queue.queue.release(claims)
    assert [write.update.put["status"] for write in queue.writes] == [{"S": "pending"}] * 2
    assert (queue.run.ready(), queue.run.waiting()) == (["a", "b"], {})


async def test_item_is_put_back_with_its_new_values_and_keeps_its_place(queue: Queue) -> None:
    claim = queue.run.claim("a")
    await queue.queue.put_back(claim, {"payload": "text", "priority": 2.0}, to_end=False)
    assert queue.put["queue_order"] == {"S": queue_order(rank(2.0, at(-60)))}
    assert queue.put["payload"] == {"S": "text"}
    assert (claim.item.payload, claim.item.priority) == ("text", 2.0)


async def test_item_is_put_back_behind_all_items_of_its_priority(queue: Queue) -> None:
    claim = queue.run.claim("a")
    queue.run.clock.advance(5)
    await queue.queue.put_back(claim, {"payload": "text"}, to_end=True)
    assert claim.item.discovered_at == at(5)
    assert queue.put["queue_order"] == {"S": queue_order(rank(0.0, at(5)))}
    assert queue.put["discovered_at"] == {"S": moment_text(at(5))}
    assert queue.put["payload"] == {"S": "text"}
    # One that is put back at the same time comes after it.
    assert queue.run.view.next_moment(at(0)) > at(5)


async def test_item_is_not_put_back_with_values_that_cannot_be_stored(queue: Queue) -> None:
    with pytest.raises(InvalidInputError):
        await queue.queue.put_back(queue.run.claim("a"), {"payload": "x" * 500_000}, to_end=False)
    assert queue.run.store.batches == []


async def test_renewal_continues_though_its_caller_is_cancelled(queue: Queue) -> None:
    """A worker that gives up a renewal gets to know whether the lease was lost."""
    claim = queue.run.claim("a")
    renewing = asyncio.create_task(queue.queue.renew([claim], 60.0))
    await asyncio.sleep(0)
    renewing.cancel()
    await queue.run.tasks.join()
    assert claim.expires_at == at(60)


# Commits.


async def test_commit_without_a_claim_only_adds_the_links_of_the_page(queue: Queue) -> None:
    end = await queue.queue.prepare_commit(None, {}, ["b"], depth=3, referrer_url=A)
    assert end is None
    ((write,),) = queue.run.store.batches
    item = queue.run.items.decode(write.item)  # type: ignore[union-attr] # it is an insert
    assert (item.url, item.depth, item.referrer_url) == (f"{A}b", 3, A)


async def test_commit_prepares_the_end_of_its_claim_and_does_not_write_it(queue: Queue) -> None:
    claim = queue.run.claim("a")
    outcome: Any = {"outcome_status": {"N": "200"}}
    end = await queue.queue.prepare_commit(claim, outcome, [], depth=0, referrer_url=A)
    assert end is not None
    assert id_of(end) == "a"
    assert end.update.put["status"] == {"S": "completed"}
    assert end.update.put["completed_at"] == {"S": moment_text(at(0))}
    assert end.update.put["outcome_status"] == {"N": "200"}
    assert queue.run.store.batches == []


async def test_commit_goes_on_if_the_run_was_cancelled(
    queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    queue.run.controls.control = RunControl(run="run", site_id="site", state=RunState.CANCELLED)
    assert await queue.queue.prepare_commit(queue.run.claim("a"), {}, ["b"], depth=0, referrer_url=A)
    assert "the links of a page are not added" in caplog.text


async def test_commit_goes_on_if_links_cannot_be_added(
    queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    links = ["mailto:a", "b", "ftp://c"]
    assert await queue.queue.prepare_commit(queue.run.claim("a"), {}, links, depth=0, referrer_url=A)
    assert f"2 of 3 links of {A} were not added, the first one because: url: " in caplog.text
    assert "'mailto:a'" in caplog.text


async def test_commit_whose_links_are_all_added_logs_nothing(
    queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await queue.queue.prepare_commit(None, {}, ["b"], depth=0, referrer_url=A)
    assert caplog.messages == []


async def test_commit_fails_if_links_may_not_have_been_added(queue: Queue) -> None:
    queue.run.store.outcomes[link_id(f"{A}b")] = Failed(BUSY)
    with pytest.raises(PartialBatchError):
        await queue.queue.prepare_commit(None, {}, ["b"], depth=0, referrer_url=A)


@pytest.mark.parametrize(("outcome", "is_completed"), [(Applied({}), True), (Refused(), False)])
async def test_end_of_a_commit_tells_whether_the_item_was_completed(
    queue: Queue, outcome: Applied | Refused, is_completed: bool
) -> None:
    claim = queue.run.claim("a")
    end = queue.run.items.finish(claim.item, COMPLETED, at(0))
    queue.run.store.outcomes["a"] = outcome
    assert await queue.queue.end_commit(claim, end) is is_completed
    assert (queue.run.store.batches, queue.run.store.coalesced) == ([[end]], 1)


async def test_end_of_a_commit_fails_if_it_is_not_known(queue: Queue) -> None:
    claim = queue.run.claim("a")
    queue.run.store.outcomes["a"] = Failed(BUSY)
    queue.run.store.throttled = {0: 3.0}
    with pytest.raises(ThrottledError):
        await queue.queue.end_commit(claim, queue.run.items.finish(claim.item, COMPLETED, at(0)))
    # More of its items would wait for their ends too.
    assert queue.run.view.bench.hosts[HOST].paused_until == at(3)


async def test_completed_page_ends_its_claim(queue: Queue) -> None:
    claim, counted = queue.run.claim("a"), queue.run.claim("b")
    await queue.queue.note_completed(claim, is_counted=False)
    await queue.queue.note_completed(counted, is_counted=True)
    assert (claim.settled_as, counted.settled_as) == (COMPLETED, COMPLETED)
    assert queue.run.stored_counters.moves == [(HOST, "in_progress", "completed")]
    assert queue.run.stored_counters.due_checks == 2


def test_items_of_a_redirect_are_those_that_are_not_claimed(queue: Queue) -> None:
    claim = queue.run.claim(link_id(A))
    assert list(queue.queue.redirected([A, f"{A}b"], [claim])) == [link_id(f"{A}b")]


async def test_no_redirect_sends_nothing(queue: Queue) -> None:
    await queue.queue.end_redirected({})
    assert (queue.run.controls.checked, queue.run.store.reads) == (0, [])


# The run as a whole.


async def test_counts_are_stored_before_and_after_the_proof_of_the_end(queue: Queue) -> None:
    flushes: list[int] = []
    queue.queue._termination = cast("Any", SimpleNamespace(is_finished=returning(True, flushes, queue)))
    queue.run.view.unannounced.note("left", Work(queue_order(rank(0.0, at(0)))))
    assert await queue.queue.is_finished()
    assert (flushes, len(queue.run.stored_counters.flushes)) == ([1], 2)
    assert [list(work) for work in queue.run.stored_hosts.announced] == [["left"]]


async def test_counts_are_stored_before_and_after_a_recount(queue: Queue) -> None:
    flushes: list[int] = []
    stats = FrontierStats(pending=1)
    queue.queue._termination = cast("Any", SimpleNamespace(recount=returning(stats, flushes, queue)))
    assert await queue.queue.recount() == stats
    assert (flushes, len(queue.run.stored_counters.flushes)) == ([1], 2)


async def test_stats_of_the_run_include_the_counts_of_this_process(queue: Queue) -> None:
    queue.run.stored_counters.stored = FrontierStats(completed=6)
    assert await queue.queue.stats(None) == FrontierStats(completed=6)
    assert len(queue.run.stored_counters.flushes) == 1


async def test_stats_of_a_host_are_its_stored_counts(queue: Queue) -> None:
    queue.run.stored_hosts.counts["a.example"] = {"pending": {"N": "-1"}, "failed": {"N": "2"}}
    assert await queue.queue.stats("HTTPS://A.example/x") == FrontierStats(failed=2)
    assert await queue.queue.stats("unknown.example") == FrontierStats()
    assert (queue.run.controls.checked, len(queue.run.stored_counters.flushes)) == (2, 2)


async def test_hosts_are_listed_with_their_limits_and_counts(queue: Queue) -> None:
    slots = {"over": at(0), "running": at(1)}
    limits = {"delay": 2.0, "max_in_flight": 3, "blocked_until": at(5), "next_at": at(6)}
    queue.run.stored_hosts.records = {"a": record("a", slots=slots, **limits), "b": record("b")}
    queue.run.stored_hosts.counts = {"a": {"pending": {"N": "-1"}, "failed": {"N": "2"}}, "b": {}}
    hosts = [host async for host in queue.queue.iterate_hosts()]
    assert hosts == [
        HostStatus(host="a", in_flight=1, stats=FrontierStats(failed=2), **limits),  # type: ignore[arg-type] # as above
        HostStatus("b", 0.0, None, 0, None, None, FrontierStats()),
    ]
    assert len(queue.run.stored_counters.flushes) == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda queue: queue.recount(),
        lambda queue: queue.requeue_failed(),
        lambda queue: anext(queue.iterate_hosts()),
    ],
    ids=["recount", "requeue_failed", "iterate_hosts"],
)
async def test_run_of_another_site_is_refused(
    queue: Queue, call: Callable[[RunQueue], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read() -> None:
        raise InvalidArgumentError("run_id", "another site")

    monkeypatch.setattr(queue.run.controls, "read", read)
    with pytest.raises(InvalidArgumentError):
        await call(queue.queue)
    assert (queue.run.store.scans, queue.run.stored_counters.flushes) == ([], [])


@pytest.mark.parametrize("state", RunState)
async def test_state_is_that_of_the_control(queue: Queue, state: RunState) -> None:
    queue.run.controls.control = RunControl(run="run", site_id="site", state=state)
    assert await queue.queue.state() is state


async def test_run_without_a_control_is_running(queue: Queue) -> None:
    queue.run.controls.control = None
    assert await queue.queue.state() is RunState.RUNNING


async def test_claims_of_this_process_learn_of_a_new_state_at_once(queue: Queue) -> None:
    queue.run.view.changed.clear()
    await queue.queue.set_state(RunState.PAUSED)
    assert queue.run.controls.states == [RunState.PAUSED]
    assert queue.run.fake_reads.forgotten == 1
    assert queue.run.view.changed.is_set()


async def test_dead_letters_are_put_back_and_counted_soon(queue: Queue) -> None:
    letter = queue.run.store.store(make_item("a", status=FAILED), is_queued=False)
    queue.run.store.pages = [[queue.run.store.stored[letter.item_id]]]
    assert await queue.queue.requeue_failed() == 1
    assert queue.run.stored_counters.due_checks == 1


async def test_counts_are_stored_soon_even_if_dead_letters_could_not_be_put_back(queue: Queue) -> None:
    letter = queue.run.store.store(make_item("a", status=FAILED), is_queued=False)
    queue.run.store.pages = [[queue.run.store.stored[letter.item_id]]]
    queue.run.store.outcomes["a"] = Failed(BUSY)
    with pytest.raises(PartialBatchError):
        await queue.queue.requeue_failed()
    assert queue.run.stored_counters.due_checks == 1


async def test_clear_forgets_what_the_process_knows_of_the_run(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    cleared: list[str] = []
    monkeypatch.setattr(queue.run, "clear", lambda: cleared.append("run"))
    monkeypatch.setattr(queue.queue.scheduler, "clear", lambda: cleared.append("scheduler"))
    monkeypatch.setattr(queue.queue._budget, "clear", lambda: cleared.append("budget"))
    queue.queue.clear()
    assert cleared == ["run", "scheduler", "budget"]


# The end of the process.


class Leaving:
    """A membership that notes its end, or never ends."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.hangs = False
        self.left: list[int] = []

    async def leave(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        self.left.append(len(self.queue.run.stored_counters.flushes))


async def test_close_sends_what_waits_and_stores_the_last_counts_before_it_leaves(queue: Queue) -> None:
    leaving = Leaving(queue)
    queue.run.membership.leave = leaving.leave  # type: ignore[method-assign] # it sends requests
    ended: list[str] = []

    async def work() -> None:
        await asyncio.sleep(0)
        ended.append("work")

    queue.run.tasks.spawn(work())
    await queue.queue.close()
    assert (queue.run.store.closed, ended, leaving.left) == (1, ["work"], [1])


async def test_close_gives_unused_leases_back(queue: Queue) -> None:
    queue.run.membership.leave = Leaving(queue).leave  # type: ignore[method-assign] # it sends requests
    claim = queue.run.claim("a")
    queue.queue._unused.give_back([claim])
    await queue.queue.close()
    assert (claim.ended, id_of(queue.writes[0])) == (True, "a")


@pytest.mark.parametrize("is_slow", [True, False])
async def test_close_succeeds_if_the_last_counts_cannot_be_stored(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, is_slow: bool
) -> None:
    queue = Queue(monkeypatch, health_timeout=0.01 if is_slow else 60.0)
    leaving = Leaving(queue)
    leaving.hangs = is_slow
    queue.run.membership.leave = leaving.leave  # type: ignore[method-assign] # it sends requests
    queue.run.stored_counters.error = None if is_slow else BUSY
    await queue.queue.close()
    reason = "DynamoDB did not answer within health_timeout" if is_slow else str(BUSY)
    assert caplog.text.rstrip().endswith(f": {reason}")
    assert leaving.left == []


async def test_close_leaves_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flush that got no answer in time is cancelled."""
    queue = Queue(monkeypatch, health_timeout=0.01)
    queue.run.membership.leave = Leaving(queue).leave  # type: ignore[method-assign] # it sends requests

    async def hang(*arguments: object, **options: object) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(queue.run.stored_counters, "flush", hang)
    await queue.queue.close()
    assert queue.run.tasks._running == set()


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*arguments: object) -> None:
        raise error

    return fail


def returning(result: Any, flushes: list[int], queue: Queue) -> Callable[[], Any]:
    """Returns a call with a result, which notes how often counts were stored before."""

    async def call() -> Any:
        flushes.append(len(queue.run.stored_counters.flushes))
        return result

    return call
