"""How the queue of a host is read: by pages of the index, on a client that answers from a script."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from ragcrawl_dynamo import FrontierStatus, ThrottledError
from ragcrawl_dynamo._dynamodb.codec import to_item
from ragcrawl_dynamo._frontier.candidates import Candidate
from ragcrawl_dynamo._frontier.queue_index import Look, QueueIndex
from ragcrawl_dynamo._schema.queue_order import due_bound
from ragcrawl_dynamo._schema.tables import FRONTIER
from tests.support.factories import make_item
from tests.support.fakes import FakeClient, client_error, open_gateway, scripted
from tests.support.hosts import HOST, at, candidate, leased
from tests.support.written import MemoryTable, spelled

LAST_KEY = {"run_id": {"S": "x"}, "item_id": {"S": "last"}}


def page(candidates: Sequence[Candidate], *, is_last: bool = True) -> dict[str, Any]:
    """Returns an answer of the index."""
    items = [{"item_id": {"S": item.item_id}, "queue_order": {"S": item.order}} for item in candidates]
    return {"Items": items} if is_last else {"Items": items, "LastEvaluatedKey": LAST_KEY}


LEASE = {"status": FrontierStatus.IN_PROGRESS, "lease_token": "token", "lease_expires_at": at(9)}


async def look(
    *answers: Any, wanted: int = 2, known: Iterable[str] = ()
) -> tuple[Look, list[dict[str, Any]]]:
    async with open_gateway(scripted(*answers)) as (gateway, client):
        seen = await QueueIndex(gateway, FRONTIER, "run").look(HOST, 3, wanted, set(known), at(60))
    return seen, [request for _, request in client.requests]


READY = [candidate(name, age=10 - i) for i, name in enumerate("abcdef")]
DELAYED = [candidate(name, ready_at=at(i)) for i, name in enumerate("xyz")]


async def test_look_reads_as_many_items_of_the_shard_as_are_wanted() -> None:
    seen, (request,) = await look(page(READY[:1]))
    assert seen == Look(READY[:1], [], is_all=True)
    assert spelled(request, "KeyConditionExpression") == f"(queue = run#{HOST}#3)"
    assert (request["IndexName"], request["Limit"]) == ("by_queue", 2)
    assert "ExclusiveStartKey" not in request


async def test_look_reads_on_in_the_place_of_items_that_are_known() -> None:
    seen, requests = await look(
        page(READY[:2], is_last=False), page(READY[2:3]), wanted=2, known=["b", "elsewhere"]
    )
    assert seen == Look(READY[:3], [], is_all=True)
    assert [request["Limit"] for request in requests] == [2, 1]
    assert [request.get("ExclusiveStartKey") for request in requests] == [None, LAST_KEY]


async def test_look_at_a_long_queue_reads_delayed_items_that_are_due() -> None:
    seen, requests = await look(page(READY[:2], is_last=False), page(DELAYED[:1], is_last=False))
    assert seen == Look(READY[:2], DELAYED[:1], is_all=False)
    assert requests[1]["Limit"] == 25
    is_due = f"(queue = run#{HOST}#3) AND (queue_order BETWEEN 1 AND {due_bound(at(60))})"
    assert spelled(requests[1], "KeyConditionExpression") == is_due
    assert "ExclusiveStartKey" not in requests[1]


async def test_look_that_has_come_to_delayed_items_has_seen_those_that_are_due() -> None:
    first = [*READY[:2], DELAYED[0]]
    seen, requests = await look(page(first, is_last=False), wanted=3)
    assert seen == Look(first, [], is_all=False)
    assert len(requests) == 1


async def test_look_that_ends_with_the_shard_knows_it_all() -> None:
    seen, requests = await look(page(READY[:2]))
    assert seen == Look(READY[:2], [], is_all=True)
    assert len(requests) == 1


@pytest.mark.parametrize("answered", [[], [page(READY[:2], is_last=False)]])
async def test_throttled_look_is_not_tried_again(answered: list[Any]) -> None:
    busy = client_error("ProvisionedThroughputExceededException")
    with pytest.raises(ThrottledError):
        await look(*answered, busy, page([]))


async def test_first_item_of_a_shard_is_read_alone_and_again_if_throttled() -> None:
    busy = client_error("ProvisionedThroughputExceededException")
    async with open_gateway(scripted(busy, page(READY[:1]), page([]))) as (gateway, client):
        index = QueueIndex(gateway, FRONTIER, "run")
        assert await index.first_id(HOST, 1) == "a"
        assert await index.first_id(HOST, 1) is None
    assert [request["Limit"] for _, request in client.requests] == [1, 1, 1]
    assert f"run#{HOST}#1" in spelled(client.requests[0][1], "KeyConditionExpression")


async def test_ids_are_unescaped() -> None:
    escaped = {"item_id": {"S": "a~1b"}, "queue_order": {"S": READY[0].order}}
    seen, _ = await look({"Items": [escaped]})
    assert [item.item_id for item in seen.candidates] == ["a#b"]


async def read_known(
    *items: dict[str, Any], candidates: Sequence[Candidate]
) -> tuple[dict[str, Any], FakeClient]:
    memory = MemoryTable(*items)
    async with open_gateway(memory.answer) as (gateway, client):
        return await QueueIndex(gateway, FRONTIER, "run").read_known(candidates), client


def stored(item: Candidate, **fields: Any) -> dict[str, Any]:
    """Returns the item of a candidate as it is stored."""
    record = make_item(item.item_id, domain=HOST, **fields)
    return dict(to_item(FRONTIER, record, {"queue": {"S": "q"}, "queue_order": {"S": item.order}}))


async def test_known_items_are_read_with_their_leases() -> None:
    moved = candidate("c", ready_at=at(5))
    items, client = await read_known(
        stored(READY[0]),
        stored(READY[1], **LEASE),
        stored(moved),
        candidates=READY[:4],
    )
    assert items == {
        "a": (READY[0], None),
        "b": (leased(READY[1]), at(9)),
        "c": (moved, None),
        "d": None,
    }
    ((_, request),) = client.requests
    (wanted,) = request["RequestItems"].values()
    names = {"run_id", "item_id", "status", "queue_order", "lease_token", "lease_expires_at"}
    assert set(wanted["ExpressionAttributeNames"].values()) == names


async def test_item_that_has_left_the_queue_is_known_as_such() -> None:
    final = stored(READY[0], status=FrontierStatus.COMPLETED)
    del final["queue"], final["queue_order"]
    items, _ = await read_known(final, stored(READY[1]), candidates=READY[:2])
    assert items == {"a": None, "b": (READY[1], None)}


async def test_released_item_has_no_lease_whatever_is_left_of_it() -> None:
    left = stored(READY[0], **{**LEASE, "status": FrontierStatus.PENDING})
    without_end = stored(READY[1], **{**LEASE, "lease_expires_at": None})
    items, _ = await read_known(left, without_end, candidates=READY[:2])
    assert items == {"a": (READY[0], None), "b": (READY[1], None)}
