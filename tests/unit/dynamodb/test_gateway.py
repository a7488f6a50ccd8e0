import asyncio
import contextlib
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
    ProfileNotFound,
    SSLError,
)

from ragcrawl_dynamo import (
    AccessDeniedError,
    BackendClosedError,
    BackendNotOpenError,
    ConditionFailedError,
    ConflictError,
    CredentialsError,
    DeadlineExceededError,
    DynamoDBConfig,
    EndpointUnreachableError,
    RagcrawlDynamoError,
    RequestEvent,
    RequestRejectedError,
    ServerFaultError,
    ServiceError,
    TableNotFoundError,
    ThrottledError,
    WrongEventLoopError,
)
from ragcrawl_dynamo._dynamodb import reachability
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.metrics import Metrics
from tests.support.fakes import FAST, FakeClient, client_error, open_gateway, scripted
from tests.support.tracebacks import assert_ends_at_our_error

GET: Any = {"TableName": "t", "Key": {"id": {"S": "secret-id"}}}
ANSWER: Any = {"Item": {}}
TABLE: Any = {"Table": {}}
THROTTLED = client_error("ThrottlingException")
# Its own message leaves the reason out.
DROPPED = ConnectionClosedError(endpoint_url="http://x", error=OSError("reset by peer"))


async def test_gateway_call_before_open_is_refused() -> None:
    gateway = Gateway(FAST, FakeClient(scripted()).factory)
    with pytest.raises(BackendNotOpenError, match=r"await backend\.initialize\(\) first"):
        await gateway.call("GetItem", GET)
    await gateway.close()


async def test_gateway_call_after_close_is_refused_until_opened_again() -> None:
    async with open_gateway(scripted(ANSWER)) as (gateway, client):
        await gateway.close()
        await gateway.close()
        with pytest.raises(BackendClosedError):
            await gateway.call("GetItem", GET)
        await gateway.open()
        assert await gateway.call("GetItem", GET) == ANSWER
    assert (client.opened, client.closed) == (2, 2)


async def test_gateway_opened_many_times_at_once_opens_one_client() -> None:
    client = FakeClient(scripted())
    gateway = Gateway(FAST, client.factory)
    await asyncio.gather(*(gateway.open() for _ in range(5)))
    await asyncio.gather(*(gateway.close() for _ in range(5)))
    assert (client.opened, client.closed) == (1, 1)


def test_gateway_refuses_another_event_loop() -> None:
    gateway = Gateway(FAST, FakeClient(scripted(ANSWER)).factory)
    with asyncio.Runner() as owner, asyncio.Runner() as other:
        owner.run(gateway.open())
        for use in (lambda: gateway.call("GetItem", GET), gateway.open, gateway.close):
            with pytest.raises(WrongEventLoopError):
                other.run(use())
        assert owner.run(gateway.call("GetItem", GET)) == ANSWER
        owner.run(gateway.close())
        # Closed, it belongs to no loop any more.
        other.run(gateway.open())
        other.run(gateway.close())


async def test_gateway_retries_as_often_as_configured() -> None:
    async with open_gateway(scripted(*[THROTTLED] * 3, ANSWER)) as (gateway, client):
        assert await gateway.call("GetItem", GET) == ANSWER
        assert len(client.requests) == 4
    async with open_gateway(scripted(*[THROTTLED] * 9)) as (gateway, client):
        with pytest.raises(ThrottledError, match="throttled at every attempt"):
            await gateway.call("GetItem", GET)
        assert len(client.requests) == 4
        counters = gateway.metrics.snapshot()["GetItem", "t"]
        assert (counters.requests, counters.retries) == (4, 3)


