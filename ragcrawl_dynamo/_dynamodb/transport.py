"""Sends a request and parses its answer in fewer steps than botocore: `fast_path` puts it into the client.

It does what aiobotocore's endpoint does, less the steps that only streams, checksums of streams, recorded
histories and retries need.
"""

from __future__ import annotations

from typing import Any

from botocore.awsrequest import create_request_object
from botocore.hooks import first_non_none_response


class Shortcut:
    """Sends a request that a client has built, and parses the answer.

    It emits all events that botocore emits, but needs-retry.

    Args:
        events: The events of the client.
        session: The HTTP session of the client.
        parser: The parser of its protocol.
    """

    def __init__(self, events: Any, session: Any, parser: Any) -> None:
        self._events = events
        self._session = session
        self._parser = parser

    async def send(self, params: dict[str, Any], model: Any) -> tuple[Any, Any]:
        """Returns the answer as it came and as it was parsed, as a handler of the event before-call does.

        Args:
            params: The request, as botocore's serializer has made it.
            model: The model of the operation.

        Raises:
            HTTPClientError: No answer came.
            ResponseParserError: The answer cannot be read.
        """
        event = f"dynamodb.{model.name}"
        try:
            return await self._send(params, model, event)
        except Exception as error:
            await self._events.emit(f"after-call-error.{event}", exception=error, context=params["context"])
            raise

    async def _send(self, params: dict[str, Any], model: Any, event: str) -> tuple[Any, Any]:
        context = params["context"]
        request = create_request_object(params)
        await self._events.emit(f"request-created.{event}", request=request, operation_name=model.name)
        prepared = request.prepare()
        try:
            responses = await self._events.emit(f"before-send.{event}", request=prepared)
            if (answer := first_non_none_response(responses)) is None:
                answer = await self._session.send(prepared)
        except Exception as error:
            await self._emit_received(event, context, exception=error)
            raise
        response = {
            "headers": answer.headers,
            "status_code": answer.status_code,
            "body": await answer.content,
            "context": {"operation_name": model.name},
        }
        parsed = await self._parse(response, model, event)
        await self._emit_received(event, context, response, parsed)
        return answer, parsed

    async def _parse(self, response: dict[str, Any], model: Any, event: str) -> Any:
        customized: dict[str, Any] = {}
        await self._events.emit(
            f"before-parse.{event}",
            operation_model=model,
            response_dict=response,
            customized_response_dict=customized,
        )
        parsed = await self._parser.parse(response, model.output_shape)
        parsed.update(customized)
        if response["status_code"] >= 300 and (code := parsed.get("Error", {}).get("Code")) is not None:
            shape = model.service_model.shape_for_error_code(code)
            if shape is not None:
                parsed.update(await self._parser.parse(response, shape))
        return parsed

    async def _emit_received(
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
