import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragcrawl_dynamo import InvalidKeyError
from ragcrawl_dynamo._schema import keys
from ragcrawl_dynamo._schema.tables import page_keys
from tests.support.factories import make_page

# Only a few characters, so that collisions are likely.
tricky = st.text("#~01a", min_size=1, max_size=5)


@given(st.tuples(tricky, tricky, tricky), st.tuples(tricky, tricky, tricky))
def test_keys_of_different_ids_differ(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    assert (keys.version_key(*one) == keys.version_key(*other)) == (one == other)
    assert (keys.page_key(*one[:2]) == keys.page_key(*other[:2])) == (one[:2] == other[:2])
    assert (keys.run_key(*one[:2]) == keys.run_key(*other[:2])) == (one[:2] == other[:2])
    assert (keys.frontier_key(*one[:2]) == keys.frontier_key(*other[:2])) == (one[:2] == other[:2])
    assert (keys.site_key(one[0]) == keys.site_key(other[0])) == (one[0] == other[0])


@given(tricky, tricky, tricky)
def test_version_key_has_its_own_prefix_and_suffix_only(version: str, site: str, other: str) -> None:
    key = keys.version_key("page", version, site)["version_key"]["S"]
    assert key.startswith(keys.version_prefix(other)) == (version == other)
    assert (keys.version_suffix(other) in key) == (site == other)


def test_page_key_refuses_an_empty_id_by_name() -> None:
    with pytest.raises(InvalidKeyError, match=r"Page\.page_id: must not be empty") as caught:
        keys.page_key("site", "")
    assert (caught.value.model, caught.value.field) == ("Page", "page_id")


def test_page_key_takes_ids_of_up_to_1024_bytes() -> None:
    assert keys.page_key("site", "é" * 512)["page_id"]["S"] == "é" * 512
    with pytest.raises(InvalidKeyError, match=r"Page\.page_id: takes 1,025 bytes, an id may take 1,024"):
        keys.page_key("site", "é" * 512 + "x")


def test_site_key_refuses_a_lone_surrogate() -> None:
    with pytest.raises(InvalidKeyError, match="lone surrogate"):
        keys.site_key("\ud800")


def test_version_key_limits_version_id_and_site_id_together() -> None:
    assert keys.version_key("p", "v" * 976, "s" * 22)
    with pytest.raises(InvalidKeyError, match="version_id and site_id together may take 998 bytes"):
        keys.version_key("p", "v" * 976, "s" * 23)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://example.com/?b=2&a=1", "https://example.com/?a=1&b=2"),
        ("HTTPS://EXAMPLE.com", "https://example.com/"),
        ("https://example.com/a#part", "https://example.com/a"),
    ],
)
def test_url_key_is_shared_by_spellings_of_one_url(one: str, other: str) -> None:
    assert keys.url_key(one) == keys.url_key(other)


@given(st.text(max_size=60))
def test_url_key_of_any_text(text: str) -> None:
    assert len(keys.url_key(text)) == 64
    assert page_keys(make_page(url=text))["url_key"] == {"S": keys.url_key(text)}


@given(st.tuples(tricky, tricky, st.integers(0, 31)), st.tuples(tricky, tricky, st.integers(0, 31)))
def test_host_queue_of_different_hosts_differs(
    one: tuple[str, str, int], other: tuple[str, str, int]
) -> None:
    assert (keys.host_queue(*one) == keys.host_queue(*other)) == (one == other)
    assert keys.host_queue(*one) != keys.due_list(other[0])
    assert (keys.host_key(*one[:2]) == keys.host_key(*other[:2])) == (one[:2] == other[:2])
    assert keys.shard_of(keys.host_queue(*one)) == one[2]
    assert keys.host_of(keys.host_key(*one[:2])) == one[1]


@given(tricky, tricky, tricky)
def test_keys_of_run_records_differ_from_item_keys(run: str, item: str, host: str) -> None:
    records = (keys.control_key(run), keys.host_key(run, host), keys.counter_key(run, 1))
    assert keys.frontier_key(item, host) not in records
    assert len({record["item_id"]["S"] for record in records}) == 3


def test_host_name_takes_up_to_512_bytes() -> None:
    assert keys.host_name("h" * 512)
    with pytest.raises(InvalidKeyError, match=r"FrontierItem\.domain: takes 513 bytes"):
        keys.host_name("h" * 513)
