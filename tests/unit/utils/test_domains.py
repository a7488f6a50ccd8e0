"""The registrable domain of a URL."""

from __future__ import annotations

import sys

import pytest

from ragcrawl_dynamo import (
    InvalidArgumentError,
    MissingExtraError,
    RagcrawlDynamoError,
    registrable_domain,
)
from ragcrawl_dynamo._utils.domains import _suffixes


@pytest.mark.parametrize(
    ("url", "domain"),
    [
        ("http://example.org/", "example.org"),
        ("https://WWW.a.Example.co.uk.:8080/x", "example.co.uk"),
        ("http://user@www.example.org/", "example.org"),
        ("http://alice.github.io/", "alice.github.io"),
        ("http://a.b\u00fccher.de/", "xn--bcher-kva.de"),
        ("http://www.\u5546\u6807.\u4e2d\u56fd/", "xn--czr694b.xn--fiqs8s"),
        ("http://localhost:3000/", "localhost"),
        ("http://co.uk/", "co.uk"),
        ("http://127.0.0.1:8080/", "127.0.0.1"),
        ("http://[::1]:8080/", "[::1]"),
    ],
)
def test_registrable_domain_follows_the_public_suffix_list(url: str, domain: str) -> None:
    assert registrable_domain(url) == domain


def test_registrable_domain_without_its_extra_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "publicsuffixlist", None)
    _suffixes.cache_clear()
    with pytest.raises(MissingExtraError, match=r"pip install 'ragcrawl-dynamo\[domains\]'") as caught:
        registrable_domain("http://example.org/")
    assert isinstance(caught.value, RagcrawlDynamoError)


def test_registrable_domain_refuses_text_that_is_no_url() -> None:
    with pytest.raises(InvalidArgumentError, match="must be an absolute http or https URL"):
        registrable_domain("www.example.org")