async def test_gateway_logs_each_retry_without_stored_data(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "ragcrawl_dynamo"):
        async with open_gateway(scripted(THROTTLED, {})) as (gateway, _):
            await gateway.call("GetItem", GET)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == ["GetItem on t failed (ThrottlingException), attempt 1; retry in 0.000 s"]
    assert "secret-id" not in caplog.text


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time by which outages are measured, in its only element."""
    now = [100.0]
    monkeypatch.setattr(reachability, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def silent(seconds: list[float], failures: int, pause: float, first: Any = None) -> Any:
    """Gives a first answer, then none for so many attempts, each of which takes a pause, and then answers."""
    answers = [] if first is None else [first]
    left = failures

    def answer(operation: str, request: Any) -> Any:
        nonlocal left
        if answers or not left:
            return scripted(answers.pop() if answers else {})(operation, request)
        left -= 1
        seconds[0] += pause
        raise EndpointConnectionError(endpoint_url="http://x")

    return answer


PATIENT = FAST.model_copy(update={"retry_attempts": 100})


async def test_gateway_logs_an_outage_when_it_begins_every_ten_seconds_and_when_it_ends(
    caplog: pytest.LogCaptureFixture, seconds: list[float]
) -> None:
    caplog.set_level(logging.DEBUG, "ragcrawl_dynamo")
    async with open_gateway(silent(seconds, 24, 1.0), PATIENT) as (gateway, _):
        await gateway.call("GetItem", GET)
        await gateway.call("GetItem", GET)
    first, *others = warnings_of(caplog)
    assert first.startswith("GetItem on t failed (EndpointConnectionError), attempt 1; retry in ")
    assert others == [
        "DynamoDB still does not answer, after 11 attempts in 10.0 s; it is tried again",
        "DynamoDB still does not answer, after 21 attempts in 20.0 s; it is tried again",
        "DynamoDB answers again, after 24 failed attempts in 23.0 s",
    ]
    assert len([text for text in caplog.messages if "attempt" in text and "failed (" in text]) == 24


async def test_gateway_logs_a_single_failure_once(
    caplog: pytest.LogCaptureFixture, seconds: list[float]
) -> None:
    """An answer with an error ends an outage too."""
    script = scripted(DROPPED, THROTTLED, DROPPED, {})
    async with open_gateway(script) as (gateway, _):
        await gateway.call("GetItem", GET)
    texts = [text.partition(",")[0] for text in warnings_of(caplog)]
    assert texts == [
        "GetItem on t failed (ConnectionClosedError)",
        "GetItem on t failed (ThrottlingException)",
        "GetItem on t failed (ConnectionClosedError)",
    ]


@pytest.mark.parametrize(("pause", "requests"), [(3.0, 5), (4.9, 4), (11.0, 2)])
async def test_gateway_gives_up_soon_on_an_endpoint_that_has_never_answered(
    seconds: list[float], pause: float, requests: int
) -> None:
    """Ten seconds after the first failure: twice connect_timeout."""
    async with open_gateway(silent(seconds, 99, pause), PATIENT) as (gateway, client):
        with pytest.raises(EndpointUnreachableError):
            await gateway.call("DescribeTable", {"TableName": "t"})
        assert len(client.requests) == requests


@pytest.mark.parametrize("first", [{}, client_error("ResourceNotFoundException")], ids=["answer", "error"])
async def test_gateway_is_patient_with_an_endpoint_that_has_answered(
    seconds: list[float], first: Any
) -> None:
    async with open_gateway(silent(seconds, 20, 5.0, first), PATIENT) as (gateway, client):
        with contextlib.suppress(TableNotFoundError):
            await gateway.call("DescribeTable", {"TableName": "t"})
        await gateway.call("DescribeTable", {"TableName": "t"})
        assert len(client.requests) == 22


@pytest.mark.parametrize(
    ("error", "kind", "advice"),
    [
        (client_error("ConditionalCheckFailedException"), ConditionFailedError, "did not hold"),
        (client_error("ResourceNotFoundException"), TableNotFoundError, r"call initialize\(\) to create it"),
        (client_error("AccessDeniedException"), AccessDeniedError, "check the credentials, the region"),
        (client_error("UnrecognizedClientException"), AccessDeniedError, "message of Unrecognized"),
        (client_error("ExpiredTokenException"), CredentialsError, "renew the credentials"),
        (client_error("InternalServerError", 500), ServerFaultError, "try again later"),
        (client_error("404", 404), RequestRejectedError, "refused at .* DynamoDB says"),
        (client_error("ValidationException"), RequestRejectedError, "message of ValidationException"),
        (EndpointConnectionError(endpoint_url="http://x"), EndpointUnreachableError, "check endpoint_url"),
        (DROPPED, EndpointUnreachableError, r"\(OSError: reset by peer\)"),
        (NoCredentialsError(), CredentialsError, "set AWS_ACCESS_KEY_ID"),
        (ProfileNotFound(profile="p"), CredentialsError, r"The config profile \(p\) could not be found"),
        (SSLError(endpoint_url="x", error="bad certificate"), RequestRejectedError, "bad certificate"),
        (ParamValidationError(report="wrong"), RequestRejectedError, "wrong"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)  # fmt: skip
async def test_gateway_maps_every_failure_to_an_error_that_says_what_to_do(
    error: Exception, kind: type[ServiceError], advice: str
) -> None:
    async with open_gateway(scripted(*[error] * 4)) as (gateway, _):
        with pytest.raises(kind, match=advice) as caught:
            await gateway.call("GetItem", GET)
    assert type(caught.value) is kind
    assert_ends_at_our_error(caught.value)
    assert caught.value.cause_type == f"botocore.exceptions.{type(error).__name__}"
    assert caught.value.status_code == (
        error.response["ResponseMetadata"]["HTTPStatusCode"] if isinstance(error, ClientError) else None
    )
    assert (caught.value.operation, caught.value.table) == ("GetItem", "t")
    assert caught.value.code in str(caught.value)


async def test_gateway_condition_failed_error_carries_the_item() -> None:
    error = client_error("ConditionalCheckFailedException", Item={"id": {"S": "x"}})
    async with open_gateway(scripted(error)) as (gateway, _):
        with pytest.raises(ConditionFailedError) as caught:
            await gateway.call("PutItem", {"TableName": "t", "Item": {}})
    assert caught.value.item == {"id": {"S": "x"}}


async def test_gateway_call_without_an_answer_ends_at_call_timeout() -> None:
    async def never(operation: str, request: Any) -> None:
        await asyncio.Event().wait()

    config = FAST.model_copy(update={"call_timeout": 0.05})
    async with open_gateway(never, config) as (gateway, _):
        with pytest.raises(DeadlineExceededError, match=r"no answer within call_timeout = 0\.05 s") as caught:
            await gateway.call("GetItem", GET)
    assert_ends_at_our_error(caught.value)
    assert (caught.value.cause_type, caught.value.request_id) == ("builtins.TimeoutError", None)


async def test_gateway_call_timeout_after_a_retry_names_the_last_error() -> None:
    throttled = client_error("ThrottlingException")
    throttled.response["ResponseMetadata"]["RequestId"] = "R1"

    async def throttle_once(operation: str, request: Any) -> None:
        if len(client.requests) == 1:
            raise throttled
        await asyncio.Event().wait()

    config = FAST.model_copy(update={"call_timeout": 0.2})
    async with open_gateway(throttle_once, config) as (gateway, client):
        with pytest.raises(DeadlineExceededError, match="the last error was ThrottlingException") as caught:
            await gateway.call("GetItem", GET)
    assert_ends_at_our_error(caught.value)
    error = caught.value
    assert (error.code, error.cause_type) == ("TimeoutError", "botocore.exceptions.ClientError")
    assert (error.status_code, error.request_id) == (400, "R1")


@pytest.mark.parametrize(
    ("error", "kind", "may_be_applied"),
    [
        (THROTTLED, ThrottledError, False),
        (client_error("ReplicatedWriteConflictException"), ConflictError, False),
        (client_error("InternalServerError", 500), ServerFaultError, True),
        (DROPPED, EndpointUnreachableError, True),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
async def test_gateway_retries_until_call_timeout_and_raises_the_last_error(
    error: Exception, kind: type[RagcrawlDynamoError], may_be_applied: bool
) -> None:
    """No attempts are counted by default. The error is not that of the deadline, which would say less."""

    async def fail(operation: str, request: Any) -> None:
        raise error

    config = DynamoDBConfig(call_timeout=0.5, retry_base_delay=0.001, retry_max_delay=0.02)
    loop = asyncio.get_running_loop()
    async with open_gateway(fail, config) as (gateway, client), gateway.permit("PutItem", "t") as budget:
        started = loop.time()
        with pytest.raises(kind) as caught:
            await gateway.call("PutItem", {"TableName": "t", "Item": {}}, budget=budget)
    assert type(caught.value) is kind
    # Eight attempts would take a tenth of a second. A busy machine makes few attempts, and more than eight.
    assert loop.time() - started > 0.4
    assert len(client.requests) == budget.failures > 8
    assert budget.may_be_applied is may_be_applied


async def test_gateway_call_that_has_no_time_for_another_attempt_ends_at_once() -> None:
    config = DynamoDBConfig(call_timeout=5, retry_base_delay=1e6, retry_max_delay=1e6)
    async with open_gateway(scripted(THROTTLED), config) as (gateway, _):
        async with asyncio.timeout(1):
            with pytest.raises(ThrottledError, match="throttled at every attempt"):
                await gateway.call("GetItem", GET)


@pytest.mark.parametrize("was_in_doubt", [True, False])
async def test_gateway_call_whose_conflicts_do_not_end_is_a_conflict_unless_it_may_be_applied(
    was_in_doubt: bool,
) -> None:
    reasons = [{"Code": "None"}, {"Code": "TransactionConflict"}]
    conflict = client_error("TransactionCanceledException", CancellationReasons=reasons)
    answers = [DROPPED if was_in_doubt else conflict, *[conflict] * 3]
    async with open_gateway(scripted(*answers)) as (gateway, _):
        with pytest.raises(RagcrawlDynamoError) as caught:
            await gateway.call("TransactWriteItems", {"TransactItems": []})
    assert type(caught.value) is (ServerFaultError if was_in_doubt else ConflictError)
    assert_ends_at_our_error(caught.value)


class Gate:
    """Holds every data request until it is opened; counts how many are inside."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0
        self.expected = 0
        self.opened = asyncio.Event()
        self.reached = asyncio.Event()

    async def __call__(self, operation: str, request: Any) -> Any:
        if operation == "describe_table":
            return TABLE
        self.inside += 1
        self.most = max(self.most, self.inside)
        if self.inside == self.expected:
            self.reached.set()
        try:
            await self.opened.wait()
        finally:
            self.inside -= 1
        return ANSWER

    async def until_inside(self, count: int) -> None:
        self.expected = count
        if self.inside < count:
            await self.reached.wait()


