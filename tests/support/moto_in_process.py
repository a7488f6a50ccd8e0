"""Runs moto in the process of the tests, without threads and sockets: a forked process can go on with it.

`make mutants` needs that: it forks a process for each mutant. `-p tests.support.moto_in_process` loads it.
"""

from __future__ import annotations

import asyncio
import io
import os
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any
from urllib.parse import unquote, urlsplit

import boto3
import pytest
from botocore.awsrequest import AWSResponse, HeadersDict
from botocore.config import Config

import ragcrawl_dynamo.testing
from ragcrawl_dynamo import DynamoDBConfig
from ragcrawl_dynamo._dynamodb.client import Access, ClientFactory
from ragcrawl_dynamo._dynamodb.destination import Service
from ragcrawl_dynamo.testing.moto_tables import create_application, fast_tables

ENDPOINT = "http://moto.invalid"

# The clients of boto3 by service and region: it takes a second to make one.
CLIENTS: dict[tuple[Service, str], Any] = {}

SERVICES = {"DynamoDB": "dynamodb", "S3": "s3", "Application Auto Scaling": "application-autoscaling"}

# A mutant that survives so many tests on moto counts as one that they do not notice.
MOST_ON_MOTO = 6


class Answer(io.BytesIO):
    """A body as urllib3 has it."""

    def stream(self, *_: Any, **__: Any) -> Iterator[bytes]:
        yield self.read()


def answer(application: Any, request: Any, **_: Any) -> AWSResponse:
    """Lets moto answer a request; a handler of botocore's event before-send."""
    url = urlsplit(request.url)
    body = request.body or b""
    body = body.encode() if isinstance(body, str) else body if isinstance(body, bytes) else body.read()
    headers = {
        name.upper().replace("-", "_"): value.decode() if isinstance(value, bytes) else value
        for name, value in request.headers.items()
    }
    environ = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote(url.path, "latin-1"),
        "QUERY_STRING": url.query,
        "SERVER_NAME": url.hostname,
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "CONTENT_LENGTH": str(len(body)),
        "CONTENT_TYPE": headers.get("CONTENT_TYPE", ""),
        **{f"HTTP_{name}": value for name, value in headers.items()},
        "HTTP_HOST": url.netloc,
    }
    started: dict[str, Any] = {}

    def start_response(status: str, headers: list[tuple[str, str]], _: Any = None) -> None:
        started.update(status=int(status.split(" ")[0]), headers=HeadersDict(dict(headers)))

    content = b"".join(application(environ, start_response))
    return AWSResponse(request.url, started["status"], started["headers"], Answer(content))


class InProcessClient:
    """A client of asyncio on a client of boto3 that moto answers at once."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        call = getattr(self._client, operation)

        async def send(**request: Any) -> Any:
            await asyncio.sleep(0)
            return call(**request)

        return send


@asynccontextmanager
async def open_client(application: Any, service: Service, config: DynamoDBConfig) -> AsyncIterator[Any]:
    region = config.region or "us-east-1"
    if (service, region) not in CLIENTS:
        client = boto3.client(
            SERVICES[service],
            region_name=region,
            endpoint_url=ENDPOINT,
            aws_access_key_id="local",
            aws_secret_access_key="local",  # noqa: S106 - no secret
            config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
        )
        client.meta.events.register("before-send", partial(answer, application))
        CLIENTS[service, region] = client
    yield InProcessClient(CLIENTS[service, region])


def pytest_configure() -> None:
    """Replaces the clients of all backends, and the server of moto, for the rest of the process."""
    fast_tables().__enter__()
    application = create_application()

    def factory(self: Access, service: Service) -> ClientFactory:
        if self.client_factory is not None and service == "DynamoDB":
            return self.client_factory
        return partial(open_client, application, service)

    Access.factory = factory  # type: ignore[method-assign]

    @contextmanager
    def run_moto(port: int = 0) -> Iterator[str]:
        yield ENDPOINT

    ragcrawl_dynamo.testing.run_moto = run_moto


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs unit tests first; for a mutant, only some of the tests on moto, spread over all of them."""
    unit = [item for item in items if "tests/unit/" in item.nodeid]
    on_moto = [item for item in items if item not in set(unit)]
    if "__mutmut_" in os.environ.get("MUTANT_UNDER_TEST", ""):
        on_moto.sort(key=lambda item: zlib.crc32(item.nodeid.encode()))
        del on_moto[MOST_ON_MOTO:]
    items[:] = unit + on_moto
