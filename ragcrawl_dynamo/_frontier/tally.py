"""Counts the items of a run by host and state, in bounded memory."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Self

from ragcrawl_dynamo._frontier.counts import NAMES

_SUMS = ", ".join(f"{name} = {name} + excluded.{name}" for name in NAMES)
_ADD = f"INSERT INTO counts VALUES (?, ?, {', '.join('?' * len(NAMES))}) ON CONFLICT (host) DO UPDATE SET stored = max(stored, excluded.stored), {_SUMS}"  # noqa: S608, E501 # names of ours
_DIFFERENCES = f"SELECT * FROM counts WHERE stored AND ({' OR '.join(NAMES)})"  # noqa: S608 # names of ours


class Tally:
    """Differences between counted items and stored counts, by host. Use it in `with`.

    They lie in a temporary database, which SQLite keeps on disk as soon as it outgrows 2 MB.

    Attributes:
        total: How many items were counted in each state.
    """

    def __init__(self) -> None:
        self.total: Counter[str] = Counter()
        self._database = sqlite3.connect("", isolation_level=None)

    def __enter__(self) -> Self:
        """Creates the table."""
        columns = ", ".join(f"{name} INTEGER" for name in NAMES)
        for statement in (
            "PRAGMA journal_mode = OFF",
            "PRAGMA cache_size = -2000",
            f"CREATE TABLE counts (host TEXT PRIMARY KEY, stored INTEGER, {columns}) WITHOUT ROWID",
        ):
            self._database.execute(statement)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Deletes the database."""
        self._database.close()

    def count(self, items: Iterable[tuple[str, str]]) -> None:
        """Counts items, each given by its host and its state."""
        by_host: dict[str, Counter[str]] = {}
        for host, state in items:
            by_host.setdefault(host, Counter())[state] += 1
            self.total[state] += 1
        self._add(by_host, stored=0)

    def subtract_stored(self, by_host: Mapping[str, Counter[str]]) -> None:
        """Subtracts the stored counts of hosts."""
        self._add(
            {host: Counter({name: -counts[name] for name in NAMES}) for host, counts in by_host.items()},
            stored=1,
        )

    def differences(self) -> Iterator[tuple[str, Counter[str]]]:
        """Iterates over the hosts with stored counts that differ from the counted items."""
        for host, _, *amounts in self._database.execute(_DIFFERENCES):
            yield host, Counter(dict(zip(NAMES, amounts, strict=True)))

    def hosts_with(self, state: str) -> int:
        """Returns how many hosts have an item in a state."""
        query = f"SELECT count(*) FROM counts WHERE {_column(state)} > 0"  # noqa: S608 # a name of ours
        (count,) = self._database.execute(query).fetchone()
        return int(count)

    def most(self, state: str, limit: int) -> dict[str, int]:
        """Returns the hosts with the most items in a state, the first by name among equal ones."""
        column = _column(state)
        query = f"SELECT host, {column} FROM counts WHERE {column} > 0 ORDER BY {column} DESC, host LIMIT ?"  # noqa: S608 # a name of ours
        return dict(self._database.execute(query, (limit,)).fetchall())

    def _add(self, by_host: Mapping[str, Mapping[str, int]], *, stored: int) -> None:
        rows = [(host, stored, *(counts.get(name, 0) for name in NAMES)) for host, counts in by_host.items()]
        self._database.execute("BEGIN")
        self._database.executemany(_ADD, rows)
        self._database.execute("COMMIT")


def _column(state: str) -> str:
    return NAMES[NAMES.index(state)]
