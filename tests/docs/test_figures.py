"""The figures of the pages are those of the data files, and each figure outside of them has a source."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import pages, report, scale
from benchmarks.machine import ROOT
from benchmarks.speed.page import drawn
from tests.docs.figures import CODE_LINES, OURS, SOURCES, figures_of

PAGES = pages.pages()
NAMES = sorted(path.stem for path in report.DATA.glob("*.json"))


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_figures_of_a_page_are_those_of_the_data_files(page: Path) -> None:
    text = page.read_text()
    assert report.filled(text, pages.render) == text, "run: make docs-figures"


def test_figures_of_each_data_file_are_on_a_page_once_with_their_origin() -> None:
    regions: Counter[tuple[str, str]] = Counter()
    for page in PAGES:
        text = page.read_text()
        in_page = [(name, part) for _, name, part, _ in report.REGION.findall(text)]
        # A region that is not closed would take the next one in.
        assert text.count("<!-- benchmark:") == text.count("<!-- end -->") == len(in_page)
        regions.update(in_page)
    assert sorted(pages.PARTS) == NAMES
    parts = [(name, part) for name in NAMES for part in ("origin", *pages.PARTS[name])]
    assert regions == Counter(parts)


@pytest.mark.parametrize("name", NAMES)
def test_figures_of_a_data_file_name_the_commit_that_was_measured(name: str) -> None:
    origin = report.load(name).origin
    assert re.fullmatch("[0-9a-f]{7}", origin.commit), "commit your changes, and measure again"
    target = origin.command.split()[1]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", pages.PLOTS)
def test_figures_of_a_plot_are_those_of_the_data_file(name: str) -> None:
    path, _, choose = pages.PLOTS[name]
    assert drawn(path) == choose(report.load(name).figures), "run: make docs-figures"


def test_figures_of_the_price_of_a_body_are_those_of_the_benchmark() -> None:
    # The head of the version takes a unit, and so does its index entry.
    assert round(OURS["write"] / OURS["stored"], 1) - 2 == scale.BODY_WRITES


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_figures_outside_of_regions_have_a_source(page: Path) -> None:
    """tests/docs/figures.py lists them. A figure that was measured belongs in a region."""
    assert figures_of(page) == set(SOURCES.get(name_of(page), {}))


def test_figures_have_sources_that_exist() -> None:
    for page, sources in SOURCES.items():
        text = (ROOT / page).read_text()
        for source in sources.values():
            if source.startswith("tests/"):
                path, _, name = source.partition("::")
                assert f"def {name}(" in (ROOT / path).read_text(), source
            elif " at commit " in source:
                assert f"at commit {source.split()[-1]}" in " ".join(text.split()), source


@pytest.mark.parametrize("page", CODE_LINES)
def test_figures_of_code_are_those_of_the_data_files(page: str) -> None:
    text = (ROOT / page).read_text()
    assert [line for line in CODE_LINES[page] if line not in text] == []
