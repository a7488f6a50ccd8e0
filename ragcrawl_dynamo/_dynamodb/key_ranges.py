"""Splits the sort keys that a listing has still to read into ranges of about one page each.

A query's pages follow each other, so that a long listing takes one round trip after another. Where sort keys
are hashes, as page ids are, the first page tells how densely they lie, and so where the others begin.
Ranges never change what is read: together they are all sort keys after the first page, each once.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import ceil
from statistics import fmean, pstdev

# Hexadecimal digits that place a key between 0 and 1; more than enough for the longest list of ranges.
_DIGITS = 8
_MAX_RANGES = 256

# Fewer keys say too little about how keys are spread.
_MIN_KEYS = 32


def split_points(sort_keys: Sequence[str]) -> list[str]:
    """Sort keys at which the remaining ranges begin, ascending, all after the page that was read.

    Args:
        sort_keys: Those of the first page, ascending.

    Returns:
        Empty where the keys do not look like lower-case hexadecimal hashes.
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
    # Between random points gaps are exponentially distributed: their deviation is their mean. Keys that count
    # up have equal gaps, dates and decimals a few that are huge.
    gaps = [high - low for low, high in pairwise([0.0, *positions])]
    mean = fmean(gaps)
    return mean > 0 and 0.5 < pstdev(gaps, mean) / mean < 2


def _position(key: str) -> float | None:
    digits = key[:_DIGITS].ljust(_DIGITS, "0")
    return int(digits, 16) / 16**_DIGITS if all(each in "0123456789abcdef" for each in digits) else None
