"""The only file that awaits an AWS client: one client, bounded requests, retries, metrics, error mapping."""

from __future__ import annotations

import asyncio
import io
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from http import HTTPStatus
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast, overload
from urllib.parse import urlsplit
from zlib import crc32

import aioboto3
import orjson
from aiobotocore.config import AioConfig
from botocore import xform_name
from botocore.exceptions import (
    BotoCoreError,
    ChecksumError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
)
from botocore.parsers import ResponseParserError

from ragcrawl_dynamo import errors
from ragcrawl_dynamo._clock import ServerClock
from ragcrawl_dynamo._metrics import OBJECTS, READS, WRITES, Metrics
from ragcrawl_dynamo._retry import (
    THROTTLING_CODES,
    TRANSPORT_ERRORS,
    cancellation_reasons,
    error_code,
    is_retryable,
    is_transport_error,
    retrying,
)
from ragcrawl_dynamo.config import DynamoDBConfig

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb import DynamoDBClient
    from types_aiobotocore_dynamodb import type_defs as t

logger = logging.getLogger(__name__)

ClientFactory: TypeAlias = "Callable[[DynamoDBConfig], AbstractAsyncContextManager[DynamoDBClient]]"

# Connections that data requests never use: health checks, one request a table, get through under load.
CONTROL_CONNECTIONS = 5

# At DEBUG these log session tokens, signatures, and what is stored.
_WIRE_LOGS = ("botocore.auth", "botocore.endpoint", "botocore.parsers")

