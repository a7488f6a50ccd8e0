"""Certificates and proxies: which servers a client trusts, and how it reaches them."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from aiohttp import web
from botocore.config import Config

from ragcrawl_dynamo import (
    DynamoDBBackend,
    DynamoDBConfig,
    EndpointUnreachableError,
    InvalidArgumentError,
    RequestRejectedError,
    TableNotFoundError,
)
from ragcrawl_dynamo._dynamodb import fast_path
from ragcrawl_dynamo.testing import local_config
from tests.support.aws_environment import AwsEnvironment
from tests.support.certificates import self_signed
from tests.support.engines import on_moto
from tests.support.factories import make_site
from tests.support.http_server import TunnelProxy, free_port, http_server, refusing

if TYPE_CHECKING:
    from pathlib import Path

QUICK: dict[str, Any] = {"retry_base_delay": 0.001, "retry_attempts": 2, "call_timeout": 5}
REACHED = refusing("ResourceNotFoundException", "no such table")


@pytest.fixture(params=[True, False], ids=["tuned", "plain"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_path, "is_known", lambda: request.param)


async def ask(url: str, **clients: Any) -> None:
    """Asks a server for the tables; TableNotFoundError says that it has answered."""
    backend = DynamoDBBackend(local_config(url, **QUICK), **clients)
    await backend.initialize(create_tables=False)


@pytest.mark.usefixtures("_way")
async def test_certificate_of_an_authority_in_ca_bundle_is_trusted(
    aws_environment: AwsEnvironment, tmp_path: Path
) -> None:
    context, trusted = self_signed("localhost", tmp_path)
    async with http_server(REACHED, context) as url:
        with pytest.raises(RequestRejectedError, match="CERTIFICATE_VERIFY_FAILED"):
            await ask(url)
        session = AioSession()
        session.set_config_variable("ca_bundle", str(trusted))
        session.set_credentials("local", "local")
        config = local_config(url, access_key_id=None, secret_access_key=None, **QUICK)
        with pytest.raises(TableNotFoundError):
            await DynamoDBBackend(config, session=session).initialize(create_tables=False)
        aws_environment.set(AWS_CA_BUNDLE=str(trusted))
        with pytest.raises(TableNotFoundError):
            await ask(url)


@pytest.mark.usefixtures("_way")
async def test_certificate_of_another_host_is_refused(
    aws_environment: AwsEnvironment, tmp_path: Path
) -> None:
    """Though an authority that is trusted has signed it."""
    context, trusted = self_signed("other.example", tmp_path)
    aws_environment.set(AWS_CA_BUNDLE=str(trusted))
    async with http_server(REACHED, context) as url:
        with pytest.raises(RequestRejectedError, match="Hostname mismatch"):
            await ask(url)


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("by", ["client_config", "environment"])
async def test_certificate_is_verified_through_a_proxy(
    aws_environment: AwsEnvironment, tmp_path: Path, by: str
) -> None:
    context, trusted = self_signed("localhost", tmp_path)
    other, _ = self_signed("other.example", tmp_path)
    async with (
        TunnelProxy() as proxy,
        http_server(REACHED, context) as url,
        http_server(REACHED, other) as wrong,
    ):
        clients: dict[str, Any] = {}
        if by == "environment":
            aws_environment.set(HTTPS_PROXY=proxy.url)
        else:
            clients = {"client_config": Config(proxies={"https": proxy.url})}
        with pytest.raises(RequestRejectedError, match="CERTIFICATE_VERIFY_FAILED"):
            await ask(url, **clients)
        aws_environment.set(AWS_CA_BUNDLE=str(trusted))
        with pytest.raises(RequestRejectedError, match="CERTIFICATE_VERIFY_FAILED"):
            await ask(wrong, **clients)
        asked = len(proxy.asked)
        with pytest.raises(TableNotFoundError):
            await ask(url, **clients)
        assert set(proxy.asked[asked:]) == {url.removeprefix("https://")}


@asynccontextmanager
async def forwarding(engine: str) -> AsyncIterator[tuple[str, list[str]]]:
    """Runs a proxy for http that asks an engine instead of any host; yields its URL and the hosts."""
    hosts: list[str] = []

    async def forward(request: web.Request) -> web.Response:
        hosts.append(f"{request.url.host} {request.headers['User-Agent']}")
        headers = {name: request.headers[name] for name in request.headers if name.lower() != "host"}
        async with session.post(engine, data=await request.read(), headers=headers) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower().startswith("x-amz")}
            body = await answer.read()
            return web.Response(
                status=answer.status, body=body, headers=kept, content_type=answer.content_type
            )

    async with aiohttp.ClientSession() as session, http_server(forward) as url:
        yield url, hosts


@on_moto
@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("kind", [Config, AioConfig])
async def test_client_config_sends_all_through_a_proxy(
    dynamodb_config: DynamoDBConfig, aws_environment: AwsEnvironment, kind: Any
) -> None:
    async with forwarding(str(dynamodb_config.endpoint_url)) as (proxy, hosts):
        config = dynamodb_config.model_copy(update={"endpoint_url": "http://dynamodb.example"})
        options = kind(proxies={"http": proxy}, user_agent_extra="crawler/1")
        async with DynamoDBBackend(config, client_config=options) as backend:
            await backend.save_site(site := make_site())
            assert await backend.get_site(site.site_id) == site
    (asked,) = set(hosts)
    assert asked.startswith("dynamodb.example ragcrawl-dynamo ")
    assert asked.endswith("crawler/1")


async def test_default_client_config_of_a_session_is_used_too(aws_environment: AwsEnvironment) -> None:
    session = AioSession()
    session.set_credentials("local", "local")
    session.set_default_client_config(AioConfig(proxies={"http": f"http://127.0.0.1:{free_port()}"}))
    config = local_config("http://dynamodb.example", access_key_id=None, secret_access_key=None, **QUICK)
    with pytest.raises(EndpointUnreachableError, match="proxy"):
        await DynamoDBBackend(config, session=session).initialize()


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({"connect_timeout": 1}, "must not set connect_timeout: set `connect_timeout`"),
        ({"max_pool_connections": 99}, "set `max_connections`"),
        ({"retries": {"max_attempts": 3}}, "set `retry_attempts`"),
        ({"region_name": "eu-west-1"}, "set `region`"),
        ({"connector_args": {"ssl_context": ssl.create_default_context()}}, "AWS_CA_BUNDLE"),
    ],
)
def test_client_config_cannot_override_a_setting(options: dict[str, Any], advice: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"client_config: .*{advice}"):
        DynamoDBBackend(DynamoDBConfig(), client_config=AioConfig(**options))
    wrong: Any = {"proxies": {}}
    with pytest.raises(InvalidArgumentError, match="client_config: must be a Config"):
        DynamoDBBackend(DynamoDBConfig(), client_config=wrong)
