"""The embedded engine is moto with faster functions in place of slow ones. Its answers stay those of moto.

Where a test of this file fails with another version of moto, this version does in another way what
`ragcrawl_dynamo/testing/moto_tables.py` overrides.
"""

from __future__ import annotations

import asyncio
import copy
import http.client
import json
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import aioboto3
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from moto.dynamodb.models import DynamoDBBackend as MotoBackend
from moto.dynamodb.models import dynamodb_backends
from moto.dynamodb.models.dynamo_type import DynamoType
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.test import Client

from ragcrawl_dynamo.testing.moto_tables import create_application, fast_tables

Call = Callable[[str, dict[str, Any]], tuple[int, Any]]

NUMBERS = count()


def caller(application: Any, account: str) -> Call:
    """Sends requests to the tables of an account."""
    client = Client(application)
    headers = {
        "Authorization": "AWS4-HMAC-SHA256 Credential=local/20260101/us-east-1/dynamodb/aws4_request, a, b",
        "X-Moto-Account-Id": account,
    }

    def call(operation: str, request: dict[str, Any]) -> tuple[int, Any]:
        answer = client.post(
            "/",
            data=json.dumps(request),
            headers={**headers, "X-Amz-Target": f"DynamoDB_20120810.{operation}"},
            content_type="application/x-amz-json-1.0",
        )
        return answer.status_code, json.loads(answer.data or b"null")

    return call


@pytest.fixture(scope="module")
def fast() -> Iterator[Call]:
    with fast_tables():
        yield caller(create_application(), "111111111111")


@pytest.fixture(scope="module")
def plain() -> Call:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynamodb_backends, "backend", MotoBackend)
        # An account keeps the class of its backends.
        assert type(dynamodb_backends["222222222222"]["us-east-1"]) is MotoBackend
    return caller(DomainDispatcherApplication(create_backend_app), "222222222222")


def create_table(call: Call, name: str, **fields: Any) -> None:
    """A table of pages, by host and path, and with two indexes: by state and moment, and by moment."""
    types = {"host": "S", "path": "S", "state": "S", "moment": "N"}
    request = {
        "TableName": name,
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [
            {"AttributeName": name, "AttributeType": kind} for name, kind in types.items()
        ],
        "KeySchema": schema("host", "path"),
        "GlobalSecondaryIndexes": [
            {"IndexName": name, "KeySchema": keys, "Projection": {"ProjectionType": "ALL"}}
            for name, keys in (("by_state", schema("state", "moment")), ("by_moment", schema("moment")))
        ],
        **fields,
    }
    status, answer = call("CreateTable", request)
    assert status == 200, answer


def schema(*names: str) -> list[dict[str, str]]:
    kinds = zip(names, ("HASH", "RANGE"), strict=False)
    return [{"AttributeName": name, "KeyType": kind} for name, kind in kinds]


def key(host: str, path: str) -> dict[str, Any]:
    return {"host": {"S": host}, "path": {"S": path}}


def scan(call: Call, table: str) -> list[Any]:
    status, answer = call("Scan", {"TableName": table})
    assert status == 200, answer
    items: list[Any] = answer["Items"]
    return items


