"""How outcomes of items are added up."""

from __future__ import annotations

from typing import Any

import pytest

from ragcrawl_dynamo import CommitOutcome, CommitResult, CrawlStats
from ragcrawl_dynamo._commit.decision import Decision
from ragcrawl_dynamo._commit.run_stats import (
    RunTotals,
    outcome_attributes,
    recorded_result,
    status_attribute,
)
from tests.support.factories import make_page, make_version


def decision(outcome: CommitOutcome, version_id: str | None, status: int | None = 200) -> Decision:
    is_gone = outcome is CommitOutcome.TOMBSTONED
    return Decision(outcome, make_page(current_version_id=version_id, is_tombstone=is_gone), status)


CREATED = decision(CommitOutcome.CREATED, "v1")


def failed(error: str) -> Any:
    return {"status": {"S": "failed"}, "last_error": {"S": error}}


def test_run_totals_name_the_most_frequent_types_of_errors() -> None:
    totals = RunTotals()
    totals.add(failed(f"E{i}: {i}") for i in range(300))
    totals.add(failed(f"E{i}: again") for i in range(200, 300))
    totals.add([failed("x" * 1000 + ": long")] * 3)
    stats = totals.stats()
    assert stats.pages_failed == 403
    assert len(stats.errors_by_type) == 100
    assert stats.errors_by_type == {"x" * 100: 3, **{f"E{i}": 2 for i in range(200, 299)}}


def test_run_totals_count_any_number_of_types_of_errors_in_bounded_memory() -> None:
    totals = RunTotals()
    totals.add(failed(f"text {i}") for i in range(5000))
    assert totals.stats().errors_by_type["other"] == 4000


def test_run_totals_count_the_statuses_of_final_items_only() -> None:
    """An item that was given up after a 503, and set to pending by hand, is not fetched yet."""
    totals = RunTotals()
    status: Any = {"outcome_status": {"N": "503"}}
    totals.add(
        [{"status": {"S": state}, **status} for state in ("pending", "failed", "in_progress", "skipped")]
    )
    totals.add([{"status": {"S": "completed"}, "outcome": {"S": "unchanged"}, **status}])
    assert totals.stats().status_codes == {503: 3}


def completed(outcome: str | None, **numbers: Any) -> Any:
    """An item that was completed, by a commit with an outcome or without one."""
    item = {"status": {"S": "completed"}, **{name: {"N": str(value)} for name, value in numbers.items()}}
    return item if outcome is None else {**item, "outcome": {"S": outcome}}


def test_run_totals_count_each_outcome_as_one_field() -> None:
    totals = RunTotals()
    outcomes = [outcome for i, outcome in enumerate(CommitOutcome) for _ in range(1 + i)]
    totals.add(completed(outcome) for outcome in outcomes)
    stats = totals.stats()
    counts = {outcome: 1 + i for i, outcome in enumerate(CommitOutcome)}
    assert stats.pages_new == counts[CommitOutcome.CREATED]
    # A page that exists again has changed.
    assert stats.pages_changed == counts[CommitOutcome.CHANGED] + counts[CommitOutcome.REVIVED]
    assert stats.pages_unchanged == counts[CommitOutcome.UNCHANGED]
    assert stats.pages_deleted == counts[CommitOutcome.TOMBSTONED]
    assert stats.pages_crawled == stats.pages_discovered == len(outcomes)


def test_run_totals_count_items_by_status() -> None:
    totals = RunTotals()
    states = ["pending"] * 2 + ["in_progress"] * 3 + ["completed"] * 4 + ["failed"] * 5 + ["skipped"] * 6
    totals.add({"status": {"S": state}} for state in states)
    stats = totals.stats()
    assert (stats.pages_crawled, stats.pages_failed, stats.pages_skipped) == (4, 5, 6)
    assert (stats.pages_discovered, totals.open) == (20, 5)


def test_run_totals_without_items_are_zero() -> None:
    totals = RunTotals()
    assert totals.stats() == CrawlStats()
    assert (totals.open, totals.max_depth) == (0, 0)


def test_run_totals_add_up_sizes_and_times() -> None:
    totals = RunTotals()
    totals.add([completed("created", outcome_bytes=100, outcome_fetch_ms=30, outcome_extraction_ms=5)])
    totals.add([completed("changed", outcome_bytes=11, outcome_fetch_ms=12, outcome_extraction_ms=1.5)])
    # A commit that brought no content; and an item that no commit completed.
    totals.add([completed("tombstoned"), completed(None, outcome_bytes=999, outcome_fetch_ms=999)])
    stats = totals.stats()
    assert stats.total_bytes_downloaded == 111
    assert (stats.total_fetch_time_ms, stats.total_extraction_time_ms) == (42, 6.5)
    # Of the two fetches that have a time.
    assert stats.avg_fetch_latency_ms == 42 / 2


