"""The first records by an order, of more than are kept in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from random import Random

import pytest

from ragcrawl_dynamo import InvalidArgumentError
from ragcrawl_dynamo.adapters.ragcrawl.listings import check_range, first_by


async def shuffled(count: int) -> AsyncIterator[int]:
    numbers = list(range(count))
    Random(count).shuffle(numbers)  # noqa: S311 # the same order every time
    for number in numbers:
        yield number


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 1001, 3500])
@pytest.mark.parametrize(("offset", "limit"), [(0, 10), (5, 1200), (0, 0), (2, None), (5000, 10), (998, 3)])
async def test_first_by_returns_a_part_of_all_records_by_their_order(
    count: int, offset: int, limit: int | None
) -> None:
    part = await first_by(lambda number: -number, shuffled(count), offset, limit)
    in_order = sorted(range(count), reverse=True)
    assert part == (in_order[offset:] if limit is None else in_order[offset : offset + limit])


def test_check_range_refuses_negative_numbers() -> None:
    check_range(0, None)
    check_range(0, 0)
    with pytest.raises(InvalidArgumentError, match="offset"):
        check_range(-1, 5)
    with pytest.raises(InvalidArgumentError, match="limit"):
        check_range(0, -5)
