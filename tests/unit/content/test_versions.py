"""Saves, reads and deletes versions: what is stored where, and in which order."""

from __future__ import annotations

import threading
from datetime import datetime
from typing import Any

import pytest

from ragcrawl_dynamo import (
    AmbiguousIdError,
    DeadlineExceededError,
    InvalidArgumentError,
    ItemTooLargeError,
    PageVersion,
    PartialBatchError,
    RequestRejectedError,
)
from ragcrawl_dynamo._content import packing, versions
from ragcrawl_dynamo._content.body_items import StoredBody
from ragcrawl_dynamo._content.packing import THREAD_BYTES, Manifest
from ragcrawl_dynamo._dynamodb.codec import to_item
from ragcrawl_dynamo._dynamodb.sizes import MAX_ITEM_BYTES, item_size
from ragcrawl_dynamo._schema.keys import body_location, site_entry, version_key
from ragcrawl_dynamo.testing import ManualClock
from tests.support.factories import START, dense_text, hours, make_page, make_version
from tests.support.fake_content import Content, open_content
from tests.support.fakes import client_error

KEY = version_key("page", "v1", "site")
LARGE = dense_text(5)


def is_inline(head: Any) -> bool:
    return "content" in head


async def padded(content: Content, size: int, **fields: Any) -> PageVersion:
    """A version whose head has that size, its body included, by the length of its title."""
    version = make_version(title="x", **fields)
    manifest, data = packing.pack(version, level=15, max_bytes=2**30)
    extra: Any = {"body": manifest.to_attribute(), "content": {"B": data}, **site_entry(KEY)}
    room = size - item_size(to_item(content.tables.versions, version, extra))
    return make_version(title="x" * (1 + room), **fields)


@pytest.mark.parametrize(
    ("size", "text", "expected"),
    [(4096, "short", True), (4097, "short", False), (4096, dense_text(1), True)],
)
async def test_body_is_in_its_head_while_both_take_4_kb(
    content: Content, size: int, text: str, expected: bool
) -> None:
    head = await content.versions.prepare(await padded(content, size, markdown=text))
    assert is_inline(head) is expected
    assert len(content.bodies) == (not expected)
    assert not expected or item_size(head) == size


@pytest.mark.parametrize(
    ("size", "text", "expected"),
    [
        # The head takes one write unit with its body and without.
        (1024, "short", True),
        (1025, "short", False),
        (2048, "short", True),
        # The head alone takes one write unit, with its body it takes two.
        (1100, dense_text(1), False),
        # The head alone takes five.
        (5100, "short", False),
    ],
)
async def test_body_is_in_the_head_of_a_transaction_if_it_takes_no_further_write_unit(
    content: Content, size: int, text: str, expected: bool
) -> None:
    version = await padded(content, size, markdown=text)
    assert is_inline(await content.versions.prepare(version, in_transaction=True)) is expected


async def test_version_is_in_the_index_once_by_its_head_or_by_its_body(content: Content) -> None:
    small = await content.store(make_version())
    assert small["indexed_site"] == {"S": "site"}
    large = await content.store(make_version(markdown=LARGE))
    assert "indexed_site" not in large
    assert [part["indexed_site"] for part in content.bodies] == [{"S": "site"}]


async def test_prepare_writes_the_body_and_not_the_head(content: Content) -> None:
    version = make_version(markdown=LARGE)
    head = await content.versions.prepare(version)
    assert content.stored.of("versions") == content.bodies
    content.stored.put("versions", head)
    assert await content.versions.get("site", "page", "v1") == version


async def test_prepare_of_the_first_version_of_a_page_searches_no_equal_body(content: Content) -> None:
    await content.versions.prepare(make_version(markdown=LARGE), is_first=True)
    assert "query" not in content.stored.operations
    await content.versions.prepare(make_version("v2", markdown=LARGE))
    assert "query" in content.stored.operations


