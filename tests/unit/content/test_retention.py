"""Which versions a retention rule keeps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragcrawl_dynamo import InvalidArgumentError
from ragcrawl_dynamo._content.heads import VersionHead
from ragcrawl_dynamo._content.retention import RetentionRule
from ragcrawl_dynamo._dynamodb.values import encode_value
from ragcrawl_dynamo._schema.keys import version_key
from tests.support.factories import START


def heads(ages: list[int]) -> list[VersionHead]:
    """Versions by their age in days, newest first."""
    return [
        VersionHead(
            version_key("page", f"v{i}", "site"),
            encode_value(START - timedelta(days=age), model="PageVersion", field="crawled_at")["S"],
        )
        for i, age in enumerate(sorted(ages))
    ]


limits = st.none() | st.integers(0, 8)


@given(st.lists(st.integers(0, 20), max_size=8), limits, limits, st.none() | st.integers(0, 9))
def test_retention_rule_keeps_the_newest_the_young_and_the_current(
    ages: list[int], keep_last: int | None, max_age_days: int | None, current: int | None
) -> None:
    if keep_last is None and max_age_days is None:
        keep_last = 0
    rule = RetentionRule.of(keep_last, max_age_days, START)
    removable = rule.removable(heads(ages), None if current is None else f"v{current}")
    expected = [
        f"v{i}"
        for i, age in enumerate(sorted(ages))
        if i >= (keep_last or 0) and (max_age_days is None or age > max_age_days) and i != current
    ]
    assert [head.version_id for head in removable] == expected
    assert not rule.keeps_all_of(len(ages)) or not removable


def test_retention_rule_keeps_all_versions_if_none_is_old_enough() -> None:
    rule = RetentionRule.of(None, 1e12, START)
    assert rule.removable(heads([0, 400, 4000]), None) == []
    ancient = RetentionRule.of(None, 366 * 2100, datetime(2026, 1, 1, tzinfo=UTC))
    assert ancient.removable(heads([0, 400, 4000]), None) == []


@pytest.mark.parametrize(("keep_last", "max_age_days"), [(None, None), (-1, None), (None, -0.5), (3, -1.0)])
def test_retention_rule_refuses_limits_that_make_no_sense(
    keep_last: int | None, max_age_days: float | None
) -> None:
    with pytest.raises(InvalidArgumentError, match=r"keep_last|max_age_days"):
        RetentionRule.of(keep_last, max_age_days, START)
