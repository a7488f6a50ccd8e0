"""What makes the client fast: public hooks of botocore's, all of them here, each for one costly step.

| step of botocore | hook | what stands there instead |
|---|---|---|
| walks the shape of every attribute of an answer | component `response_parser_factory` | one `orjson.loads` |
| walks the shape of every attribute of a request | event `before-parameter-build` | a skeleton is walked |
| | event `before-call` | one `orjson.dumps` |
| prepares for streams, retries, redirects, proxies | `http_session_cls`, event `before-call` | `_transport` |

They were written for the versions in `KNOWN`. With another one, and for all that is not listed in
`_OPERATIONS`, the client goes its plain way, to the same results.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import aiobotocore
import orjson
from aiobotocore.parsers import AioResponseParserFactory
from botocore.parsers import ResponseParserError

from ragcrawl_dynamo._dynamodb.metrics import READS, WRITES
from ragcrawl_dynamo._dynamodb.transport import Session, Shortcut

if TYPE_CHECKING:
    from aiobotocore.session import AioSession

# Minor versions of aiobotocore whose hooks do what is said here.
KNOWN = frozenset({"2.25"})

# What carries items; all else goes the plain way.
_OPERATIONS = READS | WRITES
_OUTPUTS = frozenset(f"{name}Output" for name in _OPERATIONS)

# Where a request's true arguments wait between the two events.
_BODY = "ragcrawl_dynamo.body"


def is_known(version: str = aiobotocore.__version__) -> bool:
    """Whether the hooks were written for a version of aiobotocore."""
    return version.rpartition(".")[0] in KNOWN


def tune_session(session: AioSession) -> None:
    """Gives a session the parser; before clients are made of it."""
    session.register_component("response_parser_factory", _ParserFactory())


def tune_client(client: Any, http: Session | None) -> None:
    """Gives a DynamoDB client the encoder, and the short way over its HTTP session.

    Other hooks see the arguments as they were, and may change them, and the body that is sent: what is
    registered under a shorter name is called later. Those of before-call that are registered later still, by
    `register_last("before-call", ...)`, are not called.

    Args:
        client: The client.
        http: Its HTTP session, if it is of the kind that has the short way.
    """
    events = client.meta.events
    events.register_last("before-parameter-build", _leave_skeleton)
    for name in _OPERATIONS:
        events.register_first(f"before-call.dynamodb.{name}", _encode_body)
    # A proxy needs botocore's way.
    if http is None or not http.is_direct:
        return
    shortcut = Shortcut(events, http, _ParserFactory().create_parser("json"))

    async def send(params: dict[str, Any], model: Any, context: dict[str, Any], **_: Any) -> Any:
        return await shortcut.send(params, model, context) if model.name in _OPERATIONS else None

    events.register_last("before-call", send)


class _ParserFactory(AioResponseParserFactory):  # type: ignore[misc] # botocore has no types
    """Parsers of answers; of other protocols than DynamoDB's, botocore's own."""

    def create_parser(self, protocol_name: str) -> Any:
        plain = super().create_parser(protocol_name)
        return _Parser(plain) if protocol_name == "json" else plain


class _Parser:
    """Reads answers of data operations at once; errors and all other answers botocore's way."""

    def __init__(self, plain: Any) -> None:
        self._plain = plain

    async def parse(self, response: dict[str, Any], shape: Any) -> Any:
        """See botocore's ResponseParser.

        Raises:
            ResponseParserError: The answer is no JSON object.
        """
        if response["status_code"] >= 300 or shape is None or shape.name not in _OUTPUTS:
            return await self._plain.parse(response, shape)
        body: bytes = response["body"]
        try:
            parsed = orjson.loads(body)
        except ValueError as error:
            raise ResponseParserError(f"the answer is no JSON: {error}") from error
        if not isinstance(parsed, dict):
            raise ResponseParserError("the answer is no JSON object")
        # Quotes inside of text are escaped, so that this is a name: of a binary, or of a map's member.
        if b'"B":' in body or b'"B" :' in body:
            _decode_binaries(parsed)
        headers = {name.lower(): value for name, value in response["headers"].items()}
        parsed["ResponseMetadata"] = {
            "RequestId": headers.get("x-amzn-requestid"),
            "HTTPStatusCode": response["status_code"],
            "HTTPHeaders": headers,
        }
        return parsed


def _decode_binaries(answer: dict[str, Any]) -> None:
    """Makes bytes of the binaries of all items in an answer."""
    items: list[Any] = [*answer.get("Items", ()), answer.get("Item"), answer.get("Attributes")]
    responses = answer.get("Responses", ())
    if isinstance(responses, Mapping):
        for found in responses.values():
            items += found
    else:
        items += [each.get("Item") for each in responses]
    for item in items:
        if item:
            for value in item.values():
                _decode_binary(value)


def _decode_binary(value: dict[str, Any]) -> None:
    ((tag, raw),) = value.items()
    if tag == "B":
        value["B"] = b64decode(raw)
    elif tag == "BS":
        value["BS"] = [b64decode(each) for each in raw]
    elif tag == "M":
        for each in raw.values():
            _decode_binary(each)
    elif tag == "L":
        for each in raw:
            _decode_binary(each)


def _leave_skeleton(params: dict[str, Any], model: Any, context: dict[str, Any], **_: Any) -> None:
    """Puts the arguments aside, and leaves what tells the endpoint."""
    if model.name not in _OPERATIONS:
        return
    context[_BODY] = dict(params)
    tables = params.get("RequestItems")
    params.clear()
    if tables is not None:
        params["RequestItems"] = dict.fromkeys(tables, [] if model.name == "BatchWriteItem" else {})
    elif "TableName" in (body := context[_BODY]):
        params["TableName"] = body["TableName"]
    elif "TransactItems" in body:
        params["TransactItems"] = [
            {kind: {"TableName": inner["TableName"]} for kind, inner in element.items()}
            for element in body["TransactItems"]
        ]
    else:
        params["Statements"] = []


def _encode_body(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    if (body := context.pop(_BODY, None)) is not None:
        params["body"] = orjson.dumps(body, default=_encode_binary)


def _encode_binary(value: Any) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        return b64encode(value).decode("ascii")
    raise TypeError(f"a {type(value).__name__} is no part of a request")
