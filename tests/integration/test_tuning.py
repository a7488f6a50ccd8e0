"""The tuned client beside the plain one: the same answers and errors, and other hooks see what they saw."""

from __future__ import annotations

from secrets import token_hex
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from ragcrawl_dynamo import CrawlRun, DynamoDBBackend, DynamoDBConfig, _tuning
from ragcrawl_dynamo._client import open_client
from tests.engines import on_dynamodb_local
from tests.factories import dense_text, make_page, make_version

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

# All kinds of attributes, a map whose members are named like types, and binaries at every depth.
ITEM: dict[str, Any] = {
    "site_id": {"S": "site"},
    "page_id": {"S": 'p "B": {"B": "aGk="}'},
    "n": {"N": "12.5"},
    "b": {"B": b"\x00\xff raw"},
    "bs": {"BS": [b"1", b"2"]},
    "ss": {"SS": ["x", "é"]},
    "ns": {"NS": ["1", "2"]},
    "yes": {"BOOL": True},
    "null": {"NULL": True},
    "m": {"M": {"B": {"S": "text"}, "S": {"B": b"inner"}, "L": {"L": [{"B": b"deep"}, {"M": {}}]}}},
}
KEY = {name: ITEM[name] for name in ("site_id", "page_id")}


def without_metadata(answer: dict[str, Any]) -> dict[str, Any]:
    assert answer["ResponseMetadata"]["RequestId"]
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
    return {name: value for name, value in answer.items() if name != "ResponseMetadata"}


async def all_operations(opening: AbstractAsyncContextManager[Any], table: str) -> list[Any]:
    """Every data operation, and what came of it."""
    answers: list[Any] = []
    requests: list[tuple[str, dict[str, Any]]]
    async with opening as client:
        requests = [
            ("put_item", {"TableName": table, "Item": ITEM, "ReturnConsumedCapacity": "TOTAL"}),
            ("get_item", {"TableName": table, "Key": KEY, "ConsistentRead": True}),
            ("get_item", {"TableName": table, "Key": {**KEY, "page_id": {"S": "absent"}}}),
            ("batch_write_item", {"RequestItems": {table: [{"PutRequest": {"Item": ITEM}}]}}),
            ("batch_get_item", {"RequestItems": {table: {"Keys": [KEY]}}}),
            (
                "query",
                {
                    "TableName": table,
                    "KeyConditionExpression": "site_id = :s",
                    "ExpressionAttributeValues": {":s": {"S": "site"}},
                    "Limit": 1,
                },
            ),
            ("scan", {"TableName": table}),
            (
                "update_item",
                {
                    "TableName": table,
                    "Key": KEY,
                    "UpdateExpression": "SET b = :b",
                    "ExpressionAttributeValues": {":b": {"B": b"new"}},
                    "ReturnValues": "ALL_NEW",
                },
            ),
            (
                "batch_execute_statement",
                {
                    "Statements": [
                        {
                            "Statement": f"INSERT INTO \"{table}\" VALUE {{'site_id': ?}}",
                            "Parameters": [{"S": "x"}],
                        },
                    ]
                },
            ),
            (
                "transact_write_items",
                {
                    "TransactItems": [{"Put": {"TableName": table, "Item": ITEM}}],
                    "ClientRequestToken": token_hex(8),
                },
            ),
            ("delete_item", {"TableName": table, "Key": KEY, "ReturnValues": "ALL_OLD"}),
        ]
        for operation, request in requests:
            answers.append((operation, without_metadata(await getattr(client, operation)(**request))))
        described = await client.describe_table(TableName=table)
        answers.append(("describe_table", described["Table"]["CreationDateTime"]))
        requests = [
            (
                "put_item",
                {"TableName": table, "Item": ITEM, "ConditionExpression": "attribute_exists(page_id)"},
            ),
            ("get_item", {"TableName": table + "_absent", "Key": KEY}),
            (
                "transact_write_items",
                {
                    "TransactItems": [
                        {"Put": {"TableName": table, "Item": ITEM}},
                        {
                            "ConditionCheck": {
                                "TableName": table,
                                "Key": {**KEY, "page_id": {"S": "absent"}},
                                "ConditionExpression": "attribute_exists(page_id)",
                                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
                            }
                        },
                    ]
                },
            ),
        ]
        for operation, request in requests:
            with pytest.raises(ClientError) as caught:
                await getattr(client, operation)(**request)
            response: Any = caught.value.response
            answers.append(
                (operation, {name: response.get(name) for name in ("Error", "CancellationReasons")})
            )
    return answers


