from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ragcrawl_dynamo import (
    DynamoDBBackend,
    DynamoDBConfig,
    InvalidArgumentError,
    InvalidCursorError,
    InvalidKeyError,
    MassDeletionError,
    Page,
    PartialBatchError,
)
from ragcrawl_dynamo._records.pages import PageStore
from ragcrawl_dynamo._utils.concurrency import PER_TURN
from ragcrawl_dynamo.testing import ManualClock
from tests.support.factories import START, hours, make_page
from tests.support.fakes import intercepting
from tests.support.slices import all_slices
from tests.support.turns import counting_turns

LONG_URL = "https://example.com/search?q=" + "x" * 3000


async def test_get_page_returns_what_save_page_stored(backend: DynamoDBBackend) -> None:
    page = make_page(
        canonical_url="https://example.com/",
        etag='W/"x"',
        last_error="",
        last_crawled=datetime(2026, 3, 29, 2, 30, 0, 123456),
        depth=3,
        status_code=200,
        is_tombstone=True,
    )
    await backend.save_page(page)
    assert await backend.get_page("site", "page") == page


async def test_get_page_of_an_absent_page_is_none(backend: DynamoDBBackend) -> None:
    assert await backend.get_page("site", "page") is None
    assert await backend.get_page_by_url("site", "https://example.com/page") is None


async def test_get_pages_bulk_keeps_the_order_of_the_ids(backend: DynamoDBBackend) -> None:
    pages = {f"p{i}": make_page(f"p{i}") for i in range(230)}
    await backend.save_pages_bulk([*pages.values(), make_page("other", "other")])
    ids = [f"p{i}" for i in range(229, -1, -2)]
    stored = await backend.get_pages_bulk("site", iter([*ids, "absent", "other", ids[0]]))
    assert stored == [pages[page_id] for page_id in ids]
    assert await backend.get_pages_bulk("site", []) == []
    with pytest.raises(InvalidKeyError, match="page_id"):
        await backend.get_pages_bulk("site", ["p1", ""])
    with pytest.raises(InvalidArgumentError, match="page_ids: must be a collection, not a str"):
        await backend.get_pages_bulk("site", "p1")


@pytest.mark.parametrize("page_id", ["a#b", "a/b c", "~1", "🕷️", "x" * 1024])
async def test_page_id_may_hold_any_character(backend: DynamoDBBackend, page_id: str) -> None:
    page = make_page(page_id, "site #1")
    await backend.save_page(page)
    assert await backend.get_page("site #1", page_id) == page
    assert await backend.list_pages("site #1") == [page]


async def test_get_page_by_url_with_a_url_longer_than_a_key(backend: DynamoDBBackend) -> None:
    page = make_page(url=LONG_URL)
    other = make_page("other", url=LONG_URL + "y")
    await backend.save_pages_bulk([page, other])
    assert await backend.get_page_by_url("site", LONG_URL) == page
    assert await backend.get_page_by_url("site", LONG_URL + "y") == other


async def test_get_page_by_url_with_any_spelling_of_the_url(backend: DynamoDBBackend) -> None:
    page = make_page(url="https://example.com/a?x=1&y=2")
    await backend.save_page(page)
    assert await backend.get_page_by_url("site", "HTTPS://example.com/a?y=2&x=1#top") == page


@pytest.mark.parametrize(
    "url", ["/about", "", "mailto:a@b", "http:/x", "http://[", "file:///etc/hosts", "a\nb"]
)
async def test_get_page_by_url_with_a_url_that_no_frontier_takes(backend: DynamoDBBackend, url: str) -> None:
    page = make_page(url=url)
    await backend.save_page(page)
    assert await backend.get_page_by_url("site", url) == page
    assert await backend.mark_seen("site", [url]) == 1


async def test_get_page_by_url_after_the_url_moved_to_another_page(backend: DynamoDBBackend) -> None:
    await backend.save_page(make_page("old", url="https://example.com/a"))
    await backend.save_page(make_page("old", url="https://example.com/b"))
    assert await backend.get_page_by_url("site", "https://example.com/a") is None
    moved = await backend.get_page_by_url("site", "https://example.com/b")
    assert moved is not None
    assert moved.page_id == "old"