async def test_version_with_an_equal_body_shares_it(content: Content) -> None:
    first = await content.store(make_version("v1", markdown=LARGE))
    content.stored.will_list([first])
    version = make_version("v2", markdown=LARGE)
    second = await content.store(version)
    assert len(content.bodies) == 1
    assert Manifest.from_attribute(second["body"]).location == body_location(KEY)
    assert second["indexed_site"] == {"S": "site"}
    assert await content.versions.get("site", "page", "v2") == version


async def test_version_shares_the_first_equal_body_that_takes_users(content: Content) -> None:
    owners = [await content.store(make_version(name, markdown=LARGE)) for name in ("v1", "v2")]
    content.stored.will_list(owners)
    content.stored.refusals.append(True)
    third = await content.store(make_version("v3", markdown=LARGE))
    owner = version_key("page", "v2", "site")
    assert Manifest.from_attribute(third["body"]).location == body_location(owner)


async def test_version_stores_its_body_if_no_equal_one_takes_users(content: Content) -> None:
    first = await content.store(make_version("v1", markdown=LARGE))
    content.stored.will_list([first])
    content.stored.refusals.append(True)
    second = await content.store(make_version("v2", markdown=LARGE))
    assert Manifest.from_attribute(second["body"]).location is None
    assert len(content.bodies) == 2


@pytest.mark.parametrize("excess", [0, 1])
async def test_head_that_may_become_too_large_is_refused_before_its_body_is_written(
    content: Content, excess: int
) -> None:
    longest = Manifest(0, 0, bytes(32), 0, body_location(KEY, "x" * 12), "x" * 300)
    extra: Any = {"body": longest.to_attribute(), **site_entry(KEY)}
    fields: dict[str, Any] = {"markdown": LARGE, "title": "x"}
    size = item_size(to_item(content.tables.versions, make_version(**fields), extra))
    fields["title"] += "x" * (MAX_ITEM_BYTES - size + excess)
    if excess:
        with pytest.raises(ItemTooLargeError):
            await content.versions.prepare(make_version(**fields))
        assert content.stored.sent == []
    else:
        await content.versions.prepare(make_version(**fields))


class TimeOfDayClock(ManualClock):
    """A clock whose time of day alone moves: that of a machine that was suspended."""

    def monotonic(self) -> float:
        return 5.0


class MonotonicClock(ManualClock):
    """A clock whose time of day stands still: it was set back meanwhile."""

    def now(self) -> datetime:
        return START


@pytest.mark.parametrize("clock_type", [ManualClock, TimeOfDayClock, MonotonicClock])
@pytest.mark.parametrize(("seconds", "is_late"), [(3600, False), (3601, True)])
async def test_head_is_not_written_an_hour_after_its_body(
    clock_type: type[ManualClock], seconds: float, is_late: bool
) -> None:
    clock = clock_type(START)
    clock.advance(5)
    async with open_content(clock=clock) as content:

        def pass_time(operation: str, request: Any) -> None:
            if operation == "batch_execute_statement":
                clock.advance(seconds)

        content.stored.on_request = pass_time
        save = content.versions.save(make_version(markdown=LARGE), keep_unchanged=True)
        if not is_late:
            assert await save == "v1"
            return
        with pytest.raises(DeadlineExceededError, match="save the version again") as caught:
            await save
        assert (caught.value.code, caught.value.operation) == ("SaveTooSlow", "PutItem")
        assert caught.value.table == "ragcrawl_versions"
        assert content.stored.of("versions") == content.bodies


async def test_save_of_a_version_with_the_content_of_the_current_one_stores_nothing(content: Content) -> None:
    await content.store(make_version("v1"))
    content.store_page(make_page(current_version_id="v1", content_hash="c0ffee"))
    assert await content.versions.save(make_version("v2")) == "v1"
    assert len(content.stored.of("versions")) == 1
    assert await content.versions.save(make_version("v2"), keep_unchanged=True) == "v2"
    assert len(content.stored.of("versions")) == 2


