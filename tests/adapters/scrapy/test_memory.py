"""The memory of the requests of a crawl."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from scrapy import Request

from ragcrawl_dynamo import Claim, FrontierItem
from ragcrawl_dynamo.adapters.scrapy.memory import CrawlMemory, NewRequest, Outcome, Settlement

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def make_claim(name: str) -> Claim:
    url = f"https://a.example/{name}"
    item = FrontierItem(
        item_id=name,
        run_id="run",
        site_id="site",
        url=url,
        normalized_url=url,
        url_hash=name,
        domain="a.example",
        lease_token=name,
    )
    return Claim(item, worker_id="", expires_at=datetime.now(UTC))


def hold(memory: CrawlMemory, name: str) -> tuple[Claim, Request]:
    claim, request = make_claim(name), Request(f"https://a.example/{name}")
    memory.hold(claim, request)
    return claim, request


def test_scrapy_crawl_memory_hands_out_unstorable_requests_by_priority_and_then_held_ones() -> None:
    memory = CrawlMemory()
    (_, first), (_, second) = hold(memory, "first"), hold(memory, "second")
    low, old, new = (Request("https://a.example/unstorable", priority=order) for order in (-1, 2, 2))
    for unstorable in (low, old, new):
        memory.keep(unstorable)
    assert [memory.next_request() for _ in range(6)] == [old, new, low, first, second, None]
    assert memory.is_busy


def test_scrapy_crawl_memory_crawls_a_replaced_request_next_under_the_same_claim() -> None:
    memory = CrawlMemory()
    claim, _ = hold(memory, "first")
    hold(memory, "second")
    memory.next_request()
    redirected = Request("https://a.example/redirected")
    assert memory.is_downloading(claim.token)
    memory.replace(claim.token, redirected)
    assert memory.next_request() is redirected
    memory.settle(claim.token)
    assert memory.to_settle == [Settlement(claim, None)]


def test_scrapy_crawl_memory_settles_a_claim_with_its_outcome() -> None:
    memory = CrawlMemory()
    claim, _ = hold(memory, "first")
    memory.next_request()
    outcome = Outcome("failed", "HTTP 503")
    memory.note_outcome(claim.token, outcome)
    assert not memory.is_downloading(claim.token)
    memory.settle(claim.token)
    # A lease that is lost now does not change the outcome that is written.
    memory.forget(claim.token)
    assert memory.to_settle == [Settlement(claim, outcome)]
    assert memory.held == {}
    assert memory.is_busy


def test_scrapy_crawl_memory_forgets_a_lost_claim() -> None:
    memory = CrawlMemory()
    lost, _ = hold(memory, "lost")
    _, kept = hold(memory, "kept")
    memory.note_outcome(lost.token, Outcome("failed", "HTTP 503"))
    memory.forget(lost.token)
    assert memory.next_request() is kept
    assert memory.next_request() is None
    memory.hold(lost, kept)
    assert memory.is_downloading(lost.token)


def test_scrapy_crawl_memory_forgets_everything_at_once() -> None:
    memory = CrawlMemory()
    claim, _ = hold(memory, "first")
    settled, _ = hold(memory, "second")
    memory.settle(settled.token)
    memory.to_add.append(NewRequest(claim.item, Request(claim.item.url)))
    memory.keep(Request("https://a.example/unstorable"))
    memory.note_outcome(claim.token, Outcome("skipped", "robots.txt"))
    memory.is_finished = True
    memory.clear()
    assert not memory.is_busy
    assert not memory.is_finished
    assert memory.next_request() is None


def test_scrapy_crawl_memory_of_a_cancelled_run_keeps_requests_that_others_can_crawl() -> None:
    memory = CrawlMemory()
    claim, request = hold(memory, "first")
    memory.keep(Request("https://a.example/unstorable"))
    memory.cancel()
    assert memory.is_finished
    assert memory.next_request() is request
    assert memory.next_request() is None
    assert list(memory.held) == [claim.token]


def test_scrapy_crawl_memory_passes_over_a_claim_that_was_forgotten_while_it_waited_twice() -> None:
    memory = CrawlMemory()
    claim, request = hold(memory, "first")
    memory.next_request()
    # An errback yields two copies of the request, and then the lease is lost.
    memory.replace(claim.token, request)
    memory.replace(claim.token, request)
    memory.forget(claim.token)
    assert memory.next_request() is None


def test_scrapy_crawl_memory_keeps_the_weightiest_outcome_of_a_request() -> None:
    memory = CrawlMemory()
    claim, _ = hold(memory, "first")
    for kind in ("skipped", "invalid", "interrupted", "failed"):
        memory.note_outcome(claim.token, Outcome(kind, kind))
    memory.settle(claim.token)
    assert memory.to_settle == [Settlement(claim, Outcome("interrupted", "interrupted"))]


def test_scrapy_crawl_memory_replaces_only_requests_without_a_response() -> None:
    memory = CrawlMemory()
    claim, request = hold(memory, "first")
    copied = request.copy()
    assert memory.is_held(claim.token, request)
    assert not memory.is_held(claim.token, copied)
    assert memory.is_downloading(claim.token)
    memory.note_downloaded(claim.token)
    assert not memory.is_downloading(claim.token)
    memory.forget(claim.token)
    assert not memory.is_held(claim.token, request)
    assert not memory.is_downloading(None)
