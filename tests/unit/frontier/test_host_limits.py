"""How the limits of hosts are set, with a run of fakes."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ragcrawl_dynamo._frontier.host_limits import HostLimiter
from ragcrawl_dynamo._frontier.host_store import Updated
from ragcrawl_dynamo._frontier.host_updates import BlockHost, HostUpdate, SetLimits
from ragcrawl_dynamo._frontier.link_rules import LinkRules
from ragcrawl_dynamo.errors import InvalidKeyError
from tests.support.fake_run import FakeHosts, FakeRun
from tests.support.hosts import HOST, at, known, record


class Hosts(FakeHosts):
    """Hosts that note in which order they are called, in a list of calls."""

    def __init__(self, calls: list[str]) -> None:
        super().__init__(4)
        self.calls = calls

    async def ensure(self, host: str) -> None:
        self.calls.append(f"ensure {host}")

    async def update(self, updates: Mapping[str, HostUpdate]) -> list[Updated]:
        self.calls.append("update")
        await super().update(updates)
        return [Updated(None, record(host, delay=9.0)) for host in updates]


class Limiting(FakeRun):
    """A run that notes in which order its parts are called."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.rules = LinkRules()
        self.fake_hosts = Hosts(self.calls)
        self.hosts = cast("Any", self.fake_hosts)
        control = SimpleNamespace(check_rules=self._check, note_new_limits=self._note_new_limits)
        self.control = cast("Any", control)
        self.control_reads = cast("Any", SimpleNamespace(forget=lambda: self.calls.append("forget control")))
        self.limiter = HostLimiter(self)
        self.view.changed.clear()

    async def _check(self) -> None:
        self.calls.append("check rules")

    async def _note_new_limits(self) -> None:
        self.calls.append("note new limits")


async def test_limits_are_stored_before_other_processes_read_them_again() -> None:
    run = Limiting()
    host = run.view.bench.hosts[HOST] = known()
    await run.limiter.set("HTTP://A.example:80/path", {"delay": 2.0})
    assert run.calls == [
        "check rules",
        f"ensure {HOST}",
        "update",
        "note new limits",
        "forget control",
    ]
    assert run.fake_hosts.updates == [{HOST: SetLimits({"delay": 2.0})}]
    # Claims that wait try again, by the new limits.
    assert run.view.changed.is_set()
    assert host.record is not None
    assert host.record.delay == 9.0


async def test_host_that_is_too_long_is_refused_before_anything_is_read() -> None:
    run = Limiting()
    run.rules = LinkRules(politeness_key=str.upper)
    with pytest.raises(InvalidKeyError):
        await run.limiter.set("x" * 600, {"delay": 2.0})
    assert run.calls == []


async def test_blocked_host_is_blocked_from_now_on() -> None:
    run = Limiting()
    await run.limiter.block(HOST, 30.0)
    assert run.fake_hosts.updates == [{HOST: BlockHost(at(30))}]
    assert run.calls == ["update", "note new limits", "forget control"]
    assert run.view.changed.is_set()


@pytest.mark.parametrize(("until", "is_blocked"), [(30.0, True), (29.1, True), (29.0, False), (None, False)])
async def test_host_that_is_blocked_as_long_already_is_not_blocked_again(
    until: float | None, *, is_blocked: bool
) -> None:
    run = Limiting()
    blocked_until = None if until is None else at(until)
    run.view.bench.hosts[HOST] = known(record=record(blocked_until=blocked_until))
    await run.limiter.block(HOST, 30.0)
    assert (run.fake_hosts.updates == []) is is_blocked


async def test_host_whose_record_is_not_known_is_blocked() -> None:
    run = Limiting()
    run.view.bench.hosts[HOST] = known()
    await run.limiter.block(HOST, 30.0)
    assert run.fake_hosts.updates == [{HOST: BlockHost(at(30))}]
