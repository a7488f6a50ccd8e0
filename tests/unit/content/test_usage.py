"""The storage and the write units of versions."""

from __future__ import annotations

from typing import Any

import pytest

from ragcrawl_dynamo import ContentUsage
from ragcrawl_dynamo._content.packing import Manifest
from ragcrawl_dynamo._content.usage import usage_of
from ragcrawl_dynamo._dynamodb.sizes import item_size
from ragcrawl_dynamo._schema.keys import body_location, version_key
from tests.support.factories import dense_text, make_version
from tests.support.fake_content import Content

KEY = version_key("page", "v1", "site")
OTHER = version_key("page", "v2", "site")
INDEXED: Any = {"indexed_site": {"S": "site"}}


def head(key: Any, **fields: Any) -> Any:
    return {**key, "body": Manifest(9000, 5000, bytes(32), **fields).to_attribute()}


def test_usage_is_added_by_field() -> None:
    assert ContentUsage(1, 2, 3, 4, 5) + ContentUsage(10, 20, 30, 40, 50) == ContentUsage(11, 22, 33, 44, 55)
    assert ContentUsage() == ContentUsage(0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        # The head and its entry in the index.
        ({**head(KEY), **INDEXED}, ContentUsage(1, 0, 9000, 5000, 2)),
        # The head, its body of 5 KB, and its entry.
        (head(KEY, parts=1), ContentUsage(1, 0, 9000, 5000, 7)),
        # The same with a pointer for the body.
        (head(KEY, parts=1, object_key="bodies/1"), ContentUsage(1, 0, 9000, 5000, 3)),
        ({**head(KEY, parts=1, location=body_location(OTHER)), **INDEXED}, ContentUsage(1, 1, 9000, 0, 2)),
        # Of a head that cannot be read nothing is known.
        ({**KEY, "body": {"M": {}}}, ContentUsage(1, 0, 0, 0, 0)),
    ],
    ids=["inline", "own body", "in the bucket", "shared", "damaged"],
)
def test_usage_of_a_version_is_that_of_its_items(item: Any, expected: ContentUsage) -> None:
    assert usage_of(KEY, item) == expected


@pytest.mark.parametrize(("size", "units"), [(1024, 2), (1025, 3)])
def test_usage_of_a_head_is_a_unit_for_each_kilobyte(size: int, units: int) -> None:
    item = {**head(KEY), "title": {"S": ""}}
    item["title"] = {"S": "x" * (size - item_size(item))}
    assert usage_of(KEY, item).write_units == units


async def test_measure_counts_a_version_once_by_its_head_or_by_the_body_that_it_uses(
    content: Content,
) -> None:
    small, large = make_version("v1"), make_version("v2", markdown=dense_text(5))
    heads = [await content.store(small), await content.store(large)]
    (part,) = content.bodies
    # Bodies that no version uses: one of a version that has another body, one of a version that is gone.
    unused: Any = {**part, "version_key": {"S": "v2#site#0123456789ab#00000"}}
    orphan: Any = {**part, "version_key": {"S": "v3#site#0#00000"}}
    gone = version_key("page", "v4", "site")
    keys = [{name: item[name] for name in ("page_id", "version_key")} for item in (unused, part, orphan)]
    content.stored.will_list_site([*keys, KEY, gone], most=4)
    usage = await content.usage.measure("site")
    assert usage == usage_of(KEY, heads[0]) + usage_of(OTHER, heads[1])
    assert usage.versions == 2


async def test_measure_of_an_empty_site_is_nothing(content: Content) -> None:
    assert await content.usage.measure("site") == ContentUsage()
