"""The frontier's queue against a model in memory, in steps that hypothesis chooses, in virtual time.

Several processes, each with a view of its own, share a run of many hosts; some are killed. Nobody else gets a
leased item, stale tokens are refused, the limits of hosts hold, and nothing is lost. A claim is never empty
while something is claimable; a process that is alone gets as many items as it asked for, in exact order.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Coroutine
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from ragcrawl_dynamo import Claim, DynamoDBConfig, Frontier, FrontierStats, LeaseLostError
from ragcrawl_dynamo.testing import ManualClock, drop_tables, local_config
from tests.support.frontiers import Process
from tests.support.queue_model import FINAL, HOST_DELAY, MAX_ATTEMPTS, SKEW, Claimable, Entry, Host, Turns
from tests.support.queues import QUICK, WAYS, url

T = TypeVar("T")

# Seconds after which the others reckon no more with a process that was killed.
GONE_SECONDS = 60.0

# Seconds within which all processes learn that a run is paused or resumed.
CONTROL_SECONDS = 1.0

# With QUEUE_EXAMPLES set, a failure is also shrunk, however long that takes.
EXAMPLES = os.environ.get("QUEUE_EXAMPLES")
STEPS = int(os.environ.get("QUEUE_STEPS", "30"))

HOSTS = [f"h{i}.example" for i in range(40)]

processes = st.integers(0, 3)
some_hosts = st.lists(st.sampled_from(HOSTS[:12]), min_size=1, max_size=4, unique=True)


class Crawler:
    """One process, its view of the run, and which hosts it has served since it was alone."""

    def __init__(self, process: Process, frontier: Frontier) -> None:
        self.process = process
        self.frontier = frontier
        self.turns = Turns()


class QueueMachine(RuleBasedStateMachine):
    """One run of the queue."""

    def __init__(
        self, runner: asyncio.Runner, config: DynamoDBConfig, clock: ManualClock, most_links: int
    ) -> None:
        super().__init__()
        self.runner = runner
        self.config = config
        self.clock = clock
        self.most_links = most_links
        self.run_id = uuid4().hex
        self.crawlers: list[Crawler] = []
        self.alone_since = clock.now()
        self.entries: dict[str, Entry] = {}
        self.hosts = {name: Host() for name in HOSTS}
        self.claims: list[Claim] = []
        self.paused = False

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def open(self) -> None:
        process = Process(self.config, self.clock)
        self.do(process.backend.initialize())
        self.crawlers.append(Crawler(process, process.backend.frontier(self.run_id, "site")))

    def crawler(self, which: int) -> Crawler:
        return self.crawlers[which % len(self.crawlers)]

    def frontier(self, which: int) -> Frontier:
        return self.crawler(which).frontier

    def stored(self) -> dict[str, Any]:
        backend = self.crawlers[0].process.backend
        return {item.url: item for item in self.do(backend.get_frontier_items(self.run_id))}

    def entry(self, claim: Claim) -> Entry:
        return self.entries[claim.item.url]

    def holds(self, claim: Claim) -> bool:
        entry = self.entry(claim)
        return entry.state == "in_progress" and entry.token == claim.token

    @initialize(count=st.sampled_from([1, 3, 4]), links=st.integers(1, 8), priorities=st.booleans())
    def begin(self, count: int, links: int, priorities: bool) -> None:
        for _ in range(count):
            self.open()
        self.add(0, 0, 30, links, [0.0, 5.0, 0.0] if priorities else [0.0], 0, None)

    @rule(
        which=processes,
        first=st.integers(0, len(HOSTS) - 1),
        hosts=st.sampled_from([1, 1, 3, 10, 30]),
        links=st.integers(1, 5),
        priorities=st.lists(st.sampled_from([0.0, -1.5, 5.0]), min_size=1, max_size=3),
        age=st.sampled_from([0, 0, 60]),
        delay=st.sampled_from([None, None, 5.0]),
    )
    def add(
        self,
        which: int,
        first: int,
        hosts: int,
        links: int,
        priorities: list[float],
        age: int,
        delay: float | None,
    ) -> None:
        """Adds links of some hosts. If the run has links of a host already, the first one is known."""
        frontier = self.frontier(which)
        not_before = None if delay is None else self.clock.now() + timedelta(seconds=delay)
        numbers = Counter(entry.host for entry in self.entries.values())
        added: list[Entry] = []
        for link in range(links):
            for host in (HOSTS[(first + i) % len(HOSTS)] for i in range(hosts)):
                priority = priorities[(len(added) + link) % len(priorities)]
                # No two links have the same age.
                found = timedelta(microseconds=len(self.entries) + len(added) + 1) - timedelta(seconds=age)
                state = "pending" if not_before is None else "delayed"
                number = max(0, numbers[host] - 1) + link
                discovered_at = self.clock.now() + found
                added.append(Entry(url(number, host), host, priority, discovered_at, state, not_before))
        del added[max(0, self.most_links - len(self.entries)) :]
        items = [
            frontier.link(
                entry.url,
                priority=entry.priority,
                discovered_at=entry.discovered_at,
                scheduled_at=entry.free_at,
            )
            for entry in added
        ]
        for entry, result in zip(added, self.do(frontier.add(items)), strict=True):
            assert result.added == (entry.url not in self.entries)
            self.entries.setdefault(entry.url, entry)

    @rule(which=processes, limit=st.sampled_from([1, 3, 10, 50]), seconds=st.sampled_from([5.0, 20.0, 100.0]))
    def claim(self, which: int, limit: int, seconds: float) -> None:
        self.lease(which, limit, seconds)

    @rule(which=processes, limit=st.sampled_from([1, 4, 10]), rounds=st.integers(1, 5))
    def crawl(self, which: int, limit: int, rounds: int) -> None:
        """What a worker does."""
        for _ in range(rounds):
            self.settle(self.lease(which, limit, 20.0), which, "complete")

    def lease(self, which: int, limit: int, seconds: float) -> list[Claim]:
        crawler = self.crawler(which)
        claims = self.do(crawler.frontier.claim(limit, lease_seconds=seconds))
        self.note_dead_letters()
        self.take(crawler, claims, limit, seconds)
        return claims

    def take(self, crawler: Crawler, claims: list[Claim], limit: int, seconds: float) -> None:
        """Checks that exactly these claims were allowed, and notes them."""
        now = self.clock.now()
        claimable = Claimable(self.entries.values(), self.hosts, now)
        at_least = min(limit, claimable.at_least)
        is_alone = len(self.crawlers) == 1
        if self.paused:
            assert not claims
            return
        assert len(claims) <= limit
        assert claims or not at_least, f"an empty claim, but {claimable.at_least} items are claimable"
        if is_alone:
            assert len(claims) >= at_least, f"{len(claims)} claims, but {claimable.at_least} are claimable"
        crawler.turns.see(claimable.hosts())
        for claim in claims:
            entry = self.entry(claim)
            if is_alone and (now - self.alone_since).total_seconds() >= GONE_SECONDS:
                claimable.check_order(entry, crawler.turns)
            claimable.take(entry)
            crawler.turns.serve(entry.host)
            entry.failures += entry.state == "in_progress"
            assert claim.item.retry_count == entry.failures
            entry.state, entry.token = "in_progress", claim.token
            entry.free_at = now + timedelta(seconds=seconds) + SKEW
            self.hosts[entry.host].begin(claim.token, now, entry.free_at)
            self.claims.append(claim)
        crawler.turns.see(claimable.hosts())

    def note_dead_letters(self) -> None:
        """Items whose last lease expired become dead letters when somebody comes across them."""
        now = self.clock.now()
        due = [entry for entry in self.entries.values() if entry.is_last_attempt and entry.is_due(now)]
        stored = self.stored() if due else {}
        for entry in due:
            if stored[entry.url].status == "failed":
                entry.state, entry.failures = "failed", MAX_ATTEMPTS

    # What is drawn must not depend on what was claimed, in which the queue is free.
    @rule(
        number=st.integers(0, 1000),
        count=st.sampled_from([1, 5, 20]),
        which=processes,
        verb=st.sampled_from(
            ["complete", "complete", "fail", "give_up", "skip", "release", "renew", "put_back", "to_end"]
        ),
    )
    def finish(self, number: int, count: int, which: int, verb: str) -> None:
        if self.claims:
            last = len(self.claims) - number % len(self.claims)
            self.settle(self.claims[max(0, last - count) : last], which, verb)

    def settle(self, claims: list[Claim], which: int, verb: str) -> None:
        frontier = self.frontier(which)
        lists: dict[str, Callable[[list[Claim]], Coroutine[Any, Any, None]]] = {
            "complete": frontier.complete,
            "release": frontier.release,
            "renew": lambda claims: frontier.renew(claims, 30),
        }
        singles: dict[str, Callable[[Claim], Coroutine[Any, Any, None]]] = {
            "fail": lambda claim: frontier.fail(claim, "x", retry_in=6),
            "give_up": lambda claim: frontier.fail(claim, "x", retry=False),
            "skip": lambda claim: frontier.skip(claim, "x"),
            "put_back": lambda claim: frontier.put_back(claim, priority=5.0),
            "to_end": lambda claim: frontier.put_back(claim, to_end=True),
        }
        self.note_dead_letters()
        lost: set[int] = set()
        groups = [claims] if verb in lists else [[claim] for claim in claims]
        for group in groups:
            try:
                self.do(lists[verb](group) if verb in lists else singles[verb](group[0]))
            except LeaseLostError as error:
                lost |= {id(claim) for claim in error.claims}
        if lost:
            self.note_dead_letters()
        for claim in claims:
            self.note_end(claim, verb, is_lost=id(claim) in lost)

    def note_end(self, claim: Claim, verb: str, *, is_lost: bool) -> None:
        """Checks that a call had to be refused, or had to be done, and notes what it did."""
        entry, host = self.entry(claim), self.hosts[claim.item.domain]
        now = self.clock.now()
        held = self.holds(claim)
        if is_lost:
            assert not held
            return
        if not held:
            # The same verb again, or one that leaves the item in the same state.
            assert entry.token == claim.token
            states = {"complete": "completed", "skip": "skipped", "give_up": "failed"}
            if verb in ("release", "put_back", "to_end"):
                assert entry.state in ("pending", "delayed")
            assert entry.state == states.get(verb, entry.state)
            assert verb != "renew"
            return
        if verb == "renew":
            entry.free_at = now + timedelta(seconds=30) + SKEW
            if claim.has_slot:
                host.extend(claim.token, entry.free_at)
            return
        host.end(claim.token)
        if verb in ("release", "put_back", "to_end"):
            assert verb != "put_back" or claim.item.priority == 5.0
            assert verb != "to_end" or claim.item.discovered_at >= now
            entry.state, entry.priority = "pending", claim.item.priority
            entry.discovered_at = claim.item.discovered_at
        elif verb in ("complete", "skip"):
            entry.state = {"complete": "completed", "skip": "skipped"}[verb]
        else:
            entry.failures += 1
            entry.state = "failed"
            if verb == "fail" and entry.failures < MAX_ATTEMPTS:
                entry.state, entry.free_at = "delayed", now + timedelta(seconds=6)

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0, 7.0, 25.0, GONE_SECONDS]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(which=processes, is_replaced=st.booleans())
    def kill(self, which: int, is_replaced: bool) -> None:
        """It releases nothing. A new process may take its place."""
        crawler = self.crawler(which)
        self.crawlers.remove(crawler)
        self.do(crawler.process.kill())
        if is_replaced or not self.crawlers:
            self.open()
        if len(self.crawlers) == 1:
            self.alone_since = self.clock.now()
            self.crawlers[0].turns = Turns()

    @rule(which=processes, hosts=some_hosts, delay=st.sampled_from([0.0, HOST_DELAY]))
    def set_delay(self, which: int, hosts: list[str], delay: float) -> None:
        for host in hosts:
            self.do(self.frontier(which).set_host_delay(host, delay))
            self.hosts[host].set_delay(delay)

    @rule(which=processes, hosts=some_hosts, most=st.sampled_from([None, 1, 2]))
    def set_most(self, which: int, hosts: list[str], most: int | None) -> None:
        for host in hosts:
            self.do(self.frontier(which).set_host_max_in_flight(host, most))
            self.hosts[host].most = most

    @rule(which=processes, hosts=some_hosts, seconds=st.sampled_from([-1.0, 4.0]))
    def block(self, which: int, hosts: list[str], seconds: float) -> None:
        until = self.clock.now() + timedelta(seconds=seconds)
        for host in hosts:
            self.do(self.frontier(which).block_host(host, until))
            self.hosts[host].blocked_until = until

    @rule(which=processes)
    def pause_or_resume(self, which: int) -> None:
        frontier = self.frontier(which)
        self.do(frontier.resume() if self.paused else frontier.pause())
        self.paused = not self.paused
        self.clock.advance(CONTROL_SECONDS)

    @rule(which=processes)
    def requeue(self, which: int) -> None:
        requeued = self.do(self.frontier(which).requeue_failed())
        self.note_dead_letters()
        failed = [entry for entry in self.entries.values() if entry.state == "failed"]
        assert requeued == len(failed)
        for entry in failed:
            entry.state, entry.failures, entry.token = "pending", 0, None

    @rule(which=processes)
    def ask_whether_finished(self, which: int) -> None:
        is_finished = self.do(self.frontier(which).is_finished())
        self.note_dead_letters()
        assert is_finished == all(entry.state in FINAL for entry in self.entries.values())

    @rule(which=processes)
    def recount(self, which: int) -> None:
        counted = self.do(self.frontier(which).recount())
        self.note_dead_letters()
        assert counted == FrontierStats(**Counter(entry.state for entry in self.entries.values()))

    @rule()
    def compare(self) -> None:
        """The table is as the model."""
        self.note_dead_letters()
        items = self.stored()
        assert items.keys() == self.entries.keys()
        for entry in self.entries.values():
            status = "pending" if entry.state == "delayed" else entry.state
            assert (items[entry.url].status, items[entry.url].retry_count) == (status, entry.failures)

    def teardown(self) -> None:
        try:
            if self.crawlers:
                self.drain()
        finally:
            for crawler in self.crawlers:
                self.do(crawler.process.kill())

    def drain(self) -> None:
        """Nothing is lost: whatever happened, all can be crawled to the end, and is counted rightly."""
        self.compare()
        if self.paused:
            self.pause_or_resume(0)
        while any(entry.state not in FINAL for entry in self.entries.values()):
            self.clock.advance(self.seconds_to_next())
            due = {entry.url for entry in self.entries.values() if entry.is_due(self.clock.now())}
            self.settle(self.lease(0, 50, 20.0), 0, "complete")
            assert any(self.entries[name].state in FINAL for name in due), f"no way to finish {due}"
        counts = Counter(entry.state for entry in self.entries.values())
        for crawler in self.crawlers:
            # Writes what it has noted.
            self.do(crawler.frontier.stats())
        assert self.do(self.frontier(1).is_finished())
        assert self.do(self.frontier(1).stats()) == FrontierStats(**counts)
        assert self.do(self.frontier(0).recount()) == FrontierStats(**counts)

    def seconds_to_next(self) -> float:
        """Until something is claimable, or becomes a dead letter."""
        now = self.clock.now()
        if Claimable(self.entries.values(), self.hosts, now).at_least:
            return 0.0
        if any(entry.is_last_attempt and entry.is_due(now) for entry in self.entries.values()):
            return 0.0
        return 0.5


@pytest.mark.long
@pytest.mark.timeout(0 if EXAMPLES else 180)
@WAYS
def test_frontier_behaves_like_the_model(
    dynamodb_endpoint: str, way: str, request: pytest.FixtureRequest
) -> None:
    # moto takes five times as long, and is not what anybody runs a queue on.
    is_moto = request.node.callspec.params["dynamodb_endpoint"] == "moto"
    config = local_config(dynamodb_endpoint, conditional_batches=way, **QUICK)
    with asyncio.Runner() as runner:
        try:
            run_state_machine_as_test(
                partial(  # type: ignore[arg-type] # makes a machine
                    QueueMachine, runner, config, ManualClock(), 80 if is_moto else 300
                ),
                settings=settings(
                    max_examples=int(EXAMPLES or ("3" if is_moto else "8")),
                    stateful_step_count=STEPS,
                    suppress_health_check=list(HealthCheck),
                    phases=[
                        Phase.explicit,
                        Phase.reuse,
                        Phase.generate,
                        *([Phase.shrink] if EXAMPLES else []),
                    ],
                ),
            )
        finally:
            runner.run(drop_tables(config))
