"""The ranges of sort keys that a listing reads at the same time."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ragcrawl_dynamo._dynamodb.expressions import Between, Compare
from ragcrawl_dynamo._dynamodb.pagination import _ranges

KEYS = st.text("0f", min_size=1, max_size=3)


def holds(condition: Any, key: str) -> bool:
    """Whether a condition of DynamoDB holds for a sort key; BETWEEN includes both ends (AWS: Query)."""
    match condition:
        case None:
            return True
        case Between(low=low, high=high):
            return bool(low["S"] <= key <= high["S"])
        case Compare(operator=">", value=value):
            return bool(key > value["S"])
    raise AssertionError(condition)


@given(KEYS, st.sets(KEYS), KEYS, st.booleans())
def test_ranges_hold_each_key_from_the_last_one_on_once(
    last: str, points: set[str], key: str, is_successor: bool
) -> None:
    """No item is read twice, and none is left out; the keys at the ends of ranges are those that may be."""
    beyond = sorted(point for point in points if point > last)
    key = min([point for point in beyond if point >= key], default=key) + "\0" * is_successor
    ranges = list(_ranges("page_id", last, beyond))
    assert len(ranges) == len(beyond) + 1
    assert sum(holds(condition, key) for condition in ranges) == (key >= last or not beyond)
