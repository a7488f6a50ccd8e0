"""Converts Crawlee's requests to frontier items and back, and values to JSON."""

from __future__ import annotations

import json
from typing import Any

from crawlee import Request

from ragcrawl_dynamo import FrontierItem, InvalidArgumentError


def payload_of(request: Request) -> str:
    """Returns a request as the payload of its frontier item."""
    return request.model_dump_json(by_alias=True, exclude_none=True)


def crawl_depth_of(request: Request) -> int:
    """Returns the depth of a request. `request.crawl_depth` would add Crawlee's own data to its user data."""
    data = getattr(request.user_data, "crawlee_data", None)
    return 0 if data is None else data.crawl_depth


def request_of(item: FrontierItem) -> Request:
    """Returns the request in the payload of a frontier item.

    An item without a payload was not added by Crawlee. Its request has only a URL.

    Raises:
        ValidationError: The payload is not a request.
    """
    if item.payload is None:
        return Request.from_url(item.url, unique_key=item.unique_key or item.normalized_url)
    return Request.model_validate_json(item.payload)


def to_json(field: str, value: Any) -> str:
    """Returns a value as JSON. What JSON does not have, such as a datetime, becomes text, as in Crawlee.

    Args:
        field: Name of the value in the error.
        value: The value.

    Raises:
        InvalidArgumentError: The value cannot be encoded as JSON.
    """
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgumentError(field, f"cannot be encoded as JSON: {error}") from error


def to_bytes(text: str) -> bytes:
    """Returns text as bytes, to hash or measure it.

    It accepts lone surrogates: text that cannot be stored is refused when it is saved.
    """
    return text.encode(errors="surrogatepass")
