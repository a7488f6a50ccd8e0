"""The frontier's queue against a model in memory, in steps that hypothesis chooses, in virtual time."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from ragcrawl_dynamo import Claim, DynamoDBBackend, Frontier, FrontierStats, LeaseLostError
from ragcrawl_dynamo._frontier.host_updates import SECOND_LOOK
from ragcrawl_dynamo._frontier.scheduler import CANDIDATE_SECONDS
from ragcrawl_dynamo.testing import ManualClock, drop_tables, local_config
from tests.support.queues import QUICK, WAYS, url

T = TypeVar("T")

HOSTS = ("a.example", "b.example", "c.example")
FINAL = {"completed", "failed", "skipped"}
SKEW = timedelta(seconds=QUICK["frontier_max_clock_skew"])
MAX_ATTEMPTS = QUICK["frontier_max_attempts"]


@dataclass
class Entry:
    """What the model knows of a link. `free_at` is a delay's end, or when a lease can be taken over."""

    url: str
    host: str
    priority: float
    number: int
    state: str = "pending"
    free_at: datetime | None = None
    token: str | None = None
    failures: int = 0

    def is_claimable(self, now: datetime) -> bool:
        if self.state == "pending":
            return True
        return self.state in ("delayed", "in_progress") and self.free_at is not None and self.free_at <= now

    @property
    def is_last_attempt(self) -> bool:
        return self.state == "in_progress" and self.failures >= MAX_ATTEMPTS - 1


@dataclass
class Host:
    """What the model knows of a host's limits."""

    delay: float = 0.0
    most: int | None = None
    blocked_until: datetime | None = None
    last_lease: datetime | None = None


