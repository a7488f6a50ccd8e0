"""The tuned client gives the same answers, errors and events as the plain one."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import pytest
from aiobotocore.awsrequest import AioAWSResponse
from botocore.exceptions import BotoCoreError, ClientError
from botocore.loaders import JSONFileLoader

from ragcrawl_dynamo import CrawlRun, DynamoDBBackend, DynamoDBConfig
from ragcrawl_dynamo._dynamodb import fast_path
from ragcrawl_dynamo._dynamodb.client import open_client, open_object_client
from ragcrawl_dynamo._dynamodb.session import _loader
from ragcrawl_dynamo._dynamodb.transport import Shortcut
from ragcrawl_dynamo.testing import local_config
from tests.support.engines import on_dynamodb_local
from tests.support.factories import dense_text, make_page, make_version

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
    """Sends every data operation, and returns the results."""
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
async def test_fast_path_answers_equal_those_of_the_plain_client(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = f"{dynamodb_config.table_prefix}pages"
    shortened: list[str] = []
    send = Shortcut.send

    async def note(self: Shortcut, params: dict[str, Any], model: Any) -> Any:
        shortened.append(model.name)
        return await send(self, params, model)

    monkeypatch.setattr(Shortcut, "send", note)
    tuned = await all_operations(open_client(dynamodb_config), table)
    # All but DescribeTable.
    assert len(shortened) == len(tuned) - 1
    monkeypatch.setattr(fast_path, "KNOWN", frozenset())
    plain = await all_operations(open_client(dynamodb_config), table)
    assert len(shortened) == len(tuned) - 1
    assert dict(tuned)["delete_item"]["Attributes"]["b"] == ITEM["b"]
    assert tuned == plain


def test_fast_path_is_used_only_with_known_versions() -> None:
    assert fast_path.is_known()
    known = ("2.23.0", "2.25.1", "2.25.99", "3.0.0", "3.10.0")
    assert all(map(fast_path.is_known, known))
    assert not any(map(fast_path.is_known, ("2.22.0", "2.27.0", "2.250.1", "3.11.0", "4.0.0")))


@on_dynamodb_local
async def test_backend_works_on_the_plain_client(
    dynamodb_config: DynamoDBConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_path, "KNOWN", frozenset())
    async with DynamoDBBackend(dynamodb_config) as backend:
        version = make_version(markdown=dense_text(900))
        page = make_page(current_version_id=version.version_id)
        await backend.save_page(page)
        await backend.save_version(version)
        await backend.save_run(CrawlRun(run_id="run", site_id="site"))
        assert await backend.get_page(page.site_id, page.page_id) == page
        assert await backend.get_current_version(page.site_id, page.page_id) == version
        frontier = backend.frontier("site", "run")
        await frontier.add(["https://a.example/1"])
        await backend.commit_page(page, version, claim=(await frontier.claim(wait_seconds=5))[0])
        assert await frontier.is_finished()


@on_dynamodb_local
async def test_fast_path_lets_hooks_see_and_change_the_request(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    """Libraries that trace, sign in their own way or inject faults hook into these events."""
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
        response = await client.get_item(TableName=table, Key=KEY)
    assert response["Item"]["hooked"] == {"BOOL": True}
    assert seen["params"] == {"TableName": table}
    assert b'"hooked":{"BOOL":true}' in seen["body"]
    assert seen["sent"] == seen["body"]
    assert seen["answer"]["ResponseMetadata"]["HTTPStatusCode"] == 200


# The events of botocore about a call that depend on how the call is sent.
EVENTS = (
    *("provide-client-params", "before-parameter-build", "before-endpoint-resolution", "before-call"),
    *("request-created", "choose-signer", "before-sign", "before-send", "before-parse", "response-received"),
    *("after-call", "after-call-error"),
)


async def emitted(opening: AbstractAsyncContextManager[Any], table: str) -> list[Any]:
    """The events of an answer, an error and a call without an answer, with their arguments."""
    seen: list[Any] = []

    def note(event_name: str, **told: Any) -> None:
        if event_name.endswith(("PutItem", "GetItem", "endpoint-resolution.dynamodb")):
            outcome = {name: type(told[name]).__name__ for name in ("exception",) if name in told}
            seen.append((event_name, sorted(told), outcome))

    def refuse(request: Any, **_: Any) -> None:
        request.url = "http://127.0.0.1:1/"

    def fail(**_: Any) -> None:
        raise FailingHookError

    async with opening as client:
        for name in EVENTS:
            client.meta.events.register_first(name, note)
        await client.put_item(TableName=table, Item=ITEM)
        with pytest.raises(ClientError):
            await client.get_item(TableName=table + "_absent", Key=KEY)
        client.meta.events.register("before-send", refuse)
        with pytest.raises(BotoCoreError):
            await client.get_item(TableName=table, Key=KEY)
        client.meta.events.unregister("before-send", refuse)
        # A request that cannot be signed and an answer that cannot be read cause no event of an answer.
        for event, hook in (("before-parse", fail), ("before-sign", fail)):
            client.meta.events.register_first(event, hook)
            with pytest.raises(FailingHookError):
                await client.get_item(TableName=table, Key=KEY)
    return seen


class FailingHookError(Exception):
    """Raised by a hook."""


@on_dynamodb_local
async def test_fast_path_events_equal_those_of_the_plain_client(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = f"{dynamodb_config.table_prefix}pages"
    tuned = await emitted(open_client(dynamodb_config), table)
    monkeypatch.setattr(fast_path, "KNOWN", frozenset())
    plain = await emitted(open_client(dynamodb_config), table)
    assert {name.partition(".")[0] for name, *_ in tuned} == set(EVENTS)
    assert tuned == plain


async def test_open_client_reads_the_models_of_botocore_outside_of_the_event_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads: list[int] = []
    load_file = JSONFileLoader.load_file

    def load(loader: Any, path: str) -> Any:
        model = load_file(loader, path)
        if model is not None:
            threads.append(threading.get_ident())
        return model

    monkeypatch.setattr(JSONFileLoader, "load_file", load)
    # As in a new process.
    _loader.cache_clear()
    for open_one in (open_client, open_object_client):
        async with open_one(local_config("http://127.0.0.1:1")):
            pass
    assert threads
    assert threading.get_ident() not in threads
    read = len(threads)
    async with open_client(local_config("http://127.0.0.1:1")):
        assert len(threads) == read


class Given:
    """A body of an answer, in the form that a stand-in for DynamoDB has it."""

    async def read(self) -> bytes:
        return b'{"Item":{"page_id":{"S":"given"}}}'


async def test_fast_path_lets_a_hook_answer_instead_of_dynamodb() -> None:
    """As moto and botocore's Stubber do, each by an event of its own."""

    def answer(request: Any, **_: Any) -> AioAWSResponse:
        assert request.headers["Authorization"]
        return AioAWSResponse(request.url, 200, {"x-amzn-requestid": "one"}, Given())

    def stub(**_: Any) -> Any:
        return AioAWSResponse("", 200, {}, None), {"Item": {"page_id": {"S": "stubbed"}}}

    async with open_client(local_config("http://127.0.0.1:1")) as client:
        client.meta.events.register("before-send.dynamodb", answer)
        response = await client.get_item(TableName="pages", Key=KEY)
        assert (response["Item"], response["ResponseMetadata"]["RequestId"]) == (
            {"page_id": {"S": "given"}},
            "one",
        )
        client.meta.events.register("before-call.dynamodb", stub)
        response = await client.get_item(TableName="pages", Key=KEY)
        assert response["Item"] == {"page_id": {"S": "stubbed"}}


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(-1)


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00" + bytes(4)
    )
    await reader.read(1)


