"""The methods of Frontier: their checks, and the calls of its queue."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ragcrawl_dynamo import (
    Claim,
    Frontier,
    FrontierStatus,
    InvalidArgumentError,
    LeaseKeeper,
    RunState,
    Worker,
)
from ragcrawl_dynamo._frontier.handling import WorkerSettings
from ragcrawl_dynamo._frontier.lease_issuer import LeaseTerms
from ragcrawl_dynamo._frontier.lease_keeper import LeaseSettings
from ragcrawl_dynamo.testing import ManualClock
from tests.support.factories import make_item
from tests.support.hosts import at

A = "https://a.example/"
COMMON = {"depth": 0, "referrer_url": None, "priority": 0.0, "scheduled_at": None}
TERMS = LeaseTerms(60.0, "")

# A claim of the run, and one of another run.
CLAIM = Claim(make_item(), "w", at(30))
OTHER = Claim(make_item(run_id="other"), "w", at(30))

Call = Callable[[Frontier], Any]


class RecordingQueue:
    """Notes calls with their arguments, and returns "result"."""

    def __init__(self) -> None:
        config = SimpleNamespace(frontier_max_clock_skew=2.0)
        self.run = SimpleNamespace(run_id="run", site_id="site", config=config, clock=ManualClock())
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.limiter = SimpleNamespace(set=self._recorded("limiter.set"))

    def __getattr__(self, name: str) -> Any:
        return self._recorded(name)

    def _recorded(self, name: str) -> Any:
        async def call(*arguments: Any, **options: Any) -> Any:
            self.calls.append((name, arguments, options))
            return "result"

        return call


class Called:
    """A frontier on a recording queue."""

    def __init__(self) -> None:
        self.queue = RecordingQueue()
        self.frontier = Frontier(cast("Any", self.queue))


@pytest.mark.parametrize(
    ("call", "name", "arguments", "options"),
    [
        (lambda f: f.add([A]), "add", ([A], COMMON, None, None), {}),
        (
            lambda f: f.add(
                [A],
                depth=2,
                referrer_url="r",
                priority=3,
                not_before=at(0),
                base_url=A,
                on_progress=print,
            ),
            "add",
            ([A], {"depth": 2, "referrer_url": "r", "priority": 3.0, "scheduled_at": at(0)}, A, print),
            {},
        ),
        (lambda f: f.get("key"), "get", ("key",), {}),
        (lambda f: f.claim(), "claim", ([TERMS] * 10, 0.0), {"until_finished": False}),
        (
            lambda f: f.claim(2, lease_seconds=30, worker_id="w", wait_seconds=5.0, until_finished=True),
            "claim",
            ([LeaseTerms(30.0, "w")] * 2, 5.0),
            {"until_finished": True},
        ),
        (
            lambda f: f.fail(CLAIM, ValueError("no")),
            "fail",
            (CLAIM, "ValueError: no", None),
            {"retry": True, "payload": None},
        ),
        (
            lambda f: f.fail(CLAIM, "no", retry_in=5, retry=False, payload="p"),
            "fail",
            (CLAIM, "no", 5.0),
            {"retry": False, "payload": "p"},
        ),
        (lambda f: f.is_finished(), "is_finished", (), {}),
        (lambda f: f.stats(), "stats", (None,), {}),
        (lambda f: f.stats("host"), "stats", ("host",), {}),
        (lambda f: f.recount(), "recount", (), {}),
        (lambda f: f.state(), "state", (), {}),
        (lambda f: f.requeue_failed(), "requeue_failed", (), {}),
        (lambda f: f.iter_hosts(), "iterate_hosts", (), {}),
    ],
)
async def test_call_returns_what_the_queue_returns(
    call: Call, name: str, arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    called = Called()
    assert await call(called.frontier) == "result"
    assert called.queue.calls == [(name, arguments, options)]


@pytest.mark.parametrize(
    ("call", "name", "arguments", "options"),
    [
        (lambda f: f.renew(CLAIM, 30.0), "renew", ([CLAIM], 30.0), {}),
        (lambda f: f.complete(CLAIM), "complete", ([CLAIM], None, ()), {}),
        (
            lambda f: f.complete([CLAIM, CLAIM], payload="p", also=[A]),
            "complete",
            ([CLAIM, CLAIM], "p", [A]),
            {},
        ),
        (lambda f: f.skip(CLAIM, "why"), "end", ([CLAIM], FrontierStatus.SKIPPED, "why"), {}),
        (lambda f: f.release([CLAIM]), "release", ([CLAIM],), {}),
        (lambda f: f.put_back(CLAIM), "put_back", (CLAIM, {}), {"to_end": False}),
        (
            lambda f: f.put_back(CLAIM, payload="p", priority=2, to_end=True),
            "put_back",
            (CLAIM, {"payload": "p", "priority": 2.0}),
            {"to_end": True},
        ),
    ],
)
async def test_claims_are_settled_and_renewed_by_the_queue(
    call: Call, name: str, arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    called = Called()
    await call(called.frontier)
    assert called.queue.calls == [(name, arguments, options)]


@pytest.mark.parametrize(
    ("call", "state"),
    [
        (lambda f: f.pause(), RunState.PAUSED),
        (lambda f: f.resume(), RunState.RUNNING),
        (lambda f: f.cancel(), RunState.CANCELLED),
    ],
)
async def test_state_of_the_run_is_set(call: Call, state: RunState) -> None:
    called = Called()
    await call(called.frontier)
    assert called.queue.calls == [("set_state", (state,), {})]


@pytest.mark.parametrize(
    ("call", "limit"),
    [
        (lambda f: f.set_host_delay("host", 2), {"delay": 2.0}),
        (lambda f: f.set_host_max_in_flight("host", 3), {"max_in_flight": 3}),
        (lambda f: f.set_host_max_in_flight("host", None), {"max_in_flight": None}),
        (lambda f: f.block_host("host", at(5)), {"blocked_until": at(5)}),
    ],
)
async def test_limit_of_a_host_is_set(call: Call, limit: dict[str, Any]) -> None:
    called = Called()
    await call(called.frontier)
    assert called.queue.calls == [("limiter.set", ("host", limit), {})]


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda f: f.add(A), "links"),
        (lambda f: f.add([A], depth=-1), "depth"),
        (lambda f: f.add([A], base_url="/x"), "base_url"),
        (lambda f: f.add([A], on_progress="log"), "on_progress"),
        (lambda f: f.get(7), "key"),
        (lambda f: f.claim(0), "limit"),
        (lambda f: f.claim(lease_seconds=4), "lease_seconds"),
        (lambda f: f.renew(CLAIM, 4), "lease_seconds"),
        (lambda f: f.complete(CLAIM, payload=7), "payload"),
        (lambda f: f.fail(CLAIM, "no", retry_in=-1), "retry_in"),
        (lambda f: f.fail(CLAIM, "no", payload=7), "payload"),
        (lambda f: f.fail([CLAIM], "no"), "claim"),
        (lambda f: f.put_back(CLAIM, payload=7), "payload"),
        (lambda f: f.put_back([CLAIM]), "claim"),
        (lambda f: f.set_host_delay("host", -1), "seconds"),
        (lambda f: f.set_host_max_in_flight("host", 0), "count"),
        (lambda f: f.block_host("host", 7), "until"),
    ],
)
async def test_argument_that_is_not_valid_is_refused_before_a_request(call: Call, argument: str) -> None:
    called = Called()
    with pytest.raises(InvalidArgumentError, match=rf"^{argument}: "):
        await call(called.frontier)
    assert called.queue.calls == []


@pytest.mark.parametrize(
    "call",
    [
        lambda f: f.renew(OTHER, 30.0),
        lambda f: f.complete([OTHER]),
        lambda f: f.fail(OTHER, "no"),
        lambda f: f.skip(OTHER, "why"),
        lambda f: f.release(OTHER),
        lambda f: f.put_back(OTHER),
    ],
)
async def test_claim_of_another_run_is_refused(call: Call) -> None:
    called = Called()
    with pytest.raises(InvalidArgumentError, match=r"^claims: must be claims of run 'run'"):
        await call(called.frontier)
    assert called.queue.calls == []


def test_frontier_names_its_run() -> None:
    frontier = Called().frontier
    assert (frontier.run_id, frontier.site_id) == ("run", "site")


def test_link_is_an_item_of_the_run() -> None:
    item = Called().frontier.link(A, depth=2, unique_key="key")
    assert (item.run_id, item.site_id, item.url, item.depth, item.unique_key) == ("run", "site", A, 2, "key")


def test_worker_has_the_settings_that_are_given() -> None:
    called = Called()
    worker = called.frontier.worker(
        concurrency=3, lease_seconds=30, worker_id="w", grace_seconds=None, outage_seconds=5
    )
    assert isinstance(worker, Worker)
    assert worker._settings == WorkerSettings(3, LeaseSettings(30.0, 2.0), "w", None, 5)
    assert (worker._queue, worker._clock) == (called.frontier, called.queue.run.clock)


def test_worker_has_defaults() -> None:
    worker = Called().frontier.worker()
    assert worker._settings == WorkerSettings(1, LeaseSettings(60.0, 2.0), None, 10.0, 900.0)


def test_keeper_renews_by_the_clock_of_the_run() -> None:
    called = Called()
    lost: list[str] = []
    keeper = called.frontier.keeper(lambda claim, why: lost.append(why), lease_seconds=30)
    assert isinstance(keeper, LeaseKeeper)
    assert keeper._lease == LeaseSettings(30.0, 2.0)
    assert (keeper._queue, keeper._clock) == (called.frontier, called.queue.run.clock)
    keeper._on_lost(CLAIM, "expired")
    assert lost == ["expired"]
    assert called.frontier.keeper(print)._lease == LeaseSettings(60.0, 2.0)
