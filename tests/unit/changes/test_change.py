"""The changes that readers get, as pure decisions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragcrawl_dynamo import ChangeKind, InvalidCursorError
from ragcrawl_dynamo._changes.change import (
    LATEST_HOURS,
    SETTLE_SECONDS,
    VOID,
    ChangeSlice,
    FeedCursor,
    LogEntry,
    LogPosition,
    latest_changes,
    lowest_open_number,
    next_order,
    settled_entries,
)
from ragcrawl_dynamo._dynamodb.cursors import pack
from tests.support.factories import START, make_page


def entry(
    number: int, age: float = 0.0, page_id: str = "page", order: int = 1, kind: str = "changed"
) -> LogEntry:
    return LogEntry(LogPosition("shard", number), kind, page_id, order, START - timedelta(seconds=age))


def numbers(entries: list[LogEntry]) -> list[int]:
    return [log_entry.position.sequence_number for log_entry in entries]


@given(st.sets(st.integers(5, 40)), st.booleans())
def test_settled_reads_nothing_beyond_an_open_number(used: set[int], are_old: bool) -> None:
    entries = [entry(number, SETTLE_SECONDS if are_old else 0) for number in sorted(used)]
    settled = settled_entries(5, entries, START)
    whole = next(n for n in range(5, 42) if n not in used)
    assert numbers(settled.entries) == list(range(5, whole))
    beyond = [n for n in used if n > whole]
    expected = set(range(whole, min(beyond))) if beyond and are_old else set()
    assert set(settled.gap) == expected


def test_show_has_only_the_latest_change_of_a_page() -> None:
    pages = {"a": (make_page("a"), 7), "b": (make_page("b"), 3), "plain": (make_page("plain"), None)}
    entries = [
        entry(1, page_id="a", order=6),
        entry(2, page_id="b", order=3, kind="created"),
        entry(3, page_id="plain", order=8, kind="created"),
        entry(4, kind=VOID, page_id=""),
        entry(5, page_id="a", order=7),
        entry(6, page_id="plain", order=9),
        entry(7, page_id="absent", order=9),
    ]
    shown = latest_changes(entries, pages, accept_stale=False)
    assert [(change.page.page_id, change.kind) for change in shown.changes] == [
        ("b", ChangeKind.CREATED),
        ("a", ChangeKind.CHANGED),
        ("plain", ChangeKind.CHANGED),
    ]
    assert not shown.stale_pages


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["p", "q", "r", ""]), st.integers(1, 3))),
    st.dictionaries(st.sampled_from("pqr"), st.none() | st.integers(1, 3)),
)
def test_reader_that_stops_after_some_changes_has_the_others_left(
    logged: list[tuple[str, str, int]], orders: dict[str, int | None]
) -> None:
    """Entries of two shards; some are void, some are of pages that have changed again or are gone."""
    pages = {page_id: (make_page(page_id), order) for page_id, order in orders.items()}
    numbers = {"a": 0, "b": 0}
    entries = []
    for shard, page_id, order in logged:
        numbers[shard] += 1
        kind = "changed" if page_id else VOID
        entries.append(LogEntry(LogPosition(shard, numbers[shard]), kind, page_id, order, START))
    latest = latest_changes(entries, pages, accept_stale=True)
    begin = FeedCursor(START, {"a": 1})
    for count, entries_read in enumerate([0, *latest.entries_read]):
        cursor = begin.after(entries[:entries_read])
        left = [
            log_entry
            for log_entry in entries
            if log_entry.position.sequence_number >= cursor.next_numbers.get(log_entry.position.shard, 1)
        ]
        assert latest_changes(left, pages, accept_stale=True).changes == latest.changes[count:]
        assert cursor.taken_at == START


def test_show_reports_a_page_that_was_read_inside_its_transaction() -> None:
    pages = {"a": (make_page("a"), 5)}
    shown = latest_changes([entry(1, page_id="a", order=6)], pages, accept_stale=False)
    assert (shown.changes, shown.stale_pages) == ([], {"a"})
    assert len(latest_changes([entry(1, page_id="a", order=6)], pages, accept_stale=True).changes) == 1


@pytest.mark.parametrize(
    ("kind", "is_tombstone", "shown"),
    [
        ("created", False, "created"),
        ("changed", False, "changed"),
        ("deleted", True, "deleted"),
        # `save_page` wrote it since.
        ("deleted", False, "created"),
        ("changed", True, "deleted"),
    ],
)
def test_show_takes_the_kind_from_the_page_as_it_is(kind: str, is_tombstone: bool, shown: str) -> None:
    pages = {"page": (make_page(is_tombstone=is_tombstone), None)}
    (change,) = latest_changes([entry(1, kind=kind)], pages, accept_stale=False).changes
    assert change.kind == shown


@given(st.sets(st.integers(10, 40)), st.integers(0, 30), st.integers(1, 45))
def test_tip_is_below_every_number_that_can_be_open(used: set[int], old: int, first: int) -> None:
    """The `old` lowest entries are so old that no commit below them can be under way."""
    in_order = sorted(used)
    ages = {n: (3600 * LATEST_HOURS if i < old else 5) for i, n in enumerate(in_order)}
    entries = [entry(n, ages[n]) for n in reversed(in_order)]
    begin = lowest_open_number(first, entries, START)
    settled_below = max((n for n in in_order if ages[n] > 5), default=None)
    lowest = min([first, *used]) if settled_below is None else settled_below + 1
    can_be_open = [n for n in range(lowest, max([first, *used, lowest]) + 2) if n not in used]
    assert begin == min(can_be_open)


def test_next_order_grows_even_if_the_clock_is_set_back() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    first = next_order(None, now)
    assert next_order(first, now - timedelta(days=1)) == first + 1
    assert next_order(first, now + timedelta(seconds=1)) == first + 1_000_000


@given(
    st.dictionaries(st.text("0123456789abcdef", min_size=1), st.integers(1, 10**12)),
    st.one_of(st.none(), st.text(max_size=20)),
)
def test_feed_cursor_round_trip(shards: dict[str, int], listing: str | None) -> None:
    cursor = FeedCursor(START, shards, listing)
    text = cursor.encode(["table", "site"])
    assert FeedCursor.decode(text, ["table", "site"]) == cursor
    with pytest.raises(InvalidCursorError, match="belongs to another site"):
        FeedCursor.decode(text, ["table", "other"])
    with pytest.raises(InvalidCursorError):
        FeedCursor.decode(text[:-3], ["table", "site"])


@given(st.text(max_size=60))
def test_feed_cursor_refuses_any_other_text(text: str) -> None:
    with pytest.raises(InvalidCursorError):
        FeedCursor.decode(text, ["table", "site"])


SCOPE = ["table", "site"]
WHEN = START.timestamp()


@pytest.mark.parametrize(
    "parts",
    [
        # No number, or none that a shard gives out.
        [WHEN, {"s": 0}, None],
        [WHEN, {"s": -1}, None],
        [WHEN, {"s": True}, None],
        [WHEN, {"s": 1.0}, None],
        [WHEN, {"s": "1"}, None],
        [WHEN, {"s": None}, None],
        [WHEN, {"s": 1, "t": 0}, None],
        [WHEN, ["s"], None],
        [WHEN, None, None],
        # No cursor of a listing.
        [WHEN, {"s": 1}, 3],
        [WHEN, {"s": 1}, ["page"]],
        # No moment.
        ["now", {"s": 1}, None],
        [None, {"s": 1}, None],
        [1e300, {"s": 1}, None],
        [1e18, {"s": 1}, None],
    ],
)
def test_feed_cursor_refuses_parts_that_it_never_had(parts: list[object]) -> None:
    with pytest.raises(InvalidCursorError, match=r"^cursor: is damaged: pass the `cursor` of a slice"):
        FeedCursor.decode(pack([*SCOPE, *parts]), SCOPE)


@pytest.mark.parametrize("parts", [[], [WHEN], [WHEN, {"s": 1}]])
def test_feed_cursor_refuses_too_few_parts(parts: list[object]) -> None:
    with pytest.raises(InvalidCursorError):
        FeedCursor.decode(pack(parts), [])


@pytest.mark.parametrize("value", [3, None, {"a": 1}])
def test_feed_cursor_refuses_values_that_are_no_text_or_no_list(value: object) -> None:
    with pytest.raises(InvalidCursorError):
        FeedCursor.decode(pack(value), SCOPE)  # type: ignore[arg-type] # as a caller may
    with pytest.raises(InvalidCursorError):
        FeedCursor.decode(value, SCOPE)  # type: ignore[arg-type] # as a caller may


def test_feed_cursor_reads_the_first_number_and_the_first_listing() -> None:
    assert FeedCursor.decode(pack([*SCOPE, WHEN, {"s": 1}, ""]), SCOPE) == FeedCursor(START, {"s": 1}, "")


@pytest.mark.parametrize("scope", [["table", "other"], ["other", "site"], ["table"], ["table", "site", "x"]])
def test_feed_cursor_is_of_one_site_of_one_table(scope: list[str]) -> None:
    text = FeedCursor(START, {}).encode(SCOPE)
    with pytest.raises(InvalidCursorError, match=r"^cursor: belongs to another site, or to a listing"):
        FeedCursor.decode(text, scope)


def test_feed_cursor_after_entries_goes_on_behind_the_last_one_of_each_shard() -> None:
    cursor = FeedCursor(START, {"shard": 2, "other": 5}, "listing")
    after = cursor.after([entry(2), entry(3)])
    assert after == FeedCursor(START, {"shard": 4, "other": 5}, "listing")


def test_log_entry_is_read_as_it_was_written() -> None:
    logged = LogEntry(LogPosition("shard", 12), "created", "a~1b", 7, START)
    item = logged.item("site", 30)
    assert LogEntry.of("shard", item) == logged
    assert item["expires_at"] == {"N": str(int(START.timestamp()) + 30 * 86_400)}
    assert "expires_at" not in logged.item("site", None)


def test_log_entry_of_a_number_that_was_given_up_names_no_page() -> None:
    given_up = LogEntry(LogPosition("shard", 12), VOID, "", 0, START)
    item = given_up.item("site", None)
    assert sorted(item) == ["at", "kind", "page_id", "site_id"]
    assert LogEntry.of("shard", item) == given_up


@pytest.mark.parametrize(("age", "gap"), [(SETTLE_SECONDS - 0.001, 0), (SETTLE_SECONDS, 3)])
def test_settled_gives_up_numbers_after_ten_seconds(age: float, gap: int) -> None:
    settled = settled_entries(5, [entry(5), entry(9, age)], START)
    assert numbers(settled.entries) == [5]
    assert list(settled.gap) == [6, 7, 8][:gap]


def test_settled_judges_a_gap_by_the_entry_above_it() -> None:
    """A number was given out before those above it; how old those below it are says nothing."""
    assert not settled_entries(5, [entry(5, 99), entry(7), entry(9, 99)], START).gap


def test_change_slice_shows_where_it_ends() -> None:
    part = ChangeSlice([], "cursor", is_end=True)
    assert (part.cursor, part.is_end) == ("cursor", True)
    assert repr(part) == "ChangeSlice([], cursor='cursor', is_end=True)"


def test_latest_changes_leaves_out_a_page_that_is_older_than_its_entry_only() -> None:
    pages = {"a": (make_page("a"), 5), "b": (make_page("b"), 1)}
    latest = latest_changes(
        [entry(1, page_id="a", order=6), entry(2, page_id="b")], pages, accept_stale=False
    )
    assert ([change.page.page_id for change in latest.changes], latest.stale_pages) == (["b"], {"a"})


def test_latest_changes_says_how_many_entries_were_read_for_each_change() -> None:
    pages = {"a": (make_page("a"), 7), "b": (make_page("b"), 3)}
    entries = [entry(1, page_id="a", order=6), entry(2, page_id="b", order=3), entry(3, page_id="a", order=7)]
    latest = latest_changes(entries, pages, accept_stale=False)
    assert ([change.page.page_id for change in latest.changes], latest.entries_read) == (["b", "a"], [2, 3])


def test_tip_is_behind_the_newest_entry_that_is_an_hour_old() -> None:
    hour = 3600 * LATEST_HOURS
    assert lowest_open_number(1, [entry(9), entry(6, hour), entry(5, 2 * hour)], START) == 7
    assert lowest_open_number(1, [entry(9), entry(8), entry(6, hour - 1)], START) == 1
    assert lowest_open_number(8, [entry(9), entry(8)], START) == 10
    assert lowest_open_number(8, [entry(9), entry(7)], START) == 8
    assert lowest_open_number(8, [entry(9), entry(6)], START) == 7


@pytest.mark.parametrize(
    ("previous", "order"), [(None, 5_000_000), (4_999_999, 5_000_000), (5_000_000, 5_000_001)]
)
def test_next_order_is_the_moment_in_microseconds_unless_that_is_too_low(
    previous: int | None, order: int
) -> None:
    assert next_order(previous, datetime.fromtimestamp(5, UTC)) == order


def test_next_order_of_a_first_change_is_never_negative() -> None:
    assert next_order(None, datetime(1969, 1, 1, tzinfo=UTC)) == 0