@on_dynamodb_local
async def test_the_answers_are_those_of_the_plain_client(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = f"{dynamodb_config.table_prefix}pages"
    tuned = await all_operations(open_client(dynamodb_config), table)
    monkeypatch.setattr(_tuning, "KNOWN", frozenset())
    plain = await all_operations(open_client(dynamodb_config), table)
    assert dict(tuned)["delete_item"]["Attributes"]["b"] == ITEM["b"]
    assert tuned == plain


def test_it_is_used_with_the_versions_it_was_written_for_and_with_no_other() -> None:
    assert _tuning.is_known()
    assert [_tuning.is_known(version) for version in ("2.25.1", "2.25.99", "2.26.0", "3.0.0", "2.250.1")] == [
        True,
        True,
        False,
        False,
        False,
    ]


@on_dynamodb_local
async def test_the_backend_works_on_the_plain_client(
    dynamodb_config: DynamoDBConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_tuning, "KNOWN", frozenset())
    async with DynamoDBBackend(dynamodb_config) as backend:
        version = make_version(markdown=dense_text(900))
        page = make_page(current_version_id=version.version_id)
        await backend.save_page(page)
        await backend.save_version(version)
        await backend.save_run(CrawlRun(run_id="run", site_id="site"))
        assert await backend.get_page(page.site_id, page.page_id) == page
        assert await backend.get_current_version(page.site_id, page.page_id) == version
        frontier = backend.frontier("run", "site")
        await frontier.add(["https://a.example/1"])
        await backend.commit_page(page, version, claim=(await frontier.claim(wait_seconds=5))[0])
        assert await frontier.is_finished()


@on_dynamodb_local
async def test_other_hooks_see_the_whole_request_and_may_change_it(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    """Whoever traces, signs otherwise or injects faults hooks into these events."""
    table = f"{dynamodb_config.table_prefix}pages"
    seen: dict[str, Any] = {}

    def change(params: dict[str, Any], **_: Any) -> None:
        seen["params"] = {name: value for name, value in params.items() if name != "Item"}
        params["Item"] = {**params["Item"], "hooked": {"BOOL": True}}

    def note_call(params: dict[str, Any], **_: Any) -> None:
        seen["body"] = params["body"]

    def note_request(request: Any, **_: Any) -> None:
        seen["sent"] = request.body

    def note_answer(parsed: dict[str, Any], **_: Any) -> None:
        seen["answer"] = parsed

    async with open_client(dynamodb_config) as client:
        events = client.meta.events
        events.register("before-parameter-build.dynamodb.PutItem", change)
        events.register("before-call.dynamodb.PutItem", note_call)
        events.register("before-send.dynamodb.PutItem", note_request)
        events.register("after-call.dynamodb.PutItem", note_answer)
        await client.put_item(TableName=table, Item=ITEM)
        found = await client.get_item(TableName=table, Key=KEY)
    assert found["Item"]["hooked"] == {"BOOL": True}
    assert seen["params"] == {"TableName": table}
    assert b'"hooked":{"BOOL":true}' in seen["body"]
    assert seen["sent"] == seen["body"]
    assert seen["answer"]["ResponseMetadata"]["HTTPStatusCode"] == 200
