"""Wrong settings, dead ends and lost answers, over real sockets."""

import asyncio
import socket
from typing import Any

import orjson
import pytest
from aiohttp import web
from botocore.exceptions import EndpointConnectionError

from ragcrawl_dynamo import (
    AccessDeniedError,
    CredentialsError,
    DynamoDBBackend,
    DynamoDBConfig,
    EndpointUnreachableError,
    PartialBatchError,
    TableNotFoundError,
)
from ragcrawl_dynamo._dynamodb import fast_path
from ragcrawl_dynamo._dynamodb.client import open_client
from ragcrawl_dynamo.testing import local_config
from tests.support.factories import make_page, make_site
from tests.support.fakes import intercepting
from tests.support.http_server import free_port, http_server, refusing
from tests.support.tracebacks import assert_ends_at_our_error

QUICK = {"retry_base_delay": 0.001, "retry_attempts": 3, "call_timeout": 5}


async def test_endpoint_url_that_is_wrong_is_named_with_the_settings_to_check() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    backend = DynamoDBBackend(local_config(url, **QUICK))
    with pytest.raises(
        EndpointUnreachableError,
        match=rf"{url} \(setting endpoint_url\), region 'us-east-1' \(setting region\): check endpoint_url",
    ) as caught:
        await backend.initialize()
    assert_ends_at_our_error(caught.value)
    assert caught.value.cause_type == "botocore.exceptions.EndpointConnectionError"
    assert (caught.value.status_code, caught.value.request_id) == (None, None)
    # The reason, which botocore's own message leaves out.
    assert "Connect call failed" in str(caught.value)


async def test_region_that_is_wrong_is_an_endpoint_that_does_not_exist(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def no_such_host(host: str, *args: Any, **kwargs: Any) -> Any:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_such_host)
    config = local_config("http://replaced", **QUICK).model_copy(
        update={"endpoint_url": None, "region": "eu-nowhere-1"}
    )
    with pytest.raises(EndpointUnreachableError, match="endpoint of AWS, region 'eu-nowhere-1'"):
        await DynamoDBBackend(config).initialize()
    assert all("eu-nowhere-1" in host for host in asked)
    assert asked


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("AccessDeniedException", "User: arn:aws:iam::1:user/x is not authorized to perform: dynamodb:X"),
        ("UnrecognizedClientException", "The security token included in the request is invalid."),
        ("InvalidSignatureException", "The request signature we calculated does not match ..."),
    ],
)  # fmt: skip
async def test_access_denied_is_not_retried_and_names_the_missing_action(code: str, message: str) -> None:
    async with http_server(refusing(code, message)) as url:
        backend = DynamoDBBackend(local_config(url, **QUICK))
        with pytest.raises(
            AccessDeniedError, match="check the credentials, the region and the role's policy"
        ) as caught:
            await backend.initialize()
    assert_ends_at_our_error(caught.value)
    assert message in str(caught.value)
    assert (caught.value.code, caught.value.status_code) == (code, 400)
    assert all(counters.retries == 0 for counters in backend.metrics().values())


