from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import orjson
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ragcrawl_dynamo import (
    CorruptItemError,
    InvalidValueError,
    ItemTooLargeError,
)
from ragcrawl_dynamo._dynamodb.codec import from_item, to_item, to_sized_item
from ragcrawl_dynamo._dynamodb.packed_values import MAX_RAW_BYTES
from ragcrawl_dynamo._dynamodb.sizes import item_size
from ragcrawl_dynamo._dynamodb.table import E, Table
from ragcrawl_dynamo._dynamodb.values import Item, encode_value
from ragcrawl_dynamo._schema import tables as _tables
from ragcrawl_dynamo._schema.tables import FRONTIER, PAGES, RUNS, SITES, VERSIONS
from tests.support import factories
from tests.support.factories import dense_text, make_page, make_run, make_site, make_version


def through_the_wire(table: Table[E], record: E) -> E:
    """Encodes, sends as JSON, normalizes numbers as DynamoDB does, decodes."""
    item, size = to_sized_item(table, record)
    assert size == item_size(item)
    return from_item(table, normalized(orjson.loads(orjson.dumps(item))))


def normalized(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"N"} and isinstance(value["N"], str):
            return {"N": plain_number(value["N"])}
        return {name: normalized(part) for name, part in value.items()}
    return [normalized(part) for part in value] if isinstance(value, list) else value


def plain_number(text: str) -> str:
    number = Decimal(text)
    if number == 0:
        return "0"
    plain = format(number, "f")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


@given(factories.sites)
def test_codec_round_trip_of_a_site(record: Any) -> None:
    assert through_the_wire(SITES, record) == record


@given(factories.runs)
def test_codec_round_trip_of_a_run(record: Any) -> None:
    assert through_the_wire(RUNS, record) == record


@given(factories.pages)
def test_codec_round_trip_of_a_page(record: Any) -> None:
    assert through_the_wire(PAGES, record) == record


@given(factories.versions)
def test_codec_round_trip_of_a_version_without_content(record: Any) -> None:
    content: dict[str, Any] = {
        "markdown": "",
        "html": None,
        "plain_text": None,
        "outlinks": [],
        "headings_outline": [],
    }
    assert through_the_wire(VERSIONS, record) == record.model_copy(update=content)


@given(factories.frontier_items)
def test_codec_round_trip_of_a_frontier_item(record: Any) -> None:
    assert through_the_wire(FRONTIER, record) == record


@given(factories.json_values)
def test_codec_keeps_numbers_of_free_json(value: Any) -> None:
    stored = through_the_wire(SITES, make_site(config={"value": value})).config["value"]
    assert stored == value


def test_to_item_leaves_out_none_and_keeps_an_empty_string() -> None:
    item = to_item(PAGES, make_page(etag="", last_modified=None))
    assert item["etag"] == {"S": ""}
    assert "last_modified" not in item


def test_encode_value_of_datetimes_sorts_as_text() -> None:
    moments = [
        datetime(1, 1, 1),
        datetime(999, 12, 31),
        datetime(2026, 1, 1),
        datetime(2026, 1, 1, 0, 0, 0, 1),
    ]
    texts = [encode_value(moment, model="M", field="f")["S"] for moment in moments]
    assert texts == sorted(texts)
    assert texts[-1] == "2026-01-01T00:00:00.000001Z"


def test_codec_takes_a_naive_datetime_as_utc_and_converts_an_aware_one() -> None:
    page = make_page(
        first_seen=datetime(2026, 1, 1, 12),
        last_seen=datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2))),
    )
    stored = through_the_wire(PAGES, page)
    assert stored.first_seen == datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert stored.last_seen == datetime(2026, 1, 1, 10, tzinfo=UTC)
    page.last_crawled = datetime(2026, 1, 2)
    assert page.last_crawled == datetime(2026, 1, 2, tzinfo=UTC)


def nested(depth: int) -> Any:
    value: Any = "leaf"
    for _ in range(depth):
        value = {"k": value}
    return value


@pytest.mark.parametrize(
    ("config", "path", "reason"),
    [
        ({"a": float("nan")}, "config.a", "DynamoDB cannot store the number nan"),
        ({"a": [0, float("inf")]}, "config.a.1", "DynamoDB cannot store the number inf"),
        ({"a": {"b": 10**38}}, "config.a.b", "38 digits"),
        ({"a": 1e126}, "config.a", "magnitude"),
        ({"a": 1e-131}, "config.a", "magnitude"),
        ({"a": {"": 1}}, "config.a", "key must not be empty"),
        ({"a": "\ud800"}, "config.a", "lone surrogate"),
        ({"\udfff": 1}, "config", "lone surrogate"),
        (nested(32), "config" + ".k" * 32, "32 levels"),
    ],
)
def test_to_item_refuses_invalid_values_with_their_path(config: Any, path: str, reason: str) -> None:
    site = make_site()
    site.config.update(config)
    with pytest.raises(InvalidValueError) as caught:
        to_item(SITES, site)
    assert (caught.value.model, caught.value.field) == ("Site", path)
    assert reason in str(caught.value)


