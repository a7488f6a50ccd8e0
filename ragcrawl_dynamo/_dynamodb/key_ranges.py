"""Splits the sort keys that a listing still has to read into ranges of about one page each.

A query reads one page after the other, so a long listing takes one round trip after the other. If sort keys
are hashes, as page ids are, the first page shows how dense they are, and so where the other pages begin. The
ranges do not change the result: together they hold every sort key after the first page once.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import ceil
from statistics import fmean, pstdev

# The hexadecimal digits that give a key its position between 0 and 1; enough for the longest list of ranges.
_DIGITS = 8
_MAX_RANGES = 256

# Fewer keys do not show how keys are distributed.
_MIN_KEYS = 32


def split_points(sort_keys: Sequence[str]) -> list[str]:
    """Returns the sort keys at which the remaining ranges begin, ascending.

    Args:
        sort_keys: The sort keys of the first page, ascending.

    Returns:
        Sort keys after those of the page; none if the keys do not look like lower-case hexadecimal hashes.
    """
    if len(sort_keys) < _MIN_KEYS:
        return []
    positions = [position for key in sort_keys if (position := _position(key)) is not None]
    if len(positions) < len(sort_keys) or not _look_random(positions):
        return []
    last = positions[-1]
    ranges = min(_MAX_RANGES, ceil((1 - last) / last))
    step = (1 - last) / ranges
    points = [format(int((last + step * i) * 16**_DIGITS), f"0{_DIGITS}x") for i in range(1, ranges)]
    return [point for point in points if point > sort_keys[-1]]


def _look_random(positions: Sequence[float]) -> bool:
    # The gaps between random points are exponentially distributed: their deviation is their mean. Keys that
    # count up have equal gaps; dates and decimals have a few huge ones.
    gaps = [high - low for low, high in pairwise([0.0, *positions])]
    mean = fmean(gaps)
    return mean > 0 and 0.5 < pstdev(gaps, mean) / mean < 2


def _position(key: str) -> float | None:
    digits = key[:_DIGITS].ljust(_DIGITS, "0")
    return int(digits, 16) / 16**_DIGITS if all(digit in "0123456789abcdef" for digit in digits) else None
