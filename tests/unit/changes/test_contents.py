"""The versions of changed pages, and what happens to those that are gone; with fakes of the stores."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing
from typing import Any, cast

import pytest

from ragcrawl_dynamo import ChangeKind, Page, PageVersion
from ragcrawl_dynamo._changes.change import PageChange
from ragcrawl_dynamo._changes.contents import ChangeContents
from ragcrawl_dynamo._schema.keys import version_key
from tests.support.factories import make_page, make_version
from tests.support.fakes import FAST

PAGE = make_page(current_version_id="v1")
GONE = make_page(is_tombstone=True, current_version_id="v1")


class FakeContents:
    """The versions that are stored, by id; and the pages, as each read of one finds it."""

    def __init__(self, *versions: PageVersion) -> None:
        self.pages: list[Page | None] = []
        self.page_reads: list[tuple[str, str]] = []
        self.asked: list[str] = []
        self.is_closed = False
        self._versions = {str(version_key(one.page_id, one.version_id, one.site_id)): one for one in versions}

    async def get(self, *of: Any) -> Any:
        """Gets a version by its key, or a page by its site and its id."""
        if len(of) == 1:
            self.asked.append(str(of[0]))
            return self._versions.get(str(of[0]))
        self.page_reads.append(of)
        return self.pages.pop(0)

    async def iterate(self, keys: AsyncIterable[Any]) -> AsyncGenerator[PageVersion | None, None]:
        try:
            async for key in keys:
                yield self._versions.get(str(key))
        finally:
            self.is_closed = True

    async def load(self, *changes: PageChange) -> list[PageChange]:
        contents = ChangeContents(FAST, cast("Any", self), self)
        async with aclosing(contents.loaded(changes)) as loaded:
            return [change async for change in loaded]


def changed(page: Page, kind: ChangeKind = ChangeKind.CHANGED) -> PageChange:
    return PageChange(kind, page)


def with_version(version_id: str, page_id: str = "page") -> Page:
    return make_page(page_id, current_version_id=version_id)


async def test_list_changes_loads_the_version_that_each_page_names() -> None:
    versions = [make_version("v1", "a"), make_version("v2", "d")]
    changes = [
        changed(with_version("v1", "a")),
        # Neither has content.
        changed(make_page("b", is_tombstone=True, current_version_id="v9"), ChangeKind.DELETED),
        changed(make_page("c")),
        changed(with_version("v2", "d"), ChangeKind.CREATED),
    ]
    contents = FakeContents(*versions)
    loaded = await contents.load(*changes)
    assert [change.version for change in loaded] == [versions[0], None, None, versions[1]]
    assert [(change.page, change.kind) for change in loaded] == [
        (change.page, change.kind) for change in changes
    ]
    assert contents.page_reads == []
    assert contents.is_closed


async def test_list_changes_reads_a_page_again_whose_version_was_pruned() -> None:
    version = make_version("v2")
    contents = FakeContents(version)
    contents.pages = [with_version("v2")]
    (change,) = await contents.load(changed(with_version("v1")))
    assert (change.page.current_version_id, change.version, change.kind) == ("v2", version, "changed")
    assert contents.page_reads == [("site", "page")]


async def test_list_changes_goes_on_with_the_other_pages_after_one_that_was_read_again() -> None:
    versions = [make_version("v2", "a"), make_version("v1", "b")]
    contents = FakeContents(*versions)
    contents.pages = [with_version("v2", "a")]
    loaded = await contents.load(changed(with_version("v1", "a")), changed(with_version("v1", "b")))
    assert [change.version for change in loaded] == versions


@pytest.mark.parametrize("page", [None, GONE], ids=["deleted", "gone"])
async def test_list_changes_says_that_a_page_is_gone_which_went_meanwhile(page: Page | None) -> None:
    contents = FakeContents()
    contents.pages = [page]
    (change,) = await contents.load(changed(PAGE))
    assert (change.kind, change.version) == (ChangeKind.DELETED, None)
    # What was known of it is what there is to return.
    assert change.page == (page or PAGE)
    assert contents.asked == []


async def test_list_changes_returns_a_page_without_content_that_lost_it_meanwhile() -> None:
    contents = FakeContents()
    page = make_page()
    contents.pages = [page]
    (change,) = await contents.load(changed(PAGE))
    assert (change.page, change.version, change.kind) == (page, None, "changed")


async def test_list_changes_reads_a_page_again_four_times() -> None:
    """In the middle of its transaction, it names a version that is not visible yet."""
    version = make_version("v5")
    contents = FakeContents(version)
    contents.pages = [with_version(f"v{i}") for i in range(2, 6)]
    (change,) = await contents.load(changed(with_version("v1")))
    assert change.version == version


async def test_list_changes_returns_a_page_without_its_version_if_that_was_never_saved() -> None:
    contents = FakeContents()
    contents.pages = [with_version(f"v{i}") for i in range(2, 6)]
    (change,) = await contents.load(changed(with_version("v1"), ChangeKind.CREATED))
    assert (change.page.current_version_id, change.version, change.kind) == ("v5", None, "created")
    assert len(contents.page_reads) == 4
