"""The pytest plugin: starts one engine for a test run, and gives every test its own tables.

| fixture | scope | value |
|---|---|---|
| dynamodb_endpoint | session | the URL of a local engine: moto, or the engine that the options name |
| dynamodb_config | function | a DynamoDBConfig for this engine with an unused table prefix |
| dynamodb_backend | function | an open `Store` with these settings; its tables are deleted later |

`dynamodb_backend` is open in the event loop of the test, also if `loop_scope` of pytest-asyncio gives several
tests one loop.

Options: `--dynamodb-local FOLDER` runs AWS's DynamoDB Local from that folder. `--dynamodb-endpoint URL` uses
an engine that is already running.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

# The fixtures import the package: a test run that does not use them must not pay for the import.
if TYPE_CHECKING:
    from pytest_asyncio import fixture as async_fixture

    from ragcrawl_dynamo import DynamoDBConfig, Store
else:
    try:
        from pytest_asyncio import fixture as async_fixture
    except ImportError:  # the synchronous fixtures work without it

        def async_fixture(*, loop_scope: str, **options: Any) -> Any:
            """Marks a fixture that needs pytest-asyncio, without it."""
            return pytest.fixture(**options)


# Failed assertions of the conformance tests then show the differing values, as those of users' tests do.
pytest.register_assert_rewrite("ragcrawl_dynamo.testing.conformance")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options `--dynamodb-local` and `--dynamodb-endpoint`."""
    group = parser.getgroup("ragcrawl_dynamo")
    group.addoption(
        "--dynamodb-local", metavar="FOLDER", help="run DynamoDB Local from FOLDER instead of moto"
    )
    group.addoption("--dynamodb-endpoint", metavar="URL", help="use the DynamoDB engine that runs at URL")


@pytest.fixture(scope="session")
def dynamodb_endpoint(request: pytest.FixtureRequest) -> Iterator[str]:
    """Yields the URL of a local engine. The whole test run uses one engine."""
    from ragcrawl_dynamo.testing.engines import run_dynamodb_local, run_moto

    if url := request.config.getoption("--dynamodb-endpoint"):
        yield url
        return
    folder = request.config.getoption("--dynamodb-local")
    with run_dynamodb_local(folder) if folder else run_moto() as endpoint:
        yield endpoint


@pytest.fixture
def dynamodb_config(dynamodb_endpoint: str) -> DynamoDBConfig:
    """Creates settings with a table prefix that no other test has."""
    from ragcrawl_dynamo.testing.settings import local_config

    return local_config(dynamodb_endpoint)


@pytest.fixture
def dynamodb_backend(request: pytest.FixtureRequest, dynamodb_config: DynamoDBConfig) -> Store:
    """Returns an open store. Afterwards it is closed and its tables are deleted."""
    # The settings are asked for by name too: parameters of them, or of the endpoint, are those of the test.
    store: Store = request.getfixturevalue(_name_of_fixture(_loop_scope(request)))
    return store


def _name_of_fixture(loop_scope: str) -> str:
    return f"_dynamodb_backend_in_{loop_scope}_loop"


def _loop_scope(request: pytest.FixtureRequest) -> str:
    """Returns which tests share the event loop of a test, as pytest-asyncio decides it."""
    marker = request.node.get_closest_marker("asyncio")
    if marker is None:
        return "function"
    scope = marker.kwargs.get("loop_scope")
    return str(scope or request.config.getini("asyncio_default_test_loop_scope"))


def _backend_fixture(loop_scope: Any) -> Any:
    """Makes the fixture for tests of one `loop_scope`: pytest-asyncio takes no scope at run time."""

    @async_fixture(name=_name_of_fixture(loop_scope), loop_scope=loop_scope)
    async def open_backend(dynamodb_config: DynamoDBConfig) -> AsyncIterator[Store]:
        from ragcrawl_dynamo import Store
        from ragcrawl_dynamo.testing.settings import drop_tables

        async with Store(dynamodb_config) as backend:
            yield backend
        await drop_tables(dynamodb_config)

    return open_backend


_in_function_loop = _backend_fixture("function")
_in_class_loop = _backend_fixture("class")
_in_module_loop = _backend_fixture("module")
_in_package_loop = _backend_fixture("package")
_in_session_loop = _backend_fixture("session")
