"""URLs that are canonical already are recognized without w3lib."""

from hypothesis import given
from hypothesis import strategies as st
from w3lib.url import canonicalize_url

from ragcrawl_dynamo._utils.urls import normalize_url

_label = st.text("abz09-x", max_size=5).map(lambda text: "a" + text) | st.sampled_from(
    ["xn--a", "xn", "a--b"]
)


_segment = st.text("aZ0-_.%~", max_size=6) | st.sampled_from(["..", ".", "-", "a.", "%2e", ".a"])


@given(
    st.sampled_from(["http://", "https://", "HTTP://", "ftp://"]),
    st.lists(_label, min_size=1, max_size=4).map(".".join),
    st.lists(_segment, max_size=4).map("/".join),
    st.sampled_from(["", "/", "//", "#a", "?b=1&a=2", ":80/", "\n", " "]),
)
def test_normalize_url_equals_canonicalize_url(scheme: str, host: str, path: str, end: str) -> None:
    for url in (f"{scheme}{host}/{path}{end}", f"{scheme}{host}{end}"):
        assert normalize_url(url) == canonicalize_url(url)
