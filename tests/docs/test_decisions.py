"""The decision records have one form, the index lists all of them, and the overview stays short."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DECISIONS = ROOT / "docs" / "decisions"
RECORDS = sorted(DECISIONS.glob("[0-9]*.md"))
MAKEFILE = (ROOT / "Makefile").read_text()

SECTIONS = ["Context", "Decision", "Rejected", "Consequences"]
LONGEST_OVERVIEW = 150


def sections(record: Path) -> dict[str, str]:
    """The text of each section of a record, by its heading."""
    _, *parts = re.split(r"^## (.+)$", record.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[::2], map(str.strip, parts[1::2]), strict=True))


def test_decisions_are_numbered_without_a_gap() -> None:
    assert [record.name[:5] for record in RECORDS] == [
        f"{number:04}-" for number in range(1, len(RECORDS) + 1)
    ]


def test_decisions_index_lists_each_record_once() -> None:
    rows = re.findall(
        r"^\| \[(\d{4})\]\((.+?)\) \| .+ \|$", (DECISIONS / "index.md").read_text(), re.MULTILINE
    )
    assert sorted(rows) == [(record.name[:4], record.name) for record in RECORDS]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.stem)
def test_decision_has_its_number_and_all_sections(record: Path) -> None:
    assert record.read_text().startswith(f"# {record.name[:4]} ")
    by_title = sections(record)
    assert list(by_title) in (SECTIONS, [*SECTIONS, "Figures"])
    assert all(by_title.values())


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.stem)
def test_decision_tells_how_its_figures_were_made(record: Path) -> None:
    figures = sections(record).get("Figures")
    if figures is not None:
        assert re.search(r"`make |`tests/|[Mm]easured once|Computed", figures)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.stem)
def test_decision_names_targets_of_the_makefile(record: Path) -> None:
    targets = re.findall(r"`make ([a-z-]+)", " ".join(record.read_text().split()))
    assert [target for target in targets if not re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)] == []


def test_design_page_stays_an_overview() -> None:
    assert len((ROOT / "docs" / "design.md").read_text().splitlines()) <= LONGEST_OVERVIEW