def test_run_totals_keep_the_greatest_depth() -> None:
    totals = RunTotals()
    totals.add(
        [completed(None, depth=3), completed(None, depth=5), completed(None), completed(None, depth=2)]
    )
    assert totals.max_depth == 5


def test_run_totals_of_items_without_a_depth_have_none() -> None:
    totals = RunTotals()
    totals.add([completed(None)])
    assert totals.max_depth == 0


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("TimeoutError: slow: very", "TimeoutError"),
        ("robots.txt", "robots.txt"),
        (": no type", "unknown"),
        ("", "unknown"),
        (None, "unknown"),
    ],
)
def test_run_totals_count_an_error_by_the_text_before_its_first_colon(error: str | None, kind: str) -> None:
    totals = RunTotals()
    item: Any = {"status": {"S": "failed"}}
    totals.add([item if error is None else failed(error)])
    assert totals.stats().errors_by_type == {kind: 1}


def test_run_totals_count_a_known_type_of_error_after_the_limit() -> None:
    totals = RunTotals()
    totals.add(failed(f"E{i}") for i in range(1000))
    totals.add([failed("E0")] * 2)
    assert totals.stats().errors_by_type["E0"] == 3
    assert "other" not in totals.stats().errors_by_type


def test_outcome_attributes_of_content_have_its_version_size_and_times() -> None:
    version = make_version(markdown="grüße", html=None, fetch_latency_ms=30, extraction_latency_ms=0.5)
    assert outcome_attributes(CREATED, version, None) == {
        "outcome": {"S": "created"},
        "outcome_version": {"S": "v1"},
        "outcome_status": {"N": "200"},
        # As it is in UTF-8.
        "outcome_bytes": {"N": "7"},
        "outcome_fetch_ms": {"N": "30.0"},
        "outcome_extraction_ms": {"N": "0.5"},
    }


def test_outcome_attributes_count_the_bytes_of_the_html_if_there_is_any() -> None:
    version = make_version(markdown="text", html="<p>text</p>")
    assert outcome_attributes(CREATED, version, None)["outcome_bytes"] == {"N": "11"}
    empty = make_version(markdown="text", html="")
    assert outcome_attributes(CREATED, empty, None)["outcome_bytes"] == {"N": "0"}


def test_outcome_attributes_count_text_that_is_no_utf_8() -> None:
    version = make_version().model_copy(update={"markdown": "\ud800"})
    assert outcome_attributes(CREATED, version, None)["outcome_bytes"] == {"N": "3"}


def test_outcome_attributes_have_no_times_that_are_not_known() -> None:
    version = make_version(fetch_latency_ms=0)
    attributes = outcome_attributes(CREATED, version, None)
    assert attributes["outcome_fetch_ms"] == {"N": "0.0"}
    assert "outcome_extraction_ms" not in attributes


def test_outcome_attributes_without_content_are_the_outcome_only() -> None:
    gone = decision(CommitOutcome.TOMBSTONED, None, None)
    assert outcome_attributes(gone, None, make_page()) == {"outcome": {"S": "tombstoned"}}


def test_status_attribute_of_a_fetch_without_an_answer_is_none() -> None:
    assert status_attribute(None) == {}
    assert status_attribute(503) == {"outcome_status": {"N": "503"}}


@pytest.mark.parametrize(
    ("outcome", "version_id"), [(CommitOutcome.CREATED, "v1"), (CommitOutcome.TOMBSTONED, None)]
)
def test_recorded_result_is_the_one_that_was_stored(outcome: CommitOutcome, version_id: str | None) -> None:
    attributes = outcome_attributes(decision(outcome, version_id), None, None)
    assert recorded_result(attributes) == CommitResult(outcome, version_id)


def test_outcome_attributes_have_the_status_of_the_answer_not_that_of_the_page() -> None:
    """A page that answers 304 keeps the status of its content."""
    unchanged = Decision(CommitOutcome.UNCHANGED, make_page(status_code=200), 304)
    assert outcome_attributes(unchanged, None, make_page())["outcome_status"] == {"N": "304"}


@pytest.mark.parametrize(("was_tombstone", "is_absent"), [(None, True), (True, True), (False, False)])
def test_outcome_attributes_say_whether_a_page_that_is_gone_was_there(
    was_tombstone: bool | None, is_absent: bool
) -> None:
    before = None if was_tombstone is None else make_page(is_tombstone=was_tombstone)
    attributes = outcome_attributes(decision(CommitOutcome.TOMBSTONED, None, 404), None, before)
    assert attributes.get("outcome_absent") == ({"BOOL": True} if is_absent else None)


def test_recorded_result_of_an_item_that_no_commit_completed_is_none() -> None:
    assert recorded_result(completed(None)) is None
