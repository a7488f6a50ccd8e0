"""The listing of a site's index, put together."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator

from hypothesis import given
from hypothesis import strategies as st

from ragcrawl_dynamo._content.body_items import BodyId
from ragcrawl_dynamo._content.site_index import ListedVersions, merged_counts
from ragcrawl_dynamo._schema.keys import version_key
from tests.support.factories import texts


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
