import pytest
from botocore.exceptions import (
    ConnectionClosedError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
    SSLError,
)
from hypothesis import given
from hypothesis import strategies as st

from ragcrawl_dynamo import DynamoDBConfig
from ragcrawl_dynamo._dynamodb.retry import full_jitter, is_retryable
from tests.support.fakes import client_error


@pytest.mark.parametrize(
    "error",
    [
        *map(
            client_error,
            [
                "ProvisionedThroughputExceededException",
                "ThrottlingException",
                "RequestLimitExceeded",
                "InternalServerError",
                "TransactionConflictException",
                "ReplicatedWriteConflictException",
            ],
        ),
        client_error("SomethingNew", status=503),
        EndpointConnectionError(endpoint_url="http://x"),
        ConnectionClosedError(endpoint_url="http://x"),
        ReadTimeoutError(endpoint_url="http://x"),
        ConnectionResetError(),
    ],
    ids=lambda error: str(error)[:60],
)
def test_is_retryable_of_transient_errors(error: Exception) -> None:
    assert is_retryable(error)


@pytest.mark.parametrize(
    "error",
    [
        *map(
            client_error,
            [
                "ConditionalCheckFailedException",
                "ValidationException",
                "ResourceNotFoundException",
                "AccessDeniedException",
                "ExpiredTokenException",
                "TransactionCanceledException",
                "SomethingNew",
            ],
        ),
        SSLError(endpoint_url="https://x", error="certificate"),
        NoCredentialsError(),
        KeyError("bug"),
    ],
    ids=lambda error: str(error)[:60],
)
def test_is_retryable_is_false_for_lasting_errors(error: Exception) -> None:
    assert not is_retryable(error)


@given(st.floats(0.001, 10), st.floats(0.001, 10), st.integers(1, 60))
def test_full_jitter_is_below_a_bound_that_doubles(base: float, longest: float, failures: int) -> None:
    config = DynamoDBConfig(retry_base_delay=base, retry_max_delay=longest)
    assert 0 <= full_jitter(config, failures) <= min(longest, base * 2 ** (failures - 1))


def test_full_jitter_of_a_very_long_outage_is_no_overflow() -> None:
    assert full_jitter(DynamoDBConfig(), 100_000) <= DynamoDBConfig().retry_max_delay


def test_full_jitter_differs() -> None:
    assert len({full_jitter(DynamoDBConfig(), 3) for _ in range(20)}) == 20
