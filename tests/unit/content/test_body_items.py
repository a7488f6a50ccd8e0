"""The items of bodies, and their cost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragcrawl_dynamo._content.body_items import (
    BodyId,
    StoredBody,
    manifest_of,
    part_items,
    pointer_items,
    used_location,
    write_units,
    writer_token,
)
from ragcrawl_dynamo._content.packing import Manifest
from ragcrawl_dynamo._dynamodb.sizes import MAX_ITEM_BYTES, item_size
from ragcrawl_dynamo._schema.keys import body_entry, version_key

HEAD = version_key("page", "v1", "site")
OTHER = version_key("page", "v2", "site")
BODY = BodyId.first_of(HEAD)


def manifest(size: int = 0, **fields: object) -> Manifest:
    return Manifest(raw_bytes=size, stored_bytes=size, digest=bytes(32), **fields)  # type: ignore[arg-type]


@given(st.integers(1, 2_000_000))
def test_part_items_hold_the_body_in_order_and_none_is_too_large(size: int) -> None:
    data = bytes(i % 251 for i in range(min(size, 1000))) + bytes(max(0, size - 1000))
    parts = part_items(BODY, data, writer_token(), 1_767_225_600)
    assert b"".join(part["data"]["B"] for part in parts) == data
    assert [part["parts"] for part in parts] == [{"N": str(len(parts))}] * len(parts)
    assert max(map(item_size, parts)) <= MAX_ITEM_BYTES
    # Only the first is listed under the site.
    assert ["indexed_site" in part for part in parts] == [True] + [False] * (len(parts) - 1)
    keys = [{name: part[name] for name in ("page_id", "version_key")} for part in parts]
    assert keys == StoredBody(BODY, len(parts), None).part_keys
    assert {body_entry(key) == (HEAD, BODY.location) for key in keys} == {True}


def test_part_items_are_as_large_as_moto_allows() -> None:
    # moto counts bytes by their base64 text: four characters for three bytes.
    first, *_ = part_items(BODY, bytes(700_000), writer_token(), 1_767_225_600)
    data = len(first["data"]["B"])
    as_text = item_size(first) - data + -(-data // 3) * 4
    assert MAX_ITEM_BYTES - 16 <= as_text <= MAX_ITEM_BYTES


def test_part_items_hold_the_token_of_their_write() -> None:
    one, two = writer_token(), writer_token()
    part, *_ = part_items(BODY, b"data", one, 7)
    assert one.is_in(part)
    assert not two.is_in(part)
    assert part["written_at"] == {"N": "7"}
    assert one.is_in(pointer_items(BODY, "key", one, 7)[0])


@pytest.mark.parametrize("size", [1, 900, 1100, 100_000, 900_000])
def test_write_units_are_those_of_the_items(size: int) -> None:
    parts = part_items(BODY, bytes(size), writer_token(), 1_781_234_567)
    units = sum(-(-item_size(part) // 1024) for part in parts)
    assert write_units(HEAD, manifest(size, parts=len(parts))) == units


def test_pointer_items_name_the_object_in_the_one_part_of_a_body() -> None:
    (pointer,) = pointer_items(BODY, "bodies/1", writer_token(), 9)
    assert {name: pointer[name] for name in ("page_id", "version_key")} == BODY.part_key(0)
    assert (pointer["object_key"], pointer["data"]) == ({"S": "bodies/1"}, {"B": b""})
    assert pointer["indexed_site"] == {"S": "site"}


def test_write_units_of_a_body_in_the_bucket_are_those_of_its_pointer() -> None:
    assert write_units(HEAD, manifest(5_000_000, parts=1, object_key="crawl_bodies/0123")) == 1


def test_stored_body_of_a_first_part_is_that_of_its_head() -> None:
    part, *_ = part_items(BODY, bytes(700_000), writer_token(), 9)
    by_head = StoredBody.of_head(HEAD, manifest(700_000, parts=3))
    assert StoredBody.of_first_part(BODY, part) == StoredBody(BODY, 3, None, written_at=9)
    assert by_head == StoredBody(BODY, 3, None)
    (pointer,) = pointer_items(BODY, "key", writer_token(), 9)
    assert StoredBody.of_first_part(BODY, pointer).object_key == "key"


def test_used_location_is_that_of_the_body_that_a_head_uses() -> None:
    unshared = {"body": manifest(5, parts=1).to_attribute()}
    shared = {"body": manifest(5, parts=1, location=BODY.location).to_attribute()}
    inline = {"body": manifest(5).to_attribute()}
    assert used_location(HEAD, unshared) == used_location(OTHER, shared) == BODY.location
    assert used_location(OTHER, unshared) == BodyId.first_of(OTHER).location != BODY.location
    assert used_location(HEAD, inline) is None


@pytest.mark.parametrize("head", [{}, {"body": {"M": {}}}, {"body": {"S": "damaged"}}])
def test_manifest_of_a_head_that_cannot_be_read_is_none(head: object) -> None:
    assert manifest_of(head) is None  # type: ignore[arg-type]
    assert used_location(HEAD, head) is None  # type: ignore[arg-type]
