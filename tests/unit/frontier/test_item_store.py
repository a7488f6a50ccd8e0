"""Conditional writes of queue items: which items they refuse, and how they change others."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from ragcrawl_dynamo import DynamoDBConfig, FrontierItem, FrontierStatus
from ragcrawl_dynamo._dynamodb.codec import to_item
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.outcomes import Applied, Refused
from ragcrawl_dynamo._dynamodb.values import Item
from ragcrawl_dynamo._frontier.candidates import Candidate
from ragcrawl_dynamo._frontier.item_store import (
    ItemStore,
    Lease,
    candidate_of,
    payload_of,
    rank_of,
    state_of,
    work_of,
)
from ragcrawl_dynamo._frontier.work import Work
from ragcrawl_dynamo._schema.keys import frontier_key, items_partitions
from ragcrawl_dynamo._schema.queue_order import queue_order, rank
from ragcrawl_dynamo._schema.records import RunControl
from ragcrawl_dynamo._schema.tables import CONTROLS, FRONTIER
from ragcrawl_dynamo.errors import InvalidValueError
from tests.support.factories import START, make_item
from tests.support.fakes import FAST, open_gateway
from tests.support.hosts import at
from tests.support.written import MemoryTable, applied, key_of, spelled

IN_PROGRESS, PENDING, FAILED = FrontierStatus.IN_PROGRESS, FrontierStatus.PENDING, FrontierStatus.FAILED

# No lease of an item in these tests ends later than the skew after this.
ENDS = at(100)
LEASE = Lease("mine", "worker", at(10), at(70), at(72), 70.0)


class Store(ItemStore):
    """A store whose writes go to a table in memory; its gateway sends nothing by default."""

    def __init__(self, gateway: Any = None, config: DynamoDBConfig = FAST) -> None:
        self.memory = MemoryTable()
        super().__init__(gateway or Gateway(config), FRONTIER, self.memory, "run")


SKEW = timedelta(seconds=FAST.frontier_max_clock_skew)


def stored(store: ItemStore, item: FrontierItem, **more: Any) -> Item:
    """Returns an item of the queue as it is stored."""
    return {**store.encode(item, 1).item, **more}


def queued(**fields: Any) -> FrontierItem:
    return make_item(**{"priority": 2.0, "discovered_at": START, **fields})


def leased(**fields: Any) -> FrontierItem:
    return queued(
        **{
            "status": IN_PROGRESS,
            "lease_token": "mine",
            "lease_owner": "worker",
            "lease_expires_at": ENDS,
            "started_at": START,
            "attempt": 1,
            **fields,
        }
    )


def seen(item: FrontierItem, *, expired: str | None = None) -> Candidate:
    return replace(candidate_of(item, item.scheduled_at), expired_token=expired)


def changed(store: ItemStore, before: FrontierItem, after: Item) -> dict[str, Any]:
    """Returns the fields of an item that a write has changed."""
    old, new = before.model_dump(), store.decode(after).model_dump()
    return {name: new[name] for name in new if new[name] != old[name]}


# The queue


@pytest.mark.parametrize("shards", [1, 8])
def test_added_items_are_spread_over_the_shards_of_their_hosts_queue(shards: int) -> None:
    queues = {Store().encode(queued(item_id=f"item{i}"), shards).item["queue"]["S"] for i in range(100)}
    assert queues == {f"run#example.com#{shard}" for shard in range(shards)}


def test_added_item_is_stored_with_its_place_in_the_priority_order() -> None:
    store, item = Store(), queued()
    write = store.encode(item, 1)
    assert write.item["queue_order"] == {"S": queue_order(rank(2.0, START))}
    assert key_of(write.item) == key_of(frontier_key("run", "item"))
    assert write.token.path == "added_by"
    assert write.token.is_in(write.item)
    assert store.decode(write.item) == item


def test_delayed_item_sorts_by_the_end_of_its_delay() -> None:
    write = Store().encode(queued(scheduled_at=at(5)), 1)
    assert write.item["queue_order"] == {"S": queue_order(rank(2.0, START), at(5))}


def test_candidate_of_an_item_is_what_the_index_shows() -> None:
    item = queued(scheduled_at=at(5))
    candidate = candidate_of(item, None)
    assert (candidate.item_id, candidate.host, candidate.moment) == ("item", "example.com", None)
    assert candidate.order == queue_order(rank_of(item))
    assert candidate_of(item, at(5)).order == stored(Store(), item)["queue_order"]["S"]


# Claims


def test_claim_of_a_ready_item_leases_it() -> None:
    store, item = Store(), queued(attempt=2, retry_count=1)
    after = applied(store.claim(seen(item), LEASE, 5), stored(store, item))
    assert after is not None
    assert changed(store, item, after) == {
        "status": IN_PROGRESS,
        "lease_token": "mine",
        "lease_owner": "worker",
        "lease_expires_at": at(70),
        "started_at": at(10),
        "attempt": 3,
    }
    # A lease does not move the item.
    before = stored(store, item)
    assert [after[name] for name in ("queue", "queue_order")] == [before["queue"], before["queue_order"]]


def test_claim_is_recognized_by_the_token_of_its_lease() -> None:
    write = Store().claim(seen(queued()), LEASE, 5)
    assert write.token.is_in(write.update.put)  # type: ignore[arg-type] # its paths are names
    assert (key_of(write.key), write.token.value) == (key_of(frontier_key("run", "item")), {"S": "mine"})


def test_claim_is_refused_if_the_item_has_moved() -> None:
    store, item = Store(), queued()
    moved = stored(store, item.model_copy(update={"scheduled_at": at(5)}))
    assert applied(store.claim(seen(item), LEASE, 5), moved) is None


@pytest.mark.parametrize("status", [status for status in FrontierStatus if status is not PENDING])
def test_claim_of_a_ready_item_is_refused_in_any_other_state(status: FrontierStatus) -> None:
    store, item = Store(), queued()
    other = stored(store, item.model_copy(update={"status": status}))
    assert applied(store.claim(seen(item), LEASE, 5), other) is None


def expired(**fields: Any) -> FrontierItem:
    """An item whose lease has ended just as long ago that others may claim it."""
    return leased(**{"lease_token": "theirs", "lease_expires_at": LEASE.begins_at - SKEW, **fields})


def test_claim_of_an_expired_lease_counts_a_failed_attempt() -> None:
    store, item = Store(), expired(retry_count=3, attempt=4)
    after = applied(store.claim(seen(item, expired="theirs"), LEASE, 5), stored(store, item))
    assert after is not None
    assert changed(store, item, after) == {
        "lease_token": "mine",
        "lease_expires_at": at(70),
        "started_at": at(10),
        "attempt": 5,
        "retry_count": 4,
        "last_error": "the lease expired: its worker died, hung or lost the connection",
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"lease_token": "of another worker"},
        {"lease_expires_at": LEASE.begins_at - SKEW + timedelta(microseconds=1)},
        {"status": PENDING},
        {"status": FrontierStatus.COMPLETED},
        {"scheduled_at": at(5)},
        # Its last attempt is over.
        {"retry_count": 4},
    ],
)
def test_claim_of_an_expired_lease_is_refused_if_it_may_run_or_was_the_last(fields: dict[str, Any]) -> None:
    store = Store()
    write = store.claim(seen(expired(), expired="theirs"), LEASE, 5)
    assert applied(write, stored(store, expired())) is not None
    assert applied(write, stored(store, expired(**fields))) is None


def test_item_whose_last_lease_expired_becomes_a_dead_letter() -> None:
    store, item = Store(), expired(retry_count=4, attempt=5)
    after = applied(store.give_up(seen(item, expired="theirs"), "mine", at(10), 5), stored(store, item))
    assert after is not None
    assert changed(store, item, after) == {
        "status": FAILED,
        "completed_at": at(10),
        "lease_token": "mine",
        "lease_expires_at": None,
        "retry_count": 5,
        "last_error": "the lease expired: its worker died, hung or lost the connection",
    }
    assert not {"queue", "queue_order"} & after.keys()


@pytest.mark.parametrize(
    "fields",
    [
        {"retry_count": 3},
        {"lease_token": "of another worker"},
        {"lease_expires_at": LEASE.begins_at - SKEW + timedelta(microseconds=1)},
        {"scheduled_at": at(5)},
    ],
)
def test_item_is_not_given_up_while_it_may_be_tried_again(fields: dict[str, Any]) -> None:
    store = Store()
    write = store.give_up(seen(expired(), expired="theirs"), "mine", at(10), 5)
    assert applied(write, stored(store, expired(retry_count=4))) is not None
    assert applied(write, stored(store, expired(**{"retry_count": 4, **fields}))) is None
    assert (key_of(write.key), write.token.value) == (key_of(frontier_key("run", "item")), {"S": "mine"})
    assert write.token.path == "lease_token"


# Settlements


def test_finished_item_leaves_the_queue_and_keeps_its_error() -> None:
    store, item = Store(), leased(last_error="before")
    after = applied(store.finish(item, FrontierStatus.COMPLETED, at(20)), stored(store, item))
    assert after is not None
    assert changed(store, item, after) == {
        "status": FrontierStatus.COMPLETED,
        "completed_at": at(20),
        "lease_expires_at": None,
    }
    assert not {"queue", "queue_order", "expires_at"} & after.keys()


@pytest.mark.parametrize(("status", "failures"), [(FAILED, 1), (FrontierStatus.SKIPPED, 0)])
def test_finished_item_stores_the_error_the_outcome_and_its_failure(
    status: FrontierStatus, failures: int
) -> None:
    store, item = Store(), leased(retry_count=1)
    more: Item = {"outcome": {"S": "denied"}}
    after = applied(store.finish(item, status, at(20), "why", more), stored(store, item))
    assert after is not None
    decoded = store.decode(after)
    assert (decoded.status, decoded.last_error, decoded.retry_count) == (status, "why", 1 + failures)
    assert after["outcome"] == {"S": "denied"}


def test_finished_item_expires_if_the_settings_say_so() -> None:
    store = Store(config=FAST.model_copy(update={"frontier_ttl_days": 2}))
    after = applied(store.finish(leased(), FrontierStatus.COMPLETED, at(20)), stored(store, leased()))
    assert after is not None
    assert after["expires_at"] == {"N": str(int((at(20) + timedelta(days=2)).timestamp()))}


def test_retried_item_waits_until_its_moment() -> None:
    store, item = Store(), leased(retry_count=1)
    after = applied(store.retry(item, at(90), "why", {"payload": {"S": "new"}}), stored(store, item))
    assert after is not None
    assert changed(store, item, after) == {
        "status": PENDING,
        "scheduled_at": at(90),
        "last_error": "why",
        "lease_expires_at": None,
        "retry_count": 2,
        "payload": "new",
    }
    assert after["queue_order"] == {"S": queue_order(rank_of(item), at(90))}


def test_released_item_is_ready_with_its_new_values() -> None:
    store, item = Store(), leased(scheduled_at=at(5))
    new = item.model_copy(update={"priority": 7.0, "payload": "new"})
    after = applied(store.release(new, ["priority", "payload"]), stored(store, item))
    assert after is not None
    assert changed(store, item, after) == {
        "status": PENDING,
        "priority": 7.0,
        "payload": "new",
        "lease_expires_at": None,
        "started_at": None,
    }
    assert after["queue_order"] == {"S": queue_order(rank(7.0, START))}


def test_renewed_lease_ends_later() -> None:
    store, item = Store(), leased()
    after = applied(store.renew(item, at(200)), stored(store, item))
    assert after is not None
    assert changed(store, item, after) == {"lease_expires_at": at(200)}


@pytest.mark.parametrize(
    "fields",
    [
        {"lease_token": "of another worker"},
        {"lease_token": None},
        {"status": PENDING},
        {"status": FrontierStatus.COMPLETED},
    ],
)
def test_settlements_and_renewals_are_refused_without_the_lease(fields: dict[str, Any]) -> None:
    store, item = Store(), leased()
    lost = stored(store, leased(**fields))
    writes = [
        store.finish(item, FrontierStatus.COMPLETED, at(20)),
        store.retry(item, at(90), "why", {}),
        store.release(item),
        store.renew(item, at(200)),
    ]
    assert [applied(write, lost) for write in writes] == [None] * 4
    assert all(applied(write, stored(store, item)) for write in writes)


def test_writes_under_a_lease_are_recognized_by_a_token_of_their_own() -> None:
    store, item = Store(), leased()
    writes = [store.renew(item, at(200)) for _ in range(2)]
    assert [write.token.path for write in writes] == ["changed_by"] * 2
    assert writes[0].token != writes[1].token
    after = applied(writes[0], stored(store, item))
    assert [write.token.is_in(after) for write in writes] == [True, False]
    assert key_of(writes[0].key) == key_of(frontier_key("run", "item"))


@pytest.mark.parametrize("is_final", [True, False])
def test_error_that_cannot_be_stored_is_refused_before_the_write(*, is_final: bool) -> None:
    store, item = Store(), leased()

    def settle() -> None:
        if is_final:
            store.finish(item, FAILED, at(20), "\ud800")
        store.retry(item, at(90), "\ud800", {})

    with pytest.raises(InvalidValueError, match=r"FrontierItem\.last_error\b"):
        settle()


def test_payload_that_cannot_be_stored_is_refused() -> None:
    with pytest.raises(InvalidValueError, match=r"FrontierItem\.payload\b"):
        payload_of("\ud800")


def test_payload_is_an_attribute() -> None:
    assert payload_of("text") == {"payload": {"S": "text"}}


# Items that come back


def dead(**fields: Any) -> FrontierItem:
    fields = {"status": FAILED, "completed_at": at(20), "retry_count": 5, "attempt": 5, **fields}
    # A plain record may have any fields.
    return queued(**fields, scheduled_at=at(5), lease_expires_at=ENDS)


def out_of_queue(store: ItemStore, item: FrontierItem) -> Item:
    more: Item = {"expires_at": {"N": "1"}, "outcome_status": {"N": "503"}}
    left = {"queue", "queue_order", "attempt"}
    return {name: value for name, value in stored(store, item, **more).items() if name not in left}


def test_requeued_dead_letter_is_ready_and_its_failures_are_forgotten() -> None:
    store, item = Store(), dead()
    write = store.requeue(item, "token")
    after = applied(write, out_of_queue(store, item))
    assert after is not None
    assert changed(store, item, after) == {
        "status": PENDING,
        "retry_count": 0,
        "lease_token": "token",
        "completed_at": None,
        "scheduled_at": None,
        "lease_expires_at": None,
    }
    assert after["queue"] == {"S": "run#example.com#0"}
    assert after["queue_order"] == {"S": queue_order(rank_of(item))}
    assert not {"expires_at", "outcome_status"} & after.keys()
    assert write.token.is_in(after)
    assert (write.token.path, key_of(write.key)) == ("lease_token", key_of(frontier_key("run", "item")))


def test_adopted_item_keeps_its_failures() -> None:
    store, item = Store(), dead(status=PENDING, completed_at=None, retry_count=2)
    after = applied(store.adopt(item, "token"), out_of_queue(store, item))
    assert after is not None
    assert changed(store, item, after) == {
        "lease_token": "token",
        "scheduled_at": None,
        "lease_expires_at": None,
    }


def test_item_is_put_back_once_and_only_from_the_state_in_which_it_was_seen() -> None:
    store = Store()
    pending = dead(status=PENDING)
    assert applied(store.requeue(dead(), "token"), out_of_queue(store, pending)) is None
    assert applied(store.adopt(pending, "token"), out_of_queue(store, dead())) is None
    # It is in the queue already.
    assert applied(store.adopt(pending, "token"), stored(store, pending)) is None


# Reads


@pytest.mark.parametrize("with_control", [True, False])
async def test_states_are_read_with_the_control_by_one_request(with_control: bool) -> None:
    memory = MemoryTable()
    item, control = queued(item_id="a#b"), RunControl(run="run", site_id="site", buckets=3)
    async with open_gateway(memory.answer) as (gateway, client):
        store = Store(gateway)
        for written in (stored(store, item), to_item(CONTROLS, control)):
            memory.items[key_of(written)] = written
        states, read = await store.read_states(["a#b", "absent"], with_control=with_control)
    assert list(states) == ["a#b"]
    assert read == (to_item(CONTROLS, control) if with_control else None)
    ((_, request),) = client.requests
    (wanted,) = request["RequestItems"].values()
    names = set(wanted["ExpressionAttributeNames"].values())
    state = {"run_id", "item_id", "status", "domain", "queue", "queue_order"}
    assert names == (state | set(RunControl.model_fields) if with_control else state)
    assert ("control" in memory.reads) is with_control


async def test_control_that_is_not_stored_is_read_as_none() -> None:
    memory = MemoryTable()
    async with open_gateway(memory.answer) as (gateway, _):
        assert await Store(gateway).read_states(["item"], with_control=True) == ({}, None)
    assert memory.reads == ["control", "item"]


async def test_items_are_read_by_id() -> None:
    memory, item = MemoryTable(), queued(item_id="a#b")
    async with open_gateway(memory.answer) as (gateway, _):
        store = Store(gateway)
        insert = store.encode(item, 1).item
        memory.items[key_of(insert)] = insert
        assert await store.read(["a#b", "absent"]) == {"a#b": item}
        # With the attributes that are no fields.
        assert await store.read_stored(["a#b"]) == {"a#b": insert}


@pytest.mark.parametrize(
    ("statuses", "kept"),
    [
        ((), ""),
        ((FAILED,), "(status = failed)"),
        ((FAILED, PENDING), "(status = failed) OR (status = pending)"),
    ],
)
async def test_scan_reads_all_partitions_of_the_run(statuses: tuple[FrontierStatus, ...], kept: str) -> None:
    page: list[Any] = [{"run_id": {"S": "x"}, "item_id": {"S": "item"}}]
    async with open_gateway(lambda operation, request: {"Items": page, "Count": 1}) as (gateway, client):
        lists = [items async for items in Store(gateway).scan(*statuses, attributes=("domain",))]
    requests = [request for _, request in client.requests]
    keys = {spelled(request, "KeyConditionExpression").split("= ")[1].split(")")[0] for request in requests}
    assert keys == set(items_partitions("run"))
    assert len(lists) == len(requests)
    for request in requests:
        assert request["ConsistentRead"] is True
        assert spelled(request, "ProjectionExpression") == "run_id, item_id, domain"
        assert ("FilterExpression" in request) is bool(kept)
        if kept:
            assert spelled(request, "FilterExpression") == kept


async def test_scan_returns_whole_items_by_default() -> None:
    async with open_gateway(lambda operation, request: {"Items": [], "Count": 0}) as (gateway, client):
        assert [items async for items in Store(gateway).scan() if items] == []
    assert all("ProjectionExpression" not in request for _, request in client.requests)


async def test_writes_are_run_as_they_are_asked_for() -> None:
    store, item = Store(), queued()
    insert = store.encode(item, 1)
    assert await store.run([insert, insert], once=True, seconds=2.0) == [Applied(), Refused()]
    assert await store.run([]) == []
    assert store.memory.rounds == [(2, True, 2.0), (0, False, None)]


async def test_coalesced_writes_are_run_with_those_of_concurrent_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, item = Store(), leased()
    calls: list[Any] = []

    async def run(*arguments: Any) -> list[Any]:
        calls.append(arguments)
        return [Refused()]

    monkeypatch.setattr(store._coalesced, "run", run)
    writes = [store.renew(item, at(200))]

    def on_throttled(count: int, seconds: float) -> None:
        """Does nothing."""

    assert await store.run_coalesced(writes, on_throttled) == [Refused()]
    assert calls == [(writes, on_throttled)]


async def test_closed_store_has_sent_the_writes_that_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    store, closed = Store(), list[bool]()

    async def close() -> None:
        closed.append(True)

    monkeypatch.setattr(store._coalesced, "close", close)
    await store.close()
    assert closed


# Stored items


@pytest.mark.parametrize(("shard", "shards"), [(0, 1), (1, 2), (5, 8), (7, 8), (8, 16)])
def test_work_of_an_item_needs_as_many_shards_as_its_queue_has(shard: int, shards: int) -> None:
    item: Item = {
        "item_id": {"S": "a~1b"},
        "queue": {"S": f"run#host#{shard}"},
        "queue_order": {"S": "place"},
    }
    assert work_of(item) == Work("place", shards, item_id="a#b")


def test_item_that_has_left_the_queue_is_no_work() -> None:
    assert work_of({"item_id": {"S": "item"}, "status": {"S": "completed"}}) is None


def test_state_of_an_item_is_delayed_while_its_place_waits_for_a_moment() -> None:
    store = Store()
    assert state_of(stored(store, queued())) == "pending"
    assert state_of(stored(store, queued(scheduled_at=at(5)))) == "delayed"
    assert state_of(stored(store, leased(scheduled_at=at(5)))) == "in_progress"
    # A plain record is in no queue.
    assert state_of({"status": {"S": "pending"}}) == "pending"
