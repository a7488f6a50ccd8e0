"""Injects faults by a proxy between a backend and its engine, at random but reproducibly.

Each request is hit with a given probability by one of the faults that fit its operation. The faults are those
of networks and of DynamoDB: some come before the engine has seen the request, some after the engine has
applied it, and a client cannot tell which.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias
from zlib import crc32

import aiohttp
import orjson
from aiohttp import web

# Seconds; the client's read_timeout has to be shorter than a hang.
DELAY = 0.05
HANG = 3.0

_TYPE = "com.amazonaws.dynamodb.v20120810#"
_PER_STATEMENT = (
    "ThrottlingError",
    "ProvisionedThroughputExceeded",
    "InternalServerError",
    "TransactionConflict",
)
_TRANSACTIONS = frozenset({"TransactWriteItems"})
_WRITES = frozenset({"PutItem", "UpdateItem", "DeleteItem"})

Answer: TypeAlias = tuple[int, dict[str, str], bytes]


class Faults:
    """Decides which requests are hit, and by which fault."""

    def __init__(self, endpoint: str, share: float, seed: int) -> None:
        self.endpoint = endpoint
        self.share = share
        self.injected: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self._chance = random.Random(seed)  # noqa: S311 # reproducible on purpose
        self._session: aiohttp.ClientSession | None = None

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers one request of the backend."""
        operation = request.headers.get("X-Amz-Target", "").rpartition(".")[2]
        self.requests[operation] += 1
        body = await request.read()
        fault = self._pick(operation) if self._chance.random() < self.share else None
        if fault is None:
            return _response(*await self._forward(request, body))
        self.injected[fault.__name__.strip("_")] += 1
        return await fault(request, operation, body)

    def _pick(self, operation: str) -> Fault:
        fitting: list[Fault] = [
            self._dropped_before,
            self._lost_answer,
            self._delayed,
            self._reset_in_body,
            self._truncated,
            self._corrupted,
            self._error_before,
            self._error_after,
            self._throttled,
        ]
        if operation in ("BatchWriteItem", "BatchGetItem"):
            fitting += [self._unprocessed] * 4
        if operation == "BatchExecuteStatement":
            fitting += [self._statement_errors] * 4
        if operation in _TRANSACTIONS | _WRITES:
            fitting += [self._conflict] * 2
        # A hang takes seconds.
        if self._chance.random() < 0.01:
            return self._hanging
        return self._chance.choice(fitting)

    async def _dropped_before(
        self, request: web.BaseRequest, operation: str, body: bytes
    ) -> web.StreamResponse:
        return _abort(request)

    async def _lost_answer(self, request: web.BaseRequest, operation: str, body: bytes) -> web.StreamResponse:
        await self._forward(request, body)
        return _abort(request)

    async def _delayed(self, request: web.BaseRequest, operation: str, body: bytes) -> web.StreamResponse:
        await asyncio.sleep(DELAY * self._chance.random())
        answer = await self._forward(request, body)
        await asyncio.sleep(DELAY * self._chance.random())
        return _response(*answer)

    async def _hanging(self, request: web.BaseRequest, operation: str, body: bytes) -> web.StreamResponse:
        answer = await self._forward(request, body)
        await asyncio.sleep(HANG)
        return _response(*answer)

    async def _reset_in_body(
        self, request: web.BaseRequest, operation: str, body: bytes
    ) -> web.StreamResponse:
        status, headers, content = await self._forward(request, body)
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = len(content)
        await response.prepare(request)
        await response.write(content[: len(content) // 2])
        return _abort(request)

    async def _truncated(self, request: web.BaseRequest, operation: str, body: bytes) -> web.StreamResponse:
        status, headers, content = await self._forward(request, body)
        headers.pop("x-amz-crc32", None)
        return _response(status, headers, content[: len(content) // 2])

    async def _corrupted(self, request: web.BaseRequest, operation: str, body: bytes) -> web.StreamResponse:
        status, headers, content = await self._forward(request, body)
        headers.setdefault("x-amz-crc32", f"{crc32(content)}")
        # One letter or digit is another one: still JSON, perhaps, but not what was sent.
        places = [i for i, byte in enumerate(content) if chr(byte).isalnum()]
        if places:
            place = self._chance.choice(places)
            content = content[:place] + (b"7" if content[place] != ord("7") else b"8") + content[place + 1 :]
        else:
            content += b" "
        return _response(status, headers, content)

    async def _error_before(
        self, request: web.BaseRequest, operation: str, body: bytes
    ) -> web.StreamResponse:
        return self._fault_of_the_server()

    async def _error_after(self, request: web.BaseRequest, operation: str, body: bytes) -> web.StreamResponse:
        await self._forward(request, body)
        return self._fault_of_the_server()

    async def _throttled(self, request: web.BaseRequest, operation: str, body: bytes) -> web.StreamResponse:
        codes = ("ThrottlingException", "ProvisionedThroughputExceededException", "RequestLimitExceeded")
        return error_answer(400, self._chance.choice(codes))

    async def _conflict(self, request: web.BaseRequest, operation: str, body: bytes) -> web.StreamResponse:
        if operation not in _TRANSACTIONS:
            return error_answer(400, "TransactionConflictException")
        reasons = [{"Code": "None"} for _ in orjson.loads(body)["TransactItems"]]
        reasons[self._chance.randrange(len(reasons))] = {"Code": "TransactionConflict"}
        return error_answer(400, "TransactionCanceledException", CancellationReasons=reasons)

    async def _unprocessed(self, request: web.BaseRequest, operation: str, body: bytes) -> web.StreamResponse:
        """Gives the engine only a part of the batch, and reports the rest as unprocessed."""
        asked = orjson.loads(body)
        ((table, wanted),) = asked["RequestItems"].items()
        items = wanted["Keys"] if operation == "BatchGetItem" else wanted
        kept, left = self._split(items)
        answer: dict[str, Any] = {"Responses": {table: []}} if operation == "BatchGetItem" else {}
        status, headers = 200, {"Content-Type": "application/x-amz-json-1.0", "x-amzn-RequestId": "proxy"}
        if kept:
            part = {**wanted, "Keys": kept} if operation == "BatchGetItem" else kept
            asked["RequestItems"] = {table: part}
            status, headers, content = await self._forward(request, orjson.dumps(asked))
            if status != 200:
                return _response(status, headers, content)
            answer = orjson.loads(content)
        name = "UnprocessedKeys" if operation == "BatchGetItem" else "UnprocessedItems"
        answer[name] = {table: {**wanted, "Keys": left} if operation == "BatchGetItem" else left}
        return _response(status, _without_checksum(headers), orjson.dumps(answer))

    async def _statement_errors(
        self, request: web.BaseRequest, operation: str, body: bytes
    ) -> web.StreamResponse:
        """Gives the engine only a part of the batch; each of the other statements gets an error."""
        asked = orjson.loads(body)
        statements = asked["Statements"]
        kept, _ = self._split(range(len(statements)))
        answers: dict[int, Any] = {}
        status, headers = 200, {"Content-Type": "application/x-amz-json-1.0", "x-amzn-RequestId": "proxy"}
        if kept:
            part = {**asked, "Statements": [statements[i] for i in kept]}
            status, headers, content = await self._forward(request, orjson.dumps(part))
            if status != 200:
                return _response(status, headers, content)
            answers = dict(zip(kept, orjson.loads(content)["Responses"], strict=True))
        responses = [
            answers.get(i)
            or {
                "Error": {"Code": self._chance.choice(_PER_STATEMENT), "Message": "injected"},
                "TableName": "t",
            }
            for i in range(len(statements))
        ]
        return _response(status, _without_checksum(headers), orjson.dumps({"Responses": responses}))

    def _split(self, items: Any) -> tuple[list[Any], list[Any]]:
        kept: list[Any] = []
        left: list[Any] = []
        for element in items:
            (kept if self._chance.random() < 0.5 else left).append(element)
        return kept, left

    def _fault_of_the_server(self) -> web.StreamResponse:
        if self._chance.random() < 0.3:
            return web.Response(status=503, text="<html>Service Unavailable</html>")
        return error_answer(500, self._chance.choice(("InternalServerError", "InternalFailure")))

    async def _forward(self, request: web.BaseRequest, body: bytes) -> Answer:
        headers = {
            name: value
            for name, value in request.headers.items()
            if name.lower() not in ("host", "content-length", "transfer-encoding", "expect")
        }
        assert self._session is not None
        async with self._session.post(self.endpoint + request.path, data=body, headers=headers) as response:
            content = await response.read()
            kept = ("content-type", "x-amzn-requestid", "x-amz-crc32", "date")
            return (
                response.status,
                {name.lower(): value for name, value in response.headers.items() if name.lower() in kept},
                content,
            )


Fault: TypeAlias = Callable[[web.BaseRequest, str, bytes], Awaitable[web.StreamResponse]]


class Port:
    """The port of a proxy, which can be closed for a while: connections are then refused.

    Attributes:
        number: Its number; 0 before it is opened for the first time.
    """

    def __init__(self, runner: web.ServerRunner) -> None:
        self.number = 0
        self._runner = runner
        self._site: web.TCPSite | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.number}"

    async def open(self) -> None:
        self._site = web.TCPSite(self._runner, "127.0.0.1", self.number, reuse_address=True)
        await self._site.start()
        self.number = self._runner.addresses[0][1]

    async def close(self) -> None:
        """Closes it, and cuts all connections."""
        assert self._site is not None
        assert self._runner.server is not None
        await self._site.stop()
        for connection in list(self._runner.server.connections):
            if connection.transport is not None:
                connection.transport.abort()


@asynccontextmanager
async def served(faults: Faults) -> AsyncIterator[Port]:
    """Serves the proxy on a free port of loopback; yields the port."""
    runner = web.ServerRunner(web.Server(faults.handle, access_log=None))
    await runner.setup()
    try:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
            faults._session = session
            port = Port(runner)
            await port.open()
            yield port
    finally:
        await runner.cleanup()


@asynccontextmanager
async def faulty(faults: Faults) -> AsyncIterator[str]:
    """Serves the proxy on a free port of loopback; yields its URL."""
    async with served(faults) as port:
        yield port.url


def _abort(request: web.BaseRequest) -> web.StreamResponse:
    """Resets the connection; the response that it returns is never sent."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


def error_answer(status: int, code: str, **parts: Any) -> web.Response:
    content = orjson.dumps(
        {"__type": _TYPE + code, "message": f"injected {code}", "Message": "injected", **parts}
    )
    return _response(
        status, {"x-amzn-RequestId": "proxy", "Content-Type": "application/x-amz-json-1.0"}, content
    )


def _response(status: int, headers: dict[str, str], content: bytes) -> web.Response:
    return web.Response(status=status, headers=headers, body=content)


def _without_checksum(headers: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name != "x-amz-crc32"}
