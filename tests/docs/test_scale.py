"""docs/scale.md has the numbers that benchmarks/scale.py computes from the measurements."""

from benchmarks.partitions.result import Measurements
from benchmarks.scale import BLOCKS, PAGE, written


def test_scale_page_has_the_computed_tables() -> None:
    page = PAGE.read_text()
    assert written(page, Measurements.load()) == page, "run: python -m benchmarks.scale"


def test_scale_page_has_each_table_once() -> None:
    page = PAGE.read_text()
    assert [page.count(f"<!-- {name}: begin") for name in BLOCKS] == [1] * len(BLOCKS)
