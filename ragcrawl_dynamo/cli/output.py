"""How records are shown: as tables for people, as JSON lines for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, is_dataclass
from datetime import datetime
from typing import Any

import orjson
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

# Data goes to stdout, all else to stderr. A file or a pipe has more room than rich takes it to have.
_WIDTH_OF_FILES = 200
out = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_OF_FILES)
err = Console(stderr=True, highlight=False)


def plain(record: Any) -> Any:
    """A record as what JSON has."""
    if isinstance(record, BaseModel):
        return record.model_dump(mode="json")
    if is_dataclass(record) and not isinstance(record, type):
        return asdict(record)
    return record


def write_json(record: Any) -> None:
    """A line of JSON on stdout."""
    sys.stdout.write(orjson.dumps(plain(record), default=str, option=orjson.OPT_NON_STR_KEYS).decode() + "\n")
    sys.stdout.flush()


def write_rows(records: Iterable[Any], columns: Sequence[str], *, as_json: bool, empty: str) -> None:
    """Records as the rows of a table, or one line of JSON each.

    Args:
        records: Models or dataclasses.
        columns: Names of the fields that are shown.
        as_json: Whole records as JSON instead.
        empty: Said where there are none.
    """
    if as_json:
        for record in records:
            write_json(record)
        return
    table = Table()
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for record in records:
        table.add_row(*(cell(getattr(record, name)) for name in columns))
    if table.row_count:
        out.print(table)
    else:
        err.print(empty, markup=False)


def write_record(record: Any, *, as_json: bool) -> None:
    """One record, field by field, or as a line of JSON."""
    fields = plain(record)
    if as_json:
        write_json(fields)
        return
    table = Table(show_header=False, box=None)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in fields.items():
        table.add_row(name.replace("_", " "), cell(value))
    out.print(table)


def write_outcome(record: Any, text: str, *, as_json: bool) -> None:
    """What was done: a word to the user on stderr, or a line of JSON."""
    if as_json:
        write_json(record)
    else:
        say(text)


def say(text: str) -> None:
    """A word to the user, on stderr."""
    err.print(text, markup=False, soft_wrap=True)


def cell(value: Any) -> Text:
    """A value in a table, as it is: what was crawled may look like rich's markup."""
    return Text(text_of(value), overflow="fold")


def text_of(value: Any) -> str:
    """A value for people."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case datetime():
            return f"{value:%Y-%m-%d %H:%M:%S}"
        case dict():
            return ", ".join(f"{key}: {text_of(each)}" for key, each in value.items()) or "-"
        case list() | tuple() | set() | frozenset():
            return ", ".join(map(text_of, value)) or "-"
        case _:
            return str(value)
