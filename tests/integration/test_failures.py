"""Wrong settings, dead ends and lost answers, over real sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
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
from ragcrawl_dynamo._dynamodb.client import open_client
from ragcrawl_dynamo.testing import local_config
from tests.engines import on_dynamodb_local
from tests.factories import make_page, make_run, make_site
from tests.fakes import intercepting

QUICK = {"retry_base_delay": 0.001, "retry_attempts": 3, "call_timeout": 5}


@asynccontextmanager
async def http_server(handler: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[str]:
    """Answers every request with `handler`; yields the URL."""
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


def refusing(code: str, message: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        await request.read()
        body = orjson.dumps({"__type": f"com.amazon.coral.service#{code}", "message": message})
        return web.Response(status=400, body=body, content_type="application/x-amz-json-1.0")

    return answer


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_a_wrong_endpoint_names_itself_and_what_to_check() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    backend = DynamoDBBackend(local_config(url, **QUICK))
    with pytest.raises(
        EndpointUnreachableError, match=f"{url}, region 'us-east-1': check endpoint_url"
    ) as caught:
        await backend.initialize()
    assert isinstance(caught.value.__cause__, EndpointConnectionError)


async def test_a_wrong_region_is_an_endpoint_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def no_such_host(host: str, *args: Any, **kwargs: Any) -> Any:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_such_host)
    config = local_config("http://replaced", **QUICK).model_copy(
        update={"endpoint_url": None, "region": "eu-nowhere-1"}
    )
    with pytest.raises(EndpointUnreachableError, match="region 'eu-nowhere-1': check endpoint_url, region"):
        await DynamoDBBackend(config).initialize()
    assert all("eu-nowhere-1" in host for host in asked)
    assert asked


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("AccessDeniedException", "User: arn:aws:iam::1:user/x is not authorized to perform: dynamodb:X"),
        ("UnrecognizedClientException", "The security token included in the request is invalid."),
        ("ExpiredTokenException", "The security token included in the request is expired"),
        ("InvalidSignatureException", "Signature expired: 20260101T000000Z is now earlier than ..."),
    ],
)  # fmt: skip
async def test_denied_access_is_not_retried_and_says_what_is_missing(code: str, message: str) -> None:
    async with http_server(refusing(code, message)) as url:
        backend = DynamoDBBackend(local_config(url, **QUICK))
        with pytest.raises(
            AccessDeniedError, match="check the credentials, the region and the role's policy"
        ) as caught:
            await backend.initialize()
    assert message in str(caught.value)
    assert caught.value.code == code
    assert all(counters.retries == 0 for counters in backend.metrics().values())


async def test_missing_credentials_say_how_to_give_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    for name in (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_PROFILE",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    backend = DynamoDBBackend(DynamoDBConfig(endpoint_url="http://127.0.0.1:1"))
    with pytest.raises(CredentialsError, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile"):
        await backend.initialize()


async def test_a_missing_table_is_named_with_the_way_to_make_it(
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


async def test_an_endpoint_that_hangs_is_unhealthy_in_time(dynamodb_config: DynamoDBConfig) -> None:
    release = asyncio.Event()

    async def hang(request: web.Request) -> web.Response:
        await release.wait()
        return web.Response()

    async with http_server(hang) as url:
        backend = DynamoDBBackend(local_config(url, health_timeout=0.3, **QUICK))
        await backend._gateway.open()
        async with asyncio.timeout(3):
            assert await backend.health_check() is False
        await backend.close()
        release.set()


async def test_something_that_is_no_dynamodb_is_a_typed_error() -> None:
    async def website(request: web.Request) -> web.Response:
        return web.Response(text="<html>hello</html>")

    async with http_server(website) as url:
        with pytest.raises(
            EndpointUnreachableError,
            match=r"no usable answer from .*: check endpoint_url.* this is not DynamoDB",
        ):
            await DynamoDBBackend(local_config(url, **QUICK)).initialize()


async def test_a_dropped_connection_is_tried_again(
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


@on_dynamodb_local
@pytest.mark.parametrize("applied", [True, False], ids=["answer lost", "request lost"])
async def test_stats_are_added_once_whatever_was_lost(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig, applied: bool
) -> None:
    async def lossy(operation: str, request: Any, call: Any) -> Any:
        lost.append(operation)
        if operation == "update_item" and lost.count("update_item") % 2:
            if applied:
                await call(**request)
            raise EndpointConnectionError(endpoint_url="lost")
        return await call(**request)

    lost: list[str] = []
    await backend.save_run(make_run())
    config = dynamodb_config.model_copy(update=QUICK)
    async with DynamoDBBackend(config, client_factory=intercepting(lossy)) as lossy_backend:
        for i in range(1, 11):
            run = await lossy_backend.add_run_stats(
                "site", "run", pages_crawled=1, status_codes={200: 2}, domains_crawled={f"d{i}"}
            )
            assert run.stats.pages_crawled == i
            assert run.stats.status_codes == {200: 2 * i}
            assert len(run.stats.domains_crawled) == i
    assert lost.count("update_item") == 20


@on_dynamodb_local
async def test_many_workers_add_to_one_run_and_nothing_is_lost(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    await backend.save_run(make_run())
    async with DynamoDBBackend(dynamodb_config) as other:

        async def add(worker: int) -> None:
            for _ in range(4):
                await (backend, other)[worker % 2].add_run_stats(
                    "site",
                    "run",
                    pages_crawled=1,
                    total_bytes_downloaded=100,
                    status_codes={200 + worker % 3: 1},
                    domains_crawled={f"host{worker}"},
                )

        await asyncio.gather(*(add(worker) for worker in range(64)))
    run = await backend.get_run("run", "site")
    assert run is not None
    assert run.stats.pages_crawled == 256
    assert run.stats.total_bytes_downloaded == 25_600
    assert run.stats.status_codes == {200: 88, 201: 84, 202: 84}
    assert len(run.stats.domains_crawled) == 64
