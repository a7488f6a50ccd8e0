"""The pytest plugin: an engine once a run, tables of its own for each test.

| fixture | scope | what it is |
|---|---|---|
| dynamodb_endpoint | session | URL of a local engine: moto, or what the options name |
| dynamodb_config | function | a DynamoDBConfig for it with a table prefix of its own |
| dynamodb_backend | function | an initialized backend with that configuration; its tables go at the end |

Options: `--dynamodb-local FOLDER` runs AWS's DynamoDB Local from that folder, `--dynamodb-endpoint URL` uses
an engine that is already running.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import pytest

# The package itself is imported in the fixtures: a test run that does not use them must not pay for it.
if TYPE_CHECKING:
    from pytest_asyncio import fixture as async_fixture

    from ragcrawl_dynamo import DynamoDBBackend, DynamoDBConfig
else:
    try:
        from pytest_asyncio import fixture as async_fixture
    except ImportError:  # the synchronous fixtures serve without it
        async_fixture = pytest.fixture


# Its failures shall say what differs, as those of the users' own tests do.
pytest.register_assert_rewrite("ragcrawl_dynamo.testing.conformance")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the two options."""
    group = parser.getgroup("ragcrawl_dynamo")
    group.addoption(
        "--dynamodb-local", metavar="FOLDER", help="run DynamoDB Local from FOLDER instead of moto"
    )
    group.addoption("--dynamodb-endpoint", metavar="URL", help="use the DynamoDB engine that runs at URL")


@pytest.fixture(scope="session")
def dynamodb_endpoint(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a local engine, one for the whole run."""
    from ragcrawl_dynamo.testing.engines import run_dynamodb_local, run_moto

    if url := request.config.getoption("--dynamodb-endpoint"):
        yield url
        return
    folder = request.config.getoption("--dynamodb-local")
    with run_dynamodb_local(folder) if folder else run_moto() as endpoint:
        yield endpoint


@pytest.fixture
def dynamodb_config(dynamodb_endpoint: str) -> DynamoDBConfig:
    """Settings with a table prefix that no other test has."""
    from ragcrawl_dynamo.testing.settings import local_config

    return local_config(dynamodb_endpoint)


@async_fixture
async def dynamodb_backend(dynamodb_config: DynamoDBConfig) -> AsyncIterator[DynamoDBBackend]:
    """An initialized backend, closed at the end, its tables deleted."""
    from ragcrawl_dynamo import DynamoDBBackend
    from ragcrawl_dynamo.testing.settings import drop_tables

    async with DynamoDBBackend(dynamodb_config) as backend:
        yield backend
    await drop_tables(dynamodb_config)
