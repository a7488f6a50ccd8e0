from typing import Any

import pytest

from ragcrawl_dynamo import DynamoDBBackend, InvalidValueError, PartialBatchError
from tests.support.factories import START, dense_text, hours, make_page, make_version


async def test_get_version_returns_what_save_version_stored(backend: DynamoDBBackend) -> None:
    version = make_version(
        html="<p>ü🕷️\0</p>",
        plain_text="",
        headings_outline=[{"level": 1, "text": "Title"}],
        outlinks=["https://example.com/#a"],
        fetch_latency_ms=12.5,
        extraction_latency_ms=0.0,
        extra={"score": 0.1, "tags": ["a"], "none": None, "map": {"1": True}},
    )
    await backend.save_version(version)
    assert await backend.get_version("site", "page", "v1") == version


async def test_get_version_of_an_absent_version_is_none(backend: DynamoDBBackend) -> None:
    await backend.save_version(make_version("v10"))
    assert await backend.get_version("site", "page", "v1") is None
    assert await backend.get_version("other", "page", "v10") is None
    assert await backend.get_current_version("site", "page") is None


@pytest.mark.parametrize("odd", ["a#b", "#", "~0", "a/b c", "🕷️"])
async def test_version_ids_may_hold_any_character(backend: DynamoDBBackend, odd: str) -> None:
    version = make_version(odd, odd + "page", odd + "site")
    await backend.save_version(version)
    assert await backend.get_version(odd + "site", odd + "page", odd) == version
    assert await backend.list_versions(odd + "site", odd + "page") == [version]
    assert await backend.list_versions("site", odd + "page") == []


async def test_get_version_when_two_sites_share_page_id_and_version_id(backend: DynamoDBBackend) -> None:
    one, two = make_version(site_id="one", markdown="1"), make_version(site_id="two", markdown="2")
    assert await backend.save_versions_bulk([one, two]) == 2
    assert await backend.get_version("one", "page", "v1") == one
    assert await backend.get_version("two", "page", "v1") == two
    assert await backend.list_versions("one", "page") == [one]
    assert await backend.list_versions("two", "page") == [two]


async def test_get_current_version_is_the_one_that_the_page_of_that_site_names(
    backend: DynamoDBBackend,
) -> None:
    for site_id, current in (("one", "v1"), ("two", "v2")):
        await backend.save_page(make_page(site_id=site_id, current_version_id=current))
        await backend.save_versions_bulk(
            make_version(version_id, site_id=site_id, title=site_id) for version_id in ("v1", "v2")
        )
    await backend.save_page(make_page("bare"))
    for site_id, current in (("one", "v1"), ("two", "v2")):
        version = await backend.get_current_version(site_id, "page")
        assert version is not None
        assert (version.version_id, version.title) == (current, site_id)
    assert await backend.get_current_version("site", "bare") is None


async def test_list_versions_newest_first(backend: DynamoDBBackend) -> None:
    await backend.save_versions_bulk(
        make_version(f"v{9 - i}", crawled_at=START + hours(i)) for i in (2, 0, 4, 1, 3)
    )
    await backend.save_version(make_version("other", "other-page"))
    newest_first = ["v5", "v6", "v7", "v8", "v9"]
    assert [version.version_id for version in await backend.list_versions("site", "page")] == newest_first
    first = await backend.list_versions("site", "page", limit=3)
    rest = await backend.list_versions("site", "page", limit=3, cursor=first.cursor)
    assert [version.version_id for version in [*first, *rest]] == newest_first
    assert rest.cursor is None


async def test_list_versions_without_content_has_all_fields_but_the_body(backend: DynamoDBBackend) -> None:
    version = make_version(html="<p>", plain_text="text", title="Title", extra={"a": 1}, outlinks=["x"])
    await backend.save_version(version)
    no_body: dict[str, Any] = {"markdown": "", "html": None, "plain_text": None, "outlinks": []}
    without_body = version.model_copy(update=no_body)
    assert await backend.list_versions("site", "page", include_content=False) == [without_body]


async def test_save_versions_bulk_stores_the_others_beside_an_invalid_version(
    backend: DynamoDBBackend,
) -> None:
    bad = make_version("bad", extra={"score": float("nan")})
    with pytest.raises(
        InvalidValueError, match=r"PageVersion\.extra\.score: DynamoDB cannot store the number nan"
    ):
        await backend.save_version(bad)
    with pytest.raises(PartialBatchError) as caught:
        await backend.save_versions_bulk([make_version("v1"), bad, make_version("v2")])
    assert [record for record, _ in caught.value.failures] == [bad]
    assert {version.version_id for version in await backend.list_versions("site", "page")} == {"v1", "v2"}


async def test_get_version_by_version_id_alone(backend: DynamoDBBackend) -> None:
    small, large = make_version("v1", "one"), make_version("v10", "two", markdown=dense_text(200))
    other = make_version("v1", "three", site_id="other")
    for version in (small, large, other):
        await backend.save_version(version)
    assert await backend.find_version("site", "v1") == small
    assert await backend.find_version("site", "v10") == large
    assert await backend.find_version("other", "v1") == other
    assert await backend.find_version("other", "v10") is None
