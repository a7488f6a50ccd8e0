"""Normalizes and hashes URLs, so that different spellings of a URL, or of a host, count as one.

ada-url parses hosts, ports, dot segments and relative links by the URL standard of the WHATWG. The escapes of
paths and queries follow RFC 3986.
"""

from __future__ import annotations

import re
from hashlib import sha256
from urllib.parse import unquote_to_bytes

import ada_url

from ragcrawl_dynamo.errors import InvalidArgumentError

__all__ = ["normalize_url", "page_id"]


def url_hash(normalized_url: str) -> str:
    """Returns the SHA-256 hash of a normalized URL, in hexadecimal."""
    return sha256(normalized_url.encode("utf-8", "surrogatepass")).hexdigest()


def link_id(normalized_url: str) -> str:
    """Returns the item_id of a link: 128 bits of the hash of its normalized URL, in hexadecimal."""
    return url_hash(normalized_url)[:32]


def page_id(url: str) -> str:
    """Returns the id that this package gives the page of a URL: that of its frontier item.

    All spellings of a URL with one normal form have one id: 128 bits of the SHA-256 hash of `normalize_url`,
    in hexadecimal.

    Raises:
        InvalidArgumentError: The URL is no absolute http(s) URL.
    """
    return link_id(normalize_url(url))


# URLs that are in normal form already: lower-case ASCII up to the path, no last label that could end an IPv4
# address, a path of unreserved characters without dot segments. A test compares it with the full way.
_NORMAL = re.compile(
    r"https?://(?:[a-z0-9][a-z0-9-]*\.)+[a-z][a-z0-9-]*"
    r"(?:/|(?:/[A-Za-z0-9_~-][A-Za-z0-9_.~-]*)+/?)"
)

# The beginning of an absolute http(s) URL. Browsers also accept "http:x" and "http:/x"; a crawler that reads
# these has lost a part of a link.
_ABSOLUTE = re.compile(r"[\x00- ]*https?://(?![/\\])", re.IGNORECASE)

_HAS_SCHEME = re.compile(r"[\x00- ]*[a-z][a-z0-9+.-]*://", re.IGNORECASE)

# A host with or without a port, as far as its characters show.
_HOST = re.compile(r"[^/\\?#@\s]*[^/\\?#@\s:]")

