"""Which frontiers a process has open, and with which limits and rules it opens them; without requests."""

from __future__ import annotations

from typing import Any

import pytest

from ragcrawl_dynamo import Claim, DynamoDBConfig, InvalidArgumentError, InvalidInputError, normalize_url
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._frontier.arguments import HostLimits
from ragcrawl_dynamo._frontier.frontiers import Frontiers
from ragcrawl_dynamo._frontier.link_rules import LinkRules
from ragcrawl_dynamo._frontier.run_queue import RunQueue
from ragcrawl_dynamo._schema.records import RunControl
from ragcrawl_dynamo._schema.tables import Tables
from ragcrawl_dynamo.testing import ManualClock
from tests.support.fakes import FakeClient, scripted

LIMITS = HostLimits(2.0, 3, 4)


def by_query(url: str) -> str:
    return normalize_url(url, sort_query=False)


def by_fragment(url: str) -> str:
    return normalize_url(url, keep_fragment=True)


RULES = LinkRules(by_query)


class Opened:
    """The frontiers of a process, which notes the runs whose queues it closes or clears."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        config = DynamoDBConfig(frontier_buckets=7)
        gateway = Gateway(config, FakeClient(scripted()).factory)
        self.lost: list[Claim] = []
        self.clock = ManualClock()
        self.frontiers = Frontiers(gateway, Tables.of("t_"), self.clock, self.lost.append)
        self.closed: list[str] = []
        self.cleared: list[tuple[str, str]] = []
        self.errors: dict[str, Exception] = {}
        opened = self

        async def close(queue: RunQueue) -> None:
            opened.closed.append(queue.run.run_id)
            if queue.run.run_id in opened.errors:
                raise opened.errors[queue.run.run_id]

        monkeypatch.setattr(RunQueue, "close", close)
        monkeypatch.setattr(
            RunQueue, "clear", lambda queue: opened.cleared.append((queue.run.site_id, queue.run.run_id))
        )

    def get(
        self,
        site_id: Any = "site",
        run_id: Any = "run",
        limits: HostLimits = HostLimits(),  # noqa: B008 # it is frozen
        rules: LinkRules = LinkRules(),  # noqa: B008 # it is frozen
    ) -> Any:
        return self.frontiers.get(site_id, run_id, limits, rules)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    return Opened(monkeypatch)


def test_frontier_of_a_run_is_opened_once(opened: Opened) -> None:
    frontier = opened.get()
    assert opened.get() is frontier
    assert opened.get(run_id="other") is not frontier
    assert opened.get(site_id="other") is not frontier
    assert (frontier.site_id, frontier.run_id) == ("site", "run")


def test_parts_of_this_package_use_the_queue_of_the_frontier(opened: Opened) -> None:
    frontier = opened.get(limits=LIMITS, rules=RULES)
    assert opened.frontiers.queue("site", "run") is frontier._queue


def test_first_control_of_a_run_has_its_limits_and_rules(opened: Opened) -> None:
    opened.get(limits=LIMITS, rules=RULES)
    run = opened.frontiers.queue("site", "run").run
    assert run.first_control == RunControl(
        run="run",
        site_id="site",
        host_delay=2.0,
        host_max_in_flight=3,
        host_max_items=4,
        buckets=7,
        normalize=f"{__name__}:by_query",
        politeness_key="host",
    )
    assert run.rules is RULES
    assert run.clock is opened.clock
    assert run.on_lease_lost == opened.lost.append


@pytest.mark.parametrize(
    ("site_id", "run_id", "field"),
    [
        (7, "run", "site_id"),
        ("site", None, "run_id"),
        ("", "run", "site_id"),
        ("site", "x" * 3000, "run_id"),
    ],
)
def test_id_that_is_not_valid_opens_nothing(opened: Opened, site_id: Any, run_id: Any, field: str) -> None:
    for _ in range(2):
        with pytest.raises(InvalidInputError) as caught:
            opened.get(site_id, run_id)
        assert caught.value.field == field
    assert opened.frontiers._open == {}


def test_frontier_that_is_open_is_returned_for_the_same_limits_and_rules_or_none(
    opened: Opened,
) -> None:
    frontier = opened.get(limits=LIMITS, rules=RULES)
    assert opened.get(limits=LIMITS, rules=RULES) is frontier
    assert opened.get(limits=LIMITS) is frontier
    assert opened.get(rules=RULES) is frontier


@pytest.mark.parametrize("limits", [HostLimits(1.0, 3, 4), HostLimits(2.0, 2, 4), HostLimits(2.0, 3, 5)])
def test_frontier_that_is_open_with_other_limits_is_refused(opened: Opened, limits: HostLimits) -> None:
    opened.get(limits=LIMITS)
    with pytest.raises(InvalidArgumentError) as caught:
        opened.get(limits=limits)
    assert caught.value.field == "host_delay"
    assert "run 'run' with other limits (host_delay 2.0, host_max_in_flight 3, host_max_items 4)" in str(
        caught.value
    )


def test_frontier_that_is_open_with_other_rules_is_refused(opened: Opened) -> None:
    opened.get(rules=RULES)
    with pytest.raises(InvalidArgumentError, match=r"^normalize: this process has opened the frontier"):
        opened.get(rules=LinkRules(by_fragment))


def test_clear_forgets_a_run_of_any_site(opened: Opened) -> None:
    for site_id, run_id in (("site", "run"), ("other", "run"), ("site", "other")):
        opened.get(site_id, run_id)
    opened.frontiers.clear("run")
    assert opened.cleared == [("site", "run"), ("other", "run")]


async def test_closed_run_can_be_opened_again(opened: Opened) -> None:
    frontier, other = opened.get(), opened.get(run_id="other")
    await opened.frontiers.close_run("site", "run")
    await opened.frontiers.close_run("site", "run")
    assert opened.closed == ["run"]
    assert opened.get() is not frontier
    assert opened.get(run_id="other") is other


async def test_close_closes_all_runs_even_if_one_fails(opened: Opened) -> None:
    for run_id in ("a", "b", "c"):
        opened.get(run_id=run_id)
    opened.errors["b"] = ValueError("a bug")
    with pytest.raises(ValueError, match="a bug"):
        await opened.frontiers.close()
    assert sorted(opened.closed) == ["a", "b", "c"]
    await opened.frontiers.close()
    assert len(opened.closed) == 3
