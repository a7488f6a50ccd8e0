"""The change feed as pure values: changes, log entries, cursors, and which entries a reader may read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Self

from ragcrawl_dynamo._dynamodb.cursors import pack, unpack
from ragcrawl_dynamo._dynamodb.values import Item, moment_text
from ragcrawl_dynamo._schema.attributes import CHANGE_ORDER, change_order, expiry
from ragcrawl_dynamo._schema.keys import change_key
from ragcrawl_dynamo.errors import InvalidCursorError
from ragcrawl_dynamo.models import Page, PageVersion

__all__ = ["ChangeKind", "ChangeSlice", "PageChange"]

# Seconds after which a reader gives up a sequence number that no entry has, counted from a later entry.
SETTLE_SECONDS = 10.0

# Hours for which a commit may still be under way after it took its sequence number: it takes another one long
# before (log.py), and AWS refuses a request five minutes after it was signed (Signature Version 4).
LATEST_HOURS = 1.0

# The kind of an entry that a reader writes to give up a sequence number.
VOID = "void"

_DAMAGED = "is damaged: pass the `cursor` of a slice of list_changes, unchanged"


class ChangeKind(StrEnum):
    """The kind of a change: how the page has changed."""

    CREATED = "created"
    CHANGED = "changed"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class PageChange:
    """A page that changed.

    Attributes:
        kind: The kind of its latest change; a page that came back counts as created.
        page: The page as it is now, read strongly consistent.
        version: With `include_content`, the version that `page` names as its current one, with its body. None
            without `include_content`, for a deleted page, and if the page names no version that is stored.
    """

    kind: ChangeKind
    page: Page
    version: PageVersion | None = None


class ChangeSlice(list[PageChange]):
    """Part of a site's changes.

    Attributes:
        cursor: Opaque text to pass to the next call, now or later; there always is one.
        is_end: Whether nothing more can be read for now. Entries behind a commit that is still under way can
            be read once it has ended, or ten seconds later.
    """

    def __init__(self, changes: Iterable[PageChange], cursor: str, *, is_end: bool) -> None:
        super().__init__(changes)
        self.cursor = cursor
        self.is_end = is_end

    def __repr__(self) -> str:
        return f"ChangeSlice({super().__repr__()}, cursor={self.cursor!r}, is_end={self.is_end})"


@dataclass(frozen=True, slots=True)
class LogPosition:
    """The position of a change in the log of its site.

    Attributes:
        shard: Name of the shard of the log.
        sequence_number: The number of the change in the shard, from 1.
    """

    shard: str
    sequence_number: int


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One change as it is logged.

    Attributes:
        position: Where it is logged.
        kind: One of ChangeKind, or VOID.
        page_id: The page's id, escaped as in a key; "" if the kind is VOID.
        order: Grows with each change of the page.
        logged_at: When it was logged, by the writer's clock.
    """

    position: LogPosition
    kind: str
    page_id: str
    order: int
    logged_at: datetime

    def item(self, site_id: str, retention_days: int | None) -> Item:
        """Builds the item that logs it."""
        item: Item = {
            **change_key(site_id, self.position.shard, self.position.sequence_number),
            "kind": {"S": self.kind},
            "at": {"S": moment_text(self.logged_at)},
            **expiry(retention_days, self.logged_at),
        }
        if self.kind != VOID:
            item |= {"changed_page": {"S": self.page_id}, CHANGE_ORDER: {"N": str(self.order)}}
        return item

    @classmethod
    def of(cls, shard: str, item: Mapping[str, Any]) -> Self:
        """Reads the entry of an item."""
        position = LogPosition(shard, int(item["page_id"]["S"]))
        page_id = item.get("changed_page", {"S": ""})["S"]
        logged_at = datetime.fromisoformat(item["at"]["S"])
        return cls(position, item["kind"]["S"], page_id, change_order(item) or 0, logged_at)


@dataclass(frozen=True, slots=True)
class SettledEntries:
    """The entries of a shard that a reader may read.

    Attributes:
        entries: Entries whose sequence numbers follow each other without a gap.
        gap: Sequence numbers that the reader has to give up before it can read more.
    """

    entries: list[LogEntry]
    gap: range = range(0)


def settled_entries(first: int, entries: Sequence[LogEntry], now: datetime) -> SettledEntries:
    """Returns which entries of a shard, from sequence number `first` on, a reader may read at a moment.

    A number that is missing below others belongs to a commit that is under way or has failed. No entry beyond
    it is read before that is decided: otherwise the reader would miss the commit's change if it came later.
    """
    for i, entry in enumerate(entries):
        number = entry.position.sequence_number
        if number != first + i:
            is_given_up = now - entry.logged_at >= timedelta(seconds=SETTLE_SECONDS)
            return SettledEntries(list(entries[:i]), range(first + i, number) if is_given_up else range(0))
    return SettledEntries(list(entries))


