"""Different spellings of a URL or of a host count as one, and different links stay different."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ragcrawl_dynamo import InvalidArgumentError
from ragcrawl_dynamo._utils import urls
from ragcrawl_dynamo._utils.urls import comparable_url, host_of, host_of_url, join_url, normalize_url
from tests.unit.utils.url_cases import HOSTS, NO_URLS, NORMAL_FORMS

RESERVED = ":/?#[]@!$&'()*+,;="
UNRESERVED = "abcxyzABCXYZ0189-._~"


@pytest.mark.parametrize(("written", "host"), HOSTS)
def test_host_of_url_is_that_of_the_url_standard(written: str, host: str | None) -> None:
    url = f"http://{written}/a"
    if host is None:
        with pytest.raises(InvalidArgumentError):
            normalize_url(url)
    else:
        assert host_of_url(normalize_url(url)) == host


@pytest.mark.parametrize(("url", "normal"), NORMAL_FORMS)
def test_normalize_url_returns_the_normal_form(url: str, normal: str) -> None:
    assert normalize_url(url) == normal
    assert normalize_url(normal) == normal


@pytest.mark.parametrize("text", NO_URLS)
def test_normalize_url_refuses_text_that_is_no_absolute_http_url(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^url: ") as refused:
        normalize_url(text)
    assert refused.value.field == "url"


def test_normalize_url_shows_the_beginning_of_a_long_url() -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        normalize_url("/" + "a" * 100_000)
    assert len(str(refused.value)) < 400


def test_normalize_url_keeps_fragment_and_order_on_request() -> None:
    url = "http://h/?b=%41&a=1&&b=0#!/k\u00f6ln/%7e"
    assert normalize_url(url, keep_fragment=True) == "http://h/?a=1&b=A&b=0#!/k%C3%B6ln/~"
    assert normalize_url(url, sort_query=False) == "http://h/?b=A&a=1&b=0"
    assert normalize_url("http://h/a#", keep_fragment=True) == "http://h/a"


# Text with many of the characters that the rules concern.
_PIECES = st.sampled_from(
    list(RESERVED + UNRESERVED + "%\\|^{} \t\n\"<>'`\u00e9\u00df\u3002")
) | st.sampled_from(
    [
        *("%2e", "%2F", "%25", "%41", "%7E", "%c3%a9", "%zz", "..", "/../", "/./", "&&"),
        *("xn--", "0x7f", "127.0.0.1", "[::1]", ":80", ":443"),
    ]
)
_TEXT = st.lists(_PIECES, max_size=12).map("".join)


@given(st.sampled_from(["http", "HTTPS"]), _TEXT, _TEXT, _TEXT)
@example("http", "0x7f.1..", "", "")
@example("http", "h", "%%32%65", "%2%35")
def test_normalize_url_is_idempotent(scheme: str, host: str, path: str, query: str) -> None:
    for url in (f"{scheme}://{host}/{path}?{query}", f"{scheme}://h/{path}?{query}"):
        for keep_fragment in (False, True):
            try:
                normal = normalize_url(url, keep_fragment=keep_fragment)
            except InvalidArgumentError:
                continue
            assert normalize_url(normal, keep_fragment=keep_fragment) == normal
            assert host_of(normal) == host_of_url(normal)
            assert normal.isascii()


@given(st.text(UNRESERVED + RESERVED + "\u00e9% ", max_size=8))
def test_normalize_url_decodes_escapes_of_unreserved_characters_only(text: str) -> None:
    for base in ("http://h/", "http://h/?q="):
        escaped = base + "_" + "".join(f"%{byte:02x}" for byte in text.encode())
        normal = normalize_url(escaped)
        for character in RESERVED + "%":
            assert normal.count(quote(character, safe="")) == text.count(character)
        decoded = unquote(normal)
        assert (decoded.replace("+", " ") if "?" in base else decoded) == base + "_" + (
            text.replace("+", " ") if "?" in base else text
        )


@given(st.sampled_from(RESERVED.replace("[", "").replace("]", "").replace("#", "").replace("?", "")))
def test_a_reserved_character_and_its_escape_are_different_links(character: str) -> None:
    raw, escaped = f"http://h/a{character}b", f"http://h/a%{ord(character):02X}b"
    assert normalize_url(raw) != normalize_url(escaped)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.text("12", max_size=2)), max_size=6), st.randoms())
def test_order_of_parameters_matters_only_within_one_name(
    parameters: list[tuple[str, str]], random: object
) -> None:
    def url(pairs: list[tuple[str, str]]) -> str:
        return "http://h/?" + "&".join(f"{name}={value}" for name, value in pairs)

    by_name = sorted(parameters, key=lambda parameter: parameter[0], reverse=True)
    assert normalize_url(url(parameters)) == normalize_url(url(by_name))
    kept = urlsplit(normalize_url(url(parameters))).query
    for name in "abc":
        values = [value for other, value in parameters if other == name]
        assert [pair[2:] for pair in kept.split("&") if pair.startswith(name)] == values


_LABEL = st.text("abz09-x", max_size=5).map(lambda text: "a" + text) | st.sampled_from(
    ["xn--a", "xn--fa-hia", "xn", "a--b", "0x7f", "1", "4chan", "-a"]
)
_SEGMENT = st.text("aZ0-_.%~", max_size=6) | st.sampled_from(["..", ".", "-", "a.", "%2e", ".a", "", "~"])


@given(
    st.sampled_from(["http://", "https://", "HTTP://"]),
    st.lists(_LABEL, min_size=1, max_size=4).map(".".join),
    st.lists(_SEGMENT, max_size=4).map("/".join),
    st.sampled_from(["", "/", "//", "#a", "?b=1&a=2", ":80/", "\n", " ", "."]),
)
def test_url_in_normal_form_is_recognized_without_parsing(
    scheme: str, host: str, path: str, end: str
) -> None:
    for url in (f"{scheme}{host}/{path}{end}", f"{scheme}{host}{end}"):
        if urls._NORMAL.fullmatch(url):
            assert _parsed(url) == url


def _parsed(url: str) -> str:
    """Normalizes a URL by the full way, without the expression for URLs in normal form."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(urls, "_NORMAL", re.compile("(?!)"))
        return normalize_url(url)