async def test_gateway_requests_in_flight_stay_below_max_connections() -> None:
    gate = Gate()
    async with open_gateway(gate) as (gateway, _):
        calls = [asyncio.create_task(gateway.call("GetItem", GET)) for _ in range(20)]
        await gate.until_inside(5)
        # A health check gets through all the same.
        assert await gateway.call("DescribeTable", {"TableName": "t"}) == TABLE
        gate.opened.set()
        await asyncio.gather(*calls)
    assert gate.most == 5


async def test_gateway_close_finishes_requests_in_flight_and_refuses_waiting_ones() -> None:
    gate = Gate()
    async with open_gateway(gate) as (gateway, client):
        calls = [asyncio.create_task(gateway.call("GetItem", GET)) for _ in range(8)]
        await gate.until_inside(5)
        closing = asyncio.create_task(gateway.close())
        await asyncio.sleep(0.01)
        assert not closing.done()
        gate.opened.set()
        await closing
        results = await asyncio.gather(*calls, return_exceptions=True)
    assert results[:5] == [ANSWER] * 5
    assert [type(result) for result in results[5:]] == [BackendClosedError] * 3
    assert client.closed == 1


async def test_gateway_call_that_is_cancelled_frees_its_connection() -> None:
    gate = Gate()
    async with open_gateway(gate) as (gateway, _):
        calls = [asyncio.create_task(gateway.call("GetItem", GET)) for _ in range(5)]
        await gate.until_inside(5)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        gate.opened.set()
        assert await gateway.call("GetItem", GET) == ANSWER


