"""How the limits of hosts are set, with a run of fakes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from ragcrawl_dynamo._frontier.host_limits import HostLimiter
from ragcrawl_dynamo._frontier.host_updates import BlockHost, SetLimits
from ragcrawl_dynamo._frontier.link_rules import LinkRules
from ragcrawl_dynamo.errors import InvalidKeyError
from tests.support.fake_run import FakeRun
from tests.support.hosts import HOST, at, known, record


class Limiting(FakeRun):
    """A run that notes in which order its parts are called."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.rules = LinkRules()
        self.control = cast(
            "Any",
            SimpleNamespace(
                check_rules=self._noting("check rules"), note_new_limits=self._noting("note new limits")
            ),
        )
        self.control_reads = cast("Any", SimpleNamespace(forget=lambda: self.calls.append("forget control")))
        self.hosts.ensure = self._noting("ensure")
        self.update = self.fake_hosts.update
        self.hosts.update = self._update
        self.limiter = HostLimiter(self)
        self.view.changed.clear()

    def _noting(self, call: str) -> Any:
        async def note(*arguments: object) -> None:
            self.calls.append(" ".join([call, *map(str, arguments)]))

        return note

    async def _update(self, updates: Any) -> Any:
        self.calls.append("update")
        return await self.update(updates)


async def test_limits_are_stored_before_other_processes_read_them_again() -> None:
    run = Limiting()
    await run.limiter.set("HTTP://A.example:80/path", {"delay": 2.0})
    assert run.calls == [
        "check rules",
        f"ensure {HOST}",
        "update",
        "note new limits",
        "forget control",
    ]
    assert run.fake_hosts.updates == [{HOST: SetLimits({"delay": 2.0})}]
    # Claims that wait try again.
    assert run.view.changed.is_set()


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
