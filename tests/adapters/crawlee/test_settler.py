"""Settlements in the background."""

from __future__ import annotations

import asyncio

import pytest

from ragcrawl_dynamo import BackendStateError, LeaseLostError
from ragcrawl_dynamo.adapters.crawlee import settler
from ragcrawl_dynamo.adapters.crawlee.settler import Settler
from tests.adapters.crawlee.test_memory import claimed

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Settlement:
    """A settlement that raises errors, one at each call, before it succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def __call__(self) -> None:
        self.calls += 1
        await asyncio.sleep(0)
        if self.errors:
            raise self.errors.pop(0)


async def test_crawlee_settler_tries_again_until_a_claim_is_settled(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(settler, "_RETRY_SECONDS", 0.01)
    running, settle = Settler(), Settlement(BackendStateError("one"), BackendStateError("two"))
    await running.start(claimed("a").claim, settle)
    assert settle.calls == 0
    assert await running.join(5)
    assert settle.calls == 3
    assert caplog.text.count("this is tried again") == 2


async def test_crawlee_settler_tries_once_more_when_it_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    running, settle = Settler(), Settlement(*(BackendStateError("refused") for _ in range(9)))
    await running.start(claimed("a").claim, settle)
    assert not await running.join(0.05)
    await running.close()
    assert settle.calls == 2
    assert "could not be settled, so it will be handled again" in caplog.text


async def test_crawlee_settler_gives_up_a_lost_lease(caplog: pytest.LogCaptureFixture) -> None:
    claim = claimed("a").claim
    running, settle = Settler(), Settlement(LeaseLostError([claim]))
    await running.start(claim, settle)
    assert await running.join(5)
    assert settle.calls == 1
    assert "lease" in caplog.text


async def test_crawlee_settler_lets_handlers_wait_if_too_many_claims_are_being_settled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(settler, "_MAX_SETTLING", 1)
    running, first, second = Settler(), Settlement(), Settlement()
    await running.start(claimed("a").claim, first)
    await running.start(claimed("b").claim, second)
    assert (first.calls, second.calls) == (1, 0)
    assert await running.join(5)
    assert second.calls == 1
