"""Fakes the tables as a dictionary of items, for what the stores of content send and decide."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from ragcrawl_dynamo import DynamoDBConfig, Page, PageVersion
from ragcrawl_dynamo._assembly import Assembly
from ragcrawl_dynamo._dynamodb.client import Access, ClientFactory
from ragcrawl_dynamo._dynamodb.codec import to_item
from ragcrawl_dynamo._dynamodb.destination import Service
from ragcrawl_dynamo._schema.keys import BODY_PARTITIONS
from ragcrawl_dynamo.testing import ManualClock
from tests.support.factories import START
from tests.support.fakes import ATTEMPTS, FakeClient, client_error

KEYS = {"versions": ("page_id", "version_key"), "pages": ("site_id", "page_id")}


@dataclass(frozen=True, slots=True)
class Sent:
    """One request, with its expressions as they read without placeholders."""

    operation: str
    request: dict[str, Any]

    @property
    def batch(self) -> Any:
        """The keys or the writes of a batch, which is of one table."""
        ((_, batch),) = self.request["RequestItems"].items()
        return batch

    def text(self, kind: str) -> str:
        """Returns an expression of the request: "Update", "Condition", "KeyCondition", "Filter" ..."""
        names = self.request.get("ExpressionAttributeNames", {})
        values = self.request.get("ExpressionAttributeValues", {})

        def inserted(token: re.Match[str]) -> str:
            if token[0] in names:
                return str(names[token[0]])
            ((_, raw),) = values[token[0]].items()
            return repr(raw)

        return re.sub(r"[#:]\d+", inserted, self.request.get(f"{kind}Expression", ""))


class StoredItems:
    """Answers requests of keys from a dictionary, queries from a list, and updates from a script.

    Attributes:
        items: The items, by the name of the table without its prefix and by their keys.
        objects: The objects in the bucket, by their keys.
        answers: What the next queries answer: items, with the key to go on from as `start`. Further queries
            are answered with no items.
        refusals: Which of the next updates are refused. Further updates are applied.
        on_request: Called before each answer; may raise, or change the items.
    """

    def __init__(self) -> None:
        self.items: dict[tuple[str, ...], dict[str, Any]] = {}
        self.objects: dict[str, bytes] = {}
        self.answers: deque[tuple[Sequence[Any], Any]] = deque()
        self.refusals: deque[bool] = deque()
        self.on_request: Callable[[str, dict[str, Any]], None] = lambda operation, request: None
        self.client = FakeClient(self._answer)

    @property
    def sent(self) -> list[Sent]:
        """The requests, in their order."""
        return [Sent(operation, request) for operation, request in self.client.requests]

    @property
    def operations(self) -> list[str]:
        """The operations of the requests, in their order."""
        return [operation for operation, _ in self.client.requests]

    def will_list(self, items: Sequence[Any], start: Any = None) -> None:
        """Sets what the next query answers, after those that were set before."""
        self.answers.append((items, start))

    def will_list_site(self, keys: Sequence[Any], most: int = 100) -> None:
        """Sets the keys that the next listing of the site's index answers, at most so many a request."""
        for i in range(0, max(1, len(keys)), most):
            entries = [{**key, "indexed_site": {"S": "site"}} for key in keys[i : i + most]]
            self.will_list(entries, start=entries[-1] if i + most < len(keys) else None)

    def of(self, table: str) -> list[dict[str, Any]]:
        """Returns the items of a table."""
        return [item for (name, *_), item in self.items.items() if name == table]

    def put(self, table: str, item: Any) -> None:
        """Stores an item."""
        self.items[self._key(table, item)] = dict(item)

    def read(self, table: str, key: Any) -> dict[str, Any] | None:
        """Returns an item."""
        return self.items.get(self._key(table, key))

    def _key(self, table: str, item: Any) -> tuple[str, ...]:
        name = table.rpartition("_")[2]
        return (name, *(item[attribute]["S"] for attribute in KEYS[name]))

    def _answer(self, operation: str, request: dict[str, Any]) -> Any:
        self.on_request(operation, request)
        return getattr(self, f"_{operation}")(request)

    def _get_item(self, request: Any) -> Any:
        item = self.read(request["TableName"], request["Key"])
        return {} if item is None else {"Item": item}

    def _batch_get_item(self, request: Any) -> Any:
        ((table, wanted),) = request["RequestItems"].items()
        items = [self.read(table, key) for key in wanted["Keys"]]
        return {"Responses": {table: [item for item in items if item is not None]}}

    def _put_item(self, request: Any) -> Any:
        table, item = request["TableName"], request["Item"]
        # The only condition that content has.
        if "ConditionExpression" in request and (stored := self.read(table, item)) is not None:
            raise client_error("ConditionalCheckFailedException", Item=stored)
        self.put(table, item)
        return {}

    def _batch_execute_statement(self, request: Any) -> Any:
        return {"Responses": [self._insert(statement) for statement in request["Statements"]]}

    def _insert(self, statement: Any) -> Any:
        table, *names = re.findall(r"(?<=INTO \")[^\"]+|(?<=')[^',]+(?=': \?)", statement["Statement"])
        item = dict(zip(names, statement["Parameters"], strict=True))
        if self.read(table, item) is not None:
            return {"Error": {"Code": "DuplicateItem"}}
        self.put(table, item)
        return {}

    def _batch_write_item(self, request: Any) -> Any:
        ((table, writes),) = request["RequestItems"].items()
        for write in writes:
            if "PutRequest" in write:
                self.put(table, write["PutRequest"]["Item"])
            else:
                self.items.pop(self._key(table, write["DeleteRequest"]["Key"]), None)
        return {}

    def _delete_item(self, request: Any) -> Any:
        item = self.items.pop(self._key(request["TableName"], request["Key"]), None)
        return {} if item is None or "ReturnValues" not in request else {"Attributes": item}

    def _update_item(self, request: Any) -> Any:
        if self.refusals and self.refusals.popleft():
            raise client_error("ConditionalCheckFailedException")
        return {"Attributes": request["Key"]}

    def _query(self, request: Any) -> Any:
        items, start = self.answers.popleft() if self.answers else ([], None)
        answer = {"Items": list(items), "Count": len(items)}
        return answer if start is None else {**answer, "LastEvaluatedKey": start}

    def _head_bucket(self, request: Any) -> Any:
        return {}

    def _put_object(self, request: Any) -> Any:
        self.objects[request["Key"]] = request["Body"].read()
        return {}

    def _get_object(self, request: Any) -> Any:
        if request["Key"] not in self.objects:
            raise client_error("NoSuchKey", 404)
        first, last = map(int, request["Range"].removeprefix("bytes=").split("-"))
        return {"Body": Stream(self.objects[request["Key"]][first : last + 1])}

    def _delete_object(self, request: Any) -> Any:
        self.objects.pop(request["Key"], None)
        return {}


