"""Which errors say that DynamoDB, or S3, throttles a request, and which of them are retried."""

from __future__ import annotations

from typing import Any

import pytest

from ragcrawl_dynamo import ThrottledError
from ragcrawl_dynamo._dynamodb.retry import is_retryable, is_throttling
from tests.support.fakes import ATTEMPTS, client_error, open_gateway, scripted

CODES = [
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    # The control plane: so many tables are created or changed at a time.
    "LimitExceededException",
]


@pytest.mark.parametrize("code", CODES)
def test_throttled_request_is_retried(code: str) -> None:
    error = client_error(code)
    assert is_throttling(error)
    assert is_retryable(error)


@pytest.mark.parametrize(
    "code", ["InternalServerError", "TransactionConflictException", "ValidationException"]
)
def test_other_errors_are_no_throttling(code: str) -> None:
    assert not is_throttling(client_error(code))


async def test_request_that_the_control_plane_throttles_is_sent_again() -> None:
    request: Any = {"TableName": "t"}
    async with open_gateway(scripted(client_error("LimitExceededException"), {})) as (gateway, client):
        await gateway.call("UpdateTable", request)
    assert [operation for operation, _ in client.requests] == ["update_table"] * 2


async def test_request_that_the_control_plane_throttles_again_and_again_fails_as_throttled() -> None:
    request: Any = {"TableName": "t"}
    throttled = [client_error("LimitExceededException") for _ in range(ATTEMPTS)]
    async with open_gateway(scripted(*throttled)) as (gateway, client):
        with pytest.raises(ThrottledError):
            await gateway.call("UpdateTable", request)
    assert len(client.requests) == ATTEMPTS
