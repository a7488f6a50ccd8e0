"""Sends every request to AWS: the only module that awaits an AWS client."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from botocore import xform_name
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from ragcrawl_dynamo import errors
from ragcrawl_dynamo._dynamodb.answers import check_items
from ragcrawl_dynamo._dynamodb.backpressure import Permit, PermitWindow
from ragcrawl_dynamo._dynamodb.client import Access, ClientFactory, is_answer_of_service
from ragcrawl_dynamo._dynamodb.connections import without_event_loop
from ragcrawl_dynamo._dynamodb.credentials import CredentialsUnavailableError
from ragcrawl_dynamo._dynamodb.destination import Destination, Service
from ragcrawl_dynamo._dynamodb.error_mapping import ErrorMapper
from ragcrawl_dynamo._dynamodb.metrics import OBJECTS, READS, WRITES, Metrics
from ragcrawl_dynamo._dynamodb.operations import Call
from ragcrawl_dynamo._dynamodb.reachability import Reachability
from ragcrawl_dynamo._dynamodb.retry import (
    TRANSPORT_ERRORS,
    Budget,
    error_code,
    is_conflict,
    is_stale,
    is_throttling,
    is_transport_error,
    retrying,
)
from ragcrawl_dynamo._dynamodb.server_clock import ServerClock
from ragcrawl_dynamo._dynamodb.wire_logs import silent_request
from ragcrawl_dynamo.config import DynamoDBConfig

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb import DynamoDBClient

logger = logging.getLogger(__name__)

# Connections that data requests never use: health checks, one request a table, get through under load.
CONTROL_CONNECTIONS = 5

# The errors that a failed attempt raises.
_FAILURES = (BotoCoreError, ClientError, *TRANSPORT_ERRORS)


class Gateway:
    """Sends the requests of one backend to one service: retries, measures, and maps errors.

    Fewer requests are in flight than the connection pool has connections: its own queue has no time-out,
    and a signed request expires while it waits there. The queue here comes before signing, and counts towards
    the call's deadline. While DynamoDB throttles a table, fewer operations on it are in flight.
    """

    def __init__(
        self,
        config: DynamoDBConfig,
        client_factory: ClientFactory | None = None,
        *,
        service: Service = "DynamoDB",
        metrics: Metrics | None = None,
        access: Access | None = None,
    ) -> None:
        """`access` says how its client is made; `client_factory` makes it instead, in tests."""
        self.config = config
        self.metrics: Metrics = metrics or Metrics()
        self.server_clock: ServerClock = ServerClock()
        self._service = service
        self._error_mapper = ErrorMapper(config, service)
        # An endpoint that has never answered gets time for two attempts to connect, and what comes between.
        self._reachability = Reachability(service, 2 * config.connect_timeout)
        self._windows: dict[str, PermitWindow] = {}
        self._access = access or Access()
        self._client_factory = client_factory or self._access.factory(service)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0
        self._client: DynamoDBClient | None = None
        self._stack: AsyncExitStack | None = None
        self._was_open = False
        self._in_flight = 0

    @property
    def is_open(self) -> bool:
        """Whether it can be called."""
        return self._client is not None

    def find_destination(self) -> Destination:
        """Returns where requests go: as it was found when the gateway was opened, or else as of now."""
        return self._error_mapper.destination or self._access.find_destination(self.config, self._service)

    @property
    def is_inherited(self) -> bool:
        """Whether another process opened it, before it forked this one."""
        return self._stack is not None and os.getpid() != self._process

    @property
    def is_stranded(self) -> bool:
        """Whether it is open in an event loop that is closed, so that nothing can be sent."""
        return self._stack is not None and self._loop is not None and self._loop.is_closed()

    async def open(self) -> None:
        """Opens the client; does nothing if it is open.

        Raises:
            WrongEventLoopError: It is open in another event loop.
            WrongProcessError: Another process opened it.
            CredentialsError: The profile does not exist, or the shared configuration cannot be read.
            RequestRejectedError: The endpoint's URL or the region cannot be used.
        """
        self._enter_loop()
        async with self._lock:
            if self._client is not None:
                return
            stack = AsyncExitStack()
            self._error_mapper.destination = None
            try:
                self._error_mapper.destination = destination = self.find_destination()
                logger.info("%s: %s", self._service, destination)
                self._client = await stack.enter_async_context(self._client_factory(self.config))
            except (BotoCoreError, ValueError) as error:
                raise self._error_mapper.map(error, "OpenClient", None) from None
            self._stack = stack
            self._process = os.getpid()
            self._was_open = True

    async def close(self) -> None:
        """Refuses new calls, lets requests in flight end, closes the client; does nothing if it is closed.

        It also does nothing if another process opened it.

        Raises:
            WrongEventLoopError: It is open in another event loop, which is not closed.
        """
        if self._stack is None or self.is_inherited:
            return
        if self.is_stranded:
            # No request of that loop will ever end.
            stranded, self._stack, self._client = self._stack, None, None
            with without_event_loop():
                await stranded.aclose()
            return
        self._enter_loop()
        self._client = None
        # Operations that wait for a permit get one, and then find that the gateway is closed.
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

    @property
    def call(self) -> Call:
        """Sends one request, retries it where that can help, and returns the answer; see `Call`."""
        return self._call

    @asynccontextmanager
    async def permit(
        self, operation: str, table: str, *, once: bool = False, seconds: float | None = None
    ) -> AsyncIterator[Budget]:
        """Waits for a permit of a table; yields the budget of the operation for its attempts.

        While it holds the permit, the caller must pass this budget to each call of the same table: otherwise,
        with a window of one permit, its own call would wait for that permit forever.

        Args:
            operation: The operation.
            table: The full name of the table.
            once: Whether throttled requests are not sent again.
            seconds: How long the operation may take, `call_timeout` by default.

        Raises:
            BackendStateError: The gateway is not open, or was closed meanwhile.
            DeadlineExceededError: The table has been throttled for too long.
        """
        self.require_open()
        window = self._window(table)
        permit = Permit(window)
        budget = Budget(self.config, permit, is_once=once, seconds=seconds)
        try:
            # A free permit needs no timer.
            async with asyncio.timeout_at(budget.deadline if window.is_full else None):
                await permit.acquire()
        except TimeoutError:
            why = f"{self._service} throttles it" if window.is_cut else "max_connections allows no more"
            raise errors.DeadlineExceededError(
                f"no permit within {budget.seconds:g} s: {window.size} operations on it are in flight, since "
                f"{why}; nothing was sent: raise the capacity, or send less at once",
                code="TimeoutError",
                operation=operation,
                table=table or None,
            ) from None
        try:
            yield budget
        finally:
            permit.release()

    def require_open(self) -> DynamoDBClient:
        """Returns the client.

        Raises:
            BackendStateError: The gateway is not open, or open in another event loop or process.
        """
        if self._client is None:
            raise errors.BackendClosedError if self._was_open else errors.BackendNotOpenError
        if os.getpid() != self._process:
            raise errors.WrongProcessError
        if asyncio.get_running_loop() is not self._loop:
            raise errors.WrongEventLoopError
        return self._client

    async def _call(
        self,
        operation: str,
        request: Mapping[str, Any],
        *,
        table: str | None = None,
        budget: Budget | None = None,
    ) -> Any:
        self.require_open()
        if table is None:
            table = _table_of(request)
        if operation in READS or operation in WRITES:
            request = {**request, "ReturnConsumedCapacity": "TOTAL"}
        if budget is None and not _is_data(operation):
            budget = Budget(self.config)
            budget.is_given_up = self._reachability.is_given_up
        if budget is not None:
            return await self._retry(operation, table, request, budget)
        async with self.permit(operation, table) as permitted:
            return await self._retry(operation, table, request, permitted)

    async def _retry(self, operation: str, table: str, request: Mapping[str, Any], budget: Budget) -> Any:
        """Sends a request until an attempt succeeds or the budget is spent."""
        last_error: BaseException | None = None

        def on_retry(error: BaseException, pause: float) -> None:
            nonlocal last_error
            last_error = error
            self.metrics.count_retry(operation, table)
            if is_throttling(error):
                if budget.on_throttled is not None:
                    budget.on_throttled(pause)
            elif not is_conflict(error) and not isinstance(error, CredentialsUnavailableError):
                budget.may_be_applied = True
            logger.log(
                self._reachability.note_failure() if is_transport_error(error) else logging.WARNING,
                "%s on %s failed (%s), attempt %d; retry in %.3f s",
                *(operation, table, error_code(error), budget.failures, pause),
            )

        try:
            async with asyncio.timeout_at(budget.deadline):
                async for attempt in retrying(budget, on_retry):
                    with attempt:
                        return await self._sign_and_send(operation, table, request, budget.failures + 1)
        except _FAILURES as error:
            raise self._error_mapper.map(error, operation, table, last_error, budget=budget) from None

    async def _sign_and_send(
        self, operation: str, table: str, request: Mapping[str, Any], attempt: int
    ) -> Any:
        """Sends a request; a second time if its credentials or its signature had expired on the way.

        Such a request was not applied. The second one is signed with credentials that are read again.
        """
        try:
            return await self._send(operation, table, request, attempt)
        except ClientError as error:
            if not is_stale(error):
                raise
            self.metrics.count_retry(operation, table)
            logger.warning(
                "%s on %s failed (%s); it is sent again with a new signature",
                *(operation, table, error_code(error)),
            )
        return await self._send(operation, table, request, attempt + 1)

    async def _send(self, operation: str, table: str, request: Mapping[str, Any], attempt: int) -> Any:
        """Sends a request once."""
        is_data = _is_data(operation)
        async with self._data_connections if is_data else self._control_connections:
            # The gateway may have been closed while this request waited.
            client = self.require_open()
            self._in_flight += 1
            self._idle.clear()
            measurement = self.metrics.begin(operation, table, attempt, request)
            # A limit of control operations says nothing about the table.
            window = self._window(table if is_data else operation)
            logger.debug("%s on %s", operation, table)
            sent = time.time()
            try:
                response = await self._await_client(client, operation, request)
                self._reachability.note_answer()
                measurement.succeed(response)
                if measurement.is_left_over:
                    window.note_throttled(sent, time.time())
                else:
                    window.note_served()
                self.server_clock.observe(sent, time.time(), response["ResponseMetadata"])
                return response
            except BaseException as error:
                if isinstance(error, ClientError):
                    self._reachability.note_answer()
                if is_throttling(error):
                    window.note_throttled(sent, time.time())
                measurement.fail(error)
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
        # botocore takes any web page for an empty answer: a write would seem done, and an item absent.
        if not is_answer_of_service(response.get("ResponseMetadata", {})):
            raise ResponseParserError(
                f"the answer has neither a request id nor {self._service}'s content type, so it is not from "
                f"{self._service}"
            )
        check_items(operation, request, response)
        return response

    def _window(self, table: str) -> PermitWindow:
        window = self._windows.get(table)
        if window is None:
            window = self._windows[table] = PermitWindow(self.config.max_connections - CONTROL_CONNECTIONS)
        return window

    def _enter_loop(self) -> None:
        if self.is_inherited:
            raise errors.WrongProcessError
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        if self._stack is not None:
            raise errors.WrongEventLoopError
        self._loop = loop
        self._lock = asyncio.Lock()
        self._idle = asyncio.Event()
        self._idle.set()
        self._data_connections = asyncio.Semaphore(self.config.max_connections - CONTROL_CONNECTIONS)
        self._control_connections = asyncio.Semaphore(CONTROL_CONNECTIONS)


def _is_data(operation: str) -> bool:
    return operation in READS or operation in WRITES or operation in OBJECTS


def _table_of(request: Mapping[str, Any]) -> str:
    """Returns the full name of the table, or bucket, of a request; "" if it names none."""
    name = request.get("TableName") or request.get("Bucket")
    return str(name or next(iter(request.get("RequestItems", ())), ""))