async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"HTTP/1.1 200 OK\r\nx-amzn-RequestId: one\r\nContent-Length: 900\r\n\r\n{")


async def talk_nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"220 ready, mail me\r\n\r\n")


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[int]:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(once, "127.0.0.1")
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.mark.parametrize("serve", [say_nothing, hang_up, reset, break_off, talk_nonsense])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_fast_path_connection_errors_equal_those_of_the_plain_client(
    serve: Serve, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that fails in this way, and, with TLS, a server that does not speak TLS."""
    raised = []
    async with serving(serve) as port:
        config = local_config(f"{scheme}://127.0.0.1:{port}", read_timeout=0.3, connect_timeout=0.3)
        for known in (fast_path.KNOWN, frozenset[str]()):
            monkeypatch.setattr(fast_path, "KNOWN", known)
            async with open_client(config) as client:
                with pytest.raises(BotoCoreError) as caught:
                    await client.get_item(TableName="pages", Key=KEY)
                raised.append((type(caught.value), str(caught.value)))
    assert raised[0] == raised[1]


async def test_fast_path_leaves_a_proxy_to_botocore(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n"))
        body = b'{"Item":{}}'
        head = b"HTTP/1.1 200 OK\r\nx-amzn-RequestId: one\r\nContent-Length: %d\r\n\r\n" % len(body)
        writer.write(head + body)

    async with serving(proxy) as port:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
        async with open_client(local_config("http://dynamodb.example")) as client:
            assert (await client.get_item(TableName="pages", Key=KEY))["Item"] == {}
    assert asked == [b"POST http://dynamodb.example/ HTTP/1.1\r\n"]
