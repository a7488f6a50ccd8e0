"""Which settings of a worker are accepted, and how fast a worker was by its summary."""

from __future__ import annotations

from typing import Any

import pytest

from ragcrawl_dynamo import InvalidArgumentError, WorkSummary
from ragcrawl_dynamo._frontier.handling import OUTAGE_SECONDS, WorkerSettings
from ragcrawl_dynamo._frontier.lease_keeper import LeaseSettings

LEASE = LeaseSettings(30.0, 2.0)
YEAR = 366 * 86_400


def test_settings_are_those_that_are_given() -> None:
    settings = WorkerSettings.checked(10_000, LEASE, "w", YEAR, 0.0)
    assert settings == WorkerSettings(10_000, LEASE, "w", YEAR, 0.0)
    # A worker without a name does not handle signals if it has no time for that.
    assert WorkerSettings.checked(1, LEASE, None, None, OUTAGE_SECONDS) == WorkerSettings(1, LEASE)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("concurrency", 0),
        ("concurrency", 10_001),
        ("worker_id", "w" * 257),
        ("worker_id", 7),
        ("grace_seconds", -1),
        ("grace_seconds", YEAR + 1),
        ("outage_seconds", -1),
        ("outage_seconds", YEAR + 1),
        ("outage_seconds", None),
    ],
)
def test_setting_outside_of_its_bounds_is_refused(setting: str, value: Any) -> None:
    given: dict[str, Any] = {
        "concurrency": 1,
        "lease": LEASE,
        "worker_id": None,
        "grace_seconds": None,
        "outage_seconds": 900.0,
    }
    with pytest.raises(InvalidArgumentError, match=rf"^{setting}: "):
        WorkerSettings.checked(**{**given, setting: value})


def test_summary_counts_completed_and_skipped_items_as_pages() -> None:
    summary = WorkSummary(completed=3, retried=5, failed=7, skipped=1, lost=9, seconds=2.0)
    assert summary.pages_per_second == 2.0
