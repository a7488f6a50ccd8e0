"""The client's hooks expect behaviour of aiobotocore and botocore that is not documented.

Each test looks at one expectation, with the installed version. A failure is no danger for users: with
a version that is not in `fast_path.KNOWN` the client goes its plain way. It says what to look at before the
version is added to `KNOWN`, and, for a version that is in it, that it has to be taken out.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aioboto3
import aiobotocore
import botocore
import pytest
from aiobotocore.awsrequest import AioAWSResponse
from aiobotocore.client import AioBaseClient
from aiobotocore.config import AioConfig
from aiobotocore.endpoint import AioEndpoint, convert_to_response_dict
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.parsers import AioResponseParserFactory
from aiobotocore.session import AioSession
from botocore.awsrequest import create_request_object
from botocore.loaders import create_loader

from ragcrawl_dynamo._dynamodb import fast_path

PLAIN_WAY = (
    "With versions that are not in fast_path.KNOWN the client goes its plain way: more CPU, the same results."
)
KEY = {"id": {"S": "1"}}


def changed(what: str, module: str) -> str:
    """The message of a failure."""
    return (
        f"aiobotocore {aiobotocore.__version__} with botocore {botocore.__version__}: {what}. "
        f"Look at ragcrawl_dynamo/_dynamodb/{module}. {PLAIN_WAY}"
    )


class Body:
    """A body of an answer, in the form that a stand-in for DynamoDB has it."""

    async def read(self) -> bytes:
        return b'{"Item":{"id":{"S":"answered"}}}'


def answer(request: Any, **_: Any) -> AioAWSResponse:
    return AioAWSResponse(request.url, 200, {"x-amzn-requestid": "one"}, Body())


@asynccontextmanager
async def open_plain(session: AioSession | None = None, **options: Any) -> AsyncIterator[Any]:
    """A client of aiobotocore that answers itself, with no hook of ours."""
    opened = aioboto3.Session(
        "key", "secret", region_name="us-east-1", botocore_session=session or AioSession()
    )
    config = AioConfig(parameter_validation=False, **options)
    async with opened.client("dynamodb", endpoint_url="http://127.0.0.1:1", config=config) as client:
        client.meta.events.register("before-send.dynamodb", answer)
        yield client


def test_upgrade_aiobotocore_version() -> None:
    assert fast_path.is_known(), changed(
        "this version is new. Add it to KNOWN if the tests here and those of "
        "tests/integration/dynamodb/test_fast_path.py pass with it",
        "fast_path.py",
    )


async def test_upgrade_aiobotocore_response_parser_factory() -> None:
    """The component is asked for a parser by protocol, and the parser gets the answer and its shape."""
    seen: list[Any] = []

    class Parser:
        async def parse(self, response: dict[str, Any], shape: Any) -> Any:
            seen.append((set(response), type(response["body"]), shape.name))
            return {"Item": {}, "ResponseMetadata": {}}

    class Factory(AioResponseParserFactory):  # type: ignore[misc] # botocore has no types
        def create_parser(self, protocol_name: str) -> Any:
            seen.append(protocol_name)
            return Parser()

    session = AioSession()
    session.register_component("response_parser_factory", Factory())
    async with open_plain(session) as client:
        await client.get_item(TableName="t", Key=KEY)
    expected = ["json", ({"headers", "status_code", "body", "context"}, bytes, "GetItemOutput")]
    assert seen == expected, changed(
        f"the component response_parser_factory is used in another way: {seen} instead of {expected}",
        "fast_path.py, _ParserFactory and _Parser",
    )


async def test_upgrade_aiobotocore_parameters_can_be_replaced_before_they_are_serialized() -> None:
    """The parameters that a handler of before-parameter-build has changed are sent, with their context."""
    contexts: list[Any] = []
    bodies: list[Any] = []

    def skeleton(params: dict[str, Any], model: Any, context: dict[str, Any], **_: Any) -> None:
        assert (params, model.name) == ({"TableName": "t", "Key": KEY}, "GetItem")
        params.pop("Key")
        contexts.append(context)

    def note(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        bodies.append(params["body"])
        contexts.append(context)

    async with open_plain() as client:
        client.meta.events.register_last("before-parameter-build", skeleton)
        client.meta.events.register_first("before-call.dynamodb.GetItem", note)
        await client.get_item(TableName="t", Key=KEY)
    is_same = len(contexts) == 2 and contexts[0] is contexts[1]
    assert (bodies, is_same) == ([b'{"TableName": "t"}'], True), changed(
        "a handler of before-parameter-build cannot put arguments aside for before-call any more",
        "fast_path.py, _leave_skeleton and _encode_body",
    )


async def test_upgrade_aiobotocore_body_can_be_replaced_before_the_call() -> None:
    bodies: list[Any] = []

    def replace(params: dict[str, Any], **_: Any) -> None:
        params["body"] = b'{"replaced":1}'

    async with open_plain() as client:
        client.meta.events.register_first("before-call.dynamodb.GetItem", replace)
        client.meta.events.register_first(
            "before-send.dynamodb", lambda request, **_: bodies.append(request.body)
        )
        await client.get_item(TableName="t", Key=KEY)
    assert bodies == [b'{"replaced":1}'], changed(
        "the body that a handler of before-call sets is not the one that is sent",
        "fast_path.py, _encode_body",
    )


async def test_upgrade_aiobotocore_before_call_may_answer() -> None:
    """The short way is a handler that answers, as botocore's Stubber is one."""
    seen: list[set[str]] = []

    def shortcut(params: dict[str, Any], model: Any, **_: Any) -> Any:
        seen.append(set(params))
        assert model.output_shape.name == "GetItemOutput"
        assert model.service_model.shape_for_error_code("ResourceNotFoundException") is not None
        return AioAWSResponse("", 200, {}, None), {"Item": "shortened"}

    async with open_plain() as client:
        client.meta.events.register_last("before-call", shortcut)
        response = await client.get_item(TableName="t", Key=KEY)
    needed = {"method", "url", "headers", "body", "context"}
    assert response == {"Item": "shortened"}, changed(
        "the answer of a handler of before-call is not the answer of the call", "fast_path.py, shorten_way"
    )
    assert seen[0] >= needed, changed(
        f"a request is built of {sorted(seen[0])}, without {sorted(needed - seen[0])}",
        "transport.py, Shortcut",
    )


