"""When the exchange claims: with a frontier whose items are scripted."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from scrapy import Request

from ragcrawl_dynamo import Claim
from ragcrawl_dynamo.adapters.scrapy.exchange import FrontierExchange
from ragcrawl_dynamo.adapters.scrapy.memory import CrawlMemory
from tests.support.factories import make_item


class Frontier:
    """Returns so many claims as `available` says."""

    def __init__(self) -> None:
        self.available = 0
        self.wanted: list[int] = []
        self.is_done = False

    def keeper(self, on_lost: Any, **options: Any) -> Any:
        return SimpleNamespace(hold=lambda claims: None)

    async def claim(self, limit: int, **options: Any) -> list[Claim]:
        self.wanted.append(limit)
        count, self.available = min(limit, self.available), self.available - min(limit, self.available)
        return [claim_of(f"claimed{len(self.wanted)}-{i}") for i in range(count)]

    async def complete(self, claims: list[Claim]) -> None:
        for claim in claims:
            claim.ended = True

    async def is_finished(self) -> bool:
        return self.is_done


def claim_of(item_id: str, *, has_slot: bool = False) -> Claim:
    item = make_item(item_id, attempt=1, lease_token=item_id)
    return Claim(item, worker_id="", expires_at=datetime.now(UTC), has_slot=has_slot)


class Exchanging:
    """An exchange that prefetches four requests."""

    def __init__(self) -> None:
        self.frontier, self.memory = Frontier(), CrawlMemory()
        settings = SimpleNamespace(prefetch=4, lease_seconds=60.0)
        engine = SimpleNamespace(wake=lambda: None, count=lambda *args, **options: None)
        serializer = SimpleNamespace(request_of=lambda item: Request(item.url))
        crawl = SimpleNamespace(settings=settings, memory=self.memory)
        self.exchange = FrontierExchange(
            *(cast("Any", each) for each in (crawl, self.frontier, serializer, engine))
        )

    @property
    def may_claim(self) -> bool:
        return self.exchange._has_room.is_set()

    def take(self, count: int) -> None:
        """Lets the engine take requests."""
        for _ in range(count):
            assert self.memory.next_request() is not None
            self.exchange.note_taken()


async def test_exchange_claims_again_when_half_is_taken_if_there_may_be_more() -> None:
    exchanging = Exchanging()
    exchanging.frontier.available = 4
    assert await exchanging.exchange._claim()
    exchanging.take(1)
    assert not exchanging.may_claim
    exchanging.take(1)
    assert exchanging.may_claim


async def test_exchange_does_not_claim_again_at_once_after_a_claim_that_returned_fewer() -> None:
    exchanging = Exchanging()
    exchanging.frontier.available = 3
    assert await exchanging.exchange._claim()
    exchanging.take(3)
    assert not exchanging.may_claim
    # It does after its pause.
    assert not await exchanging.exchange._claim()
    assert exchanging.frontier.wanted == [4, 4]


@pytest.mark.parametrize("has_slot", [True, False])
async def test_settled_request_lets_the_exchange_claim_if_it_frees_a_slot_of_its_host(has_slot: bool) -> None:
    exchanging = Exchanging()
    claim = claim_of("item", has_slot=has_slot)
    exchanging.memory.hold(claim, Request(claim.item.url))
    exchanging.memory.settle(claim.token)
    assert await exchanging.exchange._write() == has_slot
    assert claim.ended


async def test_exchange_does_not_claim_from_a_finished_run() -> None:
    exchanging = Exchanging()
    exchanging.frontier.is_done = True
    assert not await exchanging.exchange._claim()
    assert exchanging.frontier.wanted == []
    assert exchanging.memory.is_finished
