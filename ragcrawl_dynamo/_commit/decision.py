"""What a commit makes of a page: pure decisions, from what is stored and what was fetched."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from ragcrawl_dynamo._changes.change import ChangeKind
from ragcrawl_dynamo.errors import InvalidArgumentError
from ragcrawl_dynamo.models import Page, PageVersion

__all__ = ["CommitOutcome", "CommitResult"]

# RFC 9110, 15.5.5 and 15.5.11: the server says that there is no page, now or for good.
_GONE = frozenset({404, 410})


class CommitOutcome(StrEnum):
    """What a commit did to a page."""

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
    """What a commit did.

    Attributes:
        outcome: What became of the page.
        version_id: The version that holds its content now; None where it never had any.
    """

    outcome: CommitOutcome
    version_id: str | None


@dataclass(frozen=True, slots=True)
class Decision:
    """What to write: the page, and whether the version goes with it."""

    outcome: CommitOutcome
    page: Page
    writes_version: bool

    @property
    def change(self) -> ChangeKind | None:
        """What readers of the changes are told; None if nothing changed."""
        return _CHANGES.get(self.outcome)

    @property
    def result(self) -> CommitResult:
        """What the caller is told."""
        return CommitResult(self.outcome, self.page.current_version_id)


def decide(stored: Page | None, page: Page, version: PageVersion | None, now: datetime) -> Decision:
    """The page as it is after a fetch.

    Args:
        stored: As it is; None if it is new.
        page: What the fetch says of it. `first_seen`, `version_count`, `last_changed`, `content_hash` and
            `current_version_id` are kept by the store, whatever it says.
        version: Its content; None where the server sent none (304, 404, 410).
        now: When it was crawled.

    Raises:
        InvalidArgumentError: Without a version, the page has no content that could be unchanged.
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
        changes = {**kept, **fresh, "is_tombstone": True}
        if not was_gone:
            changes["last_changed"] = now
        outcome = CommitOutcome.UNCHANGED if was_gone else CommitOutcome.TOMBSTONED
        return Decision(outcome, page.model_copy(update=changes), writes_version=False)
    has_content = stored is not None and stored.current_version_id is not None
    if version is None and not has_content:
        raise InvalidArgumentError(
            "version", f"page {page.page_id!r} has no content yet that could be unchanged"
        )
    is_same = has_content and (version is None or (stored and stored.content_hash == version.content_hash))
    changes = {**kept, **fresh, "is_tombstone": False}
    if not is_same and version is not None:
        changes |= {
            "current_version_id": version.version_id,
            "content_hash": version.content_hash,
            "version_count": kept["version_count"] + 1,
        }
    outcome = _outcome(stored, is_same=bool(is_same))
    if outcome is not CommitOutcome.UNCHANGED:
        changes["last_changed"] = now
    return Decision(outcome, page.model_copy(update=changes), writes_version=not is_same)


def _outcome(stored: Page | None, *, is_same: bool) -> CommitOutcome:
    if stored is None:
        return CommitOutcome.CREATED
    if stored.is_tombstone:
        return CommitOutcome.REVIVED
    return CommitOutcome.UNCHANGED if is_same else CommitOutcome.CHANGED
