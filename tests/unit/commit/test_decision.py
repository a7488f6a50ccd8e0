"""The decisions of a commit: each kind of answer, for each state of the stored page."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from ragcrawl_dynamo import (
    ChangeKind,
    CommitOutcome,
    CommitResult,
    FrontierStatus,
    InvalidArgumentError,
    Page,
    PageVersion,
    ResponseKind,
)
from ragcrawl_dynamo._commit.decision import Decision, decide, error_of, kind_of
from tests.support.factories import START, make_page, make_version

CONTENT, NOT_MODIFIED, MOVED, REDIRECTED, GONE, DENIED, FAILED = ResponseKind
TARGET = "https://example.com/target"
OLD_TARGET = "https://example.com/old-target"
NOW = START + timedelta(days=9)

# The states of a stored page.
_CRAWLED: dict[str, Any] = {
    "first_seen": START,
    "last_seen": START + timedelta(days=1),
    "last_crawled": START + timedelta(days=1),
    "last_changed": START + timedelta(hours=1),
    "etag": "old etag",
    "depth": 2,
}
_CONTENT: dict[str, Any] = {"current_version_id": "v1", "content_hash": "one", "version_count": 3}
STORED: dict[str, Page | None] = {
    "new": None,
    "recorded": make_page("page", first_seen=START),
    "content": make_page("page", **_CRAWLED, **_CONTENT, status_code=200),
    "with errors": make_page(
        "page", **_CRAWLED, **_CONTENT, status_code=500, error_count=4, last_error="HTTP 500"
    ),
    "gone": make_page("page", **_CRAWLED, **_CONTENT, status_code=404, is_tombstone=True),
    "never there": make_page("page", **_CRAWLED, status_code=404, is_tombstone=True),
    "moved": make_page(
        "page", **_CRAWLED, **_CONTENT, status_code=301, is_tombstone=True, redirect_url=OLD_TARGET
    ),
    "alias": make_page("page", **_CRAWLED, status_code=302, is_tombstone=True, redirect_url=OLD_TARGET),
    "redirected": make_page("page", **_CRAWLED, **_CONTENT, status_code=302, redirect_url=OLD_TARGET),
}
# States in which readers of the change feed have content of the page.
ALIVE = {"content", "with errors", "redirected"}
# States in which a 304 can confirm the stored content.
WITH_CONTENT = {*ALIVE, "gone", "moved"}

# A status of each kind.
STATUSES: dict[ResponseKind, int | None] = {
    CONTENT: 200,
    NOT_MODIFIED: 304,
    MOVED: 301,
    REDIRECTED: 302,
    GONE: 404,
    DENIED: 403,
    FAILED: 503,
}

states = pytest.mark.parametrize("state", STORED)


def fetched(kind: ResponseKind, **fields: Any) -> Page:
    """The page as a fetch found it, with fields that a crawler may fill wrongly."""
    wrong = {
        "first_seen": START - timedelta(days=99),
        "version_count": 77,
        "current_version_id": "wrong",
        "content_hash": "wrong",
        "error_count": 88,
        "last_changed": START - timedelta(days=99),
        # Perhaps the crawler had read the page before it fetched it.
        "redirect_url": TARGET if kind in (MOVED, REDIRECTED) else OLD_TARGET,
    }
    return make_page("page", **{"status_code": STATUSES[kind], "depth": 5, **wrong, **fields})


def decided(
    state: str, kind: ResponseKind, version: PageVersion | None = None, **fields: Any
) -> tuple[Decision, Page | None]:
    """The decision, and the page as it was stored before."""
    stored = STORED[state]
    return decide(stored, fetched(kind, **fields), version, kind, NOW), stored


def kept(page: Page | None) -> dict[str, Any]:
    """The fields of a page that no answer without content changes."""
    names = ("version_count", "current_version_id", "content_hash")
    return {name: getattr(page, name) if page else make_page().__dict__[name] for name in names}


def check_fresh(decision: Decision, stored: Page | None, status: int, answer: int | None = None) -> None:
    """The server has answered for the page just now, with its status or another one."""
    page = decision.page
    assert decision.is_stored
    assert decision.status == (answer or status)
    assert (page.status_code, page.last_seen, page.last_crawled) == (status, NOW, NOW)
    assert (page.error_count, page.last_error) == (0, None)
    assert page.first_seen == (stored.first_seen if stored else START - timedelta(days=99))


def check_changed(decision: Decision, stored: Page | None, change: ChangeKind | None) -> None:
    """A change is in the feed, and its moment in the page, or neither."""
    assert decision.change is change
    before = stored.last_changed if stored else None
    assert decision.page.last_changed == (before if change is None else NOW)


@pytest.mark.parametrize(
    ("state", "same", "outcome", "change"),
    [
        ("new", False, CommitOutcome.CREATED, ChangeKind.CREATED),
        ("recorded", False, CommitOutcome.CHANGED, ChangeKind.CHANGED),
        ("content", False, CommitOutcome.CHANGED, ChangeKind.CHANGED),
        ("content", True, CommitOutcome.UNCHANGED, None),
        ("with errors", False, CommitOutcome.CHANGED, ChangeKind.CHANGED),
        ("with errors", True, CommitOutcome.UNCHANGED, None),
        ("gone", False, CommitOutcome.REVIVED, ChangeKind.CREATED),
        ("gone", True, CommitOutcome.REVIVED, ChangeKind.CREATED),
        ("never there", False, CommitOutcome.CREATED, ChangeKind.CREATED),
        ("moved", False, CommitOutcome.REVIVED, ChangeKind.CREATED),
        ("moved", True, CommitOutcome.REVIVED, ChangeKind.CREATED),
        ("alias", False, CommitOutcome.CREATED, ChangeKind.CREATED),
        ("redirected", False, CommitOutcome.CHANGED, ChangeKind.CHANGED),
        ("redirected", True, CommitOutcome.UNCHANGED, None),
    ],
)
def test_decide_content(state: str, same: bool, outcome: CommitOutcome, change: ChangeKind | None) -> None:
    content_hash = "one" if same else "two"
    version = make_version("v2", content_hash=content_hash, status_code=206)
    decision, stored = decided(state, CONTENT, version, etag="new etag")
    page = decision.page
    assert decision.outcome is outcome
    assert decision.writes_version == (not same)
    check_changed(decision, stored, change)
    # The status is that of the version.
    check_fresh(decision, stored, 206)
    assert (page.is_tombstone, page.redirect_url, page.depth, page.etag) == (False, None, 5, "new etag")
    versions_before = stored.version_count if stored else 0
    assert page.version_count == versions_before + (not same)
    assert (page.current_version_id, page.content_hash) == (("v1", "one") if same else ("v2", "two"))
    assert decision.result == CommitResult(outcome, page.current_version_id)
    assert decision.item_status is FrontierStatus.COMPLETED


@pytest.mark.parametrize("with_version", [False, True])
@states
def test_decide_not_modified(state: str, with_version: bool) -> None:
    # A text that comes with a 304 is not the content of the page.
    version = make_version("v2", content_hash="two", status_code=304) if with_version else None
    if state not in WITH_CONTENT:
        with pytest.raises(
            InvalidArgumentError, match="page: has status 304, but no content of page 'page' is stored"
        ):
            decided(state, NOT_MODIFIED, version)
        return
    decision, stored = decided(state, NOT_MODIFIED, version, last_modified="today")
    is_revived = state in ("gone", "moved")
    assert decision.outcome is (CommitOutcome.REVIVED if is_revived else CommitOutcome.UNCHANGED)
    check_changed(decision, stored, ChangeKind.CREATED if is_revived else None)
    # The status is that of the content, and never that of an error before.
    check_fresh(decision, stored, 200, answer=304)
    assert not decision.writes_version
    assert kept(decision.page) == kept(stored)
    assert (decision.page.is_tombstone, decision.page.redirect_url) == (False, None)
    # The answer has no etag: the page keeps the etag of its content.
    assert (decision.page.etag, decision.page.last_modified) == ("old etag", "today")
    assert decision.item_status is FrontierStatus.COMPLETED


@pytest.mark.parametrize(("before", "after"), [(206, 206), (299, 299), (300, 200), (503, 200), (None, 200)])
def test_decide_not_modified_keeps_the_status_of_the_content(before: int | None, after: int) -> None:
    stored = make_page("page", **_CRAWLED, **_CONTENT, status_code=before)
    decision = decide(stored, fetched(NOT_MODIFIED), None, NOT_MODIFIED, NOW)
    assert (decision.page.status_code, decision.status) == (after, 304)


@states
def test_decide_gone(state: str) -> None:
    decision, stored = decided(state, GONE, make_version("v2", content_hash="two", status_code=404))
    was_gone = stored is not None and stored.is_tombstone
    assert decision.outcome is (CommitOutcome.UNCHANGED if was_gone else CommitOutcome.TOMBSTONED)
    check_changed(decision, stored, None if was_gone else ChangeKind.DELETED)
    check_fresh(decision, stored, 404)
    assert not decision.writes_version
    assert kept(decision.page) == kept(stored)
    assert (decision.page.is_tombstone, decision.page.redirect_url) == (True, None)
    assert decision.item_status is FrontierStatus.COMPLETED


@pytest.mark.parametrize("with_version", [False, True])
@pytest.mark.parametrize("kind", [MOVED, REDIRECTED])
@states
def test_decide_redirect(state: str, kind: ResponseKind, with_version: bool) -> None:
    status = STATUSES[kind]
    assert status is not None
    if with_version:
        decision, stored = decided(state, kind, make_version("v2", status_code=status), status_code=None)
    else:
        decision, stored = decided(state, kind)
    page = decision.page
    assert decision.outcome is CommitOutcome.REDIRECTED
    is_deleted = kind is MOVED and state in ALIVE
    check_changed(decision, stored, ChangeKind.DELETED if is_deleted else None)
    check_fresh(decision, stored, status)
    assert not decision.writes_version
    assert kept(page) == kept(stored)
    assert page.redirect_url == TARGET
    # Only content that the redirect leaves for now keeps a page alive.
    assert page.is_tombstone == (not (kind is REDIRECTED and state in ALIVE))
    # A redirect does not replace the depth of a stored page.
    assert page.depth == (stored.depth if stored else 5)
    assert decision.result == CommitResult(CommitOutcome.REDIRECTED, page.current_version_id)
    assert decision.item_status is FrontierStatus.COMPLETED


@pytest.mark.parametrize("kind", [DENIED, FAILED])
@states
def test_decide_denied_and_failed_keep_the_content(state: str, kind: ResponseKind) -> None:
    version = make_version("v2", content_hash="two", status_code=STATUSES[kind] or 0)
    decision, stored = decided(state, kind, version)
    is_denied = kind is DENIED
    outcome = CommitOutcome.DENIED if is_denied else CommitOutcome.FAILED
    assert decision.outcome is outcome
    assert decision.status == STATUSES[kind]
    assert decision.change is None
    assert not decision.writes_version
    assert decision.item_status is (FrontierStatus.SKIPPED if is_denied else FrontierStatus.FAILED)
    if stored is None:
        assert not decision.is_stored
        # The result names no version, since none is stored.
        assert decision.result == CommitResult(outcome, None)
        assert decision.page.status_code == STATUSES[kind]
        return
    assert decision.is_stored
    assert decision.result == CommitResult(outcome, stored.current_version_id)
    changed = {
        "status_code": STATUSES[kind],
        "error_count": stored.error_count + 1,
        "last_error": f"HTTP {STATUSES[kind]}",
        # A page that the server denies is there.
        **({"last_seen": NOW} if is_denied else {}),
    }
    assert decision.page == stored.model_copy(update=changed)


def test_decide_after_a_time_out_stores_the_error_of_the_fetch() -> None:
    decision, stored = decided("content", FAILED, status_code=None, last_error="ConnectTimeout: 10 s")
    assert stored is not None
    assert decision.page == stored.model_copy(
        update={"status_code": None, "error_count": 1, "last_error": "ConnectTimeout: 10 s"}
    )


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"last_error": "reset by peer", "status_code": 503}, "reset by peer"),
        ({"status_code": 503}, "HTTP 503"),
        ({"last_error": "", "status_code": 503}, "HTTP 503"),
        ({}, "no answer"),
        ({"last_error": "x" * 5000}, "x" * 1000),
        ({"last_error": "\ud800"}, "?"),
    ],
)
def test_error_of_a_fetch(fields: dict[str, Any], text: str) -> None:
    page = make_page("page").model_copy(update=fields)
    assert error_of(page, page.status_code) == text


@pytest.mark.parametrize("kind", ResponseKind)
def test_kind_of_a_status_is_that_of_the_table(kind: ResponseKind) -> None:
    page = fetched(kind)
    version = make_version(status_code=200) if kind is CONTENT else None
    assert kind_of(page, version, None) is kind


def test_kind_of_goes_by_the_status_of_the_version() -> None:
    assert kind_of(fetched(CONTENT), make_version(status_code=404), None) is GONE
    assert kind_of(make_page(status_code=404), make_version(status_code=200), None) is CONTENT


def test_kind_of_a_tombstone_is_gone_unless_the_caller_says_otherwise() -> None:
    page = make_page(status_code=200, is_tombstone=True)
    assert kind_of(page, None, None) is GONE
    assert kind_of(page, make_version(), None) is GONE
    # A page that was read from the tables may be a tombstone.
    assert kind_of(page, None, FAILED) is FAILED
    assert kind_of(page, make_version(), CONTENT) is CONTENT


@pytest.mark.parametrize("kind", ResponseKind)
@pytest.mark.parametrize("status", [None, 200, 400, 404, 418, 503])
def test_kind_of_goes_by_the_kind_that_the_caller_passes(kind: ResponseKind, status: int | None) -> None:
    page = make_page(status_code=status, redirect_url=TARGET)
    version = make_version() if kind is CONTENT else None
    assert kind_of(page, version, kind) is kind


def test_kind_of_an_error_without_a_status_is_failed() -> None:
    assert kind_of(make_page(last_error="ConnectTimeout"), None, None) is FAILED


@pytest.mark.parametrize(
    ("page", "kind", "message"),
    [
        (make_page(), None, "page: has neither status_code nor last_error"),
        (make_page(status_code=400), None, "status_code: 400 has no meaning for a page"),
        (make_page(status_code=418, last_error="tea"), None, "status_code: 418 has no meaning"),
        (make_page(status_code=200), None, "version: is None, but status 200 needs content"),
        (make_page(status_code=204), None, "version: is None, but status 204 needs content"),
        (make_page(status_code=503), CONTENT, "version: is None, but status 503 needs content"),
        (make_page(status_code=301), None, "page: has no redirect_url, but status 301"),
        (make_page(status_code=307, redirect_url=""), None, "page: has no redirect_url, but status 307"),
        (make_page(status_code=200), MOVED, "page: has no redirect_url"),
    ],
)
def test_kind_of_refuses_arguments_that_contradict_each_other(
    page: Page, kind: ResponseKind | None, message: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        kind_of(page, None, kind)


def test_decide_content_brings_back_a_page_that_the_caller_read_as_a_tombstone() -> None:
    decision, _ = decided("gone", CONTENT, make_version("v2"), is_tombstone=True)
    assert not decision.page.is_tombstone


def test_decide_content_without_headers_keeps_none_of_the_content_before() -> None:
    """The etag of the old content would let the next fetch be answered with 304."""
    decision, _ = decided("content", CONTENT, make_version("v2", content_hash="two"))
    assert (decision.page.etag, decision.page.last_modified) == (None, None)


@pytest.mark.parametrize("kind", [DENIED, FAILED])
def test_decide_of_an_unknown_page_goes_by_the_status_of_the_version(kind: ResponseKind) -> None:
    version = make_version("v2", status_code=STATUSES[kind] or 0)
    decision, _ = decided("new", kind, version, status_code=None)
    assert decision.page.status_code == STATUSES[kind]
