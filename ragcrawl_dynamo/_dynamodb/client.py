"""Opens the AWS clients: one attempt, checked answers, no secrets in the log."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import cache
from http import HTTPStatus
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from urllib.parse import urlsplit
from zlib import crc32

import aioboto3
import orjson
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import ChecksumError
from botocore.loaders import create_loader
from botocore.parsers import ResponseParserError

from ragcrawl_dynamo._dynamodb import fast_path, in_process_mock
from ragcrawl_dynamo._dynamodb.connections import SessionMaker
from ragcrawl_dynamo._dynamodb.wire_logs import filtered_logs, silent_request
from ragcrawl_dynamo.config import DynamoDBConfig

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb import DynamoDBClient

logger = logging.getLogger(__name__)

ClientFactory: TypeAlias = "Callable[[DynamoDBConfig], AbstractAsyncContextManager[DynamoDBClient]]"


def open_client(config: DynamoDBConfig) -> AbstractAsyncContextManager[DynamoDBClient]:
    """Returns a DynamoDB client, to be entered."""
    return _open(config, "dynamodb", config.endpoint_url)


def open_object_client(config: DynamoDBConfig) -> AbstractAsyncContextManager[DynamoDBClient]:
    """Returns a client of S3 for the content bucket, to be entered; the gateway uses it as the other one."""
    return _open(config, "s3", config.content_bucket_endpoint_url)


@asynccontextmanager
async def _open(
    config: DynamoDBConfig, service: str, endpoint_url: str | None
) -> AsyncIterator[DynamoDBClient]:

    def secret(name: Literal["access_key_id", "secret_access_key", "session_token"]) -> str | None:
        value = getattr(config, name)
        return value.get_secret_value() if value is not None else None

    is_tuned = service == "dynamodb" and fast_path.is_known()
    botocore_session = AioSession()
    # A profile can name service models of its own.
    if config.profile is None:
        data_path = botocore_session.get_config_variable("data_path")
        botocore_session.register_component("data_loader", _loader(data_path))
    if is_tuned:
        fast_path.tune_session(botocore_session)
    session = aioboto3.Session(
        botocore_session=botocore_session,
        profile_name=config.profile,
        region_name=config.region,
        aws_access_key_id=secret("access_key_id"),
        aws_secret_access_key=secret("secret_access_key"),
        aws_session_token=secret("session_token"),
    )
    make_http_session = SessionMaker()
    options = AioConfig(
        http_session_cls=make_http_session,
        connect_timeout=config.connect_timeout,
        read_timeout=config.read_timeout,
        max_pool_connections=config.max_connections,
        # The gateway retries, and typed code builds the requests: botocore does neither again.
        retries={"total_max_attempts": 1, "mode": "standard"},
        parameter_validation=False,
        user_agent="ragcrawl-dynamo",
        # A local engine has no subdomains for buckets.
        s3={"addressing_style": "path"} if endpoint_url else None,
    )
    if endpoint_url is not None and _is_readable_on_the_way(endpoint_url):
        logger.warning("%s is neither encrypted nor on this machine: others can read along", endpoint_url)
    # Without TLS there is nothing to verify, and reading the certificates takes 40 ms of CPU.
    verify = False if endpoint_url is not None and endpoint_url.startswith("http://") else None
    opening: Any = session.client(service, endpoint_url=endpoint_url, config=options, verify=verify)
    async with AsyncExitStack() as stack:
        stack.enter_context(filtered_logs())
        # Opening may fetch credentials, which are requests too.
        with silent_request():
            client = await stack.enter_async_context(opening)
        client.meta.events.register_first("before-send", in_process_mock.refuse)
        # botocore checks the checksum in its retry handler, which is off here.
        client.meta.events.register("before-parse.dynamodb", _check_integrity)
        if is_tuned:
            fast_path.tune_client(client, make_http_session.session)
        yield client


@cache
def _loader(data_path: str | None) -> Any:
    """Reads the service models of botocore once a process: that takes 100 ms of CPU for each client."""
    return create_loader(data_path)


def _is_readable_on_the_way(url: str) -> bool:
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        is_here = ip_address(host).is_loopback
    except ValueError:
        # RFC 6761 leaves these names to this machine.
        is_here = host == "localhost" or host.endswith(".localhost")
    return parts.scheme == "http" and not is_here


def _check_integrity(response_dict: dict[str, Any], **_: Any) -> None:
    """Refuses an answer that differs from what DynamoDB sent, by the checksum that comes with it.

    Raises:
        ChecksumError: The answer differs; it counts as no answer, like any that cannot be read.
        ResponseParserError: The answer has no checksum, and is not JSON though it should be. botocore would
            take it for an empty answer, or for an error without a code.
    """
    body, headers = response_dict["body"], response_dict["headers"]
    if (expected := headers.get("x-amz-crc32")) is not None:
        if str(actual := crc32(body)) != expected:
            raise ChecksumError(checksum_type="crc32", expected_checksum=expected, actual_checksum=actual)
    elif response_dict["status_code"] == HTTPStatus.OK or "json" in headers.get("content-type", ""):
        try:
            orjson.loads(body)
        except ValueError as error:
            raise ResponseParserError(
                f"the answer is cut off, or this is not DynamoDB: no JSON, {error}"
            ) from error
