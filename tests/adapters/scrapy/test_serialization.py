"""The values that a request carries: some that come back as they were, and values that are refused."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ragcrawl_dynamo.adapters.scrapy.serialization import dumps, loads

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
moments = st.datetimes() | st.datetimes(timezones=st.just(UTC))
keys = st.text() | st.integers() | st.binary() | st.sampled_from(["$bytes", "$tuple", "$dict", "$set"])
values = st.recursive(
    plain | moments,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(keys, inner)
        | st.sets(st.integers() | st.text())
    ),
    max_leaves=20,
)


@given(values)
@example(datetime(2026, 10, 25, 2, 30, fold=1))
def test_scrapy_serialization_returns_values_as_they_were(value: Any) -> None:
    again = loads(dumps(value))
    assert again == value
    assert repr(again) == repr(value) or isinstance(value, set | dict | list | tuple)


def test_scrapy_serialization_refuses_objects_that_are_not_data() -> None:
    for value in (object(), {"a": [lambda: 0]}, {"a": type}):
        with pytest.raises(TypeError, match="cannot be stored"):
            dumps(value)
