"""The shares of processes. Those that are read from the table are in the tests of the scheduler."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragcrawl_dynamo._dynamodb.values import moment_text
from ragcrawl_dynamo._frontier.membership import Membership, assign
from ragcrawl_dynamo._schema.tables import Tables
from tests.support.factories import START
from tests.support.fakes import open_gateway
from tests.support.written import spelled

processes = st.lists(
    st.text("0123456789abcdef", min_size=12, max_size=12), min_size=1, max_size=9, unique=True
)


@given(processes, st.integers(1, 80))
def test_assign_gives_each_bucket_to_one_process_and_none_more_than_its_part(
    ids: list[str], buckets: int
) -> None:
    owners = assign(ids, buckets)
    assert list(owners) == list(range(buckets))
    counts = Counter(owners.values())
    assert counts.keys() <= set(ids)
    assert max(counts.values()) <= -(-buckets // len(ids))


@given(processes)
def test_assign_is_the_same_for_every_process(ids: list[str]) -> None:
    assert assign(sorted(ids), 64) == assign(sorted(ids, reverse=True), 64)


def test_assign_moves_few_buckets_when_a_process_comes() -> None:
    moved = []
    for trial in range(50):
        ids = [f"process-{trial}-{i}" for i in range(4)]
        before, after = assign(ids[:3], 64), assign(ids, 64)
        moved.append(sum(before[bucket] != after[bucket] for bucket in range(64)))
    # The new process gets 16 of them. Shares by number would move 48.
    assert sum(moved) / len(moved) < 28


class Members:
    """A table that holds the signs of life of processes."""

    def __init__(self, **seen_at: float) -> None:
        self.items = {
            name: {
                "run_id": {"S": "#run"},
                "item_id": {"S": f"member#{name}"},
                "seen_at": {"S": moment_text(START + timedelta(seconds=seconds))},
            }
            for name, seconds in seen_at.items()
        }
        self.reads = 0

    def answer(self, operation: str, request: dict[str, Any]) -> Any:
        if operation == "put_item":
            name = request["Item"]["item_id"]["S"].removeprefix("member#")
            self.items[name] = request["Item"]
        elif operation == "query":
            self.reads += 1
            return {"Items": [self.items[name] for name in sorted(self.items)]}
        elif operation == "delete_item":
            self.items.pop(request["Key"]["item_id"]["S"].removeprefix("member#"), None)
        else:
            assert operation == "batch_write_item"
            for write in next(iter(request["RequestItems"].values())):
                del self.items[write["DeleteRequest"]["Key"]["item_id"]["S"].removeprefix("member#")]
            return {"UnprocessedItems": {}}
        return {}


async def test_membership_shares_with_living_processes_and_removes_dead_ones() -> None:
    members = Members(alive=-30, dead=-31)
    async with open_gateway(members.answer) as (gateway, _):
        membership = Membership(gateway, Tables.of("test").frontier, "run", "site")
        assert (membership.count, membership.is_active) == (1, False)
        assert membership.share(8) == frozenset(range(8))
        assert await membership.refresh(START, 0.0)
        assert (membership.count, membership.is_active) == (2, True)
        assert members.items.keys() == {"alive", membership.me}
        assert len(membership.share(8)) == 4
        # Once the other one is gone, everything is in the share of this process again.
        del members.items["alive"]
        assert await membership.refresh(START, 0.25)
        assert membership.share(8) == frozenset(range(8))


async def test_membership_is_read_again_at_once_after_a_change_and_then_less_and_less_often() -> None:
    members = Members()
    async with open_gateway(members.answer) as (gateway, _):
        membership = Membership(gateway, Tables.of("test").frontier, "run", "site")
        read_at = []
        for tick in range(60 * 4):
            reads = members.reads
            await membership.refresh(START, tick / 4)
            if members.reads > reads:
                read_at.append(tick / 4)
        assert read_at == [0, 0.25, 0.75, 1.75, 3.75, 7.75, 15.75, 25.75, 35.75, 45.75, 55.75]
        members.items["new"] = Members(new=0).items["new"]
        assert not await membership.refresh(START, 65.5)
        assert await membership.refresh(START, 65.75)
        assert not await membership.refresh(START, 65.75)
        reads = members.reads
        await membership.refresh(START, 66.0)
        assert members.reads == reads + 1


async def test_membership_that_has_left_is_not_active() -> None:
    members = Members()
    async with open_gateway(members.answer) as (gateway, client):
        membership = Membership(gateway, Tables.of("test").frontier, "run", "site")
        await membership.leave()
        assert client.requests == []
        await membership.refresh(START, 0.0)
        await membership.leave()
        assert (members.items, membership.is_active) == ({}, False)


@pytest.mark.parametrize("count", [1, 2, 5])
async def test_membership_distances_of_one_item_differ_in_each_process(count: int) -> None:
    members = Members()
    async with open_gateway(members.answer) as (gateway, _):
        table = Tables.of("test").frontier
        processes = [Membership(gateway, table, "run", "site") for _ in range(count)]
        for seconds in (0.0, 1.0):
            for process in processes:
                await process.refresh(START, seconds)
        for item in ("a", "b", "c", "\ud800"):
            distances = [process.distance(item) for process in processes]
            assert sorted(distances) == list(range(1, count + 1))
            assert [process.owns_part(item) for process in processes] == [
                distance == 1 for distance in distances
            ]


async def test_membership_reads_the_members_of_the_run_after_its_sign_of_life() -> None:
    members = Members()
    async with open_gateway(members.answer) as (gateway, client):
        membership = Membership(gateway, Tables.of("").frontier, "run", "site")
        await membership.refresh(START, 0.0)
    (_, put), (_, query) = client.requests
    assert put["Item"]["site_id"] == {"S": "site"}
    members_of_run = "(run_id = #run#members) AND (begins_with(item_id, member#))"
    assert spelled(query, "KeyConditionExpression") == members_of_run


async def test_membership_of_many_processes_is_read_less_often() -> None:
    members = Members(**{f"p{i}": 0 for i in range(199)})
    async with open_gateway(members.answer) as (gateway, _):
        membership = Membership(gateway, Tables.of("").frontier, "run", "site")
        assert await membership.refresh(START, 0.0)
        # Four times as long as one of up to 100 processes.
        await membership.refresh(START, 0.9)
        assert members.reads == 1
        await membership.refresh(START, 1.0)
        assert members.reads == 2


async def test_membership_has_this_process_even_if_its_sign_of_life_was_removed() -> None:
    members = Members(other=0)

    def answer(operation: str, request: dict[str, Any]) -> Any:
        # A process with a wrong clock removes it at once.
        return members.answer(operation, request) if operation != "put_item" else {}

    async with open_gateway(answer) as (gateway, _):
        membership = Membership(gateway, Tables.of("").frontier, "run", "site")
        assert await membership.refresh(START, 0.0)
        assert membership.count == 2
        assert membership.distance("item") in (1, 2)