async def test_gateway_requests_and_counts_consumed_capacity() -> None:
    units = {"TableName": "t", "CapacityUnits": 2.5}
    answers = scripted({"ConsumedCapacity": units}, {"ConsumedCapacity": [units, units]})
    async with open_gateway(answers) as (gateway, client):
        await gateway.call("GetItem", GET)
        await gateway.call("BatchWriteItem", {"RequestItems": {"t": []}})
        snapshot = gateway.metrics.snapshot()
    assert all(request["ReturnConsumedCapacity"] == "TOTAL" for _, request in client.requests)
    assert snapshot["GetItem", "t"].read_units == 2.5
    assert snapshot["BatchWriteItem", "t"].write_units == 5


async def test_on_request_is_called_after_every_request_and_may_raise() -> None:
    seen: list[RequestEvent] = []

    def observe(event: RequestEvent) -> None:
        seen.append(event)
        raise KeyError("bug")

    units = {"TableName": "t", "CapacityUnits": 2.5}
    left = {"UnprocessedItems": {"t": [{}, {}]}, "ConsumedCapacity": [units]}
    client = FakeClient(scripted(THROTTLED, {"ConsumedCapacity": units}, left, NoCredentialsError()))
    gateway = Gateway(FAST, client.factory, metrics=Metrics(observe))
    await gateway.open()
    await gateway.call("GetItem", GET)
    await gateway.call("BatchWriteItem", {"RequestItems": {"t": []}})
    with pytest.raises(CredentialsError):
        await gateway.call("GetItem", GET)
    await gateway.close()
    shown = [
        (e.operation, e.table, e.attempt, e.error, e.left_over, e.read_units, e.write_units) for e in seen
    ]
    assert shown == [
        ("GetItem", "t", 1, "ThrottlingException", 0, 0, 0),
        ("GetItem", "t", 2, None, 0, 2.5, 0),
        ("BatchWriteItem", "t", 1, None, 2, 0, 2.5),
        ("GetItem", "t", 1, "NoCredentialsError", 0, 0, 0),
    ]
    assert all(0 <= event.seconds < 60 for event in seen)


