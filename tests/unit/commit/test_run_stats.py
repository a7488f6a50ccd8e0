"""How outcomes of items are added up."""

from __future__ import annotations

from typing import Any

from ragcrawl_dynamo._commit.run_stats import RunTotals


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
