"""Decides how a commit changes a page: pure functions of the stored page and the fetched one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from ragcrawl_dynamo._changes.change import ChangeKind
from ragcrawl_dynamo._commit.responses import ResponseKind
from ragcrawl_dynamo._frontier.arguments import error_text
from ragcrawl_dynamo.errors import InvalidArgumentError
from ragcrawl_dynamo.models import FrontierItem, FrontierStatus, Page, PageVersion

__all__ = ["CommitOutcome", "CommitResult"]


class CommitOutcome(StrEnum):
    """The outcome of a commit: how it changed the page.

    Attributes:
        CREATED: The page is new.
        CHANGED: The `content_hash` of the page differs; the commit stored a new version.
        UNCHANGED: The commit only updated the freshness of the page, such as `last_crawled`.
        TOMBSTONED: The page is gone.
        REVIVED: The page was a tombstone, and exists again.
        REDIRECTED: The page is at another URL, which is linked. The commit stored it as `redirect_url`.
        DENIED: The server does not give the page to this crawler. The content stays as it was.
        FAILED: The fetch failed. The content and the freshness of the page stay as they were.
    """

    CREATED = "created"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    TOMBSTONED = "tombstoned"
    REVIVED = "revived"
    REDIRECTED = "redirected"
    DENIED = "denied"
    FAILED = "failed"


_CHANGES = {
    CommitOutcome.CREATED: ChangeKind.CREATED,
    CommitOutcome.CHANGED: ChangeKind.CHANGED,
    CommitOutcome.TOMBSTONED: ChangeKind.DELETED,
    CommitOutcome.REVIVED: ChangeKind.CREATED,
}

# The status of the frontier item after each other outcome than these is COMPLETED. A failed item is tried
# again, so that it becomes a dead letter in the end.
_ITEM_STATUSES = {
    CommitOutcome.DENIED: FrontierStatus.SKIPPED,
    CommitOutcome.FAILED: FrontierStatus.FAILED,
}


@dataclass(frozen=True, slots=True)
class CommitResult:
    """The result of a commit.

    Attributes:
        outcome: How the commit changed the page.
        version_id: The current version of the page; None if the page has never had content.
    """

    outcome: CommitOutcome
    version_id: str | None


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision of a commit: what to write.

    Attributes:
        outcome: How the commit changes the page.
        page: The page to store. A page that is not stored stays so after a failed fetch: `is_stored` tells.
        status: The HTTP status of the answer, which the run counts; None if no answer came.
        change: The kind of the change for the change feed; None if nothing changed.
        writes_version: Whether the fetched version is stored as the new current version.
        is_stored: Whether to store the page.
    """

    outcome: CommitOutcome
    page: Page
    status: int | None
    change: ChangeKind | None = None
    writes_version: bool = False
    is_stored: bool = True

    @property
    def item_status(self) -> FrontierStatus:
        """How the frontier item of the page is settled; FAILED if its fetch is to be tried again."""
        return _ITEM_STATUSES.get(self.outcome, FrontierStatus.COMPLETED)

    @property
    def result(self) -> CommitResult:
        """The result for the caller of the commit."""
        return CommitResult(self.outcome, self.page.current_version_id)


def check_together(page: Page, version: PageVersion | None, item: FrontierItem | None) -> None:
    """Checks that a page, its version and the frontier item of its claim belong together.

    Raises:
        InvalidArgumentError: One of them is of another page, site or run.
    """
    if version is not None and (version.site_id, version.page_id) != (page.site_id, page.page_id):
        raise InvalidArgumentError(
            "version",
            f"is of page {version.page_id!r} of site {version.site_id!r}, and the page is {page.page_id!r} "
            f"of site {page.site_id!r}: pass a version of this page",
        )
    if item is not None and item.site_id != page.site_id:
        raise InvalidArgumentError(
            "claim",
            f"is of site {item.site_id!r}, and the page of site {page.site_id!r}: pass a claim of this site",
        )
    if item is not None and version is not None and version.run_id != item.run_id:
        raise InvalidArgumentError(
            "version", f"is of run {version.run_id!r}, and the claim of run {item.run_id!r}: set its run_id"
        )


def kind_of(page: Page, version: PageVersion | None, kind: ResponseKind | None) -> ResponseKind:
    """Returns the kind of the answer that a page and its version describe.

    Args:
        page: The page as the fetch found it.
        version: The content of the page; None if there is none.
        kind: The kind of the answer as the caller gives it; None to derive it from the status.

    Raises:
        InvalidArgumentError: The status, the content and the kind do not go together.
    """
    if page.is_tombstone and kind is None:
        return ResponseKind.GONE
    status = version.status_code if version is not None else page.status_code
    if status is None and kind is None and page.last_error is None:
        raise InvalidArgumentError(
            "page", "has neither status_code nor last_error: set the HTTP status, or the error of the fetch"
        )
    kind = ResponseKind.of(status) if kind is None else kind
    if kind is ResponseKind.CONTENT and version is None:
        raise InvalidArgumentError(
            "version", f"is None, but status {status} needs content: pass a version that has it"
        )
    if kind in (ResponseKind.MOVED, ResponseKind.REDIRECTED) and not page.redirect_url:
        raise InvalidArgumentError(
            "page",
            f"has no redirect_url, but status {status} needs one: set it to the target of the redirect",
        )
    return kind