_ACCESS_CODES = frozenset(
    {
        "403",
        "AccessDenied",
        "InvalidAccessKeyId",
        "AccessDeniedException",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignatureException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        "NotAuthorized",
        "OptInRequired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
# HeadBucket answers without a body, and so without a name for the error.
_NO_BUCKET = frozenset({"404", "NoSuchBucket"})
_NO_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, ProfileNotFound)


def open_client(config: DynamoDBConfig) -> AbstractAsyncContextManager[DynamoDBClient]:
    """A DynamoDB client as this package wants it, not yet entered."""
    return _open(config, "dynamodb", config.endpoint_url)


def open_object_client(config: DynamoDBConfig) -> AbstractAsyncContextManager[DynamoDBClient]:
    """Likewise one of S3, for the content bucket; its type is of no matter to the gateway."""
    return _open(config, "s3", config.content_bucket_endpoint_url)


@asynccontextmanager
async def _open(
    config: DynamoDBConfig, service: str, endpoint_url: str | None
) -> AsyncIterator[DynamoDBClient]:

    def secret(name: Literal["access_key_id", "secret_access_key", "session_token"]) -> str | None:
        value = getattr(config, name)
        return value.get_secret_value() if value is not None else None

    session = aioboto3.Session(
        profile_name=config.profile,
        region_name=config.region,
        aws_access_key_id=secret("access_key_id"),
        aws_secret_access_key=secret("secret_access_key"),
        aws_session_token=secret("session_token"),
    )
    options = AioConfig(
        connect_timeout=config.connect_timeout,
        read_timeout=config.read_timeout,
        max_pool_connections=config.max_connections,
        # Retries are ours alone, and every request is built by typed code: neither is done twice.
        retries={"total_max_attempts": 1, "mode": "standard"},
        parameter_validation=False,
        user_agent="ragcrawl-dynamo",
        # Buckets are no subdomains of a local engine's address.
        s3={"addressing_style": "path"} if endpoint_url else None,
    )
    for name in _WIRE_LOGS:
        logging.getLogger(name).addFilter(_is_no_detail)
    if endpoint_url is not None and _is_readable_on_the_way(endpoint_url):
        logger.warning("%s is neither encrypted nor on this machine: others can read along", endpoint_url)
    opening: Any = session.client(service, endpoint_url=endpoint_url, config=options)
    async with opening as client:
        # botocore checks this where it retries, which it does not here.
        client.meta.events.register("before-parse.dynamodb", _check_integrity)
        yield client


def _is_no_detail(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG


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
    """Refuses an answer of DynamoDB's that is not what it sent, by the checksum that it sends along.

    Raises:
        ChecksumError: It is not; like any other answer that can not be read, it is no answer.
        ResponseParserError: It has no checksum, and is no JSON though it should be. botocore would take it
            for an empty answer, or for an error without a code.
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
                f"the answer is cut off, or this is no DynamoDB: no JSON, {error}"
            ) from error


class Gateway:
    """Sends every request of one backend to one service.

    Requests in flight are bounded below the size of the connection pool: waiting for a pool slot has no
    time-out, and a request that is signed while it waits there expires. The wait for our own slot comes
    before signing, and counts towards the call's deadline.
    """

    def __init__(
        self,
        config: DynamoDBConfig,
        client_factory: ClientFactory = open_client,
        *,
        service: Literal["DynamoDB", "S3"] = "DynamoDB",
    ) -> None:
        self.config = config
        self._service = service
        self._endpoint_url = config.content_bucket_endpoint_url if service == "S3" else config.endpoint_url
        self.metrics = Metrics()
        self.server_clock = ServerClock()
        self._client_factory = client_factory
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: DynamoDBClient | None = None
        self._stack: AsyncExitStack | None = None
        self._was_open = False
        self._in_flight = 0

    async def open(self) -> None:
        """Opens the client; does nothing if it is open.

        Raises:
            WrongEventLoopError: It is open in another event loop.
            CredentialsError: The configured profile does not exist.
            RequestRejectedError: The endpoint's URL or the region can not be used.
        """
        self._enter_loop()
        async with self._lock:
            if self._client is not None:
                return
            stack = AsyncExitStack()
            try:
                self._client = await stack.enter_async_context(self._client_factory(self.config))
            except (BotoCoreError, ValueError) as error:
                raise self._translate(error, "OpenClient", None) from error
            self._stack = stack
            self._was_open = True

    async def close(self) -> None:
        """Refuses new calls, lets requests in flight end, closes the client; does nothing if it is closed.

        Raises:
            WrongEventLoopError: It is open in another event loop.
        """
        if self._stack is None:
            return
        self._enter_loop()
        self._client = None
        async with self._lock:
            stack, self._stack = self._stack, None
            if stack is not None:
                try:
                    await self._idle.wait()
                finally:
                    await stack.aclose()

    @overload
    async def call(
        self, operation: Literal["GetItem"], request: t.GetItemInputTypeDef
    ) -> t.GetItemOutputTypeDef: ...
    @overload
    async def call(
        self, operation: Literal["PutItem"], request: t.PutItemInputTypeDef
    ) -> t.PutItemOutputTypeDef: ...
    @overload
    async def call(
        self, operation: Literal["UpdateItem"], request: t.UpdateItemInputTypeDef
    ) -> t.UpdateItemOutputTypeDef: ...
    @overload
    async def call(
        self, operation: Literal["DeleteItem"], request: t.DeleteItemInputTypeDef
    ) -> t.DeleteItemOutputTypeDef: ...
    @overload
    async def call(
        self, operation: Literal["Query"], request: t.QueryInputTypeDef
    ) -> t.QueryOutputTypeDef: ...
    @overload
    async def call(self, operation: Literal["Scan"], request: t.ScanInputTypeDef) -> t.ScanOutputTypeDef: ...
    @overload
    async def call(
        self, operation: Literal["BatchGetItem"], request: t.BatchGetItemInputTypeDef
    ) -> t.BatchGetItemOutputTypeDef: ...
    @overload
    async def call(
        self, operation: Literal["BatchWriteItem"], request: t.BatchWriteItemInputTypeDef
    ) -> t.BatchWriteItemOutputTypeDef: ...
    @overload
    async def call(
        self, operation: Literal["CreateTable"], request: t.CreateTableInputTypeDef
    ) -> t.CreateTableOutputTypeDef: ...
    @overload
    async def call(
        self, operation: Literal["DescribeTable"], request: t.DescribeTableInputTypeDef
    ) -> t.DescribeTableOutputTypeDef: ...
    @overload
    async def call(
        self, operation: Literal["UpdateTable"], request: t.UpdateTableInputTypeDef
    ) -> t.UpdateTableOutputTypeDef: ...
    @overload
    async def call(
        self, operation: Literal["DeleteTable"], request: t.DeleteTableInputTypeDef
    ) -> t.DeleteTableOutputTypeDef: ...
    @overload
    async def call(
        self, operation: Literal["DescribeTimeToLive"], request: t.DescribeTimeToLiveInputTypeDef
    ) -> t.DescribeTimeToLiveOutputTypeDef: ...
    @overload
    async def call(
        self, operation: Literal["UpdateTimeToLive"], request: t.UpdateTimeToLiveInputTypeDef
    ) -> t.UpdateTimeToLiveOutputTypeDef: ...
    @overload
    async def call(
        self,
        operation: Literal["DescribeContinuousBackups"],
        request: t.DescribeContinuousBackupsInputTypeDef,
    ) -> t.DescribeContinuousBackupsOutputTypeDef: ...
    @overload
    async def call(
        self, operation: Literal["UpdateContinuousBackups"], request: t.UpdateContinuousBackupsInputTypeDef
    ) -> t.UpdateContinuousBackupsOutputTypeDef: ...

    @overload
    async def call(
        self,
        operation: Literal["BatchExecuteStatement"],
        request: t.BatchExecuteStatementInputTypeDef,
        *,
        on_unclear: Callable[[], None] | None = None,
    ) -> t.BatchExecuteStatementOutputTypeDef: ...
    @overload
    async def call(
        self, operation: Literal["TransactWriteItems"], request: t.TransactWriteItemsInputTypeDef
    ) -> t.TransactWriteItemsOutputTypeDef: ...
    @overload
    async def call(
        self,
        operation: Literal["HeadBucket", "PutObject", "GetObject", "DeleteObject"],
        request: Mapping[str, Any],
    ) -> Any: ...

    async def call(
        self, operation: str, request: Mapping[str, Any], *, on_unclear: Callable[[], None] | None = None
    ) -> Any:
        """Sends one request, again where that can help, and returns the answer.

        Args:
            operation: Its name in AWS's reference.
            request: Its arguments.
            on_unclear: Told when an attempt failed in a way that leaves open whether it was applied.

        Raises:
            BackendStateError: The gateway is not open, or open in another event loop.
            ServiceError: No attempt succeeded; its subclass says why.
        """
        self._require_open()
        table = _table_of(request)
        if operation in READS or operation in WRITES:
            request = {**request, "ReturnConsumedCapacity": "TOTAL"}
        last_error: BaseException | None = None

        def on_retry(error: BaseException, attempt: int, pause: float) -> None:
            nonlocal last_error
            last_error = error
            self.metrics.retry(operation, table)
            if on_unclear is not None and error_code(error) not in THROTTLING_CODES:
                on_unclear()
            logger.warning(
                "%s on %s failed (%s), attempt %d of %d; again in %.3f s",
                operation,
                table,
                error_code(error),
                attempt,
                self.config.retry_attempts,
                pause,
            )

        try:
            async with asyncio.timeout(self.config.call_timeout):
                async for attempt in retrying(self.config, on_retry):
                    with attempt:
                        response = await self._send(operation, table, request)
        except (BotoCoreError, ClientError, *TRANSPORT_ERRORS) as error:
            raise self._translate(error, operation, table, last_error) from error
        self.metrics.capacity(operation, response)
        return response

    async def _send(self, operation: str, table: str, request: Mapping[str, Any]) -> Any:
        is_data = operation in READS or operation in WRITES or operation in OBJECTS
        slots = self._data_slots if is_data else self._control_slots
        async with slots:
            # Closed meanwhile, perhaps: then this request must not start.
            client = self._require_open()
            self._in_flight += 1
            self._idle.clear()
            self.metrics.request(operation, table)
            logger.debug("%s on %s", operation, table)
            try:
                if "Body" in request:
                    # A stream is sent in steps, and is spent after one attempt.
                    request = {**request, "Body": io.BytesIO(request["Body"])}
                sent = time.time()
                response = await getattr(client, xform_name(operation))(**request)
                if "Body" in response:
                    response["Body"] = await response["Body"].read()
                # Any web page is an empty answer to botocore: a write would seem done, an item absent.
                if not response.get("ResponseMetadata", {}).get("RequestId"):
                    raise ResponseParserError(f"the answer carries no request id: this is no {self._service}")
                self.server_clock.observe(sent, time.time(), response["ResponseMetadata"])
                return response
            finally:
                self._in_flight -= 1
                if not self._in_flight:
                    self._idle.set()

    def _enter_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        if self._stack is not None:
            raise errors.WrongEventLoopError
        self._loop = loop
        self._lock = asyncio.Lock()
        self._idle = asyncio.Event()
        self._idle.set()
        self._data_slots = asyncio.Semaphore(self.config.max_connections - CONTROL_CONNECTIONS)
        self._control_slots = asyncio.Semaphore(CONTROL_CONNECTIONS)

    def _require_open(self) -> DynamoDBClient:
        if self._client is None:
            raise errors.BackendClosedError if self._was_open else errors.BackendNotOpenError
        if asyncio.get_running_loop() is not self._loop:
            raise errors.WrongEventLoopError
        return self._client

    def _translate(
        self, error: Exception, operation: str, table: str | None, last_error: BaseException | None = None
    ) -> errors.ServiceError:
        code = error_code(error)
        kind, message = self._explain(error, code, last_error)
        translated = kind(message, code=code, operation=operation, table=table or None)
        if isinstance(translated, errors.ConditionFailedError) and isinstance(error, ClientError):
            translated.item = cast("dict[str, Any]", error.response).get("Item")
            reasons = cancellation_reasons(error)
            translated.reasons = tuple(str(each.get("Code", "None")) for each in reasons)
            translated.items = tuple(each.get("Item") for each in reasons)
        return translated

    def _explain(
        self, error: Exception, code: str, last_error: BaseException | None
    ) -> tuple[type[errors.ServiceError], str]:
        where = f"endpoint {self._endpoint_url or 'of AWS'}, region {self.config.region!r}"
        says = f"{self._service} says"
        if isinstance(error, ClientError):
            said = error.response.get("Error", {}).get("Message", "") or "no message"
            refused = any(
                each.get("Code") == "ConditionalCheckFailed" for each in cancellation_reasons(error)
            )
            if code == "ConditionalCheckFailedException" or refused:
                return errors.ConditionFailedError, "the condition of the write did not hold"
            if code == "ResourceNotFoundException":
                return (
                    errors.TableNotFoundError,
                    f"no such table or index at {where}: initialize() makes what is missing; "
                    f"if it should be there, check table_prefix, region and endpoint_url",
                )
            if code in _ACCESS_CODES:
                return (
                    errors.AccessDeniedError,
                    f"refused at {where}: check the credentials, the region and the role's policy; "
                    f"{says}: {said}",
                )
            if code in THROTTLING_CODES:
                return (
                    errors.ThrottledError,
                    f"still throttled after {self.config.retry_attempts} attempts: raise the capacity, "
                    f"or send less at once; {says}: {said}",
                )
            if is_retryable(error):
                return (
                    errors.ServerFaultError,
                    f"{self._service} failed on its side, try again later; it says: {said}",
                )
            if code in _NO_BUCKET:
                return (
                    errors.BucketNotFoundError,
                    f"no bucket {self.config.content_bucket!r} at {where}: make it, or check content_bucket",
                )
            return errors.RequestRejectedError, f"refused at {where}; {says}: {said}"
        if type(error) is TimeoutError:
            cause = f"; the last error was {error_code(last_error)}: {last_error}" if last_error else ""
            return (
                errors.DeadlineExceededError,
                f"no answer within call_timeout = {self.config.call_timeout} s, at {where}{cause}",
            )
        if isinstance(error, _NO_CREDENTIALS):
            return (
                errors.CredentialsError,
                f"{error}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, a role, "
                f"or access_key_id and secret_access_key in the config",
            )
        if is_transport_error(error):
            return (
                errors.EndpointUnreachableError,
                f"no usable answer from {where}: check endpoint_url, region and the network; {error}",
            )
        return errors.RequestRejectedError, f"could not be sent to {where}; {error}"


def _table_of(request: Mapping[str, Any]) -> str:
    """Full name of the table, or bucket, that a request is for; "" where there is none."""
    name = request.get("TableName") or request.get("Bucket")
    return str(name or next(iter(request.get("RequestItems", ())), ""))
