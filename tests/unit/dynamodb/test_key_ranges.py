from hashlib import sha256
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragcrawl_dynamo._dynamodb.key_ranges import split_points

hashes = sorted(sha256(str(i).encode()).hexdigest() for i in range(5000))


def test_split_points_of_hashes_are_about_as_many_as_pages_remain() -> None:
    points = split_points(hashes[:500])
    assert 7 <= len(points) <= 11
    sizes = [sum(low < digest <= high for digest in hashes) for low, high in pairwise(points)]
    assert min(sizes) > 350
    assert max(sizes) < 650


@pytest.mark.parametrize(
    "keys",
    [
        [],
        ["a"],
        hashes[:10],
        [f"{i:08d}" for i in range(1000)],
        [f"{i:08x}" for i in range(1000)],
        [f"{i}" for i in range(1000)],
        [f"{20260000 + i // 20}-{i}" for i in range(1000)],
        [f"page-{i}" for i in range(1000)],
        [digest.upper() for digest in hashes[:500]],
    ],
    ids=["none", "one", "few", "decimals", "hexadecimals", "numbers", "dates", "words", "upper case"],
)
def test_split_points_of_other_ids_are_empty(keys: list[str]) -> None:
    assert split_points(sorted(keys)) == []


@given(st.integers(0, len(hashes) - 1), st.integers(0, 2000))
def test_split_points_ascend_and_lie_after_the_page(start: int, count: int) -> None:
    page = hashes[start : start + count]
    points = split_points(page)
    assert points == sorted(set(points))
    assert all(point > page[-1] for point in points)
