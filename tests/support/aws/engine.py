"""Calls the engine behind the simulation, and makes answers in DynamoDB's form."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import aiohttp
import orjson
from aiohttp import web

from tests.support.aws.writes import Item

_TYPE = "com.amazonaws.dynamodb.v20120810#"
_JSON = "application/x-amz-json-1.0"
_KEPT = ("x-amzn-requestid", "date")

# The engine looks at the form of a signature only.
_HEADERS = {
    "Content-Type": _JSON,
    "Authorization": "AWS4-HMAC-SHA256 Credential=local/20260101/us-east-1/dynamodb/aws4_request, "
    "SignedHeaders=host, Signature=0",
}


@dataclass
class Answer:
    """The answer to a request."""

    body: Item
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"x-amzn-RequestId": "simulated"})

    @property
    def is_done(self) -> bool:
        return self.status == 200

    def response(self) -> web.Response:
        content = orjson.dumps(self.body)
        headers = {**self.headers, "Content-Type": _JSON, "x-amz-crc32": f"{crc32(content)}"}
        return web.Response(status=self.status, headers=headers, body=content)


def error(code: str, message: str, status: int = 400, **parts: Any) -> Answer:
    """Makes an error answer."""
    return Answer({"__type": _TYPE + code, "message": message, "Message": message, **parts}, status)


class Engine:
    """Calls the engine."""

    def __init__(self, endpoint: str, session: aiohttp.ClientSession) -> None:
        self.endpoint = endpoint
        self._session = session

    async def call(self, operation: str, request: Item) -> Answer:
        """Sends a request."""
        headers = {**_HEADERS, "X-Amz-Target": f"DynamoDB_20120810.{operation}"}
        body = orjson.dumps(request)
        async with self._session.post(self.endpoint, data=body, headers=headers) as response:
            kept = {name: value for name, value in response.headers.items() if name.lower() in _KEPT}
            return Answer(orjson.loads(await response.read()), response.status, kept)

    async def require(self, operation: str, request: Item) -> Item:
        """Sends a request of the simulation itself, which must succeed."""
        answer = await self.call(operation, request)
        assert answer.is_done, f"{operation} {request}: {answer.body}"
        return answer.body
