"""Helps the tests of commits whose two writes, of the page and of its item, are interrupted."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from ragcrawl_dynamo import CommitResult, DynamoDBBackend, DynamoDBConfig, Page
from ragcrawl_dynamo.testing import ManualClock
from tests.support.queues import QUICK

WAYS = pytest.mark.parametrize("way", ["item", "partiql"])


def config_of(config: DynamoDBConfig, **changed: Any) -> DynamoDBConfig:
    return config.model_copy(update={**QUICK, "retry_base_delay": 0.0, **changed})


def is_page(operation: str, request: dict[str, Any]) -> bool:
    """Whether a request writes the page, outside of a transaction."""
    return operation == "update_item" and request["TableName"].endswith("pages")


async def given_up(commit: Coroutine[Any, Any, CommitResult], clock: ManualClock) -> None:
    """Lets time pass until a commit is given up, shortly before the end of its lease of ten seconds."""
    committing = asyncio.create_task(commit)
    end = clock.monotonic() + 9
    while not committing.done():
        await asyncio.sleep(0.01)
        if clock.monotonic() < end:
            clock.advance(1)
    await committing


async def abandoned(commit: Coroutine[Any, Any, CommitResult], is_lost: asyncio.Event) -> None:
    """Cancels a commit that has lost an answer, and waits to try again: its caller does not learn of it."""
    committing = asyncio.create_task(commit)
    await is_lost.wait()
    await asyncio.sleep(0.05)
    assert not committing.done()
    committing.cancel()
    await asyncio.gather(committing, return_exceptions=True)


async def stored_page(backend: DynamoDBBackend) -> Page:
    stored = await backend.get_page("site", "page")
    assert stored is not None
    return stored


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()
