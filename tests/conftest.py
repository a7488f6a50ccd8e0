"""Both engines, each started once a run; the fixtures themselves are those that users get."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from ragcrawl_dynamo import DynamoDBBackend
from ragcrawl_dynamo.testing import run_dynamodb_local, run_moto

DYNAMODB_LOCAL = Path(__file__).parent.parent / ".dynamodb-local"

# A slow machine is no failure; CI tries the same examples each time.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    with run_moto() as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def dynamodb_local_endpoint() -> Iterator[str]:
    if not DYNAMODB_LOCAL.exists():
        pytest.fail(f"{DYNAMODB_LOCAL} is missing: run 'make fetch-dynamodb-local'")
    with run_dynamodb_local(DYNAMODB_LOCAL) as endpoint:
        yield endpoint


@pytest.fixture(scope="session", params=["moto", "dynamodb-local"])
def dynamodb_endpoint(request: pytest.FixtureRequest) -> str:
    """Runs each test that needs an engine on both."""
    name = "moto_endpoint" if request.param == "moto" else "dynamodb_local_endpoint"
    endpoint: str = request.getfixturevalue(name)
    return endpoint


@pytest.fixture
def backend(dynamodb_backend: DynamoDBBackend) -> DynamoDBBackend:
    """The plugin's backend, under a shorter name."""
    return dynamodb_backend
