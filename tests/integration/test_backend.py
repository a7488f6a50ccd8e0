"""A backend's way from open to closed, and its health."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from ragcrawl_dynamo import (
    BackendClosedError,
    BackendNotOpenError,
    DynamoDBBackend,
    DynamoDBConfig,
    StorageConfig,
    WrongEventLoopError,
    create_storage_backend,
)
from ragcrawl_dynamo._dynamodb.client import open_client
from ragcrawl_dynamo.testing import ManualClock, drop_tables
from tests.support.engines import on_dynamodb_local
from tests.support.factories import make_page, make_site, make_version
from tests.support.fakes import FAST, FakeClient, intercepting


@pytest_asyncio.fixture
async def config(dynamodb_config: DynamoDBConfig) -> AsyncIterator[DynamoDBConfig]:
    """Settings whose tables, if a test makes any, are deleted at its end."""
    yield dynamodb_config
    await drop_tables(dynamodb_config)


async def test_health_check_is_false_without_one_of_the_tables(
    config: DynamoDBConfig, caplog: pytest.LogCaptureFixture
) -> None:
    async with DynamoDBBackend(config) as backend:
        assert await backend.health_check() is True
        async with open_client(config) as client:
            await client.delete_table(TableName=f"{config.table_prefix}pages")
        assert await backend.health_check() is False
    assert "is missing or not active" in caplog.text


@pytest.mark.parametrize("status", ["CREATING", "DELETING", "ARCHIVED"])
async def test_health_check_is_false_with_an_inactive_table(status: str, config: DynamoDBConfig) -> None:
    async def inactive(operation: str, request: Any, call: Any) -> Any:
        answer = await call(**request)
        if operation == "describe_table" and request["TableName"].endswith("runs") and ready:
            answer["Table"]["TableStatus"] = status
        return answer

    ready: list[bool] = []
    async with DynamoDBBackend(config, client_factory=intercepting(inactive)) as backend:
        ready.append(True)
        assert await backend.health_check() is False


async def test_health_check_is_false_in_time_when_nothing_answers(caplog: pytest.LogCaptureFixture) -> None:
    async def never(operation: str, request: Any) -> None:
        await asyncio.Event().wait()

    config = FAST.model_copy(update={"health_timeout": 0.1})
    backend = DynamoDBBackend(config, client_factory=FakeClient(never).factory)
    await backend._rooms.gateway.open()
    async with asyncio.timeout(5):
        assert await backend.health_check() is False
    await backend.close()
    assert "did not answer within health_timeout = 0.1 s" in caplog.text


async def test_health_check_before_initialize_raises(config: DynamoDBConfig) -> None:
    backend = DynamoDBBackend(config)
    with pytest.raises(BackendNotOpenError):
        await backend.health_check()


async def test_backend_is_closed_at_the_end_of_its_context(config: DynamoDBConfig) -> None:
    before = asyncio.all_tasks()
    async with create_storage_backend(StorageConfig(backend=config)) as backend:
        await backend.save_pages_bulk(make_page(f"p{i}") for i in range(60))
    await backend.close()
    with pytest.raises(BackendClosedError, match=r"await backend\.initialize\(\) opens it again"):
        await backend.list_sites()
    assert asyncio.all_tasks() == before


def test_backend_of_another_event_loop_is_refused(dynamodb_config: DynamoDBConfig) -> None:
    backend = DynamoDBBackend(dynamodb_config)
    with asyncio.Runner() as owner, asyncio.Runner() as other:
        owner.run(backend.initialize())
        with pytest.raises(WrongEventLoopError, match="make one backend per loop"):
            other.run(backend.get_site("site"))
        with pytest.raises(WrongEventLoopError):
            other.run(backend.health_check())
        owner.run(backend.close())
        owner.run(drop_tables(dynamodb_config))


async def test_backend_logs_no_secret(config: DynamoDBConfig, caplog: pytest.LogCaptureFixture) -> None:
    secret = config.model_validate(
        {**config.model_dump(), "access_key_id": "AKIDVISIBLE", "secret_access_key": "s3cr3t-key"}
    )
    with caplog.at_level(logging.DEBUG, "ragcrawl_dynamo"):
        async with DynamoDBBackend(secret) as backend:
            await backend.save_site(make_site(name="private name"))
    assert "PutItem on" in caplog.text
    assert "s3cr3t-key" not in caplog.text
    assert "private name" not in caplog.text
    await drop_tables(secret)


@on_dynamodb_local
async def test_backend_close_under_load_finishes_or_refuses_every_call(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    """Many tasks save, get and commit until they are refused. All acknowledged writes are stored."""
    other = DynamoDBBackend(dynamodb_config)
    await other.initialize()
    saved: dict[str, int] = {}
    committed: dict[str, str] = {}

    async def save(name: str) -> None:
        for depth in range(1_000_000):
            await other.save_page(make_page(name, depth=depth))
            saved[name] = depth
            assert await other.get_page("site", name) is not None

    async def commit(name: str) -> None:
        for i in range(1_000_000):
            version = make_version(page_id=name, version_id=f"v{i}", content_hash=f"{name} {i}")
            await other.commit_page(make_page(name, url=version.url), version)
            committed[name] = version.version_id

    tasks = [asyncio.create_task(save(f"saved {i}")) for i in range(60)]
    tasks += [asyncio.create_task(commit(f"committed {i}")) for i in range(10)]
    await asyncio.sleep(1)
    await other.close()
    # No call waits any longer.
    ended, waiting = await asyncio.wait(tasks, timeout=10)
    assert not waiting
    assert {type(task.exception()) for task in ended} == {BackendClosedError}
    assert len(saved) == 60
    for name, depth in saved.items():
        page = await backend.get_page("site", name)
        assert page is not None
        # The last call may have been done although its caller got an error.
        assert page.depth in (depth, depth + 1)
    for name, version_id in committed.items():
        page = await backend.get_page("site", name)
        assert page is not None
        assert page.current_version_id in (version_id, f"v{int(version_id[1:]) + 1}")


@on_dynamodb_local
async def test_backend_close_writes_the_counts_of_a_run_though_another_runs_queue_fails(
    dynamodb_config: DynamoDBConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = DynamoDBBackend(dynamodb_config, clock=ManualClock())
    await backend.initialize()
    for run_id in ("first", "second"):
        await backend.frontier("site", run_id).add(["https://a.example/1"])

    async def leave() -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(backend._rooms.frontiers.queue("first", "site").run.membership, "leave", leave)
    with pytest.raises(ValueError, match="a bug"):
        await backend.close()
    async with DynamoDBBackend(dynamodb_config) as another:
        assert (await another.frontier("site", "second").stats()).pending == 1
