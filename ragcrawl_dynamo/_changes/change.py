"""The change feed as pure values: what its readers get, how far they have come, and what has settled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from ragcrawl_dynamo._dynamodb.cursors import pack, unpack
from ragcrawl_dynamo._dynamodb.values import Item, moment_text
from ragcrawl_dynamo._schema.attributes import CHANGE_ORDER, change_order, expiry
from ragcrawl_dynamo._schema.keys import change_key
from ragcrawl_dynamo.errors import InvalidCursorError
from ragcrawl_dynamo.models import Page

__all__ = ["ChangeKind", "ChangeSlice", "PageChange"]

# Seconds after which a number that no change has counts as given up, once a later one has been used.
SETTLE_SECONDS = 10.0

# Hours for which a commit may still be under way after it took its number: it takes another one long before
# (see stores/lanes.py), and AWS refuses a request five minutes after it was signed (Signature Version 4).
LATEST_HOURS = 1.0

# The kind of an entry that stands for a number that was given up.
VOID = "void"


class ChangeKind(StrEnum):
    """What a page's latest change was."""

    CREATED = "created"
    CHANGED = "changed"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class PageChange:
    """A page that changed.

    Attributes:
        kind: What its latest change was; a page that came back counts as created.
        page: The page as it is now, read strongly consistent.
    """

    kind: ChangeKind
    page: Page


class ChangeSlice(list[PageChange]):
    """Part of a site's changes.

    Attributes:
        cursor: Opaque text to pass to the next call, now or later; there always is one.
        is_end: Whether nothing more can be read for now. What was logged after a commit that is still under
            way follows when that is settled, ten seconds later at most.
    """

    def __init__(self, changes: Iterable[PageChange], cursor: str, *, is_end: bool) -> None:
        super().__init__(changes)
        self.cursor = cursor
        self.is_end = is_end

    def __repr__(self) -> str:
        return f"ChangeSlice({super().__repr__()}, cursor={self.cursor!r}, is_end={self.is_end})"