# An escape; or a character that may not stand in a path, query or fragment unescaped (RFC 3986, 3.3 to 3.5).
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})|[^A-Za-z0-9._~!$&'()*+,;=:@/?-]")

_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")

# How much of a refused URL an error shows.
_SHOWN_CHARACTERS = 200


def normalize_url(url: str, *, keep_fragment: bool = False, sort_query: bool = True) -> str:
    """Returns the normal form of an absolute http(s) URL. Links with one normal form are one link.

    - The host is in the form of the URL standard: lower case, not percent-encoded, Punycode for other than
      ASCII, IP addresses in their canonical form. The default port and a trailing dot are removed.
    - Dot segments of the path are resolved.
    - Escapes of unreserved characters (letters, digits, "-", ".", "_", "~") are decoded. Reserved characters
      keep their form: "/AT%26T" and "/AT&T" are different links. Characters that a URL may not have are
      escaped.
    - Query parameters are sorted by name. Those of one name keep their order. A space is written as "+".
    - The fragment is removed.

    Args:
        url: The URL.
        keep_fragment: Keeps the fragment, for sites whose pages differ in it ("#!").
        sort_query: False keeps the order of all query parameters.

    Raises:
        InvalidArgumentError: The URL is not text, or no absolute http(s) URL with a valid host.
    """
    if not isinstance(url, str):
        raise InvalidArgumentError("url", f"must be text, not {type(url).__name__}")
    if _NORMAL.fullmatch(url):
        return url
    if not _ABSOLUTE.match(url):
        raise InvalidArgumentError("url", f"must be an absolute http or https URL, not {_shown(url)}")
    try:
        text, _, fragment = ada_url.URL(url).href.partition("#")
    except ValueError:
        raise InvalidArgumentError("url", f"has no valid host or port: {_shown(url)}") from None
    text, _, query = text.partition("?")
    scheme, _, text = text.partition("://")
    authority, _, path = text.partition("/")
    user, at, host = authority.rpartition("@")
    host = _without_dot(host)
    if not host:
        raise InvalidArgumentError("url", f"has no valid host or port: {_shown(url)}")
    normal = f"{scheme}://{_escaped(user)}{at}{host}/{_escaped(path)}"
    if query and (query := _normal_query(query, is_sorted=sort_query)):
        normal += f"?{query}"
    if fragment and keep_fragment:
        normal += f"#{_escaped(fragment)}"
    return normal


def comparable_url(url: str) -> str:
    """Returns the form by which pages with a URL of any kind are compared: the normal form, if it has one.

    Other URLs with a scheme are compared in the form of the URL standard without their fragment, and any
    other text as it is.

    Raises:
        InvalidArgumentError: The URL is not text.
    """
    if not isinstance(url, str):
        raise InvalidArgumentError("url", f"must be text, not {type(url).__name__}")
    try:
        return normalize_url(url)
    except InvalidArgumentError:
        pass
    try:
        return ada_url.URL(url).href.partition("#")[0]
    except ValueError:
        return url


def join_url(base_url: str, url: str) -> str:
    """Returns a link on a page as an absolute URL, or unchanged if it cannot be resolved."""
    try:
        return ada_url.join_url(base_url, url)
    except ValueError:
        return url


def is_encodable(url: str) -> bool:
    """Returns whether UTF-8 can encode a text: whether it has no lone surrogates."""
    try:
        url.encode()
    except UnicodeEncodeError:
        return False
    return True


def host_of_url(normalized_url: str) -> str:
    """Returns the host of a normalized URL, with the port if it is not the default one."""
    return normalized_url.split("/", 3)[2].rpartition("@")[2]


def host_of(host_or_url: str) -> str:
    """Returns a host in the form of `host_of_url`, for any spelling of the host or of one of its URLs.

    The ports 80 and 443 of a host without a scheme count as default ports.

    Raises:
        InvalidArgumentError: The text is neither a host nor an absolute http(s) URL.
    """
    if not isinstance(host_or_url, str):
        raise InvalidArgumentError("host", f"must be text, not {type(host_or_url).__name__}")
    try:
        if is_url(host_or_url):
            return host_of_url(normalize_url(host_or_url))
        if _HOST.fullmatch(host := host_or_url.strip()):
            return host_of_url(normalize_url(f"http://{host}/")).removesuffix(":443")
    except InvalidArgumentError:
        pass
    raise InvalidArgumentError(
        "host",
        f"must be a host such as 'example.org' or 'example.org:8080', or an absolute http or https URL, "
        f"not {_shown(host_or_url)}",
    )


def is_url(text: str) -> bool:
    """Returns whether a text begins with a scheme and "://"."""
    return _HAS_SCHEME.match(text) is not None


def _without_dot(host: str) -> str:
    """Removes the trailing dot of a host; returns "" if no host is left."""
    # Only an IPv6 address has a colon of its own, and it has no trailing dot.
    name, colon, port = (host, "", "") if host.startswith("[") else host.partition(":")
    name = name.removesuffix(".")
    return "" if not name or name.endswith(".") else f"{name}{colon}{port}"


def _normal_query(query: str, *, is_sorted: bool) -> str:
    parameters: list[tuple[bytes, str]] = []
    for parameter in query.split("&"):
        if not parameter:
            continue
        name, _, value = _escaped(parameter).replace("%20", "+").partition("=")
        parameters.append((unquote_to_bytes(name) if is_sorted else b"", f"{name}={value}"))
    # A stable sort: parameters of one name keep their order.
    parameters.sort(key=lambda parameter: parameter[0])
    return "&".join(text for _, text in parameters)


def _escaped(text: str) -> str:
    return _ESCAPE.sub(_normal_escape, text)


def _normal_escape(match: re.Match[str]) -> str:
    digits = match[1]
    if digits is None:
        return f"%{ord(match[0]):02X}"
    character = chr(int(digits, 16))
    return character if character in _UNRESERVED else match[0].upper()


def _shown(url: str) -> str:
    return repr(url[:_SHOWN_CHARACTERS])
