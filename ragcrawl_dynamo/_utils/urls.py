"""Normalizes and hashes URLs, so that different spellings of a URL count as one."""

from __future__ import annotations

import re
from hashlib import sha256
from urllib.parse import urlsplit

from w3lib.url import canonicalize_url

from ragcrawl_dynamo.errors import InvalidArgumentError


def url_hash(normalized_url: str) -> str:
    """Returns the SHA-256 hash of a normalized URL, in hexadecimal."""
    return sha256(normalized_url.encode("utf-8", "surrogatepass")).hexdigest()


def link_id(normalized_url: str) -> str:
    """Returns the item_id of a link: 128 bits of the hash of its normalized URL, in hexadecimal."""
    return url_hash(normalized_url)[:32]


# URLs that w3lib's canonical form leaves unchanged: an http URL in lower-case ASCII up to its path, a path of
# unreserved characters, and no dot segment in it. A test compares it with w3lib.
_CANONICAL = re.compile(r"https?://[a-z][a-z0-9-]*(?:\.[a-z][a-z0-9-]*)+(?:/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*/?")


def normalize_url(url: str) -> str:
    """Returns a URL in w3lib's canonical form, or unchanged if w3lib cannot parse it.

    Raises:
        InvalidArgumentError: The URL is not text.
    """
    if not isinstance(url, str):
        raise InvalidArgumentError("url", f"must be text, not {type(url).__name__}")
    if _CANONICAL.fullmatch(url) and url.count("/") > 2:
        return url
    try:
        return canonicalize_url(url)
    except ValueError:
        return url


def host_of_url(normalized_url: str) -> str:
    """Returns the host name in lower case, with the port if there is one; "" if the URL has no host.

    Raises:
        InvalidArgumentError: The URL cannot be parsed.
    """
    try:
        parts = urlsplit(normalized_url)
        host = (parts.hostname or "") + (f":{parts.port}" if parts.port is not None else "")
    except ValueError as error:
        raise InvalidArgumentError("url", f"cannot be parsed: {error}") from error
    return host
