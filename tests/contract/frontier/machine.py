"""Steps of a run of the queue, which hypothesis chooses, and the invariants after each step."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar
from uuid import uuid4

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from ragcrawl_dynamo import (
    Claim,
    DynamoDBConfig,
    Frontier,
    FrontierStats,
    LeaseLostError,
    RagcrawlDynamoError,
)
from ragcrawl_dynamo.testing import ManualClock
from tests.support.frontiers import Process
from tests.support.queue_model import FINAL, HOST_DELAY, Entry, QueueModel, Turns
from tests.support.queues import url

T = TypeVar("T")

# Seconds after which other processes regard a killed process as gone.
GONE_SECONDS = 60.0

# Seconds within which all processes learn that a run is paused or resumed.
CONTROL_SECONDS = 1.0

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
    """One run of the queue.

    Attributes:
        sees_all: Whether an index shows at once what was written: only then it is known what a claim must
            find, and in which order.
    """

    sees_all = True

    def __init__(self, runner: asyncio.Runner, config: DynamoDBConfig, *, is_moto: bool) -> None:
        super().__init__()
        self.runner = runner
        self.config = config
        self.clock = ManualClock()
        self.is_moto = is_moto
        self.most_links = 60 if is_moto else 300
        self.run_id = uuid4().hex
        self.crawlers: list[Crawler] = []
        # The first process, if it stays the only one, never was with another.
        self.alone_since = self.clock.now() - timedelta(seconds=GONE_SECONDS)
        self.model = QueueModel(self.clock, HOSTS)
        self.claims: list[Claim] = []
        self.kills = 0

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def open(self) -> None:
        process = Process(self.config, self.clock)
        self.do(process.backend.initialize())
        self.crawlers.append(Crawler(process, process.backend.frontier("site", self.run_id)))

    def crawler(self, which: int) -> Crawler:
        return self.crawlers[which % len(self.crawlers)]

    def frontier(self, which: int) -> Frontier:
        return self.crawler(which).frontier

    def stored(self) -> dict[str, Any]:
        backend = self.crawlers[0].process.backend
        return {item.url: item for item in self.do(backend.get_frontier_items(self.run_id))}

    @initialize(
        count=st.sampled_from([1, 3, 4]), links=st.integers(1, 8), mixed=st.booleans(), grouped=st.booleans()
    )
    def begin(self, count: int, links: int, mixed: bool, grouped: bool) -> None:
        for _ in range(count):
            self.open()
        self.add(0, 0, 30, links, [0.0, 5.0, 0.0] if mixed else [0.0], 0, None, grouped)

    @rule(
        which=processes,
        first=st.integers(0, len(HOSTS) - 1),
        hosts=st.sampled_from([1, 1, 3, 10, 30]),
        links=st.integers(1, 5),
        priorities=st.lists(st.sampled_from([0.0, -1.5, 5.0]), min_size=1, max_size=3),
        age=st.sampled_from([0, 0, 60]),
        delay=st.sampled_from([None, None, 5.0]),
        grouped=st.booleans(),
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
        grouped: bool,
    ) -> None:
        """Adds links of some hosts. If the run has links of a host already, the first one is known.

        The links of a host are of successive ages if they are `grouped`; otherwise all hosts' ages mix.
        """
        frontier = self.frontier(which)
        not_before = None if delay is None else self.clock.now() + timedelta(seconds=delay)
        numbers = Counter(entry.host for entry in self.model.entries.values())
        added: list[Entry] = []
        names = [HOSTS[(first + i) % len(HOSTS)] for i in range(hosts)]
        pairs = [(link, host) for link in range(links) for host in names]
        for link, host in sorted(pairs, key=lambda pair: pair[1]) if grouped else pairs:
            priority = priorities[(len(added) + link) % len(priorities)]
            # No two links have the same age.
            offset = timedelta(microseconds=len(self.model.entries) + len(added) + 1) - timedelta(seconds=age)
            state = "pending" if not_before is None else "delayed"
            number = max(0, numbers[host] - 1) + link
            discovered_at = self.clock.now() + offset
            added.append(Entry(url(number, host), host, priority, discovered_at, state, not_before))
        del added[max(0, self.most_links - len(self.model.entries)) :]
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
            assert result.added == (entry.url not in self.model.entries)
            self.model.entries.setdefault(entry.url, entry)

    @rule(which=processes, limit=st.sampled_from([1, 3, 10, 50]), seconds=st.sampled_from([5.0, 20.0, 100.0]))
    def claim(self, which: int, limit: int, seconds: float) -> None:
        self.lease(which, limit, seconds)

    @rule(which=processes, limit=st.sampled_from([1, 4, 10]), rounds=st.integers(1, 5))
    def crawl(self, which: int, limit: int, rounds: int) -> None:
        """Claims and completes items, as a worker does."""
        for _ in range(rounds):
            self.settle(self.lease(which, limit, 20.0), which, "complete")

    def lease(self, which: int, limit: int, seconds: float) -> list[Claim]:
        crawler = self.crawler(which)
        claims = self.do(crawler.frontier.claim(limit, lease_seconds=seconds))
        self.model.note_dead_letters(self.stored)
        self.take(crawler, claims, limit, seconds)
        return claims

    @rule(limit=st.sampled_from([1, 5, 30]))
    def claim_at_once(self, limit: int) -> None:
        """All processes claim at the same time. On moto, which is not atomic, one after the other."""
        if self.is_moto or self.model.is_paused:
            for which in range(len(self.crawlers)):
                self.lease(which, limit, 20.0)
            return

        async def claim_all() -> list[list[Claim]]:
            calls = (crawler.frontier.claim(limit, lease_seconds=20.0) for crawler in self.crawlers)
            return await asyncio.gather(*calls)

        claims = [claim for claims in self.do(claim_all()) for claim in claims]
        self.model.note_dead_letters(self.stored)
        self.take(self.crawlers[0], claims, limit * len(self.crawlers), 20.0)

    def take(self, crawler: Crawler, claims: list[Claim], limit: int, seconds: float) -> None:
        """Checks that exactly these claims were allowed, and notes them."""
        claimable = self.model.claimable()
        at_least = min(limit, claimable.at_least) if self.sees_all else 0
        is_alone = self.sees_all and len(self.crawlers) == 1
        if self.model.is_paused:
            assert not claims
            return
        assert len(claims) <= limit
        assert claims or not at_least, f"an empty claim, but {claimable.at_least} items are claimable"
        alone_for = (self.clock.now() - self.alone_since).total_seconds()
        # A claim that has something looks once a second for more that others have added.
        if is_alone and alone_for >= 1.0:
            assert len(claims) >= at_least, f"{len(claims)} claims, but {claimable.at_least} are claimable"
        crawler.turns.see(claimable.hosts())
        together = {claim.item.domain for claim in claims}
        for claim in self.in_order(claims):
            entry = self.model.entry(claim)
            if is_alone and alone_for >= GONE_SECONDS:
                claimable.check_order(entry, crawler.turns, together)
            claimable.take(entry)
            crawler.turns.serve(entry.host)
            self.model.note_lease(entry, claim.token, seconds)
            assert claim.item.retry_count == entry.failures
            self.claims.append(claim)
        crawler.turns.see(claimable.hosts())

    def in_order(self, claims: list[Claim]) -> list[Claim]:
        """The claims of one call, those of each host among themselves by priority and age.

        An item whose lease was lost may come later in the list, since it was tried twice.
        """
        by_host: dict[str, list[Claim]] = defaultdict(list)
        for claim in sorted(claims, key=lambda claim: self.model.entry(claim).order):
            by_host[claim.item.domain].append(claim)
        return [by_host[claim.item.domain].pop(0) for claim in claims]

    # The drawn numbers must not depend on the claims: the queue may choose among several items.
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
        lists: dict[str, Callable[[list[Claim]], Coroutine[Any, Any, object]]] = {
            "complete": frontier.complete,
            "release": frontier.release,
            "renew": lambda claims: frontier.renew(claims, 30),
        }
        singles: dict[str, Callable[[Claim], Coroutine[Any, Any, object]]] = {
            "fail": lambda claim: frontier.fail(claim, "x", retry_in=6),
            "give_up": lambda claim: frontier.fail(claim, "x", retry=False),
            "skip": lambda claim: frontier.skip(claim, "x"),
            "put_back": lambda claim: frontier.put_back(claim, priority=5.0),
            "to_end": lambda claim: frontier.put_back(claim, to_end=True),
        }
        self.model.note_dead_letters(self.stored)
        lost: set[int] = set()
        groups = [claims] if verb in lists else [[claim] for claim in claims]
        for group in groups:
            try:
                self.do(lists[verb](group) if verb in lists else singles[verb](group[0]))
            except LeaseLostError as error:
                lost |= {id(claim) for claim in error.claims}
        if lost:
            self.model.note_dead_letters(self.stored)
        for claim in claims:
            self.model.note_end(claim, verb, is_lost=id(claim) in lost)

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0, 7.0, 25.0, GONE_SECONDS]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(
        which=processes,
        is_replaced=st.booleans(),
        requests=st.one_of(st.none(), st.integers(1, 12)),
        limit=st.sampled_from([1, 10]),
    )
    def kill(self, which: int, is_replaced: bool, requests: int | None, limit: int) -> None:
        """Kills a process, perhaps within a claim. It releases nothing. A new one may take its place."""
        crawler = self.crawler(which)
        if requests is not None:
            crawler.process.die_after(requests)
            with suppress(RagcrawlDynamoError):
                self.do(crawler.frontier.claim(limit, lease_seconds=20.0))
        self.crawlers.remove(crawler)
        self.kills += 1
        self.do(crawler.process.kill())
        if is_replaced or not self.crawlers:
            self.open()
        if requests is not None:
            self.model.note_dead_letters(self.stored)
            self.model.note_orphans(self.stored(), limit, 20.0)
        if len(self.crawlers) == 1:
            self.alone_since = self.clock.now()
            self.crawlers[0].turns = Turns()

    @rule(which=processes, hosts=some_hosts, delay=st.sampled_from([0.0, HOST_DELAY]))
    def set_delay(self, which: int, hosts: list[str], delay: float) -> None:
        for host in hosts:
            self.do(self.frontier(which).set_host_delay(host, delay))
            self.model.hosts[host].set_delay(delay)

    @rule(which=processes, hosts=some_hosts, most=st.sampled_from([None, 1, 2]))
    def set_most(self, which: int, hosts: list[str], most: int | None) -> None:
        for host in hosts:
            self.do(self.frontier(which).set_host_max_in_flight(host, most))
            self.model.hosts[host].most = most

    @rule(which=processes, hosts=some_hosts, seconds=st.sampled_from([-1.0, 4.0]))
    def block(self, which: int, hosts: list[str], seconds: float) -> None:
        until = self.clock.now() + timedelta(seconds=seconds)
        for host in hosts:
            self.do(self.frontier(which).block_host(host, until))
            self.model.hosts[host].blocked_until = until

    @rule(which=processes)
    def pause_or_resume(self, which: int) -> None:
        frontier = self.frontier(which)
        self.do(frontier.resume() if self.model.is_paused else frontier.pause())
        self.model.is_paused = not self.model.is_paused
        self.clock.advance(CONTROL_SECONDS)

    @rule(which=processes)
    def requeue(self, which: int) -> None:
        requeued = self.do(self.frontier(which).requeue_failed())
        self.model.note_dead_letters(self.stored)
        failed = [entry for entry in self.model.entries.values() if entry.state == "failed"]
        assert requeued == len(failed)
        for entry in failed:
            entry.state, entry.failures, entry.token = "pending", 0, None

    @rule(which=processes)
    def ask_whether_finished(self, which: int) -> None:
        is_finished = self.do(self.frontier(which).is_finished())
        self.model.note_dead_letters(self.stored)
        assert is_finished == self.model.is_finished

    @rule(which=processes)
    def recount(self, which: int) -> None:
        counted = self.do(self.frontier(which).recount())
        self.model.note_dead_letters(self.stored)
        assert counted == FrontierStats(**self.model.counts)

    @rule()
    def compare(self) -> None:
        """The table is as the model."""
        self.model.note_dead_letters(self.stored)
        items = self.stored()
        assert items.keys() == self.model.entries.keys()
        for entry in self.model.entries.values():
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
        """Nothing is lost: after any steps, all can be crawled to the end, and the counts are right."""
        self.compare()
        if self.model.is_paused:
            self.pause_or_resume(0)
        while left := [entry for entry in self.model.entries.values() if entry.state not in FINAL]:
            now = self.clock.now()
            dead = [entry for entry in left if entry.is_last_attempt and entry.is_due(now)]
            if not dead and not self.model.claimable().at_least:
                self.clock.advance(0.5)
                continue
            claims = self.lease(0, 50, 20.0)
            self.settle(claims, 0, "complete")
            if not claims and not any(entry.state == "failed" for entry in dead):
                self.find_nothing(dead)
        for crawler in self.crawlers:
            # `stats` stores the counts that the process has noted.
            self.do(crawler.frontier.stats())
        assert self.do(self.frontier(1).is_finished())
        assert self.do(self.frontier(1).stats()) == FrontierStats(**self.model.counts)
        assert self.do(self.frontier(0).recount()) == FrontierStats(**self.model.counts)

    def find_nothing(self, dead: list[Entry]) -> None:
        """Nothing was claimed at the end, although something is claimable, or is to become a dead letter."""
        raise AssertionError(f"nobody ends {dead}")
