"""Provides clients that answer from a script, or that stand between a backend and an engine."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from botocore.exceptions import ClientError

from ragcrawl_dynamo import DynamoDBConfig
from ragcrawl_dynamo._dynamodb.client import ClientFactory, open_client
from ragcrawl_dynamo._dynamodb.gateway import Gateway

Answer = Callable[[str, dict[str, Any]], Any]
Around = Callable[[str, dict[str, Any], Callable[..., Awaitable[Any]]], Awaitable[Any]]

# No pauses between retries.
ATTEMPTS = 4
FAST = DynamoDBConfig(retry_base_delay=0, retry_attempts=ATTEMPTS, max_connections=10)


class FakeClient:
    """Answers each request with the result of a function, awaited if needed, or with its error."""

    def __init__(self, answer: Answer) -> None:
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.opened = 0
        self.closed = 0
        self._answer = answer

    def __getattr__(self, operation: str) -> Any:
        async def call(**request: Any) -> Any:
            self.requests.append((operation, request))
            answer = self._answer(operation, request)
            if inspect.isawaitable(answer):
                answer = await answer
            answer.setdefault("ResponseMetadata", {"RequestId": "fake"})
            return answer

        return call

    @asynccontextmanager
    async def factory(self, config: DynamoDBConfig) -> AsyncIterator[Any]:
        self.opened += 1
        yield self
        self.closed += 1


def intercepting(around: Around) -> ClientFactory:
    """Returns a factory of real clients, whose calls go through `around(operation, request, call)`."""

    class Intercepted:
        def __init__(self, client: Any) -> None:
            self._client = client

        def __getattr__(self, operation: str) -> Any:
            async def call(**request: Any) -> Any:
                return await around(operation, request, getattr(self._client, operation))

            return call

    @asynccontextmanager
    async def factory(config: DynamoDBConfig) -> AsyncIterator[Any]:
        async with open_client(config) as client:
            yield Intercepted(client)

    return factory


@asynccontextmanager
async def open_gateway(
    answer: Answer, config: DynamoDBConfig = FAST
) -> AsyncIterator[tuple[Gateway, FakeClient]]:
    """Opens a gateway on a fake client."""
    client = FakeClient(answer)
    gateway = Gateway(config, client.factory)
    await gateway.open()
    try:
        yield gateway, client
    finally:
        await gateway.close()


def scripted(*answers: Any) -> Answer:
    """Returns a function that gives the answers one after the other; exceptions are raised."""
    left = list(answers)

    def answer(operation: str, request: dict[str, Any]) -> Any:
        response = left.pop(0)
        if isinstance(response, BaseException):
            raise response
        return response

    return answer


def client_error(code: str, status: int = 400, **parts: Any) -> ClientError:
    """Returns the error that botocore raises for an error answer of DynamoDB."""
    response: Any = {
        "Error": {"Code": code, "Message": f"message of {code}"},
        "ResponseMetadata": {"HTTPStatusCode": status},
        **parts,
    }
    return ClientError(response, "PutItem")
