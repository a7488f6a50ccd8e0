"""How figures are stored, and how pages get them."""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.report import Origin

ORIGIN = Origin("make bench", "0123abc", "2026-01-01", "a machine, 2 cores", "an engine 1.0", 0.5, "A note.")
PAGE = "# Title\n\n<!-- benchmark: name part -->\n\n| old |\n\n<!-- end -->\n\nText.\n"


def test_report_reads_what_it_saved(tmp_path: Path) -> None:
    report.save("name", ORIGIN, {"a": [1.5, None]}, tmp_path)
    assert report.load("name", tmp_path) == report.Record(ORIGIN, {"a": [1.5, None]})
    assert [path.name for path in tmp_path.iterdir()] == ["name.json"]


def test_report_keeps_the_old_figures_if_the_new_ones_cannot_be_written(tmp_path: Path) -> None:
    report.save("name", ORIGIN, 1, tmp_path)
    with pytest.raises(TypeError):
        report.save("name", ORIGIN, object(), tmp_path)
    assert report.load("name", tmp_path).figures == 1
    assert json.loads((tmp_path / "name.json").read_text())["commit"] == "0123abc"


def test_report_fills_a_region_and_nothing_else() -> None:
    new = report.filled(PAGE, lambda name, part: [f"| {name} {part} |"])
    assert new == PAGE.replace("| old |", "| name part |")
    assert report.filled(new, lambda name, part: ["| old |"]) == PAGE


def test_report_origin_names_command_commit_and_circumstances() -> None:
    assert ORIGIN.sentences() == (
        "Measured by `make bench` at commit 0123abc on 2026-01-01: a machine, 2 cores, an engine 1.0, "
        "load 0.5 before the start. A note."
    )
    assert replace(ORIGIN, engine="", load=None, note="").sentences() == (
        "Measured by `make bench` at commit 0123abc on 2026-01-01: a machine, 2 cores."
    )


def test_report_stores_figures_of_runs_without_options_only() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    assert report.is_full(parser, parser.parse_args([]))
    assert not report.is_full(parser, parser.parse_args(["--rounds", "1"]))