class QueueMachine(RuleBasedStateMachine):
    """One run of the queue."""

    def __init__(self, runner: asyncio.Runner, backends: list[DynamoDBBackend], clock: ManualClock) -> None:
        super().__init__()
        self.runner = runner
        self.clock = clock
        self.run_id = uuid4().hex
        # Two processes, as far as the queue can tell.
        self.frontiers = [each.frontier(self.run_id, "site") for each in backends]
        self.backend = backends[0]
        self.entries: dict[str, Entry] = {}
        self.hosts = {name: Host() for name in HOSTS}
        self.slots: dict[str, dict[str, datetime]] = {name: {} for name in HOSTS}
        self.claims: list[Claim] = []
        self.paused = False
        self.added = 0

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def frontier(self, which: int) -> Frontier:
        return self.frontiers[which % len(self.frontiers)]

    def entry(self, claim: Claim) -> Entry:
        return self.entries[claim.item.url]

    def holds(self, claim: Claim) -> bool:
        entry = self.entry(claim)
        return entry.state == "in_progress" and entry.token == claim.token

    @rule(
        which=st.integers(0, 1),
        numbers=st.lists(st.integers(0, 11), min_size=1, max_size=6),
        priority=st.sampled_from([0.0, -1.5, 5.0]),
        delay=st.sampled_from([None, None, 5.0]),
    )
    def add(self, which: int, numbers: list[int], priority: float, delay: float | None) -> None:
        links = [url(number, HOSTS[number % len(HOSTS)]) for number in numbers]
        not_before = None if delay is None else self.clock.now() + timedelta(seconds=delay)
        results = self.do(self.frontier(which).add(links, priority=priority, not_before=not_before))
        for number, link, result in zip(numbers, links, results, strict=True):
            assert result.added == (link not in self.entries)
            if result.added:
                self.added += 1
                entry = Entry(link, HOSTS[number % len(HOSTS)], priority, self.added)
                if not_before is not None:
                    entry.state, entry.free_at = "delayed", not_before
                self.entries[link] = entry

    @rule(which=st.integers(0, 1), limit=st.integers(1, 4), seconds=st.sampled_from([5.0, 20.0]))
    def claim(self, which: int, limit: int, seconds: float) -> None:
        self.take(self.do(self.frontier(which).claim(limit, lease_seconds=seconds)), limit, seconds)

    def take(self, claims: list[Claim], limit: int, seconds: float) -> None:
        """Checks that claims were allowed, and notes them."""
        now = self.clock.now()
        assert len(claims) <= limit
        assert not (claims and self.paused)
        if not self.paused:
            self.note_dead_letters()
        for host, count in Counter(claim.item.domain for claim in claims).items():
            limits = self.hosts[host]
            assert limits.blocked_until is None or limits.blocked_until <= now
            if limits.delay:
                assert count == 1
                since = None if limits.last_lease is None else (now - limits.last_lease).total_seconds()
                assert since is None or since >= limits.delay
            if limits.most is not None:
                live = [token for token, free_at in self.slots[host].items() if free_at > now]
                assert len(live) + count <= limits.most
        for claim in claims:
            entry = self.entry(claim)
            assert entry.is_claimable(now)
            assert not entry.is_last_attempt
            entry.failures += entry.state == "in_progress"
            assert claim.item.retry_count == entry.failures
            entry.state, entry.token = "in_progress", claim.token
            entry.free_at = now + timedelta(seconds=seconds) + SKEW
            limits = self.hosts[entry.host]
            if limits.delay:
                limits.last_lease = now
            if limits.most is not None:
                self.slots[entry.host][claim.token] = entry.free_at
            self.claims.append(claim)

    def note_dead_letters(self) -> None:
        """A claim makes dead letters of items whose last lease expired, as far as it comes across them."""
        due = [
            each
            for each in self.entries.values()
            if each.is_last_attempt and each.is_claimable(self.clock.now())
        ]
        if due:
            items = self.do(self.backend.get_frontier_items(self.run_id))
            failed = {item.url for item in items if item.status == "failed"}
            for each in due:
                if each.url in failed:
                    each.state, each.failures = "failed", MAX_ATTEMPTS

    # What is drawn must not depend on what was claimed, in which the queue is free.
    @rule(
        number=st.integers(0, 1000),
        which=st.integers(0, 1),
        verb=st.sampled_from(["complete", "fail", "give_up", "skip", "release", "renew"]),
    )
    def finish(self, number: int, which: int, verb: str) -> None:
        if not self.claims:
            return
        claim = self.claims[-1 - number % len(self.claims)]
        frontier = self.frontier(which)
        entry = self.entry(claim)
        held = self.holds(claim)
        now = self.clock.now()
        calls = {
            "complete": lambda: frontier.complete(claim),
            "fail": lambda: frontier.fail(claim, "x", retry_in=6),
            "give_up": lambda: frontier.fail(claim, "x", retry=False),
            "skip": lambda: frontier.skip(claim, "x"),
            "release": lambda: frontier.release(claim),
            "renew": lambda: frontier.renew(claim, 30),
        }
        try:
            self.do(calls[verb]())
        except LeaseLostError:
            assert not held
            return
        if not held:
            # The same verb again, or one that leaves the item in the same state.
            states = {"complete": "completed", "skip": "skipped", "give_up": "failed"}
            assert entry.token == claim.token
            if verb == "release":
                assert entry.state in ("pending", "delayed")
            assert entry.state == states.get(verb, entry.state)
            assert verb != "renew"
            return
        if verb == "renew":
            entry.free_at = now + timedelta(seconds=30) + SKEW
            if claim.token in self.slots[entry.host] or claim.has_slot:
                self.slots[entry.host][claim.token] = entry.free_at
            return
        self.slots[entry.host].pop(claim.token, None)
        if verb == "fail" and entry.failures + 1 < MAX_ATTEMPTS:
            entry.state, entry.free_at = "delayed", now + timedelta(seconds=6)
            entry.failures += 1
        elif verb in ("fail", "give_up"):
            entry.state = "failed"
            entry.failures += 1
        else:
            entry.state = {"complete": "completed", "skip": "skipped", "release": "pending"}[verb]

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0, 7.0, 25.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(which=st.integers(0, 1), host=st.sampled_from(HOSTS), delay=st.sampled_from([0.0, 2.0]))
    def set_delay(self, which: int, host: str, delay: float) -> None:
        self.do(self.frontier(which).set_host_delay(host, delay))
        if not self.hosts[host].delay:
            self.hosts[host].last_lease = None
        self.hosts[host].delay = delay

    @rule(which=st.integers(0, 1), host=st.sampled_from(HOSTS), most=st.sampled_from([None, 1, 2]))
    def set_most(self, which: int, host: str, most: int | None) -> None:
        self.do(self.frontier(which).set_host_max_in_flight(host, most))
        self.hosts[host].most = most

    @rule(which=st.integers(0, 1), host=st.sampled_from(HOSTS), seconds=st.sampled_from([-1.0, 4.0]))
    def block(self, which: int, host: str, seconds: float) -> None:
        until = self.clock.now() + timedelta(seconds=seconds)
        self.do(self.frontier(which).block_host(host, until))
        self.hosts[host].blocked_until = until

    @rule(which=st.integers(0, 1))
    def pause_or_resume(self, which: int) -> None:
        frontier = self.frontier(which)
        self.do(frontier.resume() if self.paused else frontier.pause())
        self.paused = not self.paused

    @rule(which=st.integers(0, 1))
    def requeue(self, which: int) -> None:
        failed = [each for each in self.entries.values() if each.state == "failed"]
        assert self.do(self.frontier(which).requeue_failed()) == len(failed)
        for each in failed:
            each.state, each.failures, each.token = "pending", 0, None

    @rule(which=st.integers(0, 1))
    def ask_whether_finished(self, which: int) -> None:
        is_finished = all(each.state in FINAL for each in self.entries.values())
        assert self.do(self.frontier(which).is_finished()) == is_finished

    @invariant()
    def the_table_is_as_the_model(self) -> None:
        items = {item.url: item for item in self.do(self.backend.get_frontier_items(self.run_id))}
        assert items.keys() == self.entries.keys()
        for each in self.entries.values():
            status = "pending" if each.state == "delayed" else each.state
            assert (items[each.url].status, items[each.url].retry_count) == (status, each.failures)

    def teardown(self) -> None:
        """Nothing is lost: whatever happened, all can be crawled to the end, and is counted rightly."""
        if self.paused:
            self.pause_or_resume(0)
        for _ in range(60):
            open_entries = [
                each for each in self.entries.values() if each.state in ("pending", "delayed", "in_progress")
            ]
            if not open_entries:
                break
            self.clock.advance(CANDIDATE_SECONDS + SECOND_LOOK)
            claims = self.do(self.frontiers[0].claim(20, lease_seconds=20))
            self.take(claims, 20, 20)
            if claims:
                self.do(self.frontiers[0].complete(claims))
            for claim in claims:
                self.entry(claim).state = "completed"
                self.slots[claim.item.domain].pop(claim.token, None)
        counts = Counter(each.state for each in self.entries.values())
        assert counts.keys() <= FINAL
        for frontier in self.frontiers:
            # Writes what it has noted.
            self.do(frontier.stats())
        assert self.do(self.frontiers[1].is_finished())
        assert self.do(self.frontiers[1].stats()) == FrontierStats(**counts)
        assert self.do(self.frontiers[0].recount()) == FrontierStats(**counts)


@pytest.mark.long
@WAYS
def test_frontier_behaves_like_the_model(
    dynamodb_endpoint: str, way: str, request: pytest.FixtureRequest
) -> None:
    # moto takes five times as long, and is not what anybody runs a queue on.
    is_moto = request.node.callspec.params["dynamodb_endpoint"] == "moto"
    config = local_config(dynamodb_endpoint, conditional_batches=way, **QUICK)
    clock = ManualClock()
    backends = [DynamoDBBackend(config, clock=clock) for _ in range(2)]
    with asyncio.Runner() as runner:
        for backend in backends:
            runner.run(backend.initialize())
        try:
            run_state_machine_as_test(
                partial(QueueMachine, runner, backends, clock),  # type: ignore[arg-type] # makes a machine
                settings=settings(
                    max_examples=int(os.environ.get("QUEUE_EXAMPLES", "5" if is_moto else "15")),
                    stateful_step_count=25,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            for backend in backends:
                runner.run(backend.close())
            runner.run(drop_tables(config))
