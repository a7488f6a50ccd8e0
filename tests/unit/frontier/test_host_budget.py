"""How parts of the budgets of hosts are reserved and given back; with budgets in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ragcrawl_dynamo import ThrottledError
from ragcrawl_dynamo._dynamodb.outcomes import Failed
from ragcrawl_dynamo._dynamodb.values import Item
from ragcrawl_dynamo._frontier import host_budget as module
from ragcrawl_dynamo._frontier.host_budget import HostBudget
from ragcrawl_dynamo._schema.keys import budget_key
from ragcrawl_dynamo._schema.tables import Tables
from ragcrawl_dynamo.testing import ManualClock
from tests.support.factories import START
from tests.support.fakes import open_gateway
from tests.support.written import MemoryTable, key_of

BUSY = Failed(ThrottledError("busy", code="Busy", operation="UpdateItem", table=None), may_be_applied=False)


@dataclass
class Budgets:
    """A budget, and what it works on."""

    budget: HostBudget
    memory: MemoryTable
    clock: ManualClock

    def admitted(self) -> dict[str, int]:
        """Returns how many links of each host are admitted."""
        return {
            name.removeprefix("budget#"): int(item["admitted"]["N"])
            for (_, name), item in self.memory.items.items()
        }


def stored(host: str, admitted: int) -> Item:
    return {**budget_key("run", host, 0), "admitted": {"N": str(admitted)}, "made_by": {"S": "other"}}


@asynccontextmanager
async def opened(*items: Item) -> AsyncIterator[Budgets]:
    memory, clock = MemoryTable(*items), ManualClock(START)
    run = SimpleNamespace(
        run_id="run",
        site_id="site",
        clock=clock,
        items=memory,
        hosts=SimpleNamespace(bucket_of=lambda host: 0),
    )
    async with open_gateway(memory.answer) as (gateway, _):
        services = SimpleNamespace(gateway=gateway, tables=Tables.of(""))
        yield Budgets(HostBudget(cast("Any", services), cast("Any", run)), memory, clock)


async def test_first_part_of_a_budget_is_stored() -> None:
    async with opened() as budgets:
        assert await budgets.budget.reserve({"a": 2, "b": 1}, 5) == {"a": 2, "b": 1}
        assert budgets.admitted() == {"a": 2, "b": 1}
        item = budgets.memory.items[key_of(budget_key("run", "a", 0))]
    assert item["site_id"] == {"S": "site"}
    assert budgets.memory.writes[0].token.is_in(item)
    assert set(item) == {"run_id", "item_id", "site_id", "admitted", "made_by"}
    assert len(budgets.memory.rounds) == 1


async def test_further_parts_are_reserved_up_to_the_limit() -> None:
    async with opened(stored("a", 2)) as budgets:
        # It does not know yet that the budget is stored: the insert is refused, and then it reads.
        assert await budgets.budget.reserve({"a": 1}, 5) == {"a": 1}
        assert budgets.memory.reads == ["budget#a"]
        assert await budgets.budget.reserve({"a": 2}, 5) == {"a": 2}
        assert budgets.admitted() == {"a": 5}
        assert budgets.memory.items[key_of(budget_key("run", "a", 0))].keys() == stored("a", 5).keys()
        # Nothing is read as long as nothing is refused.
        assert budgets.memory.reads == ["budget#a"]


async def test_only_what_is_left_of_a_budget_is_reserved() -> None:
    async with opened(stored("a", 3)) as budgets:
        assert await budgets.budget.reserve({"a": 4}, 5) == {"a": 2}
        assert budgets.admitted() == {"a": 5}


@pytest.mark.parametrize("wanted", [5, 6])
async def test_more_than_the_whole_budget_is_never_reserved(wanted: int) -> None:
    async with opened() as budgets:
        assert await budgets.budget.reserve({"a": wanted}, 5) == {"a": 5}
        assert budgets.admitted() == {"a": 5}


async def test_used_up_budget_is_not_asked_for_ten_seconds() -> None:
    async with opened(stored("a", 5)) as budgets:
        assert await budgets.budget.reserve({"a": 1, "b": 1}, 5) == {"a": 0, "b": 1}
        before = len(budgets.memory.writes)
        budgets.clock.advance(9.9)
        assert await budgets.budget.reserve({"a": 1}, 5) == {"a": 0}
        assert len(budgets.memory.writes) == before
        # Another process has given a part back meanwhile.
        budgets.memory.items[key_of(budget_key("run", "a", 0))] = stored("a", 4)
        budgets.clock.advance(0.1)
        assert await budgets.budget.reserve({"a": 1}, 5) == {"a": 1}


async def test_budget_that_was_deleted_with_the_run_is_stored_again() -> None:
    async with opened() as budgets:
        await budgets.budget.reserve({"a": 4}, 5)
        budgets.memory.items.clear()
        assert await budgets.budget.reserve({"a": 4}, 5) == {"a": 4}
        assert budgets.admitted() == {"a": 4}


async def test_cleared_budget_knows_nothing_of_before() -> None:
    async with opened(stored("a", 5)) as budgets:
        await budgets.budget.reserve({"a": 1}, 5)
        budgets.memory.items.clear()
        budgets.budget.clear()
        budgets.memory.reads.clear()
        assert await budgets.budget.reserve({"a": 5}, 5) == {"a": 5}
        assert budgets.memory.reads == []


async def test_hosts_are_remembered_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_HOSTS_REMEMBERED", 2)
    async with opened() as budgets:
        await budgets.budget.reserve({"a": 1, "b": 1}, 5)
        await budgets.budget.reserve({"a": 1, "c": 1}, 5)
        assert budgets.memory.reads == []
        # It does not know any more that the budget is stored.
        await budgets.budget.reserve({"a": 1}, 5)
        assert budgets.memory.reads == ["budget#a"]


async def test_unused_parts_are_given_back_and_the_budget_is_asked_again() -> None:
    async with opened(stored("a", 5)) as budgets:
        await budgets.budget.reserve({"a": 1, "b": 3}, 5)
        rounds = len(budgets.memory.rounds)
        await budgets.budget.give_back({"a": 2, "b": 0})
        assert budgets.admitted() == {"a": 3, "b": 3}
        assert len(budgets.memory.rounds) == rounds + 1
        assert await budgets.budget.reserve({"a": 2}, 5) == {"a": 2}


async def test_nothing_is_written_if_nothing_is_given_back() -> None:
    async with opened(stored("a", 5)) as budgets:
        await budgets.budget.give_back({"a": 0})
        await budgets.budget.give_back({})
    assert budgets.memory.rounds == []


async def test_parts_that_cannot_be_given_back_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with opened(stored("a", 5), stored("b", 5)) as budgets:
        await budgets.budget.give_back({"a": 1, "b": 1})
        assert caplog.text == ""
        budgets.memory.failed["budget#a"] = BUSY
        await budgets.budget.give_back({"a": 1, "b": 1})
        assert "some of 2 hosts get fewer links" in caplog.text
        caplog.clear()
        budgets.memory.before_write = raise_busy
        await budgets.budget.give_back({"a": 1})
        assert "some of 1 hosts get fewer links" in caplog.text


def raise_busy() -> None:
    raise BUSY.error


async def test_failed_reservation_gives_back_the_parts_of_other_hosts() -> None:
    async with opened(stored("c", 1)) as budgets:
        budgets.memory.failed["budget#b"] = BUSY
        with pytest.raises(ThrottledError, match="busy"):
            await budgets.budget.reserve({"a": 2, "b": 2, "c": 2}, 5)
        assert budgets.admitted() == {"a": 0, "c": 1}
        # Those that are stored are known as such.
        budgets.memory.failed.clear()
        budgets.memory.reads.clear()
        assert await budgets.budget.reserve({"a": 1, "c": 1}, 5) == {"a": 1, "c": 1}
        assert budgets.memory.reads == []


async def test_reservation_gives_up_after_twenty_attempts_and_keeps_nothing() -> None:
    async with opened() as budgets:

        def store(admitted: int) -> None:
            budgets.memory.items[key_of(budget_key("run", "a", 0))] = stored("a", admitted)

        # Other processes give parts back and reserve them.
        budgets.memory.before_read = lambda: store(4)
        budgets.memory.before_write = lambda: store(5)
        with pytest.raises(ThrottledError, match="1 hosts at each of 20 attempts") as raised:
            await budgets.budget.reserve({"a": 1, "b": 2}, 5)
        assert budgets.admitted()["b"] == 0
    error = raised.value
    assert (error.code, error.operation, error.table) == ("Contention", "UpdateItem", "frontier")
    # One write for each attempt, and one that gives the other host's part back.
    assert budgets.memory.counts() == {"budget#a": 20, "budget#b": 2}
