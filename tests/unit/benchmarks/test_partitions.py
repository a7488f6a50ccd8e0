"""The benchmark of partitions counts units by key, and groups keys."""

from typing import Any

import pytest

from benchmarks.partitions import Partition, PartitionUnits
from benchmarks.partitions.crawls import ceiling
from benchmarks.partitions.kinds import RUN, SITE, host_of, kind_of
from ragcrawl_dynamo import RequestEvent
from ragcrawl_dynamo._dynamodb.expressions import Compare, Exists, Update
from ragcrawl_dynamo._dynamodb.partiql import insert_statement, update_statement
from ragcrawl_dynamo._dynamodb.requests import Query, query_request, transact_update, transaction_request
from ragcrawl_dynamo._schema import keys
from ragcrawl_dynamo._schema.tables import Tables

FRONTIER = Tables.of("t_").frontier
ITEM: Any = {"run_id": {"S": "run"}, "item_id": {"S": "item"}}
QUEUED: Any = {**ITEM, "queue": {"S": "run#host#0"}, "queue_order": {"S": "0"}}
ITEMS = Partition("frontier", "run")
QUEUE = Partition("frontier/by_queue", "run#host#0")


def event(operation: str, request: Any, response: Any = None, **fields: Any) -> RequestEvent:
    values = {"error": None, "left_over": 0, "read_units": 0.0, "write_units": 0.0} | fields
    table = request.get("TableName", FRONTIER.name)
    return RequestEvent(
        operation, table, 1, 1, 0.0, **values, request=request, response={} if response is None else response
    )


def put(item: Any, **fields: Any) -> RequestEvent:
    return event("PutItem", {"TableName": FRONTIER.name, "Item": item}, **fields)


def test_units_of_a_put_and_of_its_index_entry() -> None:
    units = PartitionUnits("t_")
    assert units.observe(put({**QUEUED, "url": {"S": "x" * 1500}})) == (0, 3)
    assert units.spent.writes == {ITEMS: 2, QUEUE: 1}
    # The larger of the old and the new item counts, and the entry stays as it is.
    assert units.observe(put(QUEUED)) == (0, 2)
    moved = {**QUEUED, "queue": {"S": "run#host#1"}}
    assert units.observe(put(moved)) == (0, 3)
    assert units.spent.writes == {ITEMS: 5, QUEUE: 2, Partition("frontier/by_queue", "run#host#1"): 1}
    assert units.observe(event("DeleteItem", {"TableName": FRONTIER.name, "Key": ITEM})) == (0, 2)
    assert units.items == {}


def test_units_of_a_refused_write_are_those_of_the_stored_item() -> None:
    units = PartitionUnits("t_")
    units.observe(put({**ITEM, "url": {"S": "x" * 2000}}))
    assert units.observe(put(QUEUED, error="ConditionalCheckFailedException")) == (0, 2)
    assert units.observe(put(QUEUED, error="ThrottlingException")) == (0, 0)
    assert QUEUE not in units.spent.writes


def test_units_of_a_transaction_are_doubled_in_the_table_alone() -> None:
    units = PartitionUnits("t_")
    units.observe(put(QUEUED))
    change = Update(
        put={"url": {"S": "x" * 1500}}, increment={"attempt": {"N": "1"}}, remove=("queue", "queue_order")
    )
    request = transaction_request("token", [transact_update(FRONTIER, ITEM, change, Exists("run_id"))])
    assert units.observe(event("TransactWriteItems", request)) == (0, 5)
    (item,) = units.items.values()
    assert item == {**ITEM, "url": {"S": "x" * 1500}}


def test_units_of_statements() -> None:
    units = PartitionUnits("t_")
    insert = insert_statement(FRONTIER.name, QUEUED)
    change = Update(put={"a": {"S": "x"}}, increment={"b": {"N": "1"}}, remove=("queue", "queue_order"))
    update = update_statement(FRONTIER.name, ITEM, change, Compare("c", "=", {"S": "y"}))
    answers: list[Any] = [{}, {"Item": ITEM}, {"Error": {"Code": "DuplicateItem"}}, {"Error": {"Code": "X"}}]
    batch = event(
        "BatchExecuteStatement",
        {"Statements": [insert, update, insert, insert]},
        {"Responses": answers},
    )
    assert units.observe(batch) == (0, 2 + 2 + 1)
    assert units.spent.writes == {ITEMS: 3, QUEUE: 2}


def test_units_of_reads() -> None:
    units = PartitionUnits("t_")
    large = {**ITEM, "url": {"S": "x" * 5000}}
    units.observe(put(large))
    name = FRONTIER.name
    keys_ = [ITEM, {**ITEM, "item_id": {"S": "absent"}}]
    # A read of some attributes costs as much as the whole item. A read of an absent item costs the least.
    get = {"RequestItems": {name: {"Keys": keys_, "ConsistentRead": True}}}
    assert units.observe(event("BatchGetItem", get, {"Responses": {name: [ITEM]}})) == (3, 0)
    left = {"Responses": {}, "UnprocessedKeys": {name: {"Keys": keys_}}}
    assert units.observe(event("BatchGetItem", get, left)) == (0, 0)
    query = query_request(Query(FRONTIER, "run#host#0", index="by_queue"))
    assert units.observe(event("Query", query)) == (0.5, 0)
    assert units.observe(event("Query", query, read_units=7.5)) == (7.5, 0)
    assert units.spent.reads == {ITEMS: 3, QUEUE: 8}


@pytest.mark.parametrize(
    ("reads", "writes", "expected"), [(0, 4, 250), (6, 0, 500), (6, 1, 500), (0, 0, float("inf"))]
)
def test_ceiling_is_the_throughput_of_one_partition(reads: float, writes: float, expected: float) -> None:
    assert ceiling(reads, writes) == expected


def test_kinds_of_keys_name_their_parts() -> None:
    host = host_of(17)
    assert kind_of(keys.run_partition(RUN)) == "{run}"
    assert {kind_of(partition) for partition in keys.items_partitions(RUN)} == {"{hash}#{run}"}
    assert kind_of(keys.members_partition(RUN)) == "#{run}#members"
    assert kind_of(keys.records_partition(RUN)) == "#{run}"
    assert kind_of(keys.hosts_partition(RUN, 3)) == "#{run}#{n}"
    assert kind_of(keys.host_queue(RUN, host, 12)) == "{run}#{host}#{n}"
    assert kind_of(keys.changes_partition(SITE)) == "#{site}"
    assert kind_of(keys.change_shard_partition(SITE, "0123abcd")) == "#{site}#{id}"
    assert kind_of(keys.url_key("https://example.com")) == "{id}"
    assert kind_of(keys.HOST_PREFIX + host) == "host#{host}"
