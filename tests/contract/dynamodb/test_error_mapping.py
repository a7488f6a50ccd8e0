"""The tracebacks and the attributes of errors, on both engines."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from ragcrawl_dynamo import (
    DynamoDBBackend,
    DynamoDBConfig,
    InvalidArgumentError,
    InvalidCursorError,
    InvalidInputError,
    NotFoundError,
    PartialBatchError,
    ServiceError,
    TableNotFoundError,
)
from tests.support.factories import make_page, make_run, make_site
from tests.support.tracebacks import assert_ends_at_our_error


@pytest.fixture
async def without_tables(dynamodb_config: DynamoDBConfig) -> AsyncIterator[DynamoDBBackend]:
    """An open backend whose tables do not exist."""
    backend = DynamoDBBackend(dynamodb_config.model_copy(update={"table_prefix": "absent_"}))
    await backend._rooms.gateway.open()
    yield backend
    await backend.close()


def assert_tells_of_the_answer(error: ServiceError) -> None:
    assert error.code == "ResourceNotFoundException"
    assert error.status_code == 400
    assert error.request_id
    assert error.cause_type == "botocore.errorfactory.ResourceNotFoundException"


async def test_service_error_of_a_refused_request_ends_its_traceback_and_tells_of_the_answer(
    without_tables: DynamoDBBackend,
) -> None:
    with pytest.raises(TableNotFoundError) as caught:
        await without_tables.save_site(make_site())
    assert_ends_at_our_error(caught.value)
    assert_tells_of_the_answer(caught.value)


async def test_service_error_of_a_coalesced_call_ends_its_traceback_and_tells_of_the_answer(
    without_tables: DynamoDBBackend,
) -> None:
    saves = (without_tables.save_page(make_page(f"p{i}")) for i in range(3))
    errors = await asyncio.gather(*saves, return_exceptions=True)
    assert len({id(error) for error in errors}) == 3
    for error in errors:
        assert isinstance(error, TableNotFoundError)
        assert_ends_at_our_error(error)
        assert_tells_of_the_answer(error)


async def test_partial_batch_error_ends_its_traceback_and_has_the_errors(
    without_tables: DynamoDBBackend,
) -> None:
    with pytest.raises(PartialBatchError) as caught:
        await without_tables.save_pages_bulk([make_page()])
    assert_ends_at_our_error(caught.value)
    _, error = caught.value.failures[0]
    assert isinstance(error, TableNotFoundError)
    assert str(error) in str(caught.value)
    assert_ends_at_our_error(error)
    assert_tells_of_the_answer(error)


async def test_not_found_error_ends_its_traceback(backend: DynamoDBBackend) -> None:
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: backend.complete_run("site", "absent"),
        lambda: backend.add_run_stats("site", "absent", pages_crawled=1),
        lambda: backend.update_frontier_status("absent", "item", "failed"),
    ]
    for call in calls:
        with pytest.raises(NotFoundError) as caught:
            await call()
        assert_ends_at_our_error(caught.value)


async def test_invalid_input_error_ends_its_traceback_and_names_the_value(backend: DynamoDBBackend) -> None:
    await backend.save_run(make_run())
    frontier = backend.frontier("site", "run")

    async def link() -> object:
        return frontier.link("https://example.com/", depth="far")  # type: ignore[arg-type] # on purpose

    async def add() -> object:
        return await backend.add_run_stats("site", "run", pages_crawled="z")  # type: ignore[arg-type] # on purpose

    calls: list[tuple[Callable[[], Awaitable[object]], type[InvalidInputError], str]] = [
        (add, InvalidArgumentError, "'z'"),
        (link, InvalidArgumentError, "'far'"),
        (lambda: backend.list_pages("site", cursor="x"), InvalidCursorError, "is damaged"),
        (lambda: backend.list_changes("site", cursor="x"), InvalidCursorError, "is damaged"),
    ]
    for call, kind, told in calls:
        with pytest.raises(kind, match=told) as caught:
            await call()
        assert_ends_at_our_error(caught.value)