@pytest.mark.usefixtures("aws_environment")
async def test_credentials_error_says_how_to_set_them() -> None:
    backend = DynamoDBBackend(DynamoDBConfig(endpoint_url="http://127.0.0.1:1"))
    with pytest.raises(CredentialsError, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile"):
        await backend.initialize()


async def test_table_not_found_names_the_table_and_initialize(
    dynamodb_config: DynamoDBConfig, backend: DynamoDBBackend
) -> None:
    async with open_client(dynamodb_config) as client:
        await client.delete_table(TableName=f"{dynamodb_config.table_prefix}pages")
    with pytest.raises(TableNotFoundError, match=r"call initialize\(\) to create it") as caught:
        await backend.get_page("site", "page")
    assert caught.value.table == f"{dynamodb_config.table_prefix}pages"
    with pytest.raises(PartialBatchError) as bulk:
        await backend.save_pages_bulk([make_page()])
    assert isinstance(bulk.value.failures[0][1], TableNotFoundError)
    await backend.initialize()
    assert await backend.get_page("site", "page") is None


async def test_health_check_of_a_hanging_endpoint_is_false_in_time(dynamodb_config: DynamoDBConfig) -> None:
    release = asyncio.Event()

    async def hang(request: web.Request) -> web.Response:
        await release.wait()
        return web.Response()

    async with http_server(hang) as url:
        backend = DynamoDBBackend(local_config(url, health_timeout=0.3, **QUICK))
        await backend._rooms.gateway.open()
        async with asyncio.timeout(3):
            assert await backend.health_check() is False
        await backend.close()
        release.set()


async def test_endpoint_url_of_a_website_is_a_typed_error() -> None:
    async def website(request: web.Request) -> web.Response:
        return web.Response(text="<html>hello</html>")

    async with http_server(website) as url:
        with pytest.raises(
            EndpointUnreachableError,
            match=r"no usable answer from .*: check endpoint_url.* not from DynamoDB",
        ):
            await DynamoDBBackend(local_config(url, **QUICK)).initialize()


DYNAMODB = "application/x-amz-json-1.0"


@pytest.fixture(params=["tuned", "plain"])
def client_kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a test with the tuned client, and with the plain one of other versions of aiobotocore."""
    if request.param == "plain":
        monkeypatch.setattr(fast_path, "KNOWN", frozenset[str]())


@pytest.mark.usefixtures("client_kind")
@pytest.mark.parametrize("content_type", [DYNAMODB, "Application/X-Amz-JSON-1.0; charset=utf-8"])
async def test_answer_without_a_request_id_is_accepted_by_its_content_type(content_type: str) -> None:
    """As from a proxy that drops headers, or from a server that is compatible with DynamoDB."""
    site, stored = make_site(), dict[str, Any]()

    async def answer(request: web.Request) -> web.Response:
        arguments = orjson.loads(await request.read())
        if request.headers["X-Amz-Target"].endswith("PutItem"):
            stored["Item"] = arguments["Item"]
            return web.Response(body=b"{}", headers={"Content-Type": content_type})
        return web.Response(body=orjson.dumps(stored), headers={"Content-Type": content_type})

    async with http_server(answer) as url:
        backend = DynamoDBBackend(local_config(url, coalescing=False, **QUICK))
        await backend._rooms.gateway.open()
        await backend.save_site(site)
        assert await backend.get_site("site") == site
        await backend.close()


@pytest.mark.usefixtures("client_kind")
@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/html", "<html>log in to the network</html>"),
        ("text/html", "{}"),
        ("application/json", "{}"),
        (DYNAMODB, "<html>log in to the network</html>"),
        (DYNAMODB, '{"Item": {"site_id": {"S": "si'),
        (DYNAMODB, ""),
        (DYNAMODB, "[]"),
        (DYNAMODB, "null"),
    ],
)
async def test_answer_without_a_request_id_is_refused_if_it_is_not_of_dynamodb(
    content_type: str, body: str
) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=body, content_type=content_type)

    async with http_server(answer) as url:
        backend = DynamoDBBackend(local_config(url, coalescing=False, **QUICK))
        await backend._rooms.gateway.open()
        for call in (
            backend.get_site("site"),
            backend.save_site(make_site()),
            # An operation that the fast path leaves alone.
            backend.describe_tables(),
        ):
            with pytest.raises(EndpointUnreachableError, match="no usable answer from"):
                await call
        await backend.close()


async def test_retry_after_a_dropped_connection(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    async def drop_once(operation: str, request: Any, call: Any) -> Any:
        if operation == "put_item" and not dropped:
            dropped.append(request)
            raise EndpointConnectionError(endpoint_url="dropped")
        return await call(**request)

    dropped: list[Any] = []
    config = dynamodb_config.model_copy(update=QUICK)
    site = make_site()
    async with DynamoDBBackend(config, client_factory=intercepting(drop_once)) as flaky:
        await flaky.save_site(site)
        assert flaky.metrics()["PutItem", f"{config.table_prefix}sites"].retries == 1
    assert dropped
    assert await backend.get_site("site") == site
