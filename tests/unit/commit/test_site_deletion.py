"""The order in which the records of a site are deleted; with fakes of the stores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from ragcrawl_dynamo._commit.site_deletion import SiteDeletion


class FakeStore:
    """The store of one kind of records: notes what is deleted, and says that it deleted so many."""

    def __init__(self, name: str, deletions: list[Any], deleted: int = 0) -> None:
        self._name = name
        self._deletions = deletions
        self._deleted = deleted

    async def delete_of_site(self, site_id: str) -> int:
        self._deletions.append((self._name, site_id))
        return self._deleted


class FakeFrontiers:
    """The open queues of a process: notes which are cleared."""

    def __init__(self, deletions: list[Any]) -> None:
        self._deletions = deletions

    def clear(self, run_id: str, site_id: str) -> None:
        self._deletions.append(("queue", run_id, site_id))


class FakeSite:
    """A site with its records: `runs` are its runs by pages of their listing, `items` their items."""

    def __init__(
        self, *runs: list[str], is_stored: bool = True, items: Sequence[int] = (), parts: int = 0
    ) -> None:
        self.deletions: list[Any] = []
        self._runs = runs
        self._is_stored = is_stored
        self._items = list(items)
        # With items, another process has just deleted the runs.
        self._are_runs_left = not items
        self._parts = [FakeStore("pages", self.deletions, parts), FakeStore("versions", self.deletions)]

    async def get(self, site_id: str) -> object | None:
        return object() if self._is_stored else None

    async def keys(self, site_id: str) -> AsyncIterator[list[Any]]:
        assert site_id == "site"
        for page in self._runs:
            yield [{"site_id": {"S": site_id}, "run_id": {"S": run_id}} for run_id in page]

    async def clear(self, run_id: str, site_id: str) -> int:
        assert site_id == "site"
        self.deletions.append(("items", run_id))
        return self._items.pop(0) if self._items else 0

    async def delete(self, what: Any) -> int:
        is_site = isinstance(what, str)
        self.deletions.append(("site", what) if is_site else ("runs", [key["run_id"]["S"] for key in what]))
        return 0 if is_site or not self._are_runs_left else len(what)

    async def delete_all(self) -> bool:
        stores: list[Any] = [self, self, self, FakeFrontiers(self.deletions), self._parts]
        return await SiteDeletion(*stores).delete("site")


async def test_delete_site_deletes_a_run_after_its_items_and_the_site_last() -> None:
    """A deletion that is interrupted finds the rest again: the items by their run, and the site by its id."""
    site = FakeSite(["first", "a~1b"], ["third"])
    assert await site.delete_all()
    assert site.deletions == [
        ("items", "first"),
        ("queue", "first", "site"),
        # The id of the run, as it is escaped in its key.
        ("items", "a#b"),
        ("queue", "a#b", "site"),
        ("runs", ["first", "a~1b"]),
        ("items", "third"),
        ("queue", "third", "site"),
        ("runs", ["third"]),
        ("pages", "site"),
        ("versions", "site"),
        ("site", "site"),
    ]


@pytest.mark.parametrize(
    ("runs", "records", "was_there"),
    [
        ([], {"is_stored": False}, False),
        ([], {}, True),
        (["run"], {"is_stored": False}, True),
        (["run"], {"is_stored": False, "items": [1]}, True),
        (["first", "second"], {"is_stored": False, "items": [1, 0]}, True),
        ([], {"is_stored": False, "parts": 1}, True),
    ],
    ids=["nothing", "site", "run", "item", "item of one run", "page"],
)
async def test_delete_site_returns_whether_there_was_anything(
    runs: list[str], records: dict[str, Any], was_there: bool
) -> None:
    site = FakeSite(*([runs] if runs else []), **records)
    assert await site.delete_all() is was_there
