"""Converts Crawlee's requests to frontier items and back, and values to JSON."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

from crawlee import Request

from ragcrawl_dynamo import FrontierItem, InvalidArgumentError

# The size in bytes from which a payload is compressed: a DynamoDB item takes 400 KB. The prefix marks it: the
# text of a request begins with a brace.
_COMPRESS_FROM = 100_000
_COMPRESSED = "zlib:"


def payload_of(request: Request) -> str:
    """Returns a request as the payload of its frontier item. A large one is compressed."""
    text = request.model_dump_json(by_alias=True, exclude_none=True)
    content = to_bytes(text)
    if len(content) < _COMPRESS_FROM:
        return text
    return _COMPRESSED + base64.b85encode(zlib.compress(content)).decode()


def crawl_depth_of(request: Request) -> int:
    """Returns the depth of a request. `request.crawl_depth` would add Crawlee's own data to its user data."""
    data = getattr(request.user_data, "crawlee_data", None)
    return 0 if data is None else data.crawl_depth


def request_of(item: FrontierItem) -> Request:
    """Returns the request in the payload of a frontier item.

    An item without a payload was not added by Crawlee. Its request has only a URL.

    Raises:
        ValueError: The payload is not a request.
    """
    if item.payload is None:
        return Request.from_url(item.url, unique_key=item.unique_key or item.normalized_url)
    if not item.payload.startswith(_COMPRESSED):
        return Request.model_validate_json(item.payload)
    try:
        content = zlib.decompress(base64.b85decode(item.payload.removeprefix(_COMPRESSED)))
    except zlib.error as error:
        raise ValueError(f"cannot be decompressed: {error}") from error
    return Request.model_validate_json(content)


def to_json(field: str, value: Any) -> str:
    """Returns a value as JSON. Types that JSON does not have, such as datetime, become text, as in Crawlee.

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