@pytest.mark.parametrize(
    "page",
    [
        None,
        {"page_id": "other", "current_version_id": "v1", "content_hash": "c0ffee"},
        {"site_id": "other", "current_version_id": "v1", "content_hash": "c0ffee"},
        {"current_version_id": None, "content_hash": "c0ffee"},
        {"current_version_id": "v1", "content_hash": "other"},
        # Such a version was never saved.
        {"current_version_id": "v0", "content_hash": "c0ffee"},
        # The version that is saved again.
        {"current_version_id": "v2", "content_hash": "c0ffee"},
        # The page says other than the version itself.
        {"current_version_id": "v3", "content_hash": "c0ffee"},
    ],
)
async def test_save_of_a_version_with_other_content_than_the_current_one_stores_it(
    content: Content, page: dict[str, Any] | None
) -> None:
    await content.store(make_version("v1"))
    await content.store(make_version("v2"))
    await content.store(make_version("v3", content_hash="decaf"))
    if page is not None:
        content.store_page(make_page(**page))
    assert await content.versions.save(make_version("v2", title="again")) == "v2"
    (stored,) = [item for item in content.stored.of("versions") if item.get("title") == {"S": "again"}]
    assert stored["version_key"] == KEY["version_key"] | {"S": "v2#site#"}


async def test_save_refuses_what_is_no_version(content: Content) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^version: "):
        await content.versions.save(make_page())  # type: ignore[arg-type] # a caller may be untyped
    with pytest.raises(InvalidArgumentError, match=r"^versions\b"):
        await content.versions.save_bulk([make_page()])  # type: ignore[list-item] # as above
    assert content.stored.sent == []


async def test_save_bulk_stores_the_last_one_of_versions_with_one_key(content: Content) -> None:
    several = [make_version(f"v{i % 2}", title=str(i)) for i in range(4)]
    assert await content.versions.save_bulk(several, keep_unchanged=True) == 2
    assert [item["title"]["S"] for item in content.stored.of("versions")] == ["2", "3"]


async def test_save_bulk_writes_25_heads_a_request(content: Content) -> None:
    several = [make_version(f"v{i}") for i in range(60)]
    assert await content.versions.save_bulk(several, keep_unchanged=True) == 60
    assert [len(sent.batch) for sent in content.stored.sent] == [25, 25, 10]


async def test_save_bulk_leaves_out_unchanged_versions(content: Content) -> None:
    await content.store(make_version("v1"))
    content.store_page(make_page(current_version_id="v1", content_hash="c0ffee"))
    several = [make_version("v2"), make_version("v3", content_hash="decaf")]
    assert await content.versions.save_bulk(several) == 1
    assert [item["version_key"]["S"] for item in content.stored.of("versions")] == ["v1#site#", "v3#site#"]
    assert await content.versions.save_bulk(several, keep_unchanged=True) == 2


async def test_save_bulk_leaves_out_unchanged_versions_beside_those_of_new_pages(content: Content) -> None:
    await content.store(make_version("v1"))
    content.store_page(make_page(current_version_id="v1", content_hash="c0ffee"))
    assert await content.versions.save_bulk([make_version(page_id="new"), make_version("v2")]) == 1


async def test_save_bulk_names_the_versions_that_cannot_be_stored(content: Content) -> None:
    good, bad, odd = make_version("v1"), make_version("v2", title="x" * 500_000), make_version("v#" * 600)
    with pytest.raises(PartialBatchError) as caught:
        await content.versions.save_bulk([good, bad, odd])
    assert caught.value.saved == 1
    assert [version for version, _ in caught.value.failures] == [bad, odd]
    assert len(content.stored.of("versions")) == 1


async def test_save_bulk_names_the_versions_that_were_not_written(content: Content) -> None:
    def refuse(operation: str, request: Any) -> None:
        if operation == "batch_write_item":
            raise client_error("ValidationException")

    content.stored.on_request = refuse
    several = [make_version("v1"), make_version("v2")]
    with pytest.raises(PartialBatchError) as caught:
        await content.versions.save_bulk(several)
    assert caught.value.saved == 0
    assert [version for version, _ in caught.value.failures] == several
    assert all(isinstance(error, RequestRejectedError) for _, error in caught.value.failures)