async def test_mark_seen_does_not_mark_a_page_that_a_late_index_shows_under_its_former_url(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    old, new = "https://example.com/a", "https://example.com/b"
    await backend.save_pages_bulk([make_page("p1", url=old), make_page("p2", url=old)])
    moved = make_page("p1", url=new)
    answers: list[Any] = []

    async def late(operation: str, request: Any, call: Any) -> Any:
        if operation != "query" or request.get("IndexName") != "by_url":
            return await call(**request)
        answers.append(await call(**request))
        await backend.save_page(moved)
        return answers[0]

    clock = ManualClock(datetime(2040, 1, 1, tzinfo=UTC))
    async with DynamoDBBackend(dynamodb_config, clock=clock, client_factory=intercepting(late)) as other:
        assert await other.mark_seen("site", [old]) == 1
        # A page that was seen later is left as it is, and has the URL.
        clock.advance(-100)
        assert await other.mark_seen("site", [old]) == 1
    assert await backend.get_page("site", "p1") == moved
    seen = await backend.get_page("site", "p2")
    assert seen is not None
    assert seen.last_seen == datetime(2040, 1, 1, tzinfo=UTC)
    assert await backend.mark_seen("site", [old, new]) == 2


async def test_save_page_with_the_same_page_id_in_two_sites(backend: DynamoDBBackend) -> None:
    one = make_page("same", "one", url="https://example.com/", depth=1)
    two = make_page("same", "two", url="https://example.com/", depth=2)
    await backend.save_pages_bulk([one, two])
    assert await backend.get_page("one", "same") == one
    assert await backend.get_page_by_url("one", "https://example.com/") == one
    assert await backend.get_page_by_url("two", "https://example.com/") == two
    assert await backend.list_pages("two") == [two]


async def test_save_pages_bulk_keeps_the_last_of_each_key_and_counts_keys(backend: DynamoDBBackend) -> None:
    pages = [make_page(f"p{i % 40}", depth=i) for i in range(70)]
    assert await backend.save_pages_bulk(iter(pages)) == 40
    depths = {page.page_id: page.depth for page in await backend.list_pages("site")}
    assert depths == {page.page_id: page.depth for page in pages}
    assert await backend.save_pages_bulk([]) == 0


async def test_save_pages_bulk_stores_the_valid_pages_and_names_the_others(backend: DynamoDBBackend) -> None:
    good = [make_page(f"good{i}") for i in range(30)]
    no_id, too_large = make_page(""), make_page("large", last_error="x" * 500_000)
    with pytest.raises(PartialBatchError, match="30 items saved, 2 not") as caught:
        await backend.save_pages_bulk([no_id, *good, too_large])
    assert caught.value.saved == 30
    reasons = [(page, type(error).__name__) for page, error in caught.value.failures]
    assert reasons == [(no_id, "InvalidKeyError"), (too_large, "ItemTooLargeError")]
    assert await backend.count_pages("site") == 30


async def test_list_pages_in_id_order_without_tombstones(
    backend: DynamoDBBackend,
) -> None:
    pages = [make_page(f"p{i:03}", is_tombstone=i % 3 == 0) for i in range(40)]
    await backend.save_pages_bulk(reversed(pages))
    alive = [page for page in pages if not page.is_tombstone]
    assert await backend.list_pages("site") == alive
    assert await backend.list_pages("site", include_tombstones=True) == pages
    assert [page async for page in backend.iter_pages("site")] == alive
    assert [page async for page in backend.iter_pages("site", include_tombstones=True)] == pages
    assert await backend.count_pages("site") == len(alive)
    assert await backend.count_pages("site", include_tombstones=True) == 40


async def test_list_pages_limit_counts_returned_pages(backend: DynamoDBBackend) -> None:
    pages = [make_page(f"p{i:03}", is_tombstone=i % 10 != 9) for i in range(100)]
    await backend.save_pages_bulk(pages)
    slices = await all_slices(lambda cursor: backend.list_pages("site", limit=4, cursor=cursor))
    assert [page for part in slices for page in part] == pages[9::10]
    assert [len(part) for part in slices] == [4, 4, 2]


async def test_list_pages_refuses_a_cursor_of_another_listing(backend: DynamoDBBackend) -> None:
    await backend.save_pages_bulk([make_page("p1"), make_page("p2")])
    cursor = (await backend.list_pages("site", limit=1)).cursor
    assert cursor is not None
    assert [page.page_id for page in await backend.list_pages("site", cursor=cursor)] == ["p2"]
    with pytest.raises(InvalidCursorError, match="another listing"):
        await backend.list_pages("other", cursor=cursor)
    with pytest.raises(InvalidCursorError, match="damaged"):
        await backend.list_pages("site", cursor=cursor[:-3])


async def test_get_pages_needing_recrawl_lists_never_crawled_pages_first_then_the_oldest(
    backend: DynamoDBBackend,
) -> None:
    now = datetime.now(UTC)
    ages: list[float | None] = [5, None, 48, 1, None, 30, 24.5]
    await backend.save_pages_bulk(
        make_page(f"p{i}", last_crawled=None if age is None else now - hours(age))
        for i, age in enumerate(ages)
    )
    await backend.save_page(make_page("dead", is_tombstone=True))

    async def due(**options: float) -> list[str]:
        pages = await backend.get_pages_needing_recrawl("site", **options)  # type: ignore[arg-type] # limit is an int
        return [page.page_id for page in pages]

    assert await due() == ["p1", "p4", "p2", "p5", "p6", "p0", "p3"]
    assert await due(max_age_hours=24) == ["p1", "p4", "p2", "p5", "p6"]
    assert await due(max_age_hours=24, limit=3) == ["p1", "p4", "p2"]
    assert await due(max_age_hours=10**12) == ["p1", "p4"]


@pytest.mark.parametrize(
    ("options", "field"),
    [({"max_age_hours": -1}, "max_age_hours"), ({"max_age_hours": float("nan")}, "max_age_hours"),
     ({"limit": 0}, "limit")],
)  # fmt: skip
async def test_get_pages_needing_recrawl_refuses_invalid_arguments(
    backend: DynamoDBBackend, options: dict[str, float], field: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=field):
        await backend.get_pages_needing_recrawl("site", **options)  # type: ignore[arg-type] # on purpose


async def test_get_pages_needing_recrawl_goes_by_the_clock_of_the_backend(
    backend: DynamoDBBackend, dynamodb_config: DynamoDBConfig
) -> None:
    clock = ManualClock()
    await backend.save_page(make_page("p", last_crawled=clock.now()))
    async with DynamoDBBackend(dynamodb_config, clock=clock) as later:
        assert await later.get_pages_needing_recrawl("site", max_age_hours=24) == []
        clock.advance(25 * 3600)
        pages = await later.get_pages_needing_recrawl("site", max_age_hours=24)
    assert [page.page_id for page in pages] == ["p"]


async def test_iter_pages_left_early_leaves_no_task(backend: DynamoDBBackend) -> None:
    await backend.save_pages_bulk(make_page(f"p{i}") for i in range(30))
    iterator = backend.iter_pages("site")
    async for page in iterator:
        assert page.first_seen > START - timedelta(days=1)
        break
    await iterator.aclose()  # type: ignore[attr-defined] # an async generator


async def test_tombstone_pages_marks_existing_pages_and_refuses_most_of_a_site(
    backend: DynamoDBBackend,
) -> None:
    await backend.save_pages_bulk(make_page(f"p{i}") for i in range(10))
    assert await backend.tombstone_pages("site", ["p1", "p2", "p2", "nobody"]) == 2
    assert await backend.count_pages("site") == 8
    assert await backend.get_page("site", "nobody") is None
    with pytest.raises(MassDeletionError, match=r"5 of 8 pages, more than max_deleted_share = 0\.5"):
        await backend.tombstone_pages("site", [f"p{i}" for i in range(3, 8)])
    assert await backend.count_pages("site") == 8
    assert await backend.tombstone_pages("site", [f"p{i}" for i in range(10)], allow_mass_deletion=True) == 10
    assert await backend.count_pages("site") == 0
    assert await backend.count_pages("site", include_tombstones=True) == 10


@pytest.mark.parametrize("read", ["get_pages_bulk", "list_pages", "iter_pages"])
async def test_reads_of_many_pages_let_other_tasks_run(
    backend: DynamoDBBackend, read: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    page_ids = [f"p{i:03}" for i in range(3 * PER_TURN)]
    await backend.save_pages_bulk(make_page(page_id) for page_id in page_ids)
    turn_of: dict[str, int] = {}

    def decode(store: PageStore, item: Any) -> Page:
        page = decode_page(store, item)
        turn_of[page.page_id] = turns.count
        return page

    decode_page = PageStore._decode
    monkeypatch.setattr(PageStore, "_decode", decode)
    async with counting_turns() as turns:
        match read:
            case "get_pages_bulk":
                pages: list[Page] = await backend.get_pages_bulk("site", page_ids)
            case "list_pages":
                pages = await backend.list_pages("site", limit=1000)
            case _:
                pages = [page async for page in backend.iter_pages("site")]
    assert [page.page_id for page in pages] == page_ids
    assert set(Counter(turn_of.values()).values()) == {PER_TURN}