# Requests about a few keys, so that they meet.
keys = st.builds(key, st.sampled_from("ab"), st.sampled_from("123"))
values = st.one_of(
    st.sampled_from([{"S": ""}, {"S": "é"}, {"N": "-1.5"}, {"B": "AAE="}, {"BOOL": False}, {"NULL": True}]),
    st.sampled_from(
        [{"SS": ["x", "y"]}, {"NS": ["1", "2"]}, {"BS": ["AAE="]}, {"L": [{"B": "AAE="}, {"M": {}}]}]
    ),
    st.sampled_from([{"M": {"a": {"L": [{"N": "1"}]}, "S": {"S": "s"}}}, {"L": []}]),
)
attributes = st.fixed_dictionaries(
    {},
    optional={
        "state": st.sampled_from([{"S": "open"}, {"S": "done"}]),
        "moment": st.sampled_from([{"N": "1"}, {"N": "10"}, {"N": "2"}]),
        "value": values,
    },
)
items = st.builds(lambda a, b: {**a, **b}, keys, attributes)
conditions = st.sampled_from(
    [
        {},
        {"ConditionExpression": "attribute_not_exists(host)"},
        {"ConditionExpression": "attribute_exists(host)"},
    ]
)
reasons = st.sampled_from([{}, {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"}])
updates = st.one_of(
    st.builds(
        lambda value: {
            "UpdateExpression": "SET #v = :v",
            "ExpressionAttributeNames": {"#v": "value"},
            "ExpressionAttributeValues": {":v": value},
        },
        values,
    ),
    st.just({"UpdateExpression": "ADD n :n", "ExpressionAttributeValues": {":n": {"N": "1"}}}),
    st.just({"UpdateExpression": "REMOVE moment"}),
)


def merged(*parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.builds(lambda *drawn: {name: value for part in drawn for name, value in part.items()}, *parts)


puts = merged(st.builds(lambda item: {"Item": item}, items), conditions, reasons)
deletes = merged(st.builds(lambda key: {"Key": key}, keys), conditions, reasons)
changes = merged(deletes, updates)
pages = st.fixed_dictionaries(
    {},
    optional={"Limit": st.integers(1, 3), "ScanIndexForward": st.booleans(), "Select": st.just("COUNT")},
)
queries = st.one_of(
    merged(
        st.builds(
            lambda host: {
                "KeyConditionExpression": "host = :h",
                "ExpressionAttributeValues": {":h": {"S": host}},
            },
            st.sampled_from("abc"),
        ),
        pages,
    ),
    st.builds(
        lambda host, path, begin: {
            "KeyConditionExpression": "host = :h AND #p > :p",
            "FilterExpression": "attribute_exists(moment)",
            "ProjectionExpression": "#p, #v",
            "ExpressionAttributeNames": {"#p": "path", "#v": "value"},
            "ExpressionAttributeValues": {":h": {"S": host}, ":p": {"S": path}},
            **({"ExclusiveStartKey": begin} if begin["host"]["S"] == host else {}),
        },
        st.sampled_from("ab"),
        st.sampled_from("012"),
        keys,
    ),
    merged(
        st.builds(
            lambda state: {
                "IndexName": "by_state",
                "KeyConditionExpression": "#s = :s AND moment BETWEEN :a AND :b",
                "ExpressionAttributeNames": {"#s": "state"},
                "ExpressionAttributeValues": {":s": {"S": state}, ":a": {"N": "1.0"}, ":b": {"N": "9"}},
            },
            st.sampled_from(["open", "done", "none"]),
        ),
        pages,
    ),
    st.builds(
        lambda moment: {
            "IndexName": "by_moment",
            "KeyConditionExpression": "moment = :m",
            "ExpressionAttributeValues": {":m": {"N": moment}},
        },
        st.sampled_from(["1", "1.0", "10"]),
    ),
    st.just(
        {
            "IndexName": "no_such",
            "KeyConditionExpression": "a = :a",
            "ExpressionAttributeValues": {":a": {"S": ""}},
        }
    ),
)
actions = st.one_of(
    st.builds(lambda put: {"Put": put}, puts),
    st.builds(lambda delete: {"Delete": delete}, deletes),
    st.builds(lambda change: {"Update": change}, changes),
)
requests = st.one_of(
    st.tuples(st.just("PutItem"), puts),
    st.tuples(st.just("DeleteItem"), deletes),
    st.tuples(st.just("UpdateItem"), merged(changes, st.sampled_from([{}, {"ReturnValues": "ALL_NEW"}]))),
    st.tuples(st.just("GetItem"), st.builds(lambda key: {"Key": key}, keys)),
    st.tuples(st.just("Query"), queries),
    st.tuples(st.just("TransactWriteItems"), st.lists(actions, min_size=1, max_size=4)),
    st.tuples(st.just("BatchGetItem"), st.lists(keys, min_size=1, max_size=3, unique_by=str)),
)


def addressed(operation: str, request: Any, table: str) -> dict[str, Any]:
    """The request about a table."""
    if operation == "TransactWriteItems":
        return {
            "TransactItems": [
                {kind: {"TableName": table, **fields} for kind, fields in action.items()}
                for action in request
            ]
        }
    if operation == "BatchGetItem":
        return {"RequestItems": {table: {"Keys": request}}}
    return {"TableName": table, **request}


# To shrink a sequence takes minutes, and the longest has twenty requests.
@settings(max_examples=60, phases=[Phase.reuse, Phase.generate])
@given(sequence=st.lists(requests, min_size=5, max_size=20))
def test_run_moto_answers_as_moto_does(fast: Call, plain: Call, sequence: list[tuple[str, Any]]) -> None:
    table = f"pages_{next(NUMBERS)}"
    for call in (fast, plain):
        create_table(call, table)
        fill(call, table, 3)
    for operation, request in sequence:
        sent = addressed(operation, request, table)
        assert fast(operation, sent) == plain(operation, sent)
    assert scan(fast, table) == scan(plain, table)


def failing_transaction(table: str) -> dict[str, Any]:
    """Puts, changes and deletes an item, and then requires one that is not there."""
    change = {
        "UpdateExpression": "SET #v = :v",
        "ExpressionAttributeNames": {"#v": "value"},
        "ExpressionAttributeValues": {":v": {"S": "new"}},
    }
    check = {"ConditionExpression": "attribute_exists(host)"}
    transaction = [
        {"Put": {"Item": {**key("a", "new"), "value": {"S": "new"}}}},
        {"Put": {"Item": {**key("a", "1"), "value": {"S": "new"}}}},
        {"Update": {"Key": key("a", "2"), **change}},
        {"Update": {"Key": key("b", "new"), **change}},
        {"Delete": {"Key": key("a", "3")}},
        {"ConditionCheck": {"Key": key("absent", "1"), **check}},
    ]
    return addressed("TransactWriteItems", transaction, table)


def fill(call: Call, table: str, number: int) -> None:
    for i in range(1, number + 1):
        item = {**key("a", f"{i}"), "value": {"S": "old"}, "state": {"S": "open"}, "moment": {"N": f"{i}"}}
        assert call("PutItem", {"TableName": table, "Item": item})[0] == 200


def test_run_moto_undoes_a_failed_transaction(fast: Call) -> None:
    table = f"pages_{next(NUMBERS)}"
    create_table(fast, table)
    fill(fast, table, 4)
    before = scan(fast, table)
    status, answer = fast("TransactWriteItems", failing_transaction(table))
    assert status == 400
    assert [reason["Code"] for reason in answer["CancellationReasons"]] == ["None"] * 5 + [
        "ConditionalCheckFailed"
    ]
    assert scan(fast, table) == before
    # Afterwards moto copies the table again where it needs a copy, such as for a backup.
    _, backup = fast("CreateBackup", {"TableName": table, "BackupName": "before"})
    assert fast("PutItem", {"TableName": table, "Item": key("later", "1")})[0] == 200
    restored = {"TargetTableName": f"{table}_restored", "BackupArn": backup["BackupDetails"]["BackupArn"]}
    assert fast("RestoreTableFromBackup", restored)[0] == 200
    assert scan(fast, f"{table}_restored") == before


def test_run_moto_undoes_a_failed_transaction_on_a_table_with_a_stream(fast: Call) -> None:
    table = f"pages_{next(NUMBERS)}"
    stream = {"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"}
    create_table(fast, table, StreamSpecification=stream)
    fill(fast, table, 4)
    assert fast("TransactWriteItems", failing_transaction(table))[0] == 400
    # The stream tells of the four items that were put before, and of nothing else.
    shard = dynamodb_backends["111111111111"]["us-east-1"].tables[table].stream_shard
    assert shard is not None
    assert len(shard.items) == 4


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Callable[[object, str], list[str]]:
    """Records the calls of a function."""

    def record(owner: object, name: str) -> list[str]:
        function = getattr(owner, name)
        recorded: list[str] = []

        def recording(*args: Any) -> Any:
            recorded.append(name)
            return function(*args)

        monkeypatch.setattr(owner, name, recording)
        return recorded

    return record


def test_run_moto_copies_only_the_items_that_a_transaction_names(
    fast: Call, calls: Callable[[object, str], list[str]]
) -> None:
    table = f"pages_{next(NUMBERS)}"
    create_table(fast, table)
    fill(fast, table, 100)
    copies = calls(copy, "deepcopy")
    put = {"Put": {"Item": {**key("a", "1"), "value": {"S": "new"}}}}
    assert fast("TransactWriteItems", addressed("TransactWriteItems", [put], table))[0] == 200
    assert len(copies) < 100, "moto copies whole tables again: see moto_tables.py"


@pytest.mark.parametrize(
    "request_",
    [
        {"KeyConditionExpression": "host = :k"},
        {
            "KeyConditionExpression": "#s = :k",
            "IndexName": "by_state",
            "ExpressionAttributeNames": {"#s": "state"},
        },
    ],
    ids=["table", "index"],
)
def test_run_moto_does_not_sort_a_table_for_a_query(
    fast: Call, calls: Callable[[object, str], list[str]], request_: dict[str, Any]
) -> None:
    table = f"pages_{next(NUMBERS)}"
    create_table(fast, table)
    fill(fast, table, 50)
    one = {**key("b", "1"), "state": {"S": "b"}, "moment": {"N": "1"}}
    assert fast("PutItem", {"TableName": table, "Item": one})[0] == 200
    comparisons = calls(DynamoType, "__lt__")
    values = {"ExpressionAttributeValues": {":k": {"S": "b"}}}
    status, answer = fast("Query", {"TableName": table, **request_, **values})
    assert (status, answer["Items"]) == (200, [one])
    assert len(comparisons) < 10, "moto sorts whole tables again: see moto_tables.py"


def test_run_moto_writes_items_without_a_search_for_each_attribute(
    fast: Call, calls: Callable[[object, str], list[str]]
) -> None:
    picker = pytest.importorskip("moto.core.serialize").AttributePicker
    table = f"pages_{next(NUMBERS)}"
    create_table(fast, table)
    item = {**key("a", "1"), "value": {"B": "AAE="}}
    assert fast("PutItem", {"TableName": table, "Item": item})[0] == 200
    searches = calls(picker, "__call__")
    assert fast("GetItem", {"TableName": table, "Key": key("a", "1")}) == (200, {"Item": item})
    assert searches == [], "moto looks each attribute up again: see moto_tables.py"


async def test_run_moto_answers_one_request_at_a_time(moto_endpoint: str) -> None:
    """moto is not atomic: of two conditional writes at the same time, both could succeed."""
    async with client("dynamodb", moto_endpoint) as dynamodb:
        table = f"pages_{uuid4().hex}"
        await dynamodb.create_table(
            TableName=table,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("host", "path")],
            KeySchema=schema("host", "path"),
        )

        async def put(number: int) -> bool:
            item = {**key("a", "1"), "number": {"N": f"{number}"}}
            condition = "attribute_not_exists(host)"
            try:
                await dynamodb.put_item(TableName=table, Item=item, ConditionExpression=condition)
            except dynamodb.exceptions.ConditionalCheckFailedException:
                return False
            return True

        assert sum(await asyncio.gather(*map(put, range(20)))) == 1
        await dynamodb.delete_table(TableName=table)


async def test_run_moto_serves_s3_too(moto_endpoint: str) -> None:
    async with client("s3", moto_endpoint) as s3:
        bucket, name = f"bucket-{uuid4().hex}", "a folder/é+%2F?#.txt"
        await s3.create_bucket(Bucket=bucket)
        body = b"x" * 2_000_000
        await s3.put_object(Bucket=bucket, Key=name, Body=body, Metadata={"with_underscore": "kept"})
        head = await s3.head_object(Bucket=bucket, Key=name)
        assert head["ContentLength"] == len(body)
        assert "with_underscore" in head["Metadata"]
        assert [entry["Key"] for entry in (await s3.list_objects_v2(Bucket=bucket))["Contents"]] == [name]
        answer = await s3.get_object(Bucket=bucket, Key=name)
        assert await answer["Body"].read() == body
        await s3.delete_object(Bucket=bucket, Key=name)
        await s3.delete_bucket(Bucket=bucket)


def client(service: str, endpoint: str) -> Any:
    session = aioboto3.Session("local", "local", region_name="us-east-1")
    return session.client(service, endpoint_url=endpoint)


def test_run_moto_keeps_a_connection_open(moto_endpoint: str) -> None:
    url = urlsplit(moto_endpoint)
    connection = http.client.HTTPConnection(url.netloc)
    sockets = set()
    for _ in range(2):
        connection.request("POST", "/", b"{}", dynamodb_headers("ListTables"))
        answer = connection.getresponse()
        assert (answer.status, "TableNames" in json.loads(answer.read())) == (200, True)
        sockets.add(connection.sock)
    assert len(sockets) == 1
    assert None not in sockets
    connection.close()


def dynamodb_headers(operation: str) -> dict[str, str]:
    return {
        "Authorization": "AWS4-HMAC-SHA256 Credential=local/20260101/us-east-1/dynamodb/aws4_request, a, b",
        "Content-Type": "application/x-amz-json-1.0",
        "X-Amz-Target": f"DynamoDB_20120810.{operation}",
    }