async def test_save_bulk_compares_versions_of_ids_that_cannot_be_keys_with_no_page(content: Content) -> None:
    with pytest.raises(PartialBatchError) as caught:
        await content.versions.save_bulk([make_version(page_id="p" * 2000), make_version()])
    assert caught.value.saved == 1


@pytest.mark.parametrize(
    ("fields", "in_loop"),
    [
        ({"markdown": "x" * THREAD_BYTES}, True),
        ({"markdown": "x" * (THREAD_BYTES + 1)}, False),
        ({"markdown": "x" * THREAD_BYTES, "html": "y"}, False),
        ({"markdown": "x" * THREAD_BYTES, "plain_text": "y"}, False),
        ({"markdown": "x" * (THREAD_BYTES - 64), "outlinks": ["link"]}, True),
        ({"markdown": "x" * (THREAD_BYTES - 63), "outlinks": ["link"]}, False),
        ({"markdown": "x" * (THREAD_BYTES - 128), "outlinks": ["link"], "headings_outline": [{}]}, True),
        ({"markdown": "x" * (THREAD_BYTES - 127), "outlinks": ["link"], "headings_outline": [{}]}, False),
    ],
)
async def test_large_body_is_packed_outside_of_the_event_loop(
    content: Content, fields: dict[str, Any], in_loop: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    def pack(version: PageVersion, **options: Any) -> Any:
        threads.append(threading.get_ident())
        return packing.pack(version, **options)

    monkeypatch.setattr(versions, "pack", pack)
    await content.versions.prepare(make_version(**fields))
    assert (threads == [threading.get_ident()]) is in_loop


@pytest.mark.parametrize("size", [100, 2 * THREAD_BYTES])
async def test_body_is_packed_with_the_settings(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    options: list[Any] = []

    def pack(version: PageVersion, **settings: Any) -> Any:
        options.append(settings)
        return packing.pack(version, **settings)

    monkeypatch.setattr(versions, "pack", pack)
    async with open_content(compression_level=3, max_content_bytes=123_456) as content:
        await content.versions.prepare(make_version(markdown="x" * size))
    assert options == [{"level": 3, "max_bytes": 123_456}]


async def test_get_without_a_site_finds_the_version_of_any_site(content: Content) -> None:
    version = make_version(site_id="somewhere")
    content.stored.will_list([await content.store(version)])
    assert await content.versions.get(None, "page", "v1") == version
    (sent,) = content.stored.sent
    assert sent.text("KeyCondition") == "(page_id = 'page') AND (begins_with(version_key, 'v1#'))"
    assert sent.request["Limit"] == 2
    assert await content.versions.get(None, "page", "v2") is None


async def test_get_without_a_site_refuses_an_id_of_two_sites(content: Content) -> None:
    heads = [await content.store(make_version(site_id=site)) for site in ("one", "two")]
    content.stored.will_list(heads)
    with pytest.raises(AmbiguousIdError, match=r"'v1' of page 'page' is in use in several sites"):
        await content.versions.get(None, "page", "v1")


async def test_get_current_returns_the_version_that_the_page_names(content: Content) -> None:
    version = make_version("v1")
    await content.store(version)
    await content.store(make_version("v2"))
    assert await content.versions.get_current("site", "page") is None
    content.store_page(make_page())
    assert await content.versions.get_current("site", "page") is None
    content.store_page(make_page(current_version_id="v1"))
    assert await content.versions.get_current("site", "page") == version
    content.store_page(make_page(current_version_id="v3"))
    assert await content.versions.get_current("site", "page") is None


async def test_find_goes_through_the_versions_of_a_site_by_heads_and_bodies(content: Content) -> None:
    large = make_version("v1", page_id="large", markdown=LARGE)
    small = make_version("v1", page_id="small")
    await content.store(large)
    await content.store(small)
    (part,) = content.bodies
    gone = version_key("gone", "v1", "site")
    content.stored.will_list_site([gone, version_key("small", "v1", "site")])
    assert await content.versions.find("site", "v1") == small
    content.stored.will_list_site([gone, part], most=1)
    assert await content.versions.find("site", "v1") == large
    assert await content.versions.find("site", "v1") is None
    query = content.stored.sent[0]
    assert query.text("KeyCondition") == "(indexed_site = 'site')"
    assert query.text("Filter") == "begins_with(version_key, 'v1#')"
    assert query.request["IndexName"] == "by_site"


@pytest.mark.parametrize("ids", [{"site_id": 5, "version_id": "v1"}, {"site_id": "site", "version_id": 5}])
async def test_find_refuses_ids_that_are_not_texts(content: Content, ids: dict[str, Any]) -> None:
    name = next(name for name, value in ids.items() if value == 5)
    with pytest.raises(InvalidArgumentError, match=f"^{name}: "):
        await content.versions.find(**ids)


@pytest.mark.parametrize("include_content", [True, False])
async def test_listing_has_versions_with_content_if_asked_for(
    content: Content, include_content: bool
) -> None:
    several = [
        make_version(f"v{i}", crawled_at=START - hours(i), markdown=LARGE if i else "small") for i in range(3)
    ]
    heads = [await content.store(version) for version in several]
    content.stored.will_list(heads)
    listed = await content.versions.listing("site", "page", 2, None, include_content)
    expected = several if include_content else [v.model_copy(update={"markdown": ""}) for v in several]
    assert list(listed) == expected[:2]
    assert listed.cursor is not None
    content.stored.will_list(heads)
    rest = await content.versions.listing("site", "page", 2, listed.cursor, include_content)
    assert list(rest) == expected[2:]
    assert rest.cursor is None
    query = content.stored.sent[0]
    assert query.text("Filter") == "site_id = 'site'"
    with_content = "ProjectionExpression" not in query.request
    assert with_content is include_content


async def test_iterate_current_leaves_out_pages_whose_version_is_absent(content: Content) -> None:
    for page_id in ("one", "three"):
        await content.store(make_version(page_id=page_id))
    names = [{"page_id": {"S": name}, "current_version_id": {"S": "v1"}} for name in ("one", "two", "three")]
    content.stored.will_list(names)
    current = [version async for version in content.versions.iterate_current("site")]
    assert [version.page_id for version in current] == ["one", "three"]


async def test_content_hashes_are_those_of_the_versions_that_exist(content: Content) -> None:
    await content.store(make_version("v1"))
    hashes = await content.versions.content_hashes([("page", "v1", "site"), ("page", "v2", "site")])
    assert hashes == {("page", "v1", "site"): "c0ffee"}
    (read,) = content.stored.sent
    names = set(read.batch["ExpressionAttributeNames"].values())
    assert names == {"page_id", "version_key", "content_hash"}


async def test_delete_of_a_version_with_a_small_body_is_one_request(content: Content) -> None:
    await content.store(make_version())
    assert await content.versions.delete(KEY)
    assert content.stored.operations == ["delete_item"]
    assert not await content.versions.delete(KEY)
    assert content.stored.of("versions") == []


async def test_delete_of_a_version_removes_its_head_before_its_body(content: Content) -> None:
    head = await content.store(make_version(markdown=LARGE))
    body = StoredBody.of_head(KEY, Manifest.from_attribute(head["body"]))
    assert await content.versions.delete(KEY)
    assert content.stored.operations[:2] == ["delete_item", "update_item"]
    assert content.stored.sent[1].request["Key"] == body.id.users_key
    assert content.stored.of("versions") == []


async def test_delete_of_a_version_leaves_a_body_that_others_use(content: Content) -> None:
    await content.store(make_version(markdown=LARGE))
    content.stored.refusals += [True, False, True]
    assert await content.versions.delete(KEY)
    assert content.stored.sent[2].text("Update") == "DELETE users ['v1#site#']"
    assert content.stored.of("versions") == content.bodies
    assert len(content.bodies) == 1
