from collections import Counter

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
    with pytest.raises(InvalidKeyError, match="takes 999 bytes together with site_id, and both may take 998"):
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
    assert keys.shard_of(keys.host_queue(*one)) == one[2]
    assert keys.run_of_queue(keys.host_queue(*one)) == one[0]
    assert not keys.is_host_list(keys.host_queue(*one))


@given(st.tuples(tricky, st.integers(0, 255)), st.tuples(tricky, st.integers(0, 255)), tricky, tricky)
def test_hosts_partition_lists_the_hosts_of_one_bucket_only(
    one: tuple[str, int], other: tuple[str, int], host: str, item: str
) -> None:
    partition = keys.hosts_partition(*one)
    assert (partition == keys.hosts_partition(*other)) == (one == other)
    # Neither the other records of a run, nor its items, nor a queue of a host can get into it.
    assert partition not in (keys.records_partition(other[0]), keys.run_partition(other[0]))
    assert partition != keys.host_queue(other[0], host, other[1])
    assert partition != keys.frontier_key(other[0], item)["run_id"]["S"]
    assert keys.is_host_list(partition)
    assert keys.run_of_queue(partition) == one[0]


@given(st.tuples(tricky, tricky, st.integers(0, 255)), st.tuples(tricky, tricky, st.integers(0, 255)))
def test_host_keys_of_different_hosts_differ(one: tuple[str, str, int], other: tuple[str, str, int]) -> None:
    assert (keys.host_key(*one) == keys.host_key(*other)) == (one == other)
    assert keys.host_of(keys.host_key(*one)) == one[1]


@given(st.text(max_size=20), st.integers(1, 256))
def test_bucket_of_is_one_of_the_buckets(host: str, buckets: int) -> None:
    assert 0 <= keys.bucket_of(host, buckets) < buckets


def test_bucket_of_stays_as_it_is_stored() -> None:
    # Hosts of a run that another version of this package works on are found by it too.
    hosts = ("", "a.example", "b.example", "xn--fa-hia.de")
    assert [keys.bucket_of(host, 64) for host in hosts] == [0, 12, 9, 41]


def test_frontier_key_stays_as_it_is_stored() -> None:
    # Another version of this package finds the items too.
    partitions = [keys.frontier_key("run", item)["run_id"]["S"] for item in ("a", "b", "c", "ü")]
    assert partitions == ["3#run", "9#run", "f#run", "5#run"]


def test_frontier_keys_of_a_run_are_spread_over_its_partitions() -> None:
    counts = Counter(keys.frontier_key("r#1", f"item{i}")["run_id"]["S"] for i in range(1600))
    assert sorted(counts) == sorted(keys.items_partitions("r#1"))
    assert len(counts) == 16
    assert max(counts.values()) < 150


def test_bucket_of_spreads_hosts() -> None:
    counts = Counter(keys.bucket_of(f"host{i}.example", 64) for i in range(6400))
    assert len(counts) == 64
    assert max(counts.values()) < 200


@given(tricky, tricky, tricky, st.integers(0, 63))
def test_keys_of_run_records_differ_from_item_keys(run: str, item: str, host: str, bucket: int) -> None:
    records = [
        keys.control_key(run),
        keys.host_key(run, host, bucket),
        keys.counter_key(run, 1),
        keys.member_key(run, "process"),
        keys.budget_key(run, host, bucket),
    ]
    assert keys.frontier_key(item, host) not in records
    assert len({record["item_id"]["S"] for record in records}) == 5


def test_host_name_takes_up_to_512_bytes() -> None:
    assert keys.host_name("h" * 512)
    with pytest.raises(InvalidKeyError, match=r"FrontierItem\.domain: takes 513 bytes"):
        keys.host_name("h" * 513)
