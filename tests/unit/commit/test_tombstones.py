"""How pages are marked as gone, and what a refusal means; with fakes of the stores."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ragcrawl_dynamo import (
    ChangeKind,
    ConflictError,
    InvalidArgumentError,
    MassDeletionError,
    ServerFaultError,
)
from ragcrawl_dynamo._commit.tombstones import Tombstones
from ragcrawl_dynamo._records.pages import StoredPage
from tests.support.factories import START, make_page
from tests.support.fake_commits import (
    FakeCommits,
    as_stored,
    fake_commits,
    refused,
    writes_of,
)
from tests.support.fakes import client_error
from tests.support.request_parts import condition_of, written_values

STORED = as_stored(make_page(first_seen=START, last_changed=START), order=7)
GONE = as_stored(make_page(first_seen=START, last_changed=START, is_tombstone=True), order=7)


@pytest.fixture
async def commits() -> AsyncIterator[FakeCommits]:
    async with fake_commits() as opened:
        opened.pages.total = 1
        yield opened


async def mark(commits: FakeCommits, *page_ids: str, allow_mass_deletion: bool = True) -> int:
    stores: list[Any] = [commits, commits.pages, commits.log]
    return await Tombstones(*stores).mark("site", page_ids, allow_mass_deletion=allow_mass_deletion)


def lost_answer(request: dict[str, Any]) -> Any:
    """Refuses an update, and returns the page as an attempt without an answer has left it."""
    revision = next(
        value for value in request["ExpressionAttributeValues"].values() if len(value.get("S", "")) == 16
    )
    raise client_error("ConditionalCheckFailedException", Item={"revision": revision})


def another_writer(request: dict[str, Any]) -> Any:
    """Refuses an update, since another writer has changed the page."""
    raise client_error("ConditionalCheckFailedException", Item={"revision": {"S": "theirs"}})


async def test_tombstone_pages_marks_a_page_and_logs_it_in_one_transaction(commits: FakeCommits) -> None:
    commits.pages.stored = STORED
    assert await mark(commits, "page") == 1
    assert commits.pages.reads == [("site", "page")]
    assert commits.log.appended == [("site", "page", ChangeKind.DELETED, 7)]
    writes = writes_of(commits.sent("transact_write_items")[0])
    assert list(writes) == ["page", "change"]
    assert writes["page"]["Key"] == {"site_id": {"S": "site"}, "page_id": {"S": "page"}}
    assert condition_of(writes["page"]) == "revision = before"
    written = written_values(writes["page"])
    assert (written["is_tombstone"], written["change_order"]) == ({"BOOL": True}, {"N": "8"})
    # The moment is that of the log, by which readers resume.
    assert written["last_changed"]["S"].startswith("2026-01-01T00:00:03")
    assert len(written["revision"]["S"]) == 16


async def test_tombstone_pages_leaves_a_tombstone_as_it_is(commits: FakeCommits) -> None:
    """Its `last_changed` says when it has gone, and readers know of it."""
    commits.pages.stored = GONE
    assert await mark(commits, "page") == 1
    assert commits.client.requests == []
    assert commits.log.appended == []


async def test_tombstone_pages_does_not_count_a_page_that_does_not_exist(commits: FakeCommits) -> None:
    commits.pages.stored = StoredPage()
    assert await mark(commits, "page") == 0
    assert commits.client.requests == []


async def test_tombstone_pages_marks_each_page_once(commits: FakeCommits) -> None:
    commits.pages.stored = STORED
    assert await mark(commits, "b", "a", "b") == 2
    assert sorted(commits.pages.reads) == [("site", "a"), ("site", "b")]


async def test_tombstone_pages_marks_eight_pages_at_the_same_time(commits: FakeCommits) -> None:
    running, most = 0, 0

    async def read(site_id: str, page_id: str) -> StoredPage:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return GONE

    commits.pages.read = read  # type: ignore[method-assign] # counts what runs
    assert await mark(commits, *(f"p{i}" for i in range(20))) == 20
    assert most == 8


async def test_tombstone_pages_recognizes_its_transaction_after_an_internal_error_and_a_refusal(
    commits: FakeCommits,
) -> None:
    commits.pages.stored = STORED

    def answer(request: dict[str, Any]) -> Any:
        revision = written_values(writes_of(request)["page"])["revision"]
        return refused(page={"revision": revision})(request)

    commits.answers = [client_error("InternalServerError", 500), answer]
    assert await mark(commits, "page") == 1
    assert len(commits.pages.reads) == 1
    assert commits.log.refusals == []


async def test_tombstone_pages_reads_the_page_again_after_another_writer(commits: FakeCommits) -> None:
    commits.pages.stored = STORED

    def faster(request: dict[str, Any]) -> Any:
        commits.pages.stored = as_stored(make_page(), revision="theirs")
        return refused(page={"revision": {"S": "theirs"}})(request)

    commits.answers = [faster]
    assert await mark(commits, "page") == 1
    writes = writes_of(commits.sent("transact_write_items")[-1])
    assert condition_of(writes["page"]) == "revision = theirs"
    ((site, number, refusal),) = commits.log.refusals
    assert (site, number, refusal.is_refused("page")) == ("site", 1, True)


async def test_tombstone_pages_gives_up_after_six_attempts(commits: FakeCommits) -> None:
    commits.pages.stored = STORED
    commits.answers = [refused(page={"revision": {"S": "theirs"}})] * 6
    with pytest.raises(ConflictError, match=r"^page 'page' of site 'site' was .* 6 times in a row"):
        await mark(commits, "page")
    assert len(commits.sent("transact_write_items")) == 6


async def test_tombstone_pages_succeeds_at_the_sixth_attempt(commits: FakeCommits) -> None:
    commits.pages.stored = STORED
    commits.answers = [refused(page={"revision": {"S": "theirs"}})] * 5
    assert await mark(commits, "page") == 1


# Without a change log.


async def test_tombstone_pages_without_a_log_updates_the_page_only(commits: FakeCommits) -> None:
    commits.pages.stored, commits.log.is_on = STORED, False
    assert await mark(commits, "page") == 1
    (update,) = commits.sent("update_item")
    assert update["TableName"] == "t_pages"
    assert update["Key"] == {"site_id": {"S": "site"}, "page_id": {"S": "page"}}
    assert condition_of(update) == "revision = before"
    written = written_values(update)
    assert sorted(written) == ["is_tombstone", "last_changed", "revision"]
    assert written["is_tombstone"] == {"BOOL": True}


async def test_tombstone_pages_without_a_log_recognizes_its_update_after_an_internal_error_and_a_refusal(
    commits: FakeCommits,
) -> None:
    commits.pages.stored, commits.log.is_on = STORED, False
    commits.answers = [client_error("InternalServerError", 500), lost_answer]
    assert await mark(commits, "page") == 1
    assert len(commits.pages.reads) == 1


async def test_tombstone_pages_without_a_log_reads_the_page_again_after_another_writer(
    commits: FakeCommits,
) -> None:
    commits.pages.stored, commits.log.is_on = STORED, False
    commits.answers = [another_writer]
    assert await mark(commits, "page") == 1
    assert len(commits.pages.reads) == 2


async def test_tombstone_pages_without_an_answer_raises(commits: FakeCommits) -> None:
    commits.pages.stored, commits.log.is_on = STORED, False
    commits.answers = [client_error("InternalServerError", 500)] * 4
    with pytest.raises(ServerFaultError):
        await mark(commits, "page")


# The guard against mistakes.


async def test_tombstone_pages_refuses_more_than_the_allowed_share(commits: FakeCommits) -> None:
    commits.pages.stored, commits.pages.total = STORED, 5
    with pytest.raises(MassDeletionError, match="would delete 3 of 5 pages"):
        await mark(commits, "a", "b", "c", allow_mass_deletion=False)
    # Tombstones are deleted already.
    assert commits.pages.counted == [("site", False)]
    assert commits.pages.reads == []


async def test_tombstone_pages_allows_the_share_itself(commits: FakeCommits) -> None:
    commits.pages.stored, commits.pages.total = STORED, 6
    assert await mark(commits, "a", "b", "c", allow_mass_deletion=False) == 3


async def test_tombstone_pages_counts_a_page_that_is_given_twice_once(commits: FakeCommits) -> None:
    commits.pages.stored, commits.pages.total = STORED, 4
    assert await mark(commits, "a", "b", "a", "b", allow_mass_deletion=False) == 2


async def test_tombstone_pages_on_purpose_does_not_count_the_pages(commits: FakeCommits) -> None:
    commits.pages.stored = STORED
    assert await mark(commits, "a", "b") == 2
    assert commits.pages.counted == []


@pytest.mark.parametrize("page_ids", ["page", [3], None])
async def test_tombstone_pages_refuses_what_is_not_several_texts(commits: FakeCommits, page_ids: Any) -> None:
    stores: list[Any] = [commits, commits.pages, commits.log]
    with pytest.raises(InvalidArgumentError, match=r"^page_ids"):
        await Tombstones(*stores).mark("site", page_ids, allow_mass_deletion=True)
