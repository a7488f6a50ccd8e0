"""Measures the least that any library takes: aiohttp, orjson, and hand-written signatures and items."""

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import aiohttp
import orjson
from subject import as_text


def versions() -> str:
    """Names the libraries and their versions."""
    return f"aiohttp {aiohttp.__version__}, orjson {orjson.__version__}"


def _to_wire(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        return {"S": value}
    if isinstance(value, bool):
        return {"BOOL": value}
    return {"N": str(value)}


_FROM_WIRE = {"S": str, "BOOL": bool, "N": int}


def _from_wire(item: dict[str, Any]) -> dict[str, Any]:
    return {name: _FROM_WIRE[tag](raw) for name, value in item.items() for tag, raw in value.items()}


class Peer:
    """Sends one request for each item, or for each batch."""

    def __init__(self, session: aiohttp.ClientSession, endpoint: str, table: str) -> None:
        self._session = session
        self._endpoint = endpoint + "/"
        self._host = endpoint.removeprefix("http://")
        self._table = table
        self._keys: dict[str, bytes] = {}

    prepare = staticmethod(as_text)

    async def _call(self, operation: str, request: dict[str, Any]) -> Any:
        body = orjson.dumps(request)
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        scope = f"{now[:8]}/us-east-1/dynamodb/aws4_request"
        target = f"DynamoDB_20120810.{operation}"
        digest = hashlib.sha256(body).hexdigest()
        canonical = (
            f"POST\n/\n\nhost:{self._host}\nx-amz-date:{now}\nx-amz-target:{target}\n\n"
            f"host;x-amz-date;x-amz-target\n{digest}"
        )
        text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        signature = hmac.new(self._key(now[:8]), text.encode(), hashlib.sha256).hexdigest()
        headers = {
            "Content-Type": "application/x-amz-json-1.0",
            "X-Amz-Date": now,
            "X-Amz-Target": target,
            "Authorization": f"AWS4-HMAC-SHA256 Credential=local/{scope}, "
            f"SignedHeaders=host;x-amz-date;x-amz-target, Signature={signature}",
        }
        async with self._session.post(self._endpoint, data=body, headers=headers) as response:
            return orjson.loads(await response.read())

    def _key(self, day: str) -> bytes:
        if day not in self._keys:
            key = b"AWS4local"
            for part in (day, "us-east-1", "dynamodb", "aws4_request"):
                key = hmac.new(key, part.encode(), hashlib.sha256).digest()
            self._keys[day] = key
        return self._keys[day]

    def _item(self, page: dict[str, Any]) -> dict[str, Any]:
        return {name: _to_wire(value) for name, value in page.items()}

    async def save(self, page: dict[str, Any]) -> None:
        """Puts one item."""
        await self._call("PutItem", {"TableName": self._table, "Item": self._item(page)})

    async def get(self, key: tuple[str, str]) -> dict[str, Any]:
        """Gets one item."""
        wanted = {"site_id": {"S": key[0]}, "page_id": {"S": key[1]}}
        request = {"TableName": self._table, "Key": wanted, "ConsistentRead": True}
        return _from_wire((await self._call("GetItem", request))["Item"])

    async def save_many(self, pages: list[dict[str, Any]]) -> None:
        """Saves batches of 25, eight at a time."""
        slots = asyncio.Semaphore(8)

        async def batch(part: list[dict[str, Any]]) -> None:
            async with slots:
                writes = [{"PutRequest": {"Item": self._item(page)}} for page in part]
                await self._call("BatchWriteItem", {"RequestItems": {self._table: writes}})

        await asyncio.gather(*(batch(pages[i : i + 25]) for i in range(0, len(pages), 25)))

    async def get_many(self, keys: list[tuple[str, str]]) -> int:
        """Reads batches of 100, eight at a time."""
        slots = asyncio.Semaphore(8)

        async def batch(part: list[tuple[str, str]]) -> list[dict[str, Any]]:
            wanted = [{"site_id": {"S": site_id}, "page_id": {"S": page_id}} for site_id, page_id in part]
            request = {"RequestItems": {self._table: {"Keys": wanted, "ConsistentRead": True}}}
            async with slots:
                answer = await self._call("BatchGetItem", request)
            return [_from_wire(item) for item in answer["Responses"][self._table]]

        batches = await asyncio.gather(*(batch(keys[i : i + 100]) for i in range(0, len(keys), 100)))
        return sum(map(len, batches))

    async def list_all(self) -> int:
        """Lists all items by one query after the other."""
        pages: list[dict[str, Any]] = []
        request: dict[str, Any] = {
            "TableName": self._table,
            "KeyConditionExpression": "site_id = :s",
            "ExpressionAttributeValues": {":s": {"S": "docs"}},
        }
        while True:
            answer = await self._call("Query", request)
            pages += [_from_wire(item) for item in answer["Items"]]
            if "LastEvaluatedKey" not in answer:
                return len(pages)
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]


@asynccontextmanager
async def open_peer(endpoint: str, table: str) -> AsyncIterator[Peer]:
    """Opens a session of 50 connections."""
    connector = aiohttp.TCPConnector(limit=50)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
        yield Peer(session, endpoint, table)
