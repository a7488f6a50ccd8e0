"""Which pages a run could have seen, and has not; with fakes of the stores."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest

from ragcrawl_dynamo import Page
from ragcrawl_dynamo._commit.unseen_pages import UnseenPages
from ragcrawl_dynamo._frontier.link_rules import LinkRules
from ragcrawl_dynamo._utils.urls import link_id
from tests.support.factories import START, make_run
from tests.support.hosts import at

URL = "https://example.com/page"
NOWHERE = "mailto:nobody"


class FakeRunItems:
    """A completed run, with frontier items by their URLs; and the pages of its site."""

    def __init__(self, items: dict[str, Any] | None = None, **run: Any) -> None:
        self.items = self.control = self.run = self
        self.rules = LinkRules()
        self.reads: list[list[str]] = []
        self.asked: list[tuple[str, datetime, int]] = []
        self.is_checked = False
        self._run = make_run(created_at=at(-9), **run)
        self._items = {link_id(url): item for url, item in (items or {}).items()}
        self._wanted: Any = None

    async def get_completed(self, site_id: str, run_id: str) -> Any:
        assert (site_id, run_id) == ("site", "run")
        return self._run

    def queue(self, site_id: str, run_id: str) -> Any:
        assert (site_id, run_id) == ("site", "run")
        return SimpleNamespace(run=self)

    async def check_rules(self) -> None:
        self.is_checked = True

    async def read_stored(self, item_ids: Sequence[str]) -> dict[str, Any]:
        # The rules of this process are those of the run.
        assert self.is_checked
        self.reads.append(sorted(item_ids))
        return {item_id: self._items[item_id] for item_id in item_ids if item_id in self._items}

    async def not_seen_since(self, site_id: str, moment: datetime, limit: int, wanted: Any) -> list[Page]:
        self.asked.append((site_id, moment, limit))
        self._wanted = wanted
        return []

    async def unseen(self, *urls: str) -> set[str]:
        """Returns which URLs belong to pages that the run has not seen."""
        await self.find()
        wanted: set[str] = await self._wanted(urls)
        return wanted

    async def find(self) -> None:
        stores: list[Any] = [self, self, self]
        assert await UnseenPages(*stores).find("site", "run", 7) == []


def ended(status: str, **outcome: Any) -> Any:
    """An item that has ended."""
    return {"status": {"S": status}, **outcome}


async def test_get_unseen_pages_asks_for_pages_that_were_last_seen_before_the_run_began() -> None:
    run = FakeRunItems(started_at=START)
    await run.find()
    assert run.asked == [("site", START, 7)]


async def test_get_unseen_pages_takes_the_creation_of_a_run_that_was_never_started() -> None:
    run = FakeRunItems()
    await run.find()
    assert run.asked == [("site", at(-9), 7)]


@pytest.mark.parametrize(
    ("item", "is_unseen"),
    [
        # A commit saw the page, even if the clock was wrong.
        (ended("completed", outcome={"S": "unchanged"}), False),
        # The process that completed the item saw no page.
        (ended("completed"), True),
        # A failed fetch says nothing, nor does one that robots.txt forbids.
        (ended("failed"), False),
        (ended("skipped"), False),
        (ended("pending"), False),
    ],
)
async def test_get_unseen_pages_goes_by_the_item_of_a_page(item: Any, is_unseen: bool) -> None:
    assert await FakeRunItems({URL: item}).unseen(URL) == ({URL} if is_unseen else set())


async def test_get_unseen_pages_has_pages_without_an_item() -> None:
    run = FakeRunItems({URL: ended("skipped")})
    other = "https://example.com/other"
    assert await run.unseen(URL, other) == {other}
    assert run.reads == [sorted([link_id(URL), link_id(other)])]


async def test_get_unseen_pages_compares_urls_by_the_rules_of_the_run() -> None:
    run = FakeRunItems({URL: ended("skipped")})
    assert await run.unseen(f"{URL}#part", "https://EXAMPLE.com/page") == set()
    # Two pages of one item are one look-up.
    assert run.reads == [[link_id(URL)]]


async def test_get_unseen_pages_has_pages_whose_url_is_no_link() -> None:
    run = FakeRunItems()
    assert await run.unseen(NOWHERE) == {NOWHERE}
    assert run.reads == [[]]