def decide(
    stored: Page | None, page: Page, version: PageVersion | None, kind: ResponseKind, now: datetime
) -> Decision:
    """Decides what to write after a fetch.

    Args:
        stored: The stored page; None if the page is new.
        page: The page as the fetch found it. Its `first_seen` counts only if the page is new. Its
            `version_count`, `last_changed`, `content_hash` and `current_version_id` are ignored.
        version: The content of the page; None if there is none.
        kind: The kind of the answer.
        now: The moment of the commit.

    Raises:
        InvalidArgumentError: The answer is NOT_MODIFIED, but no content is stored.
    """
    status = version.status_code if version is not None else page.status_code
    match kind:
        case ResponseKind.FAILED | ResponseKind.DENIED:
            return _without_content(stored, page, status, kind, now)
        case ResponseKind.MOVED | ResponseKind.REDIRECTED:
            return _redirected(stored, page, status, kind, now)
        case ResponseKind.GONE:
            was_gone = stored is not None and stored.is_tombstone
            fields = {**_kept(stored, page), **_fresh(status, now), "is_tombstone": True}
            if not was_gone:
                fields["last_changed"] = now
            outcome = CommitOutcome.UNCHANGED if was_gone else CommitOutcome.TOMBSTONED
            return Decision(outcome, page.model_copy(update=fields), status, _CHANGES.get(outcome))
    has_content = stored is not None and stored.current_version_id is not None
    if kind is ResponseKind.NOT_MODIFIED:
        version = None
    if version is None and not has_content:
        raise InvalidArgumentError(
            "page",
            f"has status {status}, but no content of page {page.page_id!r} is stored: fetch it again without "
            f"If-None-Match and If-Modified-Since",
        )
    is_same = has_content and (version is None or (stored and stored.content_hash == version.content_hash))
    fields = {**_kept(stored, page), **_fresh(status, now), "is_tombstone": False}
    if stored is not None and kind is ResponseKind.NOT_MODIFIED:
        # An answer without content need not repeat the headers of the stored content.
        fields |= {name: getattr(page, name) or getattr(stored, name) for name in ("etag", "last_modified")}
        fields["status_code"] = _status_of_content(stored)
    if not is_same and version is not None:
        fields |= {
            "current_version_id": version.version_id,
            "content_hash": version.content_hash,
            "version_count": fields["version_count"] + 1,
        }
    outcome = _outcome(stored, is_same=bool(is_same))
    if outcome is not CommitOutcome.UNCHANGED:
        fields["last_changed"] = now
    return Decision(
        outcome, page.model_copy(update=fields), status, _CHANGES.get(outcome), writes_version=not is_same
    )


def _without_content(
    stored: Page | None, page: Page, status: int | None, kind: ResponseKind, now: datetime
) -> Decision:
    """Decides after a fetch without information on the content: the page stays, its errors are counted."""
    outcome = CommitOutcome.FAILED if kind is ResponseKind.FAILED else CommitOutcome.DENIED
    if stored is None:
        unknown = page.model_copy(update={**_kept(None, page), "status_code": status})
        return Decision(outcome, unknown, status, is_stored=False)
    fields: dict[str, Any] = {
        "status_code": status,
        "error_count": stored.error_count + 1,
        "last_error": error_of(page, status),
    }
    if kind is ResponseKind.DENIED:
        # The server knows the page: it is not gone.
        fields["last_seen"] = now
    return Decision(outcome, stored.model_copy(update=fields), status)


def _redirected(
    stored: Page | None, page: Page, status: int | None, kind: ResponseKind, now: datetime
) -> Decision:
    """Decides after a redirect. A page that moved for good is gone; one without content is only an alias."""
    fields = {
        **_kept(stored, page),
        **_fresh(status, now),
        "redirect_url": page.redirect_url,
    }
    has_content = stored is not None and not stored.is_tombstone and stored.current_version_id is not None
    change = ChangeKind.DELETED if has_content and kind is ResponseKind.MOVED else None
    if change is not None:
        fields["last_changed"] = now
    fields["is_tombstone"] = not has_content or change is not None
    return Decision(CommitOutcome.REDIRECTED, (stored or page).model_copy(update=fields), status, change)


def _status_of_content(stored: Page) -> int:
    """Returns the status of a page that was not modified: that of its content.

    RFC 9110, section 15.4.5: without the condition, the server would have answered 200. The status of an
    error or of a tombstone is over.
    """
    status = stored.status_code
    return status if status is not None and 200 <= status <= 299 else 200


def error_of(page: Page, status: int | None) -> str:
    """Returns the error of a fetch as it is stored: the caller's `last_error`, or else the status."""
    return error_text(page.last_error or ("no answer" if status is None else f"HTTP {status}"))


def _kept(stored: Page | None, page: Page) -> dict[str, Any]:
    """Returns the fields that the backend keeps, and not the caller."""
    return {
        "first_seen": stored.first_seen if stored else page.first_seen,
        "version_count": stored.version_count if stored else 0,
        "current_version_id": stored.current_version_id if stored else None,
        "content_hash": stored.content_hash if stored else None,
        "last_changed": stored.last_changed if stored else None,
    }


def _fresh(status: int | None, now: datetime) -> dict[str, Any]:
    """Returns the fields that say that the server has just answered for the page."""
    return {
        "status_code": status,
        "last_seen": now,
        "last_crawled": now,
        "error_count": 0,
        "last_error": None,
        "redirect_url": None,
    }


def _outcome(stored: Page | None, *, is_same: bool) -> CommitOutcome:
    if stored is None or (stored.is_tombstone and not stored.version_count):
        return CommitOutcome.CREATED
    if stored.is_tombstone:
        return CommitOutcome.REVIVED
    return CommitOutcome.UNCHANGED if is_same else CommitOutcome.CHANGED
