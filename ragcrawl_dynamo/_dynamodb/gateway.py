"""The only file that awaits an AWS client: one client, bounded requests, retries, metrics, error mapping."""

from __future__ import annotations

import asyncio
import io
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, overload

from botocore import xform_name
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from ragcrawl_dynamo import errors
from ragcrawl_dynamo._dynamodb.backpressure import PermitWindow
from ragcrawl_dynamo._dynamodb.client import ClientFactory, open_client
from ragcrawl_dynamo._dynamodb.error_mapping import ErrorMapper, Service
from ragcrawl_dynamo._dynamodb.metrics import OBJECTS, READS, WRITES, Metrics
from ragcrawl_dynamo._dynamodb.retry import TRANSPORT_ERRORS, Budget, error_code, is_throttling, retrying
from ragcrawl_dynamo._dynamodb.server_clock import ServerClock
from ragcrawl_dynamo._dynamodb.wire_logs import silent_request
from ragcrawl_dynamo.config import DynamoDBConfig

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb import DynamoDBClient
    from types_aiobotocore_dynamodb import type_defs as t

logger = logging.getLogger(__name__)

# Connections that data requests never use: health checks, one request a table, get through under load.
CONTROL_CONNECTIONS = 5

# What a try ends in that did not succeed.
_FAILURES = (BotoCoreError, ClientError, *TRANSPORT_ERRORS)


