"""botocore logs nothing of our own requests at DEBUG, and all of other clients' requests."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aioboto3
import pytest
from aiobotocore.awsrequest import AioAWSResponse

from ragcrawl_dynamo import DynamoDBConfig, RequestRejectedError
from ragcrawl_dynamo._dynamodb.client import open_client
from ragcrawl_dynamo._dynamodb.gateway import Gateway

LOGGERS = ("botocore.auth", "botocore.endpoint", "botocore.parsers")
KEY: Any = {"id": {"S": "KEYUNMISTAKABLE"}}
OURS = {
    "endpoint_url": "http://127.0.0.1:1",
    "access_key_id": "ours",
    "secret_access_key": "secret",
    "session_token": "TOKENUNMISTAKABLE",
}


class Answer:
    """The body of an answer, as aiobotocore reads it."""

    async def read(self) -> bytes:
        return b'{"Item":{"id":{"S":"KEYUNMISTAKABLE"},"text":{"S":"ANSWERUNMISTAKABLE"}}}'


class Endpoint:
    """Answers in DynamoDB's stead; holds the requests while it is closed."""

    def __init__(self) -> None:
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.is_reached = asyncio.Event()

    async def answer(self, request: Any, **_: Any) -> AioAWSResponse:
        self.is_reached.set()
        await self.is_open.wait()
        return AioAWSResponse(request.url, 200, {"x-amzn-requestid": "one"}, Answer())


@asynccontextmanager
async def open_ours(endpoint: Endpoint | None = None) -> AsyncIterator[Gateway]:
    """A gateway of ours with a client that is not faked."""
    answering = endpoint or Endpoint()

    @asynccontextmanager
    async def factory(config: DynamoDBConfig) -> AsyncIterator[Any]:
        async with open_client(config) as client:
            client.meta.events.register("before-send.dynamodb", answering.answer)
            yield client

    gateway = Gateway(DynamoDBConfig.from_env({}, **OURS), factory)
    await gateway.open()
    try:
        yield gateway
    finally:
        await gateway.close()


@asynccontextmanager
async def open_theirs() -> AsyncIterator[Any]:
    """A client that the user opened for something else."""
    session = aioboto3.Session("theirs", "secret", region_name="eu-west-1")
    async with session.client("dynamodb", endpoint_url="http://127.0.0.1:1") as client:
        client.meta.events.register("before-send.dynamodb", Endpoint().answer)
        yield client


async def logged_by(client: Any, caplog: pytest.LogCaptureFixture) -> set[str]:
    """The loggers at which a request of a client leaves DEBUG records."""
    caplog.clear()
    with caplog.at_level(logging.DEBUG):
        await client.get_item(TableName="theirs", Key=KEY)
    return {record.name for record in caplog.records} & set(LOGGERS)


async def test_debug_records_of_another_client_survive_while_ours_is_open_and_after(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_theirs() as theirs:
        assert await logged_by(theirs, caplog) == set(LOGGERS)
        async with open_ours() as ours:
            await ours.call("GetItem", {"TableName": "ours", "Key": KEY})
            assert await logged_by(theirs, caplog) == set(LOGGERS)
        assert await logged_by(theirs, caplog) == set(LOGGERS)


async def test_debug_records_of_another_client_survive_while_a_request_of_ours_is_under_way(
    caplog: pytest.LogCaptureFixture,
) -> None:
    endpoint = Endpoint()
    async with open_theirs() as theirs, open_ours(endpoint) as ours:
        endpoint.is_open.clear()
        request = asyncio.create_task(ours.call("GetItem", {"TableName": "ours", "Key": KEY}))
        await endpoint.is_reached.wait()
        logged = await logged_by(theirs, caplog)
        caplog.clear()
        with caplog.at_level(logging.DEBUG):
            endpoint.is_open.set()
            await request
        assert logged == set(LOGGERS)
        assert not {record.name for record in caplog.records} & set(LOGGERS)


async def test_our_requests_log_neither_bodies_nor_tokens_nor_signatures(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the plain way too, which logs all that botocore logs."""
    with caplog.at_level(logging.DEBUG):
        for known in (True, False):
            monkeypatch.setattr("ragcrawl_dynamo._dynamodb.fast_path.is_known", lambda known=known: known)
            async with open_ours() as ours:
                answer = await ours.call("GetItem", {"TableName": "ours", "Key": KEY})
                assert answer["Item"]["text"] == {"S": "ANSWERUNMISTAKABLE"}
    assert "GetItem on ours" in caplog.text
    assert "UNMISTAKABLE" not in caplog.text
    assert "Signature" not in caplog.text


async def test_warnings_of_our_requests_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    class WarningEndpoint(Endpoint):
        async def answer(self, request: Any, **_: Any) -> AioAWSResponse:
            logging.getLogger("botocore.endpoint").warning("the connection pool is full")
            return await super().answer(request)

    async with open_ours(WarningEndpoint()) as ours:
        await ours.call("GetItem", {"TableName": "ours", "Key": KEY})
    assert "the connection pool is full" in caplog.text


async def test_the_last_client_that_closes_takes_its_filter_away() -> None:
    before = {name: list(logging.getLogger(name).filters) for name in LOGGERS}
    async with open_ours():
        async with open_ours():
            pass
        assert all(len(logging.getLogger(name).filters) == len(before[name]) + 1 for name in LOGGERS)
    assert {name: logging.getLogger(name).filters for name in LOGGERS} == before


async def test_a_client_that_cannot_be_opened_leaves_no_filter() -> None:
    before = {name: list(logging.getLogger(name).filters) for name in LOGGERS}
    gateway = Gateway(DynamoDBConfig.from_env({}, **{**OURS, "endpoint_url": "http://-no-host-"}))
    with pytest.raises(RequestRejectedError, match="Invalid endpoint"):
        await gateway.open()
    assert {name: logging.getLogger(name).filters for name in LOGGERS} == before
