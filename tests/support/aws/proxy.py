"""Handles each request on its way to the engine and back."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from tests.support.aws.chance import Chance
from tests.support.aws.copies import Clock, name_table
from tests.support.aws.engine import Answer, Engine, error
from tests.support.aws.limits import Buckets
from tests.support.aws.refusals import THROTTLED, Refusals, partition_of_read, without
from tests.support.aws.settings import Settings
from tests.support.aws.tables import ItemLocks, Table, Tables
from tests.support.aws.writes import (
    READS,
    WRITES,
    Item,
    Write,
    tables_of,
    text_of,
    writes_of,
)

# The path of requests to the simulation itself: GET the events, POST new settings.
CONTROL = "/simulation"

# Seconds between two checks for due writes on copies that nobody reads.
_CATCH_UP = 0.1


class SimulatedAWS:
    """One simulation of AWS before an engine.

    Attributes:
        settings: Its settings, from the next request on. The copies of a table are made when the table is
            first used: so a lag can be changed later, but not be switched on.
        events: How often it did what.
        url: Its endpoint.
    """

    def __init__(self, endpoint: str, settings: Settings, clock: Clock = time.monotonic) -> None:
        self.settings = settings
        self.events: Counter[str] = Counter()
        self.url = ""
        self._endpoint = endpoint
        self._chance = Chance(settings.seed)
        self._locks = ItemLocks()
        self._refusals = Refusals(self._chance, Buckets(clock), self._locks)
        self._clock = clock

    @asynccontextmanager
    async def serve(self, port: int = 0) -> AsyncIterator[str]:
        """Serves on loopback; yields the URL."""
        runner = web.ServerRunner(web.Server(self._handle, access_log=None))
        await runner.setup()
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            self._engine = Engine(self._endpoint, session)
            self._tables = Tables(self._engine, self._clock)
            follower = asyncio.create_task(self._follow())
            try:
                await web.TCPSite(runner, "127.0.0.1", port).start()
                self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
                yield self.url
            finally:
                follower.cancel()
                with suppress(asyncio.CancelledError):
                    await follower
                await runner.cleanup()
                await self._tables.close()

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(_CATCH_UP)
            await self._tables.catch_up()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        if request.path == CONTROL:
            return self._control(body)
        operation = request.headers.get("X-Amz-Target", "").rpartition(".")[2]
        self.events[operation] += 1
        is_data = operation in READS | WRITES
        seconds = self._latency(operation) if is_data else 0.0
        if is_data and self._hits("errors_before", operation):
            return _internal_error().response()
        await asyncio.sleep(seconds / 2)
        answer = await self._answer(operation, orjson.loads(body))
        await asyncio.sleep(seconds / 2)
        if is_data and self._hits("errors_after", operation):
            return _internal_error().response()
        if is_data and self._hits("cuts_after", operation) and request.transport is not None:
            request.transport.abort()
        return answer.response()

    def _control(self, body: bytes) -> web.Response:
        if body:
            self.settings = Settings.from_json(orjson.loads(body))
        return web.Response(body=orjson.dumps(self.events), content_type="application/json")

    def _latency(self, operation: str) -> float:
        if (latency := self.settings.latency) is None:
            return 0.0
        is_tail = self._chance.hits(latency.tail_share, f"tail/{operation}")
        return (latency.tail if is_tail else latency.usual) * self._chance.draw(f"latency/{operation}")

    def _hits(self, name: str, operation: str) -> bool:
        if not self._chance.hits(getattr(self.settings, name), f"{name}/{operation}"):
            return False
        self.events[name] += 1
        return True

    async def _answer(self, operation: str, request: Item) -> Answer:
        if operation not in READS | WRITES:
            answer = await self._engine.call(operation, request)
            if operation in ("DeleteTable", "UpdateTable") and answer.is_done:
                await self._tables.forget(request["TableName"])
            return answer
        named = {name: await self._tables.of(name, self.settings) for name in tables_of(operation, request)}
        tables = {name: table for name, table in named.items() if table is not None}
        if len(tables) < len(named):
            return await self._engine.call(operation, request)
        if operation in WRITES:
            return await self._write(operation, request, tables)
        if operation == "BatchGetItem":
            return await self._read_batch(request, tables)
        return await self._read(operation, request, tables[request["TableName"]])

    async def _write(self, operation: str, request: Item, tables: dict[str, Table]) -> Answer:
        keys = {name: table.schema.keys for name, table in tables.items()}
        writes = writes_of(operation, request, keys)
        refused = self._refusals.of_writes(operation, writes, tables, self.settings)
        for code in refused.values():
            self.events[code] += 1
        match operation:
            case "BatchWriteItem" if refused:
                return await self._write_batch(request, writes, refused, tables)
            case "BatchExecuteStatement" if refused:
                return await self._execute(request, writes, refused, tables)
            case _ if refused:
                return self._refusals.answer(operation, len(writes), refused)
        return await self._do(operation, request, writes, tables)

    async def _write_batch(
        self, request: Item, writes: list[Write], refused: dict[int, str], tables: dict[str, Table]
    ) -> Answer:
        """Does a part of a batch, and leaves the rest unprocessed."""
        if len(refused) == len(writes):
            return self._refusals.throttled("BatchWriteItem")
        elements = [
            (table, element) for table, elements in request["RequestItems"].items() for element in elements
        ]
        part = {**request, "RequestItems": _by_table(without(elements, refused))}
        answer = await self._do("BatchWriteItem", part, without(writes, refused), tables)
        if not answer.is_done:
            return answer
        left = _by_table([elements[i] for i in refused])
        for table, unprocessed in answer.body.get("UnprocessedItems", {}).items():
            left.setdefault(table, []).extend(unprocessed)
        answer.body["UnprocessedItems"] = left
        return answer

    async def _execute(
        self, request: Item, writes: list[Write], refused: dict[int, str], tables: dict[str, Table]
    ) -> Answer:
        """Runs some statements of a batch; the others get errors of their own."""
        answer, responses = Answer({}), iter(())
        if len(refused) < len(writes):
            part = {**request, "Statements": without(request["Statements"], refused)}
            answer = await self._do("BatchExecuteStatement", part, without(writes, refused), tables)
            if not answer.is_done:
                return answer
            responses = iter(answer.body["Responses"])
        answer.body["Responses"] = [
            self._refusals.statement_error(refused[i], write.table) if i in refused else next(responses)
            for i, write in enumerate(writes)
        ]
        return answer

    async def _do(
        self, operation: str, request: Item, writes: list[Write], tables: dict[str, Table]
    ) -> Answer:
        """Lets the engine do writes, and updates the copies."""
        is_transaction = operation == "TransactWriteItems"
        async with self._locks.hold({write.id for write in writes}, as_transaction=is_transaction):
            sent = request
            if operation == "UpdateItem" and request.get("ReturnValues", "NONE") == "NONE":
                sent = {**request, "ReturnValues": "ALL_NEW"}
            answer = await self._engine.call(operation, sent)
            if answer.is_done:
                for write, image in await self._images(operation, sent, writes, answer):
                    self._record(write, image, tables[write.table])
            if sent is not request:
                answer.body.pop("Attributes", None)
            return answer

    def _record(self, write: Write, image: Item | None, table: Table) -> None:
        of = write.id[1]
        if image is not None:
            self._refusals.charge_write(write, table, image, self.settings)
        before = {name: index.partitions(of, image) for name, index in table.indexes.items()}
        for name in table.record(of, write.key, image, self.settings, self._chance):
            self._refusals.charge_index(write.table, name, before[name], self.settings)

    async def _images(
        self, operation: str, request: Item, writes: list[Write], answer: Answer
    ) -> list[tuple[Write, Item | None]]:
        """Returns each written item as it is after the write."""
        match operation:
            case "PutItem" | "DeleteItem":
                return [(writes[0], writes[0].item)]
            case "UpdateItem" if request["ReturnValues"] == "ALL_NEW":
                return [(writes[0], answer.body["Attributes"])]
            case "BatchWriteItem":
                assert not answer.body.get("UnprocessedItems"), "the engine leaves nothing over"
                return [(write, write.item) for write in writes]
            case "BatchExecuteStatement":
                pairs = zip(writes, answer.body["Responses"], strict=True)
                return [
                    (write, write.item or response["Item"])
                    for write, response in pairs
                    if "Error" not in response
                ]
        # The same transaction may be sent twice, and is done once.
        changed = [write for write in writes if write.touched != frozenset()]
        return [(write, await self._stored(write)) for write in changed]

    async def _stored(self, write: Write) -> Item | None:
        request = {"TableName": write.table, "Key": write.key, "ConsistentRead": True}
        return (await self._engine.require("GetItem", request)).get("Item")

    async def _read(self, operation: str, request: Item, table: Table) -> Answer:
        name, partition = partition_of_read(operation, request, table)
        if not self._refusals.takes_read(name, partition, self.settings):
            self.events[THROTTLED] += 1
            return self._refusals.throttled(operation)
        request = {"ReturnConsumedCapacity": "TOTAL", **request}
        index = request.get("IndexName")
        if index in table.indexes:
            answer = await table.indexes[index].read(operation, request)
        elif index is None and await self._is_stale(request, table):
            assert table.read_copy is not None
            answer = await self._engine.call(operation, {**request, "TableName": table.read_copy.name})
            name_table(answer, request["TableName"])
        else:
            answer = await self._engine.call(operation, request)
        self._refusals.charge_reads(name, [partition] if partition else [], answer, self.settings)
        return answer

    async def _is_stale(self, request: Item, table: Table) -> bool:
        """Returns whether a read is answered from the copy; if so, lets the copy catch up."""
        if request.get("ConsistentRead") or table.read_copy is None or self._chance.draw("stale") >= 0.5:
            return False
        self.events["stale reads"] += 1
        await table.read_copy.catch_up()
        return True

    async def _read_batch(self, request: Item, tables: dict[str, Table]) -> Answer:
        """Reads a batch of one table; hot keys are left over."""
        ((name, wanted),) = request["RequestItems"].items()
        table = tables[name]
        partitions = [text_of(key[table.schema.keys[0]]) for key in wanted["Keys"]]
        refused = {
            i: THROTTLED
            for i, partition in enumerate(partitions)
            if not self._refusals.takes_read(name, partition, self.settings)
        }
        self.events[THROTTLED] += len(refused)
        if len(refused) == len(partitions):
            return self._refusals.throttled("BatchGetItem")
        is_stale = await self._is_stale(wanted, table)
        source = table.read_copy.name if is_stale and table.read_copy else name
        part = {**wanted, "Keys": without(wanted["Keys"], refused)}
        answer = await self._engine.call(
            "BatchGetItem", {"ReturnConsumedCapacity": "TOTAL", **request, "RequestItems": {source: part}}
        )
        if not answer.is_done:
            return answer
        body = answer.body
        body["Responses"] = {name: body["Responses"].get(source, [])}
        left = body["UnprocessedKeys"].get(source, {}).get("Keys", []) + [wanted["Keys"][i] for i in refused]
        body["UnprocessedKeys"] = {name: {**wanted, "Keys": left}} if left else {}
        name_table(answer, name)
        self._refusals.charge_reads(name, without(partitions, refused), answer, self.settings)
        return answer


def _internal_error() -> Answer:
    return error(
        "InternalServerError", "The request processing has failed because of an internal error.", 500
    )


def _by_table(elements: list[tuple[str, Any]]) -> dict[str, list[Any]]:
    by_table: dict[str, list[Any]] = {}
    for table, element in elements:
        by_table.setdefault(table, []).append(element)
    return by_table


@asynccontextmanager
async def simulated_aws(
    endpoint: str, settings: Settings, clock: Clock = time.monotonic
) -> AsyncIterator[SimulatedAWS]:
    """Runs a simulation in this process before the engine at `endpoint`; its `url` is the endpoint to use."""
    aws = SimulatedAWS(endpoint, settings, clock)
    async with aws.serve():
        yield aws
