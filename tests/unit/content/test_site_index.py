"""The listing of a site's index, put together."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragcrawl_dynamo._content.body_items import BodyId, StoredBody, part_items, pointer_items, writer_token
from ragcrawl_dynamo._content.site_index import ListedVersions, SiteListing, merged_counts
from ragcrawl_dynamo._schema.keys import version_key
from tests.support.factories import texts
from tests.support.fake_content import Content


async def listing(names: list[str]) -> AsyncGenerator[str, None]:
    """The texts in DynamoDB's order, that of their UTF-8 bytes."""
    for name in sorted(names, key=str.encode):
        yield name


@given(st.lists(texts, max_size=9), st.lists(texts, max_size=9))
async def test_merged_counts_counts_each_text_once_in_order(one: list[str], two: list[str]) -> None:
    counts = [pair async for pair in merged_counts(listing(one), listing(two))]
    assert [text.encode() for text, _ in counts] == sorted({text.encode() for text in one + two})
    assert dict(counts) == Counter(one + two)


async def test_merged_counts_left_early_closes_its_listings() -> None:
    listings = [listing(["a", "b"]), listing(["a"])]
    counts = merged_counts(*listings)
    assert await anext(counts) == ("a", 2)
    await counts.aclose()
    for names in listings:
        assert await anext(names, None) is None


def test_listed_versions_names_a_version_once_that_is_listed_twice() -> None:
    one, two = version_key("page", "v1", "site"), version_key("page", "v2", "site")
    bodies = [BodyId.first_of(one), BodyId(one, "v1#site#0123456789ab#")]
    assert ListedVersions([two, one], bodies).version_keys == [one, two]


ONE, TWO = version_key("page", "v1", "site"), version_key("page", "v2", "site")
BODY = BodyId.first_of(TWO)


@pytest.fixture
def site(content: Content) -> SiteListing:
    return SiteListing(content.gateway, content.tables.versions)


async def test_chunks_tell_versions_from_bodies(content: Content, site: SiteListing) -> None:
    content.stored.will_list_site([BODY.part_key(0), ONE])
    assert [listed async for listed in site.chunks("site")] == [ListedVersions([ONE], [BODY])]
    (query,) = content.stored.sent
    assert query.text("KeyCondition") == "(indexed_site = 'site')"
    assert (query.request["IndexName"], query.request["Limit"]) == ("by_site", 100)


async def test_chunks_go_on_until_the_listing_ends(content: Content, site: SiteListing) -> None:
    keys = [version_key("page", f"v{i}", "site") for i in range(250)]
    content.stored.will_list_site(keys)
    listed = [listed.heads async for listed in site.chunks("site")]
    assert listed == [keys[:100], keys[100:200], keys[200:]]
    starts = [sent.request.get("ExclusiveStartKey") for sent in content.stored.sent]
    assert starts == [None, *({**key, "indexed_site": {"S": "site"}} for key in (keys[99], keys[199]))]


async def test_version_counts_reads_heads_and_bodies_in_ranges_of_pages(
    content: Content, site: SiteListing
) -> None:
    keys = [version_key(page_id, f"v{i}", "site") for i, page_id in enumerate(("a", "a", "b~", "c"))]
    content.stored.will_list_site(keys[:1])
    content.stored.will_list_site([BodyId.first_of(key).part_key(0) for key in keys[2:]])
    content.stored.will_list_site(keys[1:3])
    counts = [pair async for pair in site.version_counts("site")]
    assert counts == [("a", 2), ("b~", 2), ("c", 1)]
    queries = content.stored.sent
    assert {query.request["Limit"] for query in queries} == {1000}
    assert {query.text("KeyCondition") for query in queries} == {
        "(indexed_site = 'site') AND (page_id < '#')",
        "(indexed_site = 'site') AND (page_id >= '$')",
        "(indexed_site = 'site') AND (begins_with(page_id, '#'))",
    }


async def test_stored_bodies_are_read_without_their_data(content: Content, site: SiteListing) -> None:
    part, *_ = part_items(BODY, bytes(700_000), writer_token(), 7)
    other = BodyId.first_of(ONE)
    (pointer,) = pointer_items(other, "bodies/1", writer_token(), 8)
    content.stored.put("versions", part)
    content.stored.put("versions", pointer)
    gone = BodyId(ONE, "v1#site#0123456789ab#")
    stored = await site.stored_bodies([BODY, gone, other])
    assert stored == [StoredBody(BODY, 3, None, 7), StoredBody(other, 1, "bodies/1", 8)]
    (read,) = content.stored.sent
    names = set(read.batch["ExpressionAttributeNames"].values())
    assert names == {"page_id", "version_key", "parts", "written_at", "object_key"}
