"""Prints records: as tables for people, as JSON lines for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, is_dataclass
from datetime import datetime
from typing import Any, NoReturn

import orjson
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

# Data goes to stdout, everything else to stderr. For files and pipes, the 80 columns of rich are too few.
_FILE_WIDTH = 200
out: Console = Console(highlight=False, width=None if sys.stdout.isatty() else _FILE_WIDTH)
err: Console = Console(stderr=True, highlight=False)


def plain(record: Any) -> Any:
    """Converts a record to values that JSON has."""
    if isinstance(record, BaseModel):
        return record.model_dump(mode="json")
    if is_dataclass(record) and not isinstance(record, type):
        return asdict(record)
    return record


def write_json(record: Any) -> None:
    """Writes a record to stdout as a line of JSON."""
    sys.stdout.write(orjson.dumps(plain(record), default=str, option=orjson.OPT_NON_STR_KEYS).decode() + "\n")
    sys.stdout.flush()


def write_rows(records: Iterable[Any], columns: Sequence[str], *, as_json: bool, empty: str) -> None:
    """Writes records as the rows of a table, or as lines of JSON.

    Args:
        records: Models or dataclasses.
        columns: The names of the fields to show.
        as_json: Writes whole records as JSON instead.
        empty: The message if there are no records.
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
    """Writes one record as a table of its fields, or as a line of JSON."""
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
    """Writes the outcome of a command: a message on stderr, or a line of JSON on stdout."""
    if as_json:
        write_json(record)
    else:
        say(text)


def say(text: str) -> None:
    """Writes a message to stderr."""
    err.print(text, markup=False, soft_wrap=True)


def note(text: str) -> None:
    """Writes a remark about the output to stderr."""
    err.print(text, style="dim", markup=False, soft_wrap=True)


def fail(reason: str) -> NoReturn:
    """Writes an error to stderr, and ends the process with exit code 1."""
    err.print("[bold red]error:[/]", end=" ")
    say(reason)
    sys.exit(1)


def cell(value: Any) -> Text:
    """Creates a table cell without markup: crawled text may look like rich's markup."""
    return Text(text_of(value), overflow="fold")


def text_of(value: Any) -> str:
    """Formats a value for people."""
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
            return ", ".join(f"{key}: {text_of(member)}" for key, member in value.items()) or "-"
        case list() | tuple() | set() | frozenset():
            return ", ".join(map(text_of, value)) or "-"
        case _:
            return str(value)