async def test_upgrade_aiobotocore_request_objects() -> None:
    """A request is made of the arguments of before-call, and prepared for the HTTP session."""
    prepared: list[Any] = []

    def shortcut(params: dict[str, Any], **_: Any) -> Any:
        request = create_request_object(params)
        request.headers["Authorization"] = "signed"
        prepared.append(request.prepare())
        return AioAWSResponse("", 200, {}, None), {}

    async with open_plain() as client:
        client.meta.events.register_last("before-call", shortcut)
        await client.get_item(TableName="t", Key=KEY)
    (request,) = prepared
    told = {
        "method": request.method,
        "url": request.url,
        "body": request.body,
        "signed": request.headers["Authorization"],
        "stream_output": request.stream_output,
    }
    expected = {
        "method": "POST",
        "url": "http://127.0.0.1:1/",
        "body": b'{"TableName": "t", "Key": {"id": {"S": "1"}}}',
        "signed": "signed",
        "stream_output": False,
    }
    assert told == expected, changed(
        f"requests are made in another way: {told} instead of {expected}", "transport.py, Shortcut"
    )


async def test_upgrade_aiobotocore_before_parse() -> None:
    """The checksum of an answer is checked where botocore tells of the whole answer."""
    seen: list[Any] = []

    def note(response_dict: dict[str, Any], **_: Any) -> None:
        headers = response_dict["headers"]
        seen.append((response_dict["body"], headers["x-amzn-requestid"], response_dict["status_code"]))

    async with open_plain() as client:
        client.meta.events.register("before-parse.dynamodb", note)
        await client.get_item(TableName="t", Key=KEY)
    assert seen == [(await Body().read(), "one", 200)], changed(
        f"before-parse tells of an answer as {seen}", "client.py, _check_integrity"
    )


async def test_upgrade_botocore_data_loader() -> None:
    """All clients of a process may share the loader of the service models."""
    loader = create_loader(AioSession().get_config_variable("data_path"))
    session = AioSession()
    session.register_component("data_loader", loader)
    loaded: list[str] = []
    load = loader.load_service_model

    def note(name: str, *args: Any, **settings: Any) -> Any:
        loaded.append(name)
        return load(name, *args, **settings)

    loader.load_service_model = note
    async with open_plain(session) as client:
        assert client.meta.service_model.service_name == "dynamodb"
    assert "dynamodb" in loaded, changed("the component data_loader is not used", "client.py, _loader")


async def test_upgrade_aiobotocore_http_session() -> None:
    """The setting `http_session_cls` makes the session, whose send() gives whole answers."""
    made: list[Any] = []

    class Session(AIOHTTPSession):  # type: ignore[misc] # botocore has no types
        async def send(self, request: Any) -> Any:
            return answer(request)

    def make(**settings: Any) -> Any:
        made.append(Session(**settings))
        return made[-1]

    async with open_plain(http_session_cls=make) as client:
        client.meta.events.unregister("before-send.dynamodb", answer)
        response = await client.get_item(TableName="t", Key=KEY)
    assert len(made) == 1, changed(
        f"http_session_cls is called {len(made)} times for a client", "connections.py, SessionMaker"
    )
    assert response["Item"] == {"id": {"S": "answered"}}, changed(
        "a request is not sent by send() of the HTTP session", "transport.py, Shortcut"
    )


# What the short way does instead of aiobotocore: by the first digits of the checksum of its source, in the
# versions of `KNOWN`. They differ in what comes before the event before-call, in how the code of an error is
# found after it, and in answers that are streams: in nothing that the short way does.
REPLACED: dict[str, tuple[Callable[..., Any], set[str]]] = {
    "AioBaseClient._make_api_call": (
        AioBaseClient._make_api_call,
        {"6568ea27af60", "2be96199935a", "c1f3febce09c"},
    ),
    "AioBaseClient._make_request": (AioBaseClient._make_request, {"7a98f1ceb791"}),
    "AioEndpoint.create_request": (AioEndpoint.create_request, {"9430edc6b5b5"}),
    "AioEndpoint._send_request": (AioEndpoint._send_request, {"45299be64199"}),
    "AioEndpoint._get_response": (AioEndpoint._get_response, {"947244e32dad"}),
    "AioEndpoint._do_get_response": (AioEndpoint._do_get_response, {"082b773ba52d", "c8d17ec3f602"}),
    "AioEndpoint._add_modeled_error_fields": (AioEndpoint._add_modeled_error_fields, {"1e4edfb66c90"}),
    "AioEndpoint._send": (AioEndpoint._send, {"1d910e2ff7bf"}),
    "convert_to_response_dict": (
        convert_to_response_dict,
        {"5b8b5942a944", "7b32c63320bd", "a06a01efee32"},
    ),
}


@pytest.mark.parametrize("name", REPLACED)
def test_upgrade_aiobotocore_source_that_the_short_way_replaces(name: str) -> None:
    function, checksums = REPLACED[name]
    checksum = hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:12]
    assert checksum in checksums, changed(
        f"{name} has changed. Compare it with the version before: the short way may have to do what is new "
        f"there. Then add {checksum!r} to this test",
        "transport.py, Shortcut",
    )
