"""What the tests of commits share whose two writes, of the page and of its item, are interrupted."""

from __future__ import annotations

from typing import Any

import pytest

from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig, Page
from ragcrawl_dynamo.testing import ManualClock
from tests.support.queues import QUICK

WAYS = pytest.mark.parametrize("way", ["item", "partiql"])


def config_of(config: DynamoDBConfig, **changed: Any) -> DynamoDBConfig:
    return config.model_copy(update={**QUICK, "retry_base_delay": 0.0, **changed})


def is_page(operation: str, request: dict[str, Any]) -> bool:
    """Whether a request writes the page, outside of a transaction."""
    return operation == "update_item" and request["TableName"].endswith("pages")


async def stored_page(backend: DynamoDBBackend) -> Page:
    stored = await backend.get_page("site", "page")
    assert stored is not None
    return stored


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()