@dataclass(frozen=True, slots=True)
class Place:
    """A number in a lane: where one change of a site is logged."""

    lane: str
    number: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One change as it is logged.

    Attributes:
        place: Where.
        kind: One of ChangeKind, or VOID.
        page_id: The page's id, escaped as in a key; "" where VOID.
        order: Grows with each change of the page.
        at: When it was logged, by the writer's clock.
    """

    place: Place
    kind: str
    page_id: str
    order: int
    at: datetime

    def item(self, site_id: str, retention_days: int | None) -> Item:
        """The item that logs it."""
        item: Item = {
            **change_key(site_id, self.place.lane, self.place.number),
            "kind": {"S": self.kind},
            "at": {"S": moment_text(self.at)},
            **expiry(retention_days, self.at),
        }
        if self.kind != VOID:
            item |= {"changed_page": {"S": self.page_id}, CHANGE_ORDER: {"N": str(self.order)}}
        return item

    @classmethod
    def of(cls, lane: str, item: Mapping[str, Any]) -> Entry:
        """The entry of an item."""
        place = Place(lane, int(item["page_id"]["S"]))
        page_id = item.get("changed_page", {"S": ""})["S"]
        at = datetime.fromisoformat(item["at"]["S"])
        return cls(place, item["kind"]["S"], page_id, change_order(item) or 0, at)


@dataclass(frozen=True, slots=True)
class Settled:
    """What of a lane can be read.

    Attributes:
        entries: Those that follow each other without a gap.
        gap: Numbers that were given up, as far as can be told, before more can be read.
    """

    entries: list[Entry]
    gap: range = range(0)


def settled(first: int, entries: Sequence[Entry], now: datetime) -> Settled:
    """What of a lane's entries, from number `first` on, can be read at a moment.

    A number that is missing below others belongs to a commit that is under way or has failed. Nothing beyond
    it is read before that is decided: else the commit's change would be passed over if it came after all.
    """
    for i, entry in enumerate(entries):
        if entry.place.number != first + i:
            is_old = now - entry.at >= timedelta(seconds=SETTLE_SECONDS)
            return Settled(list(entries[:i]), range(first + i, entry.place.number) if is_old else range(0))
    return Settled(list(entries))


@dataclass(frozen=True, slots=True)
class FeedCursor:
    """How far a reader of a site's changes has come.

    Attributes:
        taken_at: When nothing but the changes beyond it was left to read.
        numbers: By lane, the first number that it has not read.
        listing: Where it is in the listing of the pages that there were when it began; "" before that,
            None after it.
    """

    taken_at: datetime
    numbers: Mapping[str, int]
    listing: str | None = None

    def encode(self, scope: Sequence[str]) -> str:
        """As opaque text."""
        return pack([*scope, self.taken_at.timestamp(), dict(self.numbers), self.listing])

    @classmethod
    def decode(cls, cursor: str, scope: Sequence[str]) -> FeedCursor:
        """Of opaque text.

        Raises:
            InvalidCursorError: It is damaged, or of another site.
        """
        try:
            *of, taken_at, numbers, listing = unpack(cursor)
            moment = datetime.fromtimestamp(taken_at, UTC)
            is_whole = all(type(each) is int and each > 0 for each in numbers.values())
        except (ValueError, TypeError, AttributeError, OverflowError, OSError) as error:
            raise InvalidCursorError("cursor", "is damaged: pass back one of list_changes") from error
        if not is_whole or not (listing is None or isinstance(listing, str)):
            raise InvalidCursorError("cursor", "is damaged: pass back one of list_changes")
        if of != list(scope):
            raise InvalidCursorError("cursor", "belongs to another site, or to a listing")
        return cls(moment, numbers, listing)


@dataclass(frozen=True, slots=True)
class Shown:
    """What a reader gets of some entries.

    Attributes:
        changes: Those that are their page's latest one.
        behind: Pages, by escaped id, that were read as they were before their entry's change.
    """

    changes: list[PageChange]
    behind: set[str]


def show(entries: Iterable[Entry], pages: Mapping[str, tuple[Page, int | None]], *, anyhow: bool) -> Shown:
    """What a reader gets of entries.

    An entry whose page has changed again is passed over: that change has an entry of its own, which is still
    to be read, or has been since it was made. One whose page is not as far yet was read in the middle of its
    transaction, whose items become visible one after the other (AWS: "Amazon DynamoDB Transactions: How it
    works", isolation levels); the page must be read again.

    Args:
        entries: Changes, in the order in which they are read.
        pages: By escaped id, the pages as they were read after the entries, and which change of theirs is the
            latest, where a commit made it.
        anyhow: Take pages as they are that still are behind.
    """
    found: dict[str, PageChange] = {}
    behind: set[str] = set()
    for entry in entries:
        if entry.kind == VOID or entry.page_id not in pages:
            continue
        page, order = pages[entry.page_id]
        if order is not None and order > entry.order:
            continue
        if order is not None and order < entry.order and not anyhow:
            behind.add(entry.page_id)
            continue
        # Of a page that `save_page` wrote since, only the last entry counts.
        found.pop(entry.page_id, None)
        found[entry.page_id] = PageChange(_kind(entry, page), page)
    return Shown(list(found.values()), behind)


def _kind(entry: Entry, page: Page) -> ChangeKind:
    if page.is_tombstone:
        return ChangeKind.DELETED
    kind = ChangeKind(entry.kind)
    # `save_page` can have brought it back.
    return ChangeKind.CREATED if kind is ChangeKind.DELETED else kind


def next_order(before: int | None, now: datetime) -> int:
    """The order of a page's next change: greater than that of the one before, and of what came before that.

    It is the moment in microseconds, if it can be: `save_page` writes a page without the order of its latest
    change, so that the next one could not count on from it.
    """
    return max(0 if before is None else before + 1, int(now.timestamp() * 1_000_000))


def tip(first: int, entries: Sequence[Entry], now: datetime) -> int:
    """The number from which on a reader that begins now has to read a lane.

    Args:
        first: The number with which the lane's present holder began.
        entries: The lane's last ones, newest number first, down to one that is `LATEST_HOURS` old, or all.
        now: The moment.
    """
    numbers: set[int] = set()
    start = first
    for entry in entries:
        if now - entry.at >= timedelta(hours=LATEST_HOURS):
            start = entry.place.number + 1
            break
        numbers.add(entry.place.number)
        start = min(start, entry.place.number)
    while start in numbers:
        start += 1
    return start
