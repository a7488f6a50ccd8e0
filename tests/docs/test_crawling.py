"""The table of statuses on the page about crawls agrees with the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ragcrawl_dynamo import InvalidArgumentError, ResponseKind

PAGE = Path(__file__).parents[2] / "docs" / "crawling.md"

# How the rows of the table begin, and what they mean.
ROWS = {
    "2xx": ResponseKind.CONTENT,
    "304": ResponseKind.NOT_MODIFIED,
    "301": ResponseKind.MOVED,
    "302": ResponseKind.REDIRECTED,
    "404": ResponseKind.GONE,
    "401": ResponseKind.DENIED,
    "408": ResponseKind.FAILED,
}


def rows() -> dict[str, str]:
    """The first cells of the table, by how they begin."""
    section = PAGE.read_text().partition("## What is stored for each status")[2].partition("\n## ")[0]
    cells = [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("| ")]
    return {re.split(r"[ ,]", cell)[0]: cell for cell in cells}


def test_table_of_statuses_has_a_row_for_each_kind() -> None:
    assert set(rows()) == {*ROWS, "status", "any"}


@pytest.mark.parametrize("status", range(100, 600))
def test_table_of_statuses_has_the_response_kind_of_each_status(status: int) -> None:
    named = [
        kind
        for name, kind in ROWS.items()
        if str(status) in re.findall(r"\d{3}", rows()[name]) or f"{status // 100}xx" in rows()[name]
    ]
    if named:
        assert named == [ResponseKind.of(status)]
    else:
        with pytest.raises(InvalidArgumentError):
            ResponseKind.of(status)