class Stream:
    """The body of an answer of S3."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def read(self) -> bytes:
        return self._data


class FakeAccess(Access):
    """Makes one fake client for all services."""

    client: FakeClient

    def factory(self, service: Service) -> ClientFactory:
        return self.client.factory


class Content(Assembly):
    """The rooms of a backend, on fake tables and with a clock that stands still."""

    def __init__(self, clock: ManualClock | None, **settings: Any) -> None:
        self.stored = StoredItems()
        access = FakeAccess()
        object.__setattr__(access, "client", self.stored.client)
        # Batches of conditional writes differ from single ones.
        defaults: dict[str, Any] = {
            "retry_base_delay": 0,
            "retry_attempts": ATTEMPTS,
            "max_connections": 10,
            "conditional_batches": "partiql",
        }
        self.manual_clock = clock or ManualClock(START)
        super().__init__(DynamoDBConfig(**{**defaults, **settings}), access, self.manual_clock, None, None)

    def store_page(self, page: Page) -> None:
        """Stores a page."""
        self.stored.put("pages", to_item(self.tables.pages, page))

    async def store(self, version: PageVersion) -> dict[str, Any]:
        """Saves a version, and forgets the requests; returns its head as it is stored."""
        await self.versions.save(version, keep_unchanged=True)
        self.stored.client.requests.clear()
        head = self.stored.read("versions", self.tables.versions.keys(version))
        assert head is not None
        return head

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """The stored parts of bodies."""
        return [
            item for item in self.stored.of("versions") if item["page_id"]["S"].startswith(BODY_PARTITIONS[0])
        ]


@asynccontextmanager
async def open_content(clock: ManualClock | None = None, **settings: Any) -> AsyncIterator[Content]:
    """Opens the rooms of a backend on fake tables, with some settings."""
    content = Content(clock, **settings)
    await content.gateway.open()
    await content.bucket.open()
    content.stored.client.requests.clear()
    try:
        yield content
    finally:
        await content.close()
