"""Decides what a commit makes of a page: pure functions of the stored page and the fetched one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from ragcrawl_dynamo._changes.change import ChangeKind
from ragcrawl_dynamo.errors import InvalidArgumentError
from ragcrawl_dynamo.models import Page, PageVersion

__all__ = ["CommitOutcome", "CommitResult"]

# RFC 9110, sections 15.5.5 and 15.5.11: the server says that there is no page, for now or for good.
_GONE = frozenset({404, 410})


class CommitOutcome(StrEnum):
    """What a commit made of a page.

    Attributes:
        CREATED: The page is new.
        CHANGED: The `content_hash` of the page differs; the commit stored a new version.
        UNCHANGED: The commit only updated the freshness of the page, such as `last_crawled`.
        TOMBSTONED: The page is gone.
        REVIVED: The page was a tombstone, and exists again.
    """

    CREATED = "created"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    TOMBSTONED = "tombstoned"
    REVIVED = "revived"


_CHANGES = {
    CommitOutcome.CREATED: ChangeKind.CREATED,
    CommitOutcome.CHANGED: ChangeKind.CHANGED,
    CommitOutcome.TOMBSTONED: ChangeKind.DELETED,
    CommitOutcome.REVIVED: ChangeKind.CREATED,
}


@dataclass(frozen=True, slots=True)
class CommitResult:
    """The result of a commit.

    Attributes:
        outcome: What the commit made of the page.
        version_id: The current version of the page; None if the page has never had content.
    """

    outcome: CommitOutcome
    version_id: str | None


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision of what to write.

    Attributes:
        outcome: What the commit makes of the page.
        page: The page to store.
        writes_version: Whether the fetched version is stored as the new current version.
    """

    outcome: CommitOutcome
    page: Page
    writes_version: bool

    @property
    def change(self) -> ChangeKind | None:
        """The kind of the change for the change feed; None if nothing changed."""
        return _CHANGES.get(self.outcome)

    @property
    def result(self) -> CommitResult:
        """The result for the caller of the commit."""
        return CommitResult(self.outcome, self.page.current_version_id)


def decide(stored: Page | None, page: Page, version: PageVersion | None, now: datetime) -> Decision:
    """Decides what to write after a fetch.

    Args:
        stored: The stored page; None if the page is new.
        page: The page as the fetch found it. Its `first_seen` counts only if the page is new. Its
            `version_count`, `last_changed`, `content_hash` and `current_version_id` are ignored.
        version: The content of the page; None if the server sent none (304, 404, 410).
        now: The moment of the commit.

    Raises:
        InvalidArgumentError: `version` is None, but no content is stored that could be unchanged.
    """
    status = version.status_code if version is not None else page.status_code
    kept: dict[str, Any] = {
        "first_seen": stored.first_seen if stored else page.first_seen,
        "version_count": stored.version_count if stored else 0,
        "current_version_id": stored.current_version_id if stored else None,
        "content_hash": stored.content_hash if stored else None,
        "last_changed": stored.last_changed if stored else None,
        "is_tombstone": stored.is_tombstone if stored else False,
    }
    fresh: dict[str, Any] = {
        "status_code": status,
        "last_seen": now,
        "last_crawled": now,
        "error_count": 0,
        "last_error": None,
    }
    if status in _GONE or page.is_tombstone:
        was_gone = stored is not None and stored.is_tombstone
        fields = {**kept, **fresh, "is_tombstone": True}
        if not was_gone:
            fields["last_changed"] = now
        outcome = CommitOutcome.UNCHANGED if was_gone else CommitOutcome.TOMBSTONED
        return Decision(outcome, page.model_copy(update=fields), writes_version=False)
    has_content = stored is not None and stored.current_version_id is not None
    if version is None and not has_content:
        raise InvalidArgumentError(
            "version",
            f"is None, but page {page.page_id!r} has no stored content: pass a version with its content",
        )
    is_same = has_content and (version is None or (stored and stored.content_hash == version.content_hash))
    fields = {**kept, **fresh, "is_tombstone": False}
    if not is_same and version is not None:
        fields |= {
            "current_version_id": version.version_id,
            "content_hash": version.content_hash,
            "version_count": kept["version_count"] + 1,
        }
    outcome = _outcome(stored, is_same=bool(is_same))
    if outcome is not CommitOutcome.UNCHANGED:
        fields["last_changed"] = now
    return Decision(outcome, page.model_copy(update=fields), writes_version=not is_same)


def _outcome(stored: Page | None, *, is_same: bool) -> CommitOutcome:
    if stored is None:
        return CommitOutcome.CREATED
    if stored.is_tombstone:
        return CommitOutcome.REVIVED
    return CommitOutcome.UNCHANGED if is_same else CommitOutcome.CHANGED
