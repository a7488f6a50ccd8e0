"""Makes the client fast: replaces the costliest steps of botocore, each by a hook that is public.

| step of botocore | hook | replacement |
|---|---|---|
| walks the shape of every attribute of an answer | component `response_parser_factory` | one `orjson.loads` |
| walks the shape of every attribute of a request | event `before-parameter-build` | a skeleton is walked |
| | event `before-call` | one `orjson.dumps` |
| prepares for streams, retries and recordings | `http_session_cls`, event `before-call` | `transport` |

They save, of the client's CPU (`make bench-hooks`, 2 cores, medians of one run): the parser 57 % of a
BatchGetItem and 70 % of a page of a Query, the encoder 10 % of a PutItem and a third of a BatchWriteItem, the
short way 12 % of a PutItem. Left out is what gives less than 5 % of a PutItem: requests by the session's own
aiohttp session (4 %), and an AWSRequest that does not prepare itself to show its body (1 to 2 %).

The hooks are public, but not all of what they are called with is documented. They were tried with
the versions in `KNOWN`. With another version, and for operations that are not in `_OPERATIONS`, the client
works without them, with the same results. tests/unit/dynamodb/test_upgrades.py shows which one a new version
breaks.
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
from ragcrawl_dynamo._dynamodb.transport import Shortcut

if TYPE_CHECKING:
    from aiobotocore.session import AioSession

# Minor versions of aiobotocore whose hooks work as they are used here.
KNOWN = frozenset({"2.23", "2.24", "2.25", "2.26", *(f"3.{minor}" for minor in range(11))})

# The operations that carry items; all others go the plain way.
_OPERATIONS = READS | WRITES
_OUTPUTS = frozenset(f"{name}Output" for name in _OPERATIONS)

# Where a request's arguments wait between the two events.
_BODY = "ragcrawl_dynamo.body"


def is_known(version: str = aiobotocore.__version__) -> bool:
    """Returns whether the hooks were written for a version of aiobotocore."""
    return version.rpartition(".")[0] in KNOWN


def tune_session(session: AioSession) -> None:
    """Registers the parser; before clients are made of the session."""
    session.register_component("response_parser_factory", _ParserFactory())


def tune_client(client: Any, http_session: Any) -> None:
    """Registers the encoder and the short way over the client's HTTP session.

    Other hooks see the arguments as they were, and may change them, and the body that is sent: hooks that are
    registered under a shorter event name are called later. Only hooks that are registered later by
    `register_last("before-call", ...)` are not called.
    """
    encode_with_orjson(client)
    shorten_way(client, http_session)


def encode_with_orjson(client: Any) -> None:
    """Registers the encoder."""
    events = client.meta.events
    events.register_last("before-parameter-build", _leave_skeleton)
    for name in _OPERATIONS:
        events.register_first(f"before-call.dynamodb.{name}", _encode_body)


def shorten_way(client: Any, http_session: Any) -> None:
    """Registers the short way."""
    events = client.meta.events
    shortcut = Shortcut(events, http_session, _ParserFactory().create_parser("json"))

    async def send(params: dict[str, Any], model: Any, **_: Any) -> Any:
        return await shortcut.send(params, model) if model.name in _OPERATIONS else None

    events.register_last("before-call", send)


class _ParserFactory(AioResponseParserFactory):  # type: ignore[misc] # botocore has no types
    """Makes the parsers of answers; for other protocols than DynamoDB's, botocore's own."""

    def create_parser(self, protocol_name: str) -> Any:
        plain = super().create_parser(protocol_name)
        return _Parser(plain) if protocol_name == "json" else plain


class _Parser:
    """Decodes answers of data operations as a whole; errors and all other answers as botocore does."""

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
            raise ResponseParserError(f"the answer is not JSON: {error}") from error
        if not isinstance(parsed, dict):
            raise ResponseParserError("the answer is not a JSON object")
        # Quotes inside of text are escaped, so this is a name: the type of a binary, or a member of a map.
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
    """Decodes the binaries of all items in an answer."""
    items: list[Any] = [*answer.get("Items", ()), answer.get("Item"), answer.get("Attributes")]
    responses = answer.get("Responses", ())
    if isinstance(responses, Mapping):
        for items_of_table in responses.values():
            items += items_of_table
    else:
        items += [answer_of_statement.get("Item") for answer_of_statement in responses]
    for item in items:
        if item:
            for value in item.values():
                _decode_binary(value)


def _decode_binary(value: dict[str, Any]) -> None:
    ((tag, raw),) = value.items()
    if tag == "B":
        value["B"] = b64decode(raw)
    elif tag == "BS":
        value["BS"] = [b64decode(binary) for binary in raw]
    elif tag == "M":
        for member in raw.values():
            _decode_binary(member)
    elif tag == "L":
        for member in raw:
            _decode_binary(member)


def _leave_skeleton(params: dict[str, Any], model: Any, context: dict[str, Any], **_: Any) -> None:
    """Puts the arguments aside, and leaves those that the choice of the endpoint needs."""
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
