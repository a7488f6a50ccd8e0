"""Normalizes and hashes URLs, so that different spellings of one URL are recognized."""

from __future__ import annotations

import re
from hashlib import sha256
from urllib.parse import urlsplit

from w3lib.url import canonicalize_url

from ragcrawl_dynamo.errors import InvalidArgumentError


def url_hash(normalized_url: str) -> str:
    """SHA-256 of a URL that is normalized already, in hexadecimal."""
    return sha256(normalized_url.encode("utf-8", "surrogatepass")).hexdigest()


def link_id(normalized_url: str) -> str:
    """The item_id of a link in the queue: 128 bits of the hash of its normalized URL."""
    return url_hash(normalized_url)[:32]


# What w3lib's canonical form surely leaves as it is: an http URL in lower-case ASCII up to the path, a path
# of unreserved characters, and no dot segment in it. A test holds it against w3lib.
_CANONICAL = re.compile(r"https?://[a-z][a-z0-9-]*(?:\.[a-z][a-z0-9-]*)+(?:/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*/?")


def normalize_url(url: str) -> str:
    """The URL in w3lib's canonical form; unchanged where w3lib can not read it.

    Raises:
        InvalidArgumentError: It is no text.
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
    """Host name in lower case, with its port; "" where the URL has none.

    Raises:
        InvalidArgumentError: The URL can not be read.
        InvalidKeyError: The name is too long.
    """
    try:
        parts = urlsplit(normalized_url)
        host = (parts.hostname or "") + (f":{parts.port}" if parts.port is not None else "")
    except ValueError as error:
        raise InvalidArgumentError("url", f"can not be read: {error}") from error
    return host
