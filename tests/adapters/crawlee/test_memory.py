"""The memory of a request queue."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from crawlee import Request

from ragcrawl_dynamo import Claim, FrontierItem
from ragcrawl_dynamo.adapters.crawlee.memory import ClaimedRequest, QueueMemory
from tests.adapters.crawlee.requests import url

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def claimed(name: str) -> ClaimedRequest:
    item = FrontierItem(
        item_id=name,
        run_id="run",
        site_id="site",
        url=url(name),
        normalized_url=url(name),
        url_hash=name,
        domain="a.example",
    )
    claim = Claim(item, worker_id="", expires_at=datetime.now(UTC))
    return ClaimedRequest(claim, Request.from_url(url(name), unique_key=name))


def test_crawlee_queue_memory_keeps_the_latest_handled_requests() -> None:
    memory = QueueMemory(handled_limit=2)
    memory.note_handled("a")
    memory.note_handled("b")
    # The first request was asked for, so it is remembered longer than the other one.
    assert memory.is_handled("a")
    memory.note_handled("c")
    assert [memory.is_handled(key) for key in ("a", "b", "c")] == [True, False, True]


def test_crawlee_queue_memory_forgets_a_lost_claim() -> None:
    memory = QueueMemory(handled_limit=2)
    fetched, ready, other = claimed("fetched"), claimed("ready"), claimed("other")
    memory.claims = {"fetched": fetched.claim}
    memory.ready = [ready, other]
    memory.forget_claim(ready.claim)
    assert (memory.claims, memory.ready) == ({"fetched": fetched.claim}, [other])
    memory.forget_claim(fetched.claim)
    assert (memory.claims, memory.ready) == ({}, [other])


def test_crawlee_queue_memory_forgets_everything_at_once() -> None:
    memory = QueueMemory(handled_limit=2)
    first, second = claimed("first"), claimed("second")
    memory.claims["first"] = first.claim
    memory.ready.append(second)
    memory.in_front = 1
    memory.note_handled("third")
    memory.note_empty(60)
    assert memory.is_empty()
    assert memory.is_unfinished()
    memory.clear()
    assert (memory.claims, memory.ready, memory.in_front) == ({}, [], 0)
    assert not memory.is_handled("third")
    assert not memory.is_empty()
    assert not memory.is_unfinished()


def test_crawlee_queue_memory_forgets_answers_when_the_queue_changes() -> None:
    memory = QueueMemory(handled_limit=2)
    memory.note_empty(60)
    memory.note_unfinished()
    assert (memory.is_empty(), memory.is_unfinished()) == (True, True)
    memory.forget_answers()
    assert (memory.is_empty(), memory.is_unfinished()) == (False, False)
    memory.note_empty(60)
    memory.forget_empty()
    assert not memory.is_empty()
