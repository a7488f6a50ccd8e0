import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragcrawl_dynamo import InvalidKeyError, _keys
from tests.factories import ids, make_page


@given(ids)
def test_unescape_undoes_escape(text: str) -> None:
    assert _keys.unescape(_keys.escape(text)) == text


@given(ids)
def test_an_escaped_id_holds_no_separator(text: str) -> None:
    assert "#" not in _keys.escape(text)


# A few characters only, so that collisions would be found.
tricky = st.text("#~01a", min_size=1, max_size=5)


@given(st.tuples(tricky, tricky, tricky), st.tuples(tricky, tricky, tricky))
def test_different_ids_never_share_a_key(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    assert (_keys.version_key(*one) == _keys.version_key(*other)) == (one == other)
    assert (_keys.page_key(*one[:2]) == _keys.page_key(*other[:2])) == (one[:2] == other[:2])
    assert (_keys.run_key(*one[:2]) == _keys.run_key(*other[:2])) == (one[:2] == other[:2])
    assert (_keys.frontier_key(*one[:2]) == _keys.frontier_key(*other[:2])) == (one[:2] == other[:2])
    assert (_keys.site_key(one[0]) == _keys.site_key(other[0])) == (one[0] == other[0])


@given(tricky, tricky, tricky)
def test_a_version_key_has_its_own_prefix_and_suffix_only(version: str, site: str, other: str) -> None:
    key = _keys.version_key("page", version, site)["version_key"]["S"]
    assert key.startswith(_keys.version_prefix(other)) == (version == other)
    assert (_keys.version_suffix(other) in key) == (site == other)


def test_an_empty_id_is_refused_by_name() -> None:
    with pytest.raises(InvalidKeyError, match=r"Page\.page_id: must not be empty") as caught:
        _keys.page_key("site", "")
    assert (caught.value.model, caught.value.field) == ("Page", "page_id")


def test_an_id_may_take_1024_bytes_and_no_more() -> None:
    assert _keys.page_key("site", "é" * 512)["page_id"]["S"] == "é" * 512
    with pytest.raises(InvalidKeyError, match=r"Page\.page_id: takes 1,025 bytes, an id may take 1,024"):
        _keys.page_key("site", "é" * 512 + "x")


def test_a_lone_surrogate_in_an_id_is_refused() -> None:
    with pytest.raises(InvalidKeyError, match="lone surrogate"):
        _keys.site_key("\ud800")


def test_version_id_and_site_id_share_one_sort_key() -> None:
    assert _keys.version_key("p", "v" * 976, "s" * 22)
    with pytest.raises(InvalidKeyError, match="version_id and site_id together may take 998 bytes"):
        _keys.version_key("p", "v" * 976, "s" * 23)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://example.com/?b=2&a=1", "https://example.com/?a=1&b=2"),
        ("HTTPS://EXAMPLE.com", "https://example.com/"),
        ("https://example.com/a#part", "https://example.com/a"),
    ],
)
def test_spellings_of_one_url_share_its_key(one: str, other: str) -> None:
    assert _keys.url_key(one) == _keys.url_key(other)


@given(st.text(max_size=60))
def test_any_text_has_a_url_key(text: str) -> None:
    assert len(_keys.url_key(text)) == 64
    assert _keys.page_keys(make_page(url=text))["url_key"] == {"S": _keys.url_key(text)}
