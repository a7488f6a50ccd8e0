"""Opens the AWS clients: one attempt, checked answers, no secrets in the log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict
from urllib.parse import urlsplit
from zlib import crc32

import aioboto3
import orjson
from botocore.exceptions import ChecksumError
from botocore.parsers import ResponseParserError

from ragcrawl_dynamo._dynamodb import fast_path, in_process_mock
from ragcrawl_dynamo._dynamodb.connections import SessionMaker
from ragcrawl_dynamo._dynamodb.credentials import RenewableCredentials
from ragcrawl_dynamo._dynamodb.destination import Destination, Service, find_destination
from ragcrawl_dynamo._dynamodb.session import (
    AwsSession,
    ClientConfig,
    check_access,
    make_options,
    make_session,
)
from ragcrawl_dynamo._dynamodb.wire_logs import filtered_logs, silent_request
from ragcrawl_dynamo.config import DynamoDBConfig

if TYPE_CHECKING:
    from pydantic import SecretStr
    from types_aiobotocore_dynamodb import DynamoDBClient

logger = logging.getLogger(__name__)

_CLIENT_NAMES: dict[Service, str] = {
    "DynamoDB": "dynamodb",
    "S3": "s3",
    "Application Auto Scaling": "application-autoscaling",
}

# The content type of DynamoDB's answers.
_CONTENT_TYPE = "application/x-amz-json-1.0"

ClientFactory: TypeAlias = "Callable[[DynamoDBConfig], AbstractAsyncContextManager[DynamoDBClient]]"


class ClientOptions(TypedDict, total=False):
    """The options with which a backend makes its AWS clients."""

    session: AwsSession | None
    """An aioboto3.Session, or an AioSession of aiobotocore. Its credentials, its profile, its region and its
    event handlers are used. It stays open and unchanged. `profile` and static keys exclude it.
    """
    client_config: ClientConfig | None
    """A Config of botocore or an AioConfig of aiobotocore, for proxies for example. It cannot choose what a
    setting chooses, such as timeouts.
    """
    client_factory: ClientFactory | None
    """Makes the client of DynamoDB instead, in tests."""


@dataclass(frozen=True, slots=True)
class Access:
    """How the clients of a backend are made, beside its settings; see ClientOptions."""

    session: AwsSession | None = None
    client_config: ClientConfig | None = None
    client_factory: ClientFactory | None = None

    def check(self, config: DynamoDBConfig) -> None:
        """Checks the session and the options of botocore that a user has passed.

        Raises:
            InvalidArgumentError: One of them has a wrong type, or contradicts the settings.
        """
        check_access(config, self.session, self.client_config)

    def factory(self, service: Service) -> ClientFactory:
        """Returns the function that makes the client of a service."""
        if self.client_factory is not None and service == "DynamoDB":
            return self.client_factory
        return partial(_open, service=service, access=self)

    def find_destination(self, config: DynamoDBConfig, service: Service, session: Any = None) -> Destination:
        """Finds where a client of a service sends its requests; see `find_destination`.

        Args:
            config: The settings.
            service: The service.
            session: The session of the client, if it is made already.
        """
        session = session or make_session(config, self.session, handlers=False)
        ignores = None if self.client_config is None else self.client_config.ignore_configured_endpoint_urls
        return find_destination(config, service, session, ignores_configured=ignores)


def open_client(config: DynamoDBConfig) -> AbstractAsyncContextManager[DynamoDBClient]:
    """Returns a DynamoDB client, to be entered."""
    return Access().factory("DynamoDB")(config)


def open_object_client(config: DynamoDBConfig) -> AbstractAsyncContextManager[DynamoDBClient]:
    """Returns a client of S3 for the content bucket, to be entered; a gateway sends its requests."""
    return Access().factory("S3")(config)


def open_scaling_client(config: DynamoDBConfig) -> AbstractAsyncContextManager[DynamoDBClient]:
    """Returns a client of Application Auto Scaling, to be entered; a gateway sends its requests."""
    return Access().factory("Application Auto Scaling")(config)


def is_answer_of_service(metadata: Mapping[str, Any]) -> bool:
    """Whether an answer that was parsed came from the service, by its ResponseMetadata.

    Proxies drop headers, and servers compatible with DynamoDB need not send a request id. They do send its
    content type; that the answer is whole JSON then was checked before it was parsed.
    """
    content_type = metadata.get("HTTPHeaders", {}).get("content-type", "").partition(";")[0]
    return bool(metadata.get("RequestId")) or content_type.strip().lower() == _CONTENT_TYPE


@asynccontextmanager
async def _open(config: DynamoDBConfig, *, service: Service, access: Access) -> AsyncIterator[DynamoDBClient]:
    session = make_session(config, access.session)
    destination = access.find_destination(config, service, session)
    url = destination.endpoint_url
    is_tuned = service == "DynamoDB" and fast_path.is_known()
    # botocore would read them when it makes the client.
    models = session.get_component("data_loader")
    await asyncio.to_thread(_read_models, models, _CLIENT_NAMES[service])
    if is_tuned:
        fast_path.tune_session(session)
    credentials = RenewableCredentials(partial(_read_credentials, config, access, destination.region))
    if config.access_key_id is None:
        session.register_component("credential_provider", credentials)
    else:
        keys = (config.access_key_id, config.secret_access_key, config.session_token)
        session.set_credentials(*map(_plain, keys))
    # The handlers of a session that was given have those of aioboto3 already, if it is one.
    create = (
        aioboto3.Session(botocore_session=session).client if access.session is None else session.create_client
    )
    make_http_session = SessionMaker()
    options = make_options(
        access.session,
        access.client_config,
        connect_timeout=config.connect_timeout,
        read_timeout=config.read_timeout,
        max_pool_connections=config.max_connections,
        # The gateway retries, and typed code builds the requests: botocore does neither again.
        retries={"total_max_attempts": 1, "mode": "standard"},
        parameter_validation=False,
        user_agent="ragcrawl-dynamo",
    )
    options.http_session_cls = make_http_session
    if url is not None and options.s3 is None:
        # A local engine has no subdomains for buckets.
        options.s3 = {"addressing_style": "path"}
    if url is not None and _is_readable_on_the_way(url):
        logger.warning(
            "requests to endpoint %s (set by %s) are not encrypted and leave this machine, so others can "
            "read them: use https",
            *(url, destination.endpoint_source),
        )
    # Without TLS there is nothing to verify, and reading the certificates takes 40 ms of CPU.
    verify = False if url is not None and url.startswith("http://") else None
    name, region = _CLIENT_NAMES[service], destination.region
    opening: Any = create(name, region_name=region, endpoint_url=url, config=options, verify=verify)
    async with AsyncExitStack() as stack:
        stack.enter_context(filtered_logs())
        with silent_request():
            client = await stack.enter_async_context(opening)
        events = client.meta.events
        events.register_first("before-send", in_process_mock.refuse)
        # botocore checks the checksum in its retry handler, which is off here.
        events.register("before-parse.dynamodb", _check_integrity)
        events.register("after-call", credentials.note_answer)
        if is_tuned:
            fast_path.tune_client(client, make_http_session.session)
        yield client


async def _read_credentials(config: DynamoDBConfig, access: Access, region: str) -> Any:
    """Reads the credentials of a client; those of files, servers and programs are read again each time."""
    if access.session is not None:
        return await access.session.get_credentials()
    session = make_session(config)
    # For the requests to STS and IAM Identity Center.
    session.set_config_variable("region", region)
    return await session.get_credentials()


def _plain(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _read_models(loader: Any, service: str) -> None:
    """Reads the models that a client of a service needs into its loader's cache. Run it in a thread."""
    for model in ("service-2", "endpoint-rule-set-1"):
        loader.load_service_model(service, model)
    for name in ("endpoints", "partitions", "sdk-default-configuration", "_retry"):
        loader.load_data_with_path(name)


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
        ResponseParserError: The answer has no checksum, and is no JSON object though it should be. botocore
            would take it for an empty answer, or for an error without a code.
    """
    body, headers = response_dict["body"], response_dict["headers"]
    if (expected := headers.get("x-amz-crc32")) is not None:
        if str(actual := crc32(body)) != expected:
            raise ChecksumError(checksum_type="crc32", expected_checksum=expected, actual_checksum=actual)
    elif response_dict["status_code"] == HTTPStatus.OK or "json" in headers.get("content-type", ""):
        try:
            answer = orjson.loads(body)
        except ValueError as error:
            raise ResponseParserError(
                f"the answer is not JSON, so it is cut off, or not from DynamoDB: {error}"
            ) from error
        if not isinstance(answer, dict):
            raise ResponseParserError("the answer is not a JSON object, so it is not from DynamoDB")
