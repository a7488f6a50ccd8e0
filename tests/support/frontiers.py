"""Provides the queue as several processes have it, with interceptors between a process and the engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig, Frontier, RagcrawlDynamoError
from ragcrawl_dynamo._dynamodb.client import open_client
from ragcrawl_dynamo._schema.keys import items_partitions
from ragcrawl_dynamo.testing import ManualClock
from tests.support.fakes import Around, client_error, intercepting
from tests.support.queues import QUICK

BATCHES = {"conditional_batches": "partiql", "retry_base_delay": 0.001, **QUICK}


@asynccontextmanager
async def opened(
    config: DynamoDBConfig, around: Around | None = None, clock: ManualClock | None = None
) -> AsyncIterator[Frontier]:
    """Opens the queue as another process has it, with an interceptor between it and the engine."""
    factory = open_client if around is None else intercepting(around)
    async with DynamoDBBackend(config, clock=clock, client_factory=factory) as backend:
        yield backend.frontier("site", "run")


class Process:
    """Acts as a process for the queue: a backend of its own, which can be killed."""

    def __init__(self, config: DynamoDBConfig, clock: ManualClock | None = None) -> None:
        self.requests_left: int | None = None
        self.backend = DynamoDBBackend(config, clock=clock, client_factory=intercepting(self._around))

    async def __aenter__(self) -> Process:
        await self.backend.initialize()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.kill()

    @property
    def frontier(self) -> Frontier:
        return self.backend.frontier("site", "run")

    def die_after(self, requests: int) -> None:
        """Lets it send so many more requests, and then kills it."""
        self.requests_left = requests

    async def kill(self) -> None:
        """Ends it without another request: it releases nothing, and stores no counts."""
        self.die_after(0)
        with suppress(RagcrawlDynamoError):
            await self.backend.close()

    async def _around(self, operation: str, request: dict[str, Any], call: Any) -> Any:
        if self.requests_left is not None:
            if self.requests_left == 0:
                raise client_error("AccessDeniedException")
            self.requests_left -= 1
        return await call(**request)


def is_of_index(operation: str, request: dict[str, Any]) -> bool:
    """Returns whether a request asks for items; hosts are listed under names that begin with "#"."""
    return (
        operation == "query"
        and request.get("IndexName") == "by_queue"
        and not any(value["S"].startswith("#") for value in request["ExpressionAttributeValues"].values())
    )


def is_whole_run(operation: str, request: dict[str, Any], partition: str | None = None) -> bool:
    """Returns whether a request reads the items of one of the run's partitions, by default the first."""
    values = request.get("ExpressionAttributeValues", {}).values()
    wanted = partition or items_partitions("run")[0]
    return operation == "query" and "IndexName" not in request and {"S": wanted} in values


@dataclass
class Index:
    """Stands between a process and the engine, and can hold back what the index shows of items."""

    shows: str = "truth"
    answers: dict[str, Any] = field(default_factory=dict)

    async def __call__(self, operation: str, request: dict[str, Any], call: Any) -> Any:
        if not is_of_index(operation, request):
            return await call(**request)
        answer = await call(**request)
        if self.shows == "nothing":
            return {**answer, "Items": [], "Count": 0}
        if self.shows == "the past":
            return self.answers.get(repr(request), {**answer, "Items": [], "Count": 0})
        self.answers[repr(request)] = answer
        return answer
