"""The short way of a whole request to its whole answer, on which `_tuning` leads the client.

It is what botocore's endpoint and aiobotocore's session do, less what only streams, retries and proxies need.
"""

from __future__ import annotations

from socket import gaierror
from typing import TYPE_CHECKING, Any

from aiobotocore.awsrequest import AioAWSResponse
from aiobotocore.httpsession import AIOHTTPSession
from aiohttp import (
    ClientConnectionError,
    ClientPayloadError,
    ClientSSLError,
    ServerDisconnectedError,
    ServerTimeoutError,
)
from botocore.awsrequest import AWSRequest
from botocore.exceptions import (
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    ReadTimeoutError,
    SSLError,
)
from botocore.hooks import first_non_none_response
from yarl import URL

if TYPE_CHECKING:
    from botocore.awsrequest import AWSPreparedRequest


class Session(AIOHTTPSession):  # type: ignore[misc] # botocore has no types
    """aiobotocore's HTTP session, which has the short way beside its own, over the same connections.

    Attributes:
        is_direct: Whether there is no proxy: with one, botocore's way is the only one.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.is_direct = not settings.get("proxies")
        self._urls: dict[str, URL] = {}

    async def exchange(self, request: AWSPreparedRequest) -> tuple[int, dict[str, str], bytes]:
        """Sends a request and reads its answer to the end.

        Returns:
            The status, the headers by lower-case name, and the body.

        Raises:
            HTTPClientError: No whole answer came; the subclasses are those that aiobotocore's session raises.
        """
        url = self._urls.get(request.url)
        if url is None:
            url = self._urls[request.url] = URL(request.url, encoded=True)
        # What signs may leave bytes.
        headers = [(name, _text(value)) for name, value in request.headers.items()]
        headers.append(("Accept-Encoding", "identity"))
        try:
            session = await self._get_session(None)
            async with session.request(request.method, url, headers=headers, data=request.body) as response:
                body = await response.read()
        except Exception as error:
            raise _translate(error, request) from error
        return (
            response.status,
            {name.decode().lower(): _text(raw) for name, raw in response.raw_headers},
            body,
        )


class SessionMaker:
    """Makes a client's HTTP session.

    Attributes:
        made: That which it made.
    """

    made: Session | None = None

    def __call__(self, **settings: Any) -> Session:
        """As the client asks for it."""
        self.made = Session(**settings)
        return self.made


class Shortcut:
    """Sends what a client has built, and parses the answer, with all events of botocore's but needs-retry.

    Args:
        events: The client's.
        session: Its HTTP session.
        parser: Of its protocol.
    """

    def __init__(self, events: Any, session: Session, parser: Any) -> None:
        self._events = events
        self._session = session
        self._parser = parser

    async def send(self, params: dict[str, Any], model: Any, context: dict[str, Any]) -> tuple[Any, Any]:
        """The answer to a request, as a handler of the event before-call returns it.

        Raises:
            HTTPClientError: No answer came.
            ResponseParserError: It could not be read.
        """
        event = f"dynamodb.{model.name}"
        try:
            return await self._send(params, model, context, event)
        except Exception as error:
            await self._events.emit(f"after-call-error.{event}", exception=error, context=context)
            raise

    async def _send(
        self, params: dict[str, Any], model: Any, context: dict[str, Any], event: str
    ) -> tuple[Any, Any]:
        request = _Request(params["method"], params["url"], params["headers"], params["body"])
        request.context = context
        await self._events.emit(f"request-created.{event}", request=request, operation_name=model.name)
        prepared = request.prepare()
        try:
            given = await self._events.emit(f"before-send.{event}", request=prepared)
            if (answer := first_non_none_response(given)) is None:
                status, headers, body = await self._session.exchange(prepared)
                answer = AioAWSResponse(prepared.url, status, headers, _Whole(body))
        except Exception as error:
            await self._received(event, context, exception=error)
            raise
        response = {
            "headers": answer.headers,
            "status_code": answer.status_code,
            "body": await answer.content,
            "context": {"operation_name": model.name},
        }
        parsed = await self._parse(response, model, event)
        await self._received(event, context, response, parsed)
        return answer, parsed

    async def _parse(self, response: dict[str, Any], model: Any, event: str) -> Any:
        own: dict[str, Any] = {}
        await self._events.emit(
            f"before-parse.{event}",
            operation_model=model,
            response_dict=response,
            customized_response_dict=own,
        )
        parsed = await self._parser.parse(response, model.output_shape)
        parsed.update(own)
        if response["status_code"] >= 300 and (code := parsed.get("Error", {}).get("Code")) is not None:
            shape = model.service_model.shape_for_error_code(code)
            if shape is not None:
                parsed.update(await self._parser.parse(response, shape))
        return parsed

    async def _received(
        self,
        event: str,
        context: dict[str, Any],
        response: dict[str, Any] | None = None,
        parsed: Any = None,
        *,
        exception: Exception | None = None,
    ) -> None:
        await self._events.emit(
            f"response-received.{event}",
            response_dict=response,
            parsed_response=parsed,
            context=context,
            exception=exception,
        )


class _Request(AWSRequest):  # type: ignore[misc] # botocore has no types
    """A request whose body is bytes; botocore's own prepares all of itself whenever its body is looked at."""

    @property
    def body(self) -> Any:
        """To be signed."""
        return self.data


class _Whole:
    """A body that has been read."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def read(self) -> bytes:
        return self._body


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode()


def _translate(error: Exception, request: AWSPreparedRequest) -> Exception:
    match error:
        case ClientSSLError():
            kind = SSLError
        case ServerDisconnectedError() | ClientPayloadError():
            kind = ConnectionClosedError
        case ServerTimeoutError() if str(error).startswith("Connect"):
            kind = ConnectTimeoutError
        case TimeoutError():
            kind = ReadTimeoutError
        case ClientConnectionError() | gaierror():
            kind = EndpointConnectionError
        case _:
            kind = HTTPClientError
    translated: Exception = kind(endpoint_url=request.url, error=error, request=request)
    return translated
