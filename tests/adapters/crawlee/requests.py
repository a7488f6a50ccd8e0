"""Requests of the tests: their URLs, and how a queue is emptied and watched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from crawlee import Request
    from crawlee.storages import RequestQueue

T = TypeVar("T")


def url(name: object) -> str:
    return f"https://a.example/{name}"


async def handle_all(queue: RequestQueue) -> list[str]:
    """Handles the requests that are left, and returns the names in their URLs."""
    names = []
    while (request := await queue.fetch_next_request()) is not None:
        names.append(request.url.removeprefix(url("")))
        await queue.mark_request_as_handled(request)
    return names


async def remaining(queue: RequestQueue) -> AsyncIterator[Request]:
    """Fetches the requests that are left."""
    while (request := await queue.fetch_next_request()) is not None:
        yield request


async def wait_until(ask: Callable[[], Awaitable[T]], expected: T) -> None:
    for _ in range(600):
        if await ask() == expected:
            return
        await asyncio.sleep(0.05)
    assert await ask() == expected


def user_fields(request: Request) -> tuple[Any, ...]:
    """Returns the fields of a request that a user has set."""
    fields = (request.url, request.unique_key, request.method, request.payload, request.label)
    data = {name: value for name, value in request.user_data.items() if name != "label"}
    return (*fields, dict(request.headers), data)