def test_codec_stores_the_deepest_allowed_nesting() -> None:
    # The attribute itself is the first of the 31 maps around the leaf.
    assert through_the_wire(SITES, make_site(config=nested(31))).config == nested(31)


def test_to_item_refuses_a_value_of_unknown_type() -> None:
    with pytest.raises(InvalidValueError, match=r"Site\.config\.a: a value of type object cannot be stored"):
        to_item(SITES, make_site().model_copy(update={"config": {"a": object()}}))


def test_to_item_over_the_limit_names_the_largest_field_and_the_sizes() -> None:
    with pytest.raises(ItemTooLargeError) as caught:
        to_item(RUNS, make_run(error_message="é" * 230_000, seeds=["x" * 20_000]))
    error = caught.value
    assert (error.model, error.field) == ("CrawlRun", "error_message")
    assert error.size > 450_000
    # The entries of the local index count too.
    assert error.limit < 409_600
    assert "run_id 'run'" in str(error)


def test_to_item_packs_large_settings_and_no_others() -> None:
    urls = [f"https://example.com/{i}" for i in range(3000)]
    site = make_site(seeds=urls, allowed_domains=["example.com"], config={"seeds": urls, "n": [1, 2.5, None]})
    run = make_run(seeds=urls[:10], config_snapshot={"seeds": urls})
    site_item, run_item = to_item(SITES, site), to_item(RUNS, run)
    packed = {name for item in (site_item, run_item) for name, value in item.items() if "B" in value}
    assert packed == {"seeds", "config", "config_snapshot"}
    assert "L" in run_item["seeds"]
    assert "L" in site_item["allowed_domains"]
    assert item_size(site_item) < 60_000
    assert to_sized_item(SITES, site) == (site_item, item_size(site_item))
    assert from_item(SITES, site_item) == site
    assert from_item(RUNS, run_item) == run


def test_from_item_reads_large_settings_that_are_not_packed() -> None:
    site = make_site(seeds=[f"https://example.com/{i}" for i in range(3000)])
    item = to_item(SITES, site)
    native: Item = {**item, "seeds": {"L": [{"S": url} for url in site.seeds]}}
    assert from_item(SITES, native) == site


def test_to_item_over_the_limit_says_that_its_largest_field_is_compressed() -> None:
    with pytest.raises(ItemTooLargeError, match=r"config with 5\d\d,\d{3} bytes after compression") as caught:
        to_item(SITES, make_site(config={"text": dense_text(512)}))
    assert (caught.value.model, caught.value.field, caught.value.limit) == ("Site", "config", 409_600)


def test_to_item_does_not_pack_a_value_that_cannot_be_unpacked() -> None:
    with pytest.raises(ItemTooLargeError, match=r"takes 5,\d{3},\d{3} bytes.* bytes: shorten"):
        to_item(SITES, make_site(config={"text": "x" * 5_000_000}))


def test_to_item_refuses_a_value_in_large_settings_with_its_path() -> None:
    site = make_site(seeds=["x" * 50_000])
    site.config.update({"a": ["x" * 50_000, {"b": float("nan")}]})
    with pytest.raises(InvalidValueError, match=r"config\.a\.1\.b"):
        to_item(SITES, site)


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"x",
        zstandard.compress(b"{"),
        zstandard.compress(b"[]") + b"x",
        zstandard.compress(b"[]")[:-1],
        # A frame that says nothing of its size, and a bomb.
        zstandard.ZstdCompressor(write_content_size=False).compress(b"[]"),
        zstandard.compress(b"0" * (MAX_RAW_BYTES + 1)),
    ],
)
def test_from_item_of_damaged_settings_raises(damaged: bytes) -> None:
    item: Item = {**to_item(SITES, make_site()), "seeds": {"B": damaged}}
    with pytest.raises(CorruptItemError, match=r"packed value|Expecting"):
        from_item(SITES, item)


@given(factories.pages, st.integers(0, 300))
def test_item_size_counts_names_and_utf8_bytes(page: Any, more: int) -> None:
    item = to_item(PAGES, page)
    longer: Item = {**item, "x": {"S": "é" * more}}
    assert item_size(longer) - item_size(item) == 1 + 2 * more


def test_from_item_of_an_item_that_does_not_fit_the_model_raises() -> None:
    item = to_item(PAGES, make_page("p#1"))
    item["depth"] = {"S": "deep"}
    with pytest.raises(CorruptItemError, match=r"item .*'p~11'.* of table pages is not a valid Page"):
        from_item(PAGES, item)


def test_from_item_without_a_key_raises() -> None:
    with pytest.raises(CorruptItemError):
        from_item(PAGES, {})


def test_to_item_writes_every_key_attribute() -> None:
    pairs: list[tuple[Table[Any], Any]] = [
        (SITES, make_site()),
        (RUNS, make_run()),
        (PAGES, make_page()),
        (VERSIONS, make_version()),
        (FRONTIER, factories.make_item()),
    ]
    for table, record in pairs:
        item = to_item(table, record)
        # Listing a version under its site, and an item in its queue, is left to their stores.
        left = {"indexed_site", "queue", "queue_order"}
        assert all("S" in item[name] for name in table.key_attributes - left), table.name
    assert {table.name for table, _ in pairs} == {table.name for table in _tables.Tables.of("").all()}