class Gateway:
    """Sends every request of one backend to one service.

    Requests in flight are bounded below the size of the connection pool: waiting for a pool slot has no
    time-out, and a request that is signed while it waits there expires. The wait for our own slot comes
    before signing, and counts towards the call's deadline. While DynamoDB throttles a table, fewer operations
    on it are under way.
    """

    def __init__(
        self,
        config: DynamoDBConfig,
        client_factory: ClientFactory = open_client,
        *,
        service: Service = "DynamoDB",
        metrics: Metrics | None = None,
    ) -> None:
        self.config = config
        self.metrics = metrics or Metrics()
        self._service = service
        self._error_mapper = ErrorMapper(config, service)
        self._windows: dict[str, PermitWindow] = {}
        self.server_clock = ServerClock()
        self._client_factory = client_factory
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: DynamoDBClient | None = None
        self._stack: AsyncExitStack | None = None
        self._was_open = False
        self._in_flight = 0

    @property
    def is_open(self) -> bool:
        """Whether it can be called."""
        return self._client is not None

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
                raise self._error_mapper.map(error, "OpenClient", None) from error
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
        # Whoever waits for a permit gets one, and finds the gateway closed.
        windows, self._windows = self._windows, {}
        for window in windows.values():
            window.grant_all()
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
        self,
        operation: Literal["BatchGetItem"],
        request: t.BatchGetItemInputTypeDef,
        *,
        budget: Budget | None = None,
    ) -> t.BatchGetItemOutputTypeDef: ...
    @overload
    async def call(
        self,
        operation: Literal["BatchWriteItem"],
        request: t.BatchWriteItemInputTypeDef,
        *,
        budget: Budget | None = None,
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
        table: str,
        budget: Budget | None = None,
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
        self,
        operation: str,
        request: Mapping[str, Any],
        *,
        table: str | None = None,
        budget: Budget | None = None,
        on_unclear: Callable[[], None] | None = None,
    ) -> Any:
        """Sends one request, again where that can help, and returns the answer.

        Args:
            operation: Its name in AWS's reference.
            request: Its arguments.
            table: Full name of its table, where the request does not name it.
            budget: That of the operation, within whose `permit` this is called; the request is one of its own
                by default.
            on_unclear: Told when an attempt failed in a way that leaves open whether it was applied.

        Raises:
            BackendStateError: The gateway is not open, or open in another event loop.
            ServiceError: No attempt succeeded; its subclass says why.
        """
        self.require_open()
        if table is None:
            table = _table_of(request)
        if operation in READS or operation in WRITES:
            request = {**request, "ReturnConsumedCapacity": "TOTAL"}
        if budget is not None or not _is_data(operation):
            return await self._call(operation, table, request, budget or Budget(self.config), on_unclear)
        async with self.permit(operation, table) as permitted:
            return await self._call(operation, table, request, permitted, on_unclear)

    @asynccontextmanager
    async def permit(self, operation: str, table: str) -> AsyncIterator[Budget]:
        """Waits for a permit of a table; yields what the operation may spend on attempts.

        Whoever holds the permit may call the same table with this budget only: with a window of one permit,
        a call that needs another one would wait for itself.

        Raises:
            BackendStateError: The gateway is not open, or was closed meanwhile.
            DeadlineExceededError: The table has been throttled for too long.
        """
        self.require_open()
        budget = Budget(self.config)
        window = self._window(table)
        try:
            # A free permit needs no timer.
            async with asyncio.timeout_at(budget.deadline if window.is_full else None):
                await window.acquire()
        except TimeoutError as error:
            why = f"{self._service} throttles it" if window.is_cut else "max_connections allows no more"
            raise errors.DeadlineExceededError(
                f"no permit within call_timeout = {self.config.call_timeout} s: {window.size} operations on "
                f"it are in flight, since {why}; nothing was sent: raise the capacity, or send less at once",
                code="TimeoutError",
                operation=operation,
                table=table or None,
            ) from error
        try:
            yield budget
        finally:
            window.release()

    async def _call(
        self,
        operation: str,
        table: str,
        request: Mapping[str, Any],
        budget: Budget,
        on_unclear: Callable[[], None] | None,
    ) -> Any:
        last_error: BaseException | None = None

        def on_retry(error: BaseException, pause: float) -> None:
            nonlocal last_error
            last_error = error
            self.metrics.retry(operation, table)
            if on_unclear is not None and not is_throttling(error):
                on_unclear()
            logger.warning(
                "%s on %s failed (%s), attempt %d of %d; again in %.3f s",
                operation,
                table,
                error_code(error),
                budget.failures,
                self.config.retry_attempts,
                pause,
            )

        try:
            async with asyncio.timeout_at(budget.deadline):
                async for attempt in retrying(budget, on_retry):
                    with attempt:
                        return await self._send(operation, table, request, budget.failures + 1)
        except _FAILURES as error:
            raise self._error_mapper.map(error, operation, table, last_error) from error

    async def _send(self, operation: str, table: str, request: Mapping[str, Any], attempt: int) -> Any:
        slots = self._data_slots if _is_data(operation) else self._control_slots
        async with slots:
            # Closed meanwhile, perhaps: then this request must not start.
            client = self.require_open()
            self._in_flight += 1
            self._idle.clear()
            measured = self.metrics.begin(operation, table, attempt, request)
            # A limit of control operations says nothing about the table.
            window = self._window(table if _is_data(operation) else operation)
            logger.debug("%s on %s", operation, table)
            sent = time.time()
            try:
                response = await self._await_client(client, operation, request)
                measured.end(response)
                if measured.left_over:
                    window.shrink(sent, time.time())
                else:
                    window.grow()
                self.server_clock.observe(sent, time.time(), response["ResponseMetadata"])
                return response
            except BaseException as error:
                if is_throttling(error):
                    window.shrink(sent, time.time())
                measured.fail(error)
                raise
            finally:
                self._in_flight -= 1
                if not self._in_flight:
                    self._idle.set()

    async def _await_client(self, client: DynamoDBClient, operation: str, request: Mapping[str, Any]) -> Any:
        if "Body" in request:
            # A stream is sent in steps, and is spent after one attempt.
            request = {**request, "Body": io.BytesIO(request["Body"])}
        with silent_request():
            response = await getattr(client, xform_name(operation))(**request)
            if "Body" in response:
                response["Body"] = await response["Body"].read()
        # Any web page is an empty answer to botocore: a write would seem done, an item absent.
        if not response.get("ResponseMetadata", {}).get("RequestId"):
            raise ResponseParserError(f"the answer carries no request id: this is no {self._service}")
        return response

    def _window(self, table: str) -> PermitWindow:
        window = self._windows.get(table)
        if window is None:
            window = self._windows[table] = PermitWindow(self.config.max_connections - CONTROL_CONNECTIONS)
        return window

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

    def require_open(self) -> DynamoDBClient:
        """The client.

        Raises:
            BackendStateError: It is not open, or open in another event loop.
        """
        if self._client is None:
            raise errors.BackendClosedError if self._was_open else errors.BackendNotOpenError
        if asyncio.get_running_loop() is not self._loop:
            raise errors.WrongEventLoopError
        return self._client


def _is_data(operation: str) -> bool:
    return operation in READS or operation in WRITES or operation in OBJECTS


def _table_of(request: Mapping[str, Any]) -> str:
    """Full name of the table, or bucket, that a request is for; "" where there is none."""
    name = request.get("TableName") or request.get("Bucket")
    return str(name or next(iter(request.get("RequestItems", ())), ""))
