"""A backend that is used in several event loops, one after the other, as by `asyncio.run` in scripts."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from ragcrawl_dynamo import BackendStateError, DynamoDBBackend, DynamoDBConfig, WrongEventLoopError
from ragcrawl_dynamo._dynamodb import connections
from ragcrawl_dynamo.testing import drop_tables
from tests.support.factories import make_page, make_version

Run = Callable[[Coroutine[Any, Any, None]], None]


def run_and_close_loop(main: Coroutine[Any, Any, None]) -> None:
    """Runs a coroutine as code does that is older than `asyncio.run`: nothing but the loop is closed."""
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main)
    loop.close()


@pytest.fixture
def backend(dynamodb_config: DynamoDBConfig) -> Iterator[DynamoDBBackend]:
    """A backend that is not open. Afterwards no connection may be open."""
    yield DynamoDBBackend(dynamodb_config)
    asyncio.run(drop_tables(dynamodb_config))
    # A connection that is forgotten while it is open causes a ResourceWarning, and so an error.
    gc.collect()
    assert [sock for sock in connections._sockets if sock.fileno() >= 0] == []


async def use(backend: DynamoDBBackend, name: str) -> None:
    """Reads and writes at the same time, so that there are several connections, batches and open queues."""
    frontier = backend.frontier("site", "run")
    await asyncio.gather(
        backend.save_page(make_page(name)),
        backend.commit_page(make_page(f"{name} committed"), make_version(page_id=f"{name} committed")),
        frontier.add([f"https://a.example/{name}"]),
        backend.list_sites(),
    )
    assert await frontier.claim(1)
    page = await backend.get_page("site", name)
    assert page is not None
    assert page.page_id == name


@pytest.mark.parametrize("run", [asyncio.run, run_and_close_loop])
def test_backend_that_was_left_open_is_opened_in_another_event_loop(
    backend: DynamoDBBackend, run: Run
) -> None:
    async def first() -> None:
        await backend.initialize()
        await use(backend, "first")

    async def second() -> None:
        with pytest.raises(WrongEventLoopError, match=r"await backend\.initialize\(\)"):
            await backend.get_page("site", "first")
        requests = sum(counters.requests for counters in backend.metrics().values())
        # Both find it in the other loop.
        await asyncio.gather(backend.initialize(), backend.initialize())
        await use(backend, "second")
        assert await backend.get_page("site", "first") is not None
        assert sum(counters.requests for counters in backend.metrics().values()) > requests
        await backend.close()

    run(first())
    run(second())


@pytest.mark.parametrize("run", [asyncio.run, run_and_close_loop])
def test_backend_that_was_left_open_is_closed_in_another_event_loop(
    backend: DynamoDBBackend, run: Run
) -> None:
    async def first() -> None:
        await backend.initialize()
        await use(backend, "first")

    async def second() -> None:
        await backend.close()
        await backend.close()
        with pytest.raises(BackendStateError, match=r"await backend\.initialize\(\)"):
            await backend.get_page("site", "first")

    run(first())
    run(second())


def test_backend_is_opened_and_closed_in_one_event_loop_after_the_other(backend: DynamoDBBackend) -> None:
    async def main(name: str) -> None:
        async with backend:
            await use(backend, name)

    for name in ("first", "second", "third"):
        asyncio.run(main(name))


def test_frontier_of_a_closed_event_loop_is_refused(backend: DynamoDBBackend) -> None:
    async def first() -> Any:
        await backend.initialize()
        frontier = backend.frontier("site", "run")
        await frontier.add(["https://a.example/1", "https://a.example/2"])
        return frontier

    async def second(frontier: Any) -> None:
        async with backend:
            with pytest.raises(BackendStateError):
                await frontier.claim(1)
            assert await backend.frontier("site", "run").claim(1)

    asyncio.run(second(asyncio.run(first())))
