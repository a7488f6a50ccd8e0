"""Heads of versions: how they are listed, and which bodies they use."""

from __future__ import annotations

from typing import Any

import pytest

from ragcrawl_dynamo import InvalidKeyError
from ragcrawl_dynamo._content.heads import VersionHead
from ragcrawl_dynamo._content.packing import Manifest
from ragcrawl_dynamo._schema.keys import body_location, version_key
from ragcrawl_dynamo.models import CONTENT_FIELDS
from tests.support.factories import START, dense_text, hours, make_version
from tests.support.fake_content import Content

KEY = version_key("page", "v1", "site")
OTHER = version_key("page", "v2", "site")


def head(key: Any, **fields: Any) -> Any:
    """A stored head with the manifest of its body."""
    return {**key, "body": Manifest(9, 5, bytes(32), **fields).to_attribute()}


async def store_several(content: Content) -> list[Any]:
    """Stores versions, the first one newest; returns their heads."""
    return [
        await content.store(make_version(f"v{i}", crawled_at=START - hours(i), markdown=dense_text(5 * i)))
        for i in range(3)
    ]


@pytest.mark.parametrize("with_content", [True, False])
async def test_listing_reads_bodies_in_heads_if_asked_for(content: Content, with_content: bool) -> None:
    heads = await store_several(content)
    content.stored.will_list(heads[::-1])
    listed = await content.versions.heads.listing("site", "page", 2, None, with_content=with_content)
    assert list(listed) == heads[:2]
    (query,) = content.stored.sent
    assert query.text("KeyCondition") == "(page_id = 'page')"
    assert query.text("Filter") == "site_id = 'site'"
    names = set(query.text("Projection").split(", "))
    if with_content:
        assert names == {""}
    else:
        assert names.isdisjoint({*CONTENT_FIELDS, "content", "body"})
        assert names >= {"page_id", "version_key", "version_id", "site_id", "crawled_at", "title", "extra"}
    content.stored.will_list(heads)
    rest = await content.versions.heads.listing("site", "page", 9, listed.cursor, with_content=with_content)
    assert list(rest) == heads[2:]


async def test_listing_of_all_sites_has_no_filter(content: Content) -> None:
    await content.versions.heads.listing(None, "page", 2, None, with_content=True)
    (query,) = content.stored.sent
    assert "FilterExpression" not in query.request
    assert query.request["ConsistentRead"] is True


async def test_listing_refuses_what_cannot_be_the_id_of_a_site(content: Content) -> None:
    with pytest.raises(InvalidKeyError, match="site_id"):
        await content.versions.heads.listing("", "page", 2, None, with_content=True)
    assert content.stored.sent == []


async def test_of_page_returns_the_keys_and_ages_of_all_versions(content: Content) -> None:
    heads = await store_several(content)
    content.stored.will_list(heads[::-1])
    listed = await content.versions.heads.of_page("page", "site")
    assert [version.version_id for version in listed] == ["v0", "v1", "v2"]
    assert listed[1] == VersionHead(KEY, heads[1]["crawled_at"]["S"])
    (query,) = content.stored.sent
    assert query.text("Filter") == "site_id = 'site'"
    assert query.text("Projection") == "page_id, version_key, crawled_at"


async def test_used_locations_are_those_of_the_versions_that_exist(content: Content) -> None:
    content.stored.put("versions", head(KEY, parts=1))
    content.stored.put("versions", head(OTHER))
    absent = version_key("page", "v3", "site")
    used = await content.versions.heads.used_locations([KEY, OTHER, absent])
    assert used == {("page", "v1#site#"): body_location(KEY), ("page", "v2#site#"): None}
    (read,) = content.stored.sent
    assert set(read.batch["ExpressionAttributeNames"].values()) == {"page_id", "version_key", "body"}


async def test_equal_bodies_are_those_with_parts_of_other_versions(content: Content) -> None:
    third = version_key("page", "v3", "site")
    content.stored.will_list([head(KEY, parts=2), head(OTHER), head(third, parts=3), {**OTHER, "body": None}])
    equal = await content.versions.heads.equal_bodies(KEY, "site", b"digest")
    assert equal == [(third, Manifest(9, 5, bytes(32), parts=3))]


async def test_equal_bodies_are_searched_in_the_first_heads_of_a_page_and_site(content: Content) -> None:
    await content.versions.heads.equal_bodies(KEY, "site", b"digest")
    (query,) = content.stored.sent
    assert query.text("KeyCondition") == "(page_id = 'page')"
    assert query.text("Filter") == "(site_id = 'site') AND (body.sha256 = b'digest')"
    assert query.text("Projection") == "page_id, version_key, body"
    assert query.request["Limit"] == 50