@dataclass(frozen=True, slots=True)
class FeedCursor:
    """How far a reader of a site's changes has come.

    Attributes:
        taken_at: When the oldest change beyond the cursor was logged, or an earlier moment. If there was no
            such change, when the cursor was taken.
        next_numbers: By shard, the first sequence number that the reader has not read.
        listing: Cursor of the listing of all pages with which a reader begins; "" before it, None after it.
    """

    taken_at: datetime
    next_numbers: Mapping[str, int]
    listing: str | None = None

    def after(self, entries: Iterable[LogEntry]) -> Self:
        """Returns the cursor of a reader that has also read the entries that follow, in their order."""
        numbers = {entry.position.shard: entry.position.sequence_number + 1 for entry in entries}
        # Entries beyond these are not older than those beyond this cursor, so `taken_at` still holds.
        return replace(self, next_numbers={**self.next_numbers, **numbers})

    def encode(self, scope: Sequence[str]) -> str:
        """Returns the cursor as opaque text."""
        return pack([*scope, self.taken_at.timestamp(), dict(self.next_numbers), self.listing])

    @classmethod
    def decode(cls, cursor: str, scope: Sequence[str]) -> Self:
        """Reads opaque text.

        Raises:
            InvalidCursorError: The cursor is damaged, or belongs to another site.
        """
        try:
            *cursor_scope, seconds, next_numbers, listing = unpack(cursor)
            taken_at = datetime.fromtimestamp(seconds, UTC)
            is_whole = all(type(number) is int and number > 0 for number in next_numbers.values())
        except (ValueError, TypeError, AttributeError, OverflowError, OSError):
            raise InvalidCursorError("cursor", _DAMAGED) from None
        if not is_whole or not (listing is None or isinstance(listing, str)):
            raise InvalidCursorError("cursor", _DAMAGED)
        if cursor_scope != list(scope):
            raise InvalidCursorError(
                "cursor",
                "belongs to another site, or to a listing: pass a cursor of list_changes of this site",
            )
        return cls(taken_at, next_numbers, listing)


@dataclass(frozen=True, slots=True)
class LatestChanges:
    """The changes that a reader gets for some log entries.

    Attributes:
        changes: The changes that are the latest ones of their pages.
        entries_read: For each change, how many of the entries a reader has read that has handled the changes
            up to this one.
        stale_pages: Pages, by escaped id, that were read as they were before their entry's change.
    """

    changes: list[PageChange]
    entries_read: list[int]
    stale_pages: set[str]


def latest_changes(
    entries: Iterable[LogEntry], pages: Mapping[str, tuple[Page, int | None]], *, accept_stale: bool
) -> LatestChanges:
    """Returns the changes that a reader gets for some log entries.

    An entry whose page has changed again is left out: the later change has an entry of its own, which is
    still to be read, or was read since. A page that is older than its entry was read in the middle of its
    transaction, whose items become visible one after the other (AWS: "Amazon DynamoDB Transactions: How it
    works", isolation levels). It must be read again.

    Args:
        entries: Entries, in the order in which they are read.
        pages: By escaped id, the pages as they were read after the entries, and the order of their latest
            change, if a commit made it.
        accept_stale: Return pages that are older than their entries, too.
    """
    by_page: dict[str, tuple[int, PageChange]] = {}
    stale_pages: set[str] = set()
    for entries_read, entry in enumerate(entries, start=1):
        if entry.kind == VOID or entry.page_id not in pages:
            continue
        page, order = pages[entry.page_id]
        if order is not None and order > entry.order:
            continue
        if order is not None and order < entry.order and not accept_stale:
            stale_pages.add(entry.page_id)
            continue
        # If `save_page` wrote the page since, several entries can fit. Only the last one counts.
        by_page.pop(entry.page_id, None)
        by_page[entry.page_id] = (entries_read, PageChange(kind_now(entry.kind, page), page))
    numbers, changes = [number for number, _ in by_page.values()], [change for _, change in by_page.values()]
    return LatestChanges(changes, numbers, stale_pages)


def kind_now(kind: str, page: Page) -> ChangeKind:
    """Returns the kind that a reader gets for a logged change, given the page as it is now."""
    if page.is_tombstone:
        return ChangeKind.DELETED
    # `save_page` can have brought the page back.
    return ChangeKind.CREATED if kind == ChangeKind.DELETED else ChangeKind(kind)


def next_order(previous_order: int | None, now: datetime) -> int:
    """Returns the order of a page's next change, which is greater than that of every earlier one.

    It is the moment in microseconds, if that is greater than the previous order. A plain counter would not
    do: `save_page` writes a page without the order of its latest change.
    """
    return max(0 if previous_order is None else previous_order + 1, int(now.timestamp() * 1_000_000))


def lowest_open_number(first: int, entries: Iterable[LogEntry], now: datetime) -> int:
    """Returns the sequence number from which on a reader that begins now has to read a shard.

    Args:
        first: The sequence number with which the shard's holder began.
        entries: The shard's last entries, newest first, down to one that is `LATEST_HOURS` old, or all.
        now: The moment.
    """
    used: set[int] = set()
    lowest = first
    for entry in entries:
        number = entry.position.sequence_number
        if now - entry.logged_at >= timedelta(hours=LATEST_HOURS):
            lowest = number + 1
            break
        used.add(number)
        lowest = min(lowest, number)
    while lowest in used:
        lowest += 1
    return lowest
