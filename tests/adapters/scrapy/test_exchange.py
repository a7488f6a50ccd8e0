"""When the exchange claims: with a frontier whose items are scripted."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest
from scrapy import Request

from ragcrawl_dynamo import (
    AddResult,
    Claim,
    EndpointUnreachableError,
    FrontierItem,
    HostBudgetError,
    ItemTooLargeError,
)
from ragcrawl_dynamo.adapters.scrapy.exchange import FrontierExchange
from ragcrawl_dynamo.adapters.scrapy.memory import CrawlMemory, NewRequest
from tests.support.factories import make_item


class Keeper:
    """Renews nothing."""

    held: ClassVar[list[Claim]] = []

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *error: object) -> None: ...

    def hold(self, claims: list[Claim]) -> None: ...


class Frontier:
    """Returns so many claims as `available` says."""

    def __init__(self) -> None:
        self.available = 0
        self.answers: list[Any] = []
        self.wanted: list[int] = []
        self.waits: list[dict[str, Any]] = []
        self.never_answers = False
        self.is_done = False
        self.asked = 0

    def keeper(self, on_lost: Any, **options: Any) -> Any:
        return Keeper()

    async def release(self, claims: list[Claim]) -> None:
        assert claims == []

    async def add(self, links: list[FrontierItem]) -> list[AddResult]:
        outcome = self.answers.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return [
            AddResult(link.url, link.item_id, added=False, error=error)
            for link, error in zip(links, outcome, strict=True)
        ]

    async def claim(self, limit: int, *, lease_seconds: float, **options: Any) -> list[Claim]:
        self.wanted.append(limit)
        self.waits.append(options)
        if self.never_answers:
            await asyncio.Event().wait()
        count, self.available = min(limit, self.available), self.available - min(limit, self.available)
        return [claim_of(f"claimed{len(self.wanted)}-{i}") for i in range(count)]

    async def complete(self, claims: list[Claim]) -> None:
        for claim in claims:
            claim.ended = True

    async def is_finished(self) -> bool:
        self.asked += 1
        return self.is_done


def claim_of(item_id: str) -> Claim:
    item = make_item(item_id, attempt=1, lease_token=item_id)
    return Claim(item, worker_id="", expires_at=datetime.now(UTC))


class Exchanging:
    """An exchange that prefetches four requests."""

    def __init__(self) -> None:
        self.frontier, self.memory = Frontier(), CrawlMemory()
        self.noted: list[tuple[str, str]] = []
        settings = SimpleNamespace(prefetch=4, lease_seconds=60.0, slot_delays={})
        engine = SimpleNamespace(
            wake=lambda: None,
            count=lambda *args, **options: None,
            requests_in_progress=lambda: None,
            log_duplicate=lambda request: self.noted.append(("duplicate", request.url)),
            signal_dropped=lambda request: self.noted.append(("dropped", request.url)),
        )
        serializer = SimpleNamespace(request_of=lambda item: Request(item.url))
        crawl = SimpleNamespace(settings=settings, memory=self.memory)
        self.exchange = FrontierExchange(
            *(cast("Any", part) for part in (crawl, self.frontier, serializer, engine))
        )

    @property
    def may_claim(self) -> bool:
        return self.exchange._has_room.is_set()

    def yield_request(self, name: str) -> Request:
        """Lets the spider yield a request, which is to be added."""
        request = Request(f"https://a.example/{name}")
        self.memory.to_add.append(NewRequest(make_item(name, url=request.url, unique_key=name), request))
        return request

    async def settle_last_request(self, claim: Claim) -> None:
        """Starts the exchange, and lets the only request of the process end while the next claim waits."""
        self.memory.hold(claim, Request(claim.item.url))
        assert self.memory.next_request() is not None
        self.frontier.never_answers = True
        await self.exchange.start()
        while not self.frontier.wanted:  # noqa: ASYNC110 # no event tells
            await asyncio.sleep(0)
        self.memory.settle(claim.token)
        self.exchange.note_output()

    def take(self, count: int) -> None:
        """Lets the engine take requests."""
        for _ in range(count):
            assert self.memory.next_request() is not None
            self.exchange.note_taken()


async def test_exchange_claims_again_when_half_is_taken() -> None:
    exchanging = Exchanging()
    exchanging.frontier.available = 4
    await exchanging.exchange._claim()
    exchanging.take(1)
    assert not exchanging.may_claim
    exchanging.take(1)
    assert exchanging.may_claim


async def test_exchange_waits_in_its_claim_for_a_host_that_is_due_later() -> None:
    exchanging = Exchanging()
    await exchanging.exchange._claim()
    assert exchanging.frontier.wanted == [4]
    # The frontier knows when a host is due; a pause of the exchange would come on top.
    assert exchanging.frontier.waits == [{"wait_seconds": 2.0, "until_finished": True}]


async def test_exchange_asks_whether_the_crawl_is_finished_as_soon_as_its_last_request_is_settled() -> None:
    exchanging, claim = Exchanging(), claim_of("item")
    exchanging.frontier.is_done = True
    await exchanging.settle_last_request(claim)
    # The claim would wait forever.
    async with asyncio.timeout(10):
        while not exchanging.memory.is_finished:  # noqa: ASYNC110 # no event tells
            await asyncio.sleep(0)
    assert claim.ended
    await exchanging.exchange.stop()


async def test_exchange_continues_to_wait_in_its_claim_when_a_request_is_settled() -> None:
    exchanging, claim = Exchanging(), claim_of("item")
    await exchanging.settle_last_request(claim)
    while not exchanging.frontier.asked:  # noqa: ASYNC110 # no event tells
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    # Another claim would find the next request of the host later than it is due.
    assert len(exchanging.frontier.wanted) == 1
    await exchanging.exchange.stop()


async def test_exchange_does_not_claim_from_a_finished_run() -> None:
    exchanging = Exchanging()
    exchanging.frontier.is_done = True
    await exchanging.exchange._claim()
    assert exchanging.frontier.wanted == []
    assert exchanging.memory.is_finished


async def test_exchange_adds_requests_again_and_then_calls_none_of_them_a_duplicate() -> None:
    exchanging = Exchanging()
    exchanging.yield_request("first")
    error = EndpointUnreachableError("no answer", code="", operation="BatchWriteItem", table=None)
    exchanging.frontier.answers = [error, [None], [None]]
    with pytest.raises(EndpointUnreachableError):
        await exchanging.exchange._write()
    # The first try may have added it, although its answer was lost.
    await exchanging.exchange._write()
    assert (exchanging.memory.to_add, exchanging.noted) == ([], [])
    exchanging.yield_request("second")
    await exchanging.exchange._write()
    second = "https://a.example/second"
    assert exchanging.noted == [("duplicate", second), ("dropped", second)]


async def test_exchange_keeps_requests_that_cannot_be_stored_and_drops_those_beyond_a_budget() -> None:
    exchanging = Exchanging()
    large, budget = exchanging.yield_request("large"), exchanging.yield_request("budget")
    too_large = ItemTooLargeError(
        ("payload", "500,000 bytes"), model="FrontierItem", record="large", size=500_000, limit=409_600
    )
    exchanging.frontier.answers = [[too_large, HostBudgetError("url", "is full")]]
    await exchanging.exchange._write()
    assert exchanging.memory.next_request() is large
    assert exchanging.memory.next_request() is None
    assert exchanging.noted == [("dropped", budget.url)]