@pytest.mark.parametrize(
    ("written", "host"),
    [
        *((written, host) for written, host in HOSTS if not re.search(r"@|:443$|:$|[\t\n]", written)),
        ("example.org:443", "example.org"),
        ("[::1]:443", "[::1]"),
        (" example.org ", "example.org"),
        ("http://Example.org:80/a?b#c", "example.org"),
        ("https://example.org.:443", "example.org"),
        ("http://user@example.org/", "example.org"),
        *((text, None) for text in NO_URLS if text not in ("about", "example.org")),
        ("user@example.org", None),
        ("example.org/a", None),
    ],
)
def test_host_of_takes_any_spelling(written: str, host: str | None) -> None:
    if host is None:
        with pytest.raises(InvalidArgumentError, match=r"^host: must be a host"):
            host_of(written)
    else:
        assert host_of(written) == host
        assert host_of(host) == host


def test_comparable_url_takes_any_text() -> None:
    assert comparable_url("HTTP://H./a%7e#b") == "http://h/a~"
    assert comparable_url("FTP://H/a/../b#c") == "ftp://h/b"
    for text in ("", "/about", "no url", "http://", "\ud800"):
        assert comparable_url(text) == text


def test_join_url_resolves_links_of_a_page() -> None:
    base = "http://h/a/b?c#d"
    assert join_url(base, "../x?y") == "http://h/x?y"
    assert join_url(base, "//other/x") == "http://other/x"
    assert join_url(base, "") == "http://h/a/b?c"
    assert join_url(base, "mailto:a@h") == "mailto:a@h"
    assert join_url(base, "http://[") == "http://["


@pytest.mark.parametrize("function", [normalize_url, comparable_url, host_of])
def test_other_types_are_refused(function: object) -> None:
    with pytest.raises(InvalidArgumentError, match="must be text, not bytes"):
        function(b"http://h/")  # type: ignore[operator]
