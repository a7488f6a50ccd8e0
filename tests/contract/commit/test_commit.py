"""One atomic commit per crawled page, through the public methods, on both engines."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from ragcrawl_dynamo import (
    Claim,
    CommitOutcome,
    CommitResult,
    DynamoDBBackend,
    Frontier,
    FrontierStats,
    InvalidArgumentError,
    InvalidValueError,
    LeaseLostError,
    Page,
    PageVersion,
)
from ragcrawl_dynamo.testing import ManualClock
from tests.support.factories import dense_text, make_page, make_version
from tests.support.queues import items, url, urls


def page(**fields: Any) -> Page:
    return make_page("page", **{"status_code": 200, **fields})


def version(version_id: str = "v1", content: str = "a", **fields: Any) -> PageVersion:
    return make_version(version_id, "page", **{"markdown": content, "content_hash": content, **fields})


async def claim_one(frontier: Frontier, number: int = 1) -> Claim:
    await frontier.add([url(number)])
    (claim,) = await frontier.claim(1, lease_seconds=10)
    return claim


async def test_commit_page_saves_page_and_version_and_completes_the_claim(
    backend: DynamoDBBackend, frontier: Frontier, clock: ManualClock
) -> None:
    claim = await claim_one(frontier)
    body = dense_text(30)
    result = await backend.commit_page(
        page(etag="e1"), version(content=body), claim=claim, discovered=urls(3)
    )
    assert result == CommitResult(CommitOutcome.CREATED, "v1")
    stored = await backend.get_page("site", "page")
    assert stored is not None
    assert (stored.version_count, stored.current_version_id, stored.etag) == (1, "v1", "e1")
    assert stored.last_crawled == stored.last_seen == stored.last_changed == clock.now()
    current = await backend.get_current_version("site", "page")
    assert current is not None
    assert current.markdown == body
    stored_items = await items(backend)
    assert stored_items[url(1)].status == "completed"
    assert (stored_items[url(2)].depth, stored_items[url(2)].referrer_url) == (1, "https://example.com/page")
    assert claim.ended
    assert await frontier.stats() == FrontierStats(pending=2, completed=1)


async def test_commit_page_returns_the_outcome_of_each_fetch(
    backend: DynamoDBBackend, clock: ManualClock
) -> None:
    outcomes = []
    moments = []
    for status, content in [
        (200, "a"),
        (200, "a"),
        (304, None),
        (200, "b"),
        (404, None),
        (410, None),
        (200, "b"),
    ]:
        clock.advance(60)
        moments.append(clock.now())
        fetched = None if content is None else version(f"v{len(moments)}", content)
        result = await backend.commit_page(page(status_code=status), fetched)
        outcomes.append((result.outcome.value, result.version_id))
    assert outcomes == [
        ("created", "v1"),
        ("unchanged", "v1"),
        ("unchanged", "v1"),
        ("changed", "v4"),
        ("tombstoned", "v4"),
        ("unchanged", "v4"),
        # Its content is as it was before it went.
        ("revived", "v4"),
    ]
    stored = await backend.get_page("site", "page")
    assert stored is not None
    assert (stored.version_count, stored.is_tombstone, stored.status_code) == (2, False, 200)
    assert stored.last_changed == stored.last_crawled == moments[-1]
    assert {version.version_id for version in await backend.list_versions("site", "page")} == {"v1", "v4"}


async def test_commit_page_computes_the_history_fields_of_the_page(
    backend: DynamoDBBackend, clock: ManualClock
) -> None:
    await backend.commit_page(page(), version())
    first = await backend.get_page("site", "page")
    assert first is not None
    clock.advance(100)
    claimed = page(
        first_seen=first.first_seen + timedelta(days=9), version_count=99, content_hash="x", error_count=3
    )
    await backend.commit_page(claimed, version("v2", "b"))
    stored = await backend.get_page("site", "page")
    assert stored is not None
    assert (stored.first_seen, stored.version_count, stored.content_hash) == (first.first_seen, 2, "b")
    assert stored.error_count == 0


async def test_commit_page_of_unchanged_content_writes_no_body(
    backend: DynamoDBBackend, clock: ManualClock
) -> None:
    await backend.commit_page(page(), version(content=dense_text(40)))
    before = await backend.get_content_usage("site")
    clock.advance(5)
    again = version("v2", dense_text(40))
    assert (await backend.commit_page(page(), again)).outcome is CommitOutcome.UNCHANGED
    assert await backend.get_content_usage("site") == before
    stored = await backend.get_page("site", "page")
    assert stored is not None
    assert stored.last_crawled == clock.now()
    assert stored.last_changed == clock.now() - timedelta(seconds=5)


async def test_commit_page_with_an_expired_lease_writes_nothing(
    backend: DynamoDBBackend, frontier: Frontier, clock: ManualClock
) -> None:
    old = await claim_one(frontier)
    clock.advance(12)
    (new,) = await frontier.claim()
    with pytest.raises(LeaseLostError) as caught:
        await backend.commit_page(page(), version(), claim=old)
    assert caught.value.claims == (old,)
    assert await backend.get_page("site", "page") is None
    assert await backend.get_version("site", "page", "v1") is None
    result = await backend.commit_page(page(), version("v2", "b"), claim=new)
    assert result == CommitResult(CommitOutcome.CREATED, "v2")


async def test_commit_page_repeated_returns_the_same_result_and_counts_once(
    backend: DynamoDBBackend, frontier: Frontier
) -> None:
    claim = await claim_one(frontier)
    first = await backend.commit_page(page(), version(), claim=claim)
    assert await backend.commit_page(page(), version(), claim=claim) == first
    # Even with other content under the same id, and if the page has changed since.
    assert await backend.commit_page(page(), version("v1", "other"), claim=claim) == first
    await backend.commit_page(page(), version("v2", "b"))
    assert await backend.commit_page(page(), version(), claim=claim) == first
    stored = await backend.get_page("site", "page")
    assert stored is not None
    assert (stored.version_count, stored.current_version_id) == (2, "v2")
    assert await frontier.stats() == FrontierStats(completed=1)


async def test_commit_page_refuses_a_claim_that_is_already_completed(
    backend: DynamoDBBackend, frontier: Frontier
) -> None:
    claim = await claim_one(frontier)
    await frontier.complete(claim)
    with pytest.raises(LeaseLostError):
        await backend.commit_page(page(), version(), claim=claim)
    assert await backend.get_page("site", "page") is None


async def test_commit_page_over_a_page_that_save_page_wrote(backend: DynamoDBBackend) -> None:
    await backend.save_version(version())
    await backend.save_page(page(current_version_id="v1", content_hash="a", version_count=1))
    assert (await backend.commit_page(page(), version("v2", "a"))).version_id == "v1"
    assert (await backend.commit_page(page(), version("v2", "b"))).outcome is CommitOutcome.CHANGED
    assert await backend.tombstone_pages("site", ["page"], allow_mass_deletion=True) == 1
    assert (await backend.commit_page(page(), version("v3", "b"))).outcome is CommitOutcome.REVIVED


async def test_commit_page_stores_a_version_that_only_the_page_names(backend: DynamoDBBackend) -> None:
    await backend.save_page(page(current_version_id="never-saved", content_hash="a"))
    assert (await backend.commit_page(page(), version("v1", "a"))).version_id == "v1"
    assert await backend.get_current_version("site", "page") is not None


async def test_commit_page_frees_the_in_flight_slot_of_the_host(
    backend: DynamoDBBackend, frontier: Frontier
) -> None:
    await frontier.set_host_max_in_flight("a.example", 1)
    await frontier.add(urls(2))
    (claim,) = await frontier.claim()
    assert await frontier.claim() == []
    await backend.commit_page(page(), version(), claim=claim)
    assert len(await frontier.claim()) == 1


async def test_commit_page_refuses_arguments_that_do_not_belong_together(
    backend: DynamoDBBackend, frontier: Frontier
) -> None:
    claim = await claim_one(frontier)
    wrong: list[tuple[Page, PageVersion | None, dict[str, Any]]] = [
        (page(), make_version("v1", "other-page"), {}),
        (make_page("page", "other"), None, {"claim": claim}),
        (page(), version(run_id="other"), {"claim": claim}),
        (page(status_code=304), None, {"claim": claim}),
        (page(status_code=404), None, {"discovered": urls(1)}),
    ]
    for one, two, options in wrong:
        with pytest.raises(InvalidArgumentError):
            await backend.commit_page(one, two, **options)
    with pytest.raises(InvalidValueError, match=r"Page\.last_error|PageVersion\.extra"):
        await backend.commit_page(page(), version(extra={"score": float("nan")}), claim=claim)
    assert await backend.get_page("site", "page") is None
    await frontier.complete(claim)


@pytest.mark.parametrize("kilobytes", [0, 30], ids=["body in the head", "body in parts"])
async def test_commit_page_refuses_a_version_id_that_is_in_use_for_other_content(
    backend: DynamoDBBackend, frontier: Frontier, clock: ManualClock, kilobytes: int
) -> None:
    old, new = dense_text(kilobytes, "old"), dense_text(kilobytes, "new")
    await backend.commit_page(page(), version("v1", "first", markdown=old))
    await backend.commit_page(page(), version("v2", "second"))
    cursor = await backend.get_change_cursor("site")
    clock.advance(60)
    claim = await claim_one(frontier)
    before = await backend.get_page("site", "page")
    reused = version("v1", "third", markdown=new)
    with_claim: dict[str, Any] = {"claim": claim, "also": [url(7)]}
    for options in (with_claim, {}):
        with pytest.raises(InvalidArgumentError, match="version: has the version_id 'v1', which is in use"):
            await backend.commit_page(page(), reused, **options)
        with pytest.raises(InvalidArgumentError, match="'v2', which is in use for other content of page"):
            await backend.commit_page(page(), version("v2", "third", markdown=new), **options)
    assert await backend.get_page("site", "page") == before
    assert list(await backend.list_changes("site", cursor=cursor)) == []
    stored = await backend.get_version(site_id="site", page_id="page", version_id="v1")
    assert stored is not None
    assert (stored.content_hash, stored.markdown) == ("first", old)
    versions = await backend.list_versions(site_id="site", page_id="page")
    assert {version.version_id for version in versions} == {"v1", "v2"}
    # The item is leased as before, and can be committed under another id.
    assert not claim.ended
    assert {key: item.status for key, item in (await items(backend)).items()} == {url(1): "in_progress"}
    fresh = version("v3", "third", markdown=new)
    assert await backend.commit_page(page(), fresh, claim=claim) == CommitResult(CommitOutcome.CHANGED, "v3")


@pytest.mark.parametrize("kilobytes", [0, 30], ids=["body in the head", "body in parts"])
async def test_commit_page_accepts_a_version_id_again_for_the_same_content(
    backend: DynamoDBBackend, frontier: Frontier, kilobytes: int
) -> None:
    """An id that is a hash of the content comes again when the content does."""
    body = dense_text(kilobytes)
    await backend.commit_page(page(), version("v1", "first", markdown=body))
    await backend.commit_page(page(), version("v2", "second"))
    claim = await claim_one(frontier)
    again = version("v1", "first", markdown=body)
    assert await backend.commit_page(page(), again, claim=claim) == CommitResult(CommitOutcome.CHANGED, "v1")
    current = await backend.get_current_version("site", "page")
    assert current is not None
    assert (current.version_id, current.markdown) == ("v1", body)
    assert await frontier.stats() == FrontierStats(completed=1)


async def test_commit_page_accepts_one_version_id_for_several_pages_and_sites(
    backend: DynamoDBBackend,
) -> None:
    for page_id, site_id in (("page", "site"), ("other", "site"), ("page", "other-site")):
        content = f"{page_id} of {site_id}"
        result = await backend.commit_page(
            make_page(page_id, site_id, status_code=200),
            make_version("v1", page_id, site_id, content_hash=content, markdown=content),
        )
        assert result == CommitResult(CommitOutcome.CREATED, "v1")
    for page_id, site_id in (("page", "site"), ("other", "site"), ("page", "other-site")):
        stored = await backend.get_current_version(site_id, page_id)
        assert stored is not None
        assert stored.markdown == f"{page_id} of {site_id}"
