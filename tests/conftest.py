"""Both engines, DynamoDB Local once a run and moto once a process, for the fixtures of the plugin."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from ragcrawl_dynamo import DynamoDBBackend
from ragcrawl_dynamo.testing import run_moto
from tests.support.aws_environment import AwsEnvironment
from tests.support.measurement import Measurement
from tests.support.shared_engine import SharedEngine, ask

# DynamoDB Local lives too short for its best optimizations to pay: so it takes half the CPU.
os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")

DYNAMODB_LOCAL = Path(__file__).parent.parent / ".dynamodb-local"

# A slow machine is no failure; CI tries the same examples each time.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


MEASUREMENT = Measurement()

SHARED_ENGINE = pytest.StashKey[SharedEngine]()


def pytest_configure(config: pytest.Config) -> None:
    is_worker = hasattr(config, "workerinput")
    if not is_worker and config.getoption("numprocesses", None):
        # Ends as Ctrl-C ends it, so that no worker and no engine is left behind.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    else:
        # Processes that tests start are not measured: most are killed, and it doubles their time to start.
        os.environ.pop("COVERAGE_PROCESS_START", None)
    if not is_worker:
        config.stash[SHARED_ENGINE] = SharedEngine(DYNAMODB_LOCAL)
        config.add_cleanup(config.stash[SHARED_ENGINE].close)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tells a worker of xdist, before it starts, where to ask for DynamoDB Local."""
    node.workerinput["dynamodb_local"] = node.config.stash[SHARED_ENGINE].address()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest begin first, so that none is left alone at the end."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
    MEASUREMENT.plan(items)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    with MEASUREMENT.of(item):
        return (yield)


def pytest_sessionfinish() -> None:
    MEASUREMENT.save()


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    with run_moto() as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def dynamodb_local_endpoint(pytestconfig: pytest.Config) -> str:
    if not DYNAMODB_LOCAL.exists():
        pytest.fail(f"{DYNAMODB_LOCAL} is missing: run 'make fetch-dynamodb-local'")
    if (shared := pytestconfig.stash.get(SHARED_ENGINE, None)) is not None:
        return shared.endpoint()
    return ask(pytestconfig.workerinput["dynamodb_local"])  # type: ignore[attr-defined] # xdist's


@pytest.fixture(scope="session", params=["moto", "dynamodb-local"])
def dynamodb_endpoint(request: pytest.FixtureRequest) -> str:
    """Runs each test that needs an engine on both."""
    name = "moto_endpoint" if request.param == "moto" else "dynamodb_local_endpoint"
    endpoint: str = request.getfixturevalue(name)
    return endpoint


@pytest.fixture
def aws_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AwsEnvironment:
    """Replaces the environment that AWS clients read, so that nothing of this machine is used."""
    return AwsEnvironment(monkeypatch, tmp_path)


@pytest.fixture
def backend(dynamodb_backend: DynamoDBBackend) -> DynamoDBBackend:
    """The plugin's backend, under a shorter name."""
    return dynamodb_backend
