"""The figures of the pages are those of the data files that the benchmarks write."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import pages, report
from benchmarks.machine import ROOT

PAGES = pages.pages()
REGIONS = [
    (page, name, part) for page in PAGES for _, name, part, _ in report.REGION.findall(page.read_text())
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_figures_of_a_page_are_those_of_the_data_files(page: Path) -> None:
    text = page.read_text()
    assert report.filled(text, pages.render) == text, "run: make docs-figures"
