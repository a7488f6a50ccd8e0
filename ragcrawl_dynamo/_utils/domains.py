"""Finds the registrable domain of a URL by the public suffix list. It needs the extra `domains`."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from ragcrawl_dynamo._utils.urls import host_of_url, normalize_url
from ragcrawl_dynamo.errors import MissingExtraError

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

__all__ = ["registrable_domain"]

_IPV4 = re.compile(r"[0-9]+(\.[0-9]+){3}")


def registrable_domain(url: str) -> str:
    """Returns the registrable domain of a URL: "example.co.uk" for "https://www.example.co.uk:8080/a".

    Pass it as `politeness_key` to `backend.frontier`, so that all hosts of a domain share their delay and
    their limits. Domains below which users get their own ones, such as "github.io", count as public suffixes.
    For a host without a registrable domain, such as an IP address, the host is returned. The port is left
    out.

    It needs `publicsuffixlist`: pip install 'ragcrawl-dynamo[domains]'. Its list changes: install the same
    version for all processes of a run.

    Raises:
        InvalidArgumentError: The URL is no absolute http(s) URL.
        MissingExtraError: `publicsuffixlist` is not installed.
    """
    host = host_of_url(normalize_url(url))
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    name = host.partition(":")[0]
    if _IPV4.fullmatch(name):
        return name
    return _suffixes().privatesuffix(name) or name


@cache
def _suffixes() -> PublicSuffixList:
    try:
        from publicsuffixlist import PublicSuffixList
    except ImportError:
        raise MissingExtraError("registrable_domain", "domains") from None
    return PublicSuffixList()