async def test_on_request_gets_the_request_and_the_answer_and_shows_neither() -> None:
    seen: list[RequestEvent] = []
    refused = client_error("ConditionalCheckFailedException", Item={"id": {"S": "secret-id"}})
    client = FakeClient(scripted({"Item": {"id": {"S": "secret-id"}}}, refused, NoCredentialsError()))
    gateway = Gateway(FAST, client.factory, metrics=Metrics(seen.append))
    await gateway.open()
    await gateway.call("GetItem", GET)
    with pytest.raises(ConditionFailedError):
        await gateway.call("GetItem", GET)
    with pytest.raises(CredentialsError):
        await gateway.call("GetItem", GET)
    await gateway.close()
    assert all(event.request["Key"] == GET["Key"] for event in seen)
    answers = [event.response and event.response.get("Item") for event in seen]
    assert answers == [{"id": {"S": "secret-id"}}, {"id": {"S": "secret-id"}}, None]
    assert "secret-id" not in repr(seen)


async def test_gateway_open_without_a_client_is_a_typed_error() -> None:
    gateway = Gateway(FAST.model_copy(update={"profile": "no-such-profile"}))
    with pytest.raises(CredentialsError, match="no-such-profile"):
        await gateway.open()
    with pytest.raises(BackendNotOpenError):
        await gateway.call("GetItem", GET)
