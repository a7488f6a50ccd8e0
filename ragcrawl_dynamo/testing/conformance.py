"""Tests that every implementation of `StorageBackend` must pass.

    import pytest_asyncio
    from ragcrawl_dynamo.testing.conformance import StorageBackendConformance

    class TestMyBackend(StorageBackendConformance):
        @pytest_asyncio.fixture
        async def backend(self):
            async with MyBackend() as backend:  # an empty backend for every test
                yield backend

The tests need pytest-asyncio in mode "auto". They do not test how a backend stores records, what that costs,
and what its queue guarantees under concurrency: `DynamoDBBackend` has its own tests for this.

Some reads may be eventually consistent, as `StorageBackend` says. The tests wait for what such a read shows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, ClassVar, TypeVar

import pytest

from ragcrawl_dynamo import (
    ChangeKind,
    CommitOutcome,
    CrawlRun,
    FrontierItem,
    FrontierStatus,
    InvalidInputError,
    LeaseLostError,
    NotFoundError,
    Page,
    PageVersion,
    RunStatus,
    Site,
    Slice,
    StorageBackend,
)

__all__ = ["StorageBackendConformance"]

T = TypeVar("T")

_START = datetime(2026, 1, 1, tzinfo=UTC)


def _site(site_id: str = "site", **fields: Any) -> Site:
    return Site(site_id=site_id, name="A site", seeds=["https://example.com/"], **fields)


def _run(run_id: str = "run", site_id: str = "site", **fields: Any) -> CrawlRun:
    return CrawlRun(run_id=run_id, site_id=site_id, **fields)


def _page(page_id: str = "page", site_id: str = "site", **fields: Any) -> Page:
    return Page(page_id=page_id, site_id=site_id, **{"url": f"https://example.com/{page_id}", **fields})


def _version(version_id: str, page_id: str = "page", site_id: str = "site", **fields: Any) -> PageVersion:
    defaults = {
        "run_id": "run",
        "url": f"https://example.com/{page_id}",
        "status_code": 200,
        "content_hash": f"hash of {version_id}",
        "markdown": f"# {version_id}\n\nText, é and 🕷️.",
    }
    return PageVersion(version_id=version_id, page_id=page_id, site_id=site_id, **{**defaults, **fields})


def _item(item_id: str, run_id: str = "run", **fields: Any) -> FrontierItem:
    url = f"https://example.com/{item_id}"
    return FrontierItem(
        item_id=item_id,
        run_id=run_id,
        site_id="site",
        url=url,
        normalized_url=url,
        url_hash="hash",
        domain="example.com",
        **fields,
    )


async def _pages(backend: StorageBackend, limit: int, cursor: str | None) -> Slice[Page]:
    return await backend.list_pages("site", limit=limit, cursor=cursor)


async def _all(read: Callable[[str | None], Awaitable[Slice[T]]]) -> list[T]:
    """Reads a whole listing, slice by slice."""
    part = await read(None)
    records = list(part)
    while part.cursor is not None:
        part = await read(part.cursor)
        records += part
    return records


class StorageBackendConformance:
    """Tests a backend. A subclass defines the fixture `backend`: an initialized backend without records.

    Attributes:
        lag_seconds: How long a test waits at most for what an eventually consistent read shows.
    """

    lag_seconds: ClassVar[float] = 30.0

    async def test_initialize_twice_changes_nothing(self, backend: StorageBackend) -> None:
        """The backend is healthy, and a record stays through a second initialize()."""
        assert await backend.health_check() is True
        site = _site()
        await backend.save_site(site)
        await backend.initialize()
        assert await backend.get_site("site") == site

    async def test_reads_of_missing_records_return_none_or_nothing(self, backend: StorageBackend) -> None:
        """Every method that reads returns None, an empty list or 0 for records that do not exist."""
        assert await backend.get_site("site") is None
        assert await backend.get_run("site", "run") is None
        assert await backend.find_run("run") is None
        assert await backend.get_latest_run("site") is None
        assert await backend.get_page("site", "page") is None
        assert await backend.get_page_by_url("site", "https://example.com/") is None
        assert await backend.get_pages_bulk("site", ["page"]) == []
        assert await backend.get_version("site", "page", "v1") is None
        assert await backend.find_version("site", "v1") is None
        assert await backend.get_current_version("site", "page") is None
        for listing in (
            backend.list_sites(),
            backend.list_runs("site"),
            backend.list_pages("site"),
            backend.list_versions("site", "page"),
            backend.get_frontier_items("run"),
        ):
            part = await listing
            assert (part, part.cursor) == ([], None)
        assert await backend.count_pages("site") == 0
        assert await backend.delete_site("site") is False

    async def test_saved_records_are_read_unchanged(self, backend: StorageBackend) -> None:
        """Records of every model, with every type of field, are equal after a round trip."""
        moment = _START + timedelta(microseconds=123456)
        site = _site(config={"deep": {"list": [1, 2.5, None, True, "é"]}}, last_crawl_at=moment)
        run = _run(status=RunStatus.RUNNING, created_at=moment, config_snapshot={"a": 1}, seeds=["x"])
        page = _page(etag='W/"x"', last_crawled=moment, depth=3, status_code=200, current_version_id="v1")
        version = _version("v1", html="<h1>", outlinks=["https://example.com/2"], extra={"score": 0.5})
        item = _item("item", priority=2.5, depth=1, discovered_at=moment)
        await backend.save_site(site)
        await backend.save_run(run)
        await backend.save_page(page)
        await backend.save_version(version)
        await backend.save_frontier_item(item)
        assert await backend.get_site("site") == site
        assert (
            await self._shown(lambda: backend.find_run("run")) == await backend.get_run("site", "run") == run
        )
        assert await backend.get_page("site", "page") == page
        assert await backend.get_version("site", "page", "v1") == version
        assert await self._shown(lambda: backend.find_version("site", "v1")) == version
        assert await backend.get_current_version("site", "page") == version
        assert await backend.get_frontier_items("run") == [item]

    async def test_save_page_replaces_the_stored_page(self, backend: StorageBackend) -> None:
        """No field of a stored page with the same key remains."""
        await backend.save_page(_page(depth=1, etag="old"))
        await backend.save_page(_page(depth=2))
        page = await backend.get_page("site", "page")
        assert page is not None
        assert (page.depth, page.etag) == (2, None)

    async def test_get_page_by_url_normalizes_the_url(self, backend: StorageBackend) -> None:
        """Every URL with the same normalized form finds the page, in its own site only."""
        page = _page(url="https://example.com/a?b=1&c=2")
        await backend.save_page(page)
        url = "https://example.com/a?c=2&b=1#top"
        assert await self._shown(lambda: backend.get_page_by_url("site", url)) == page
        assert await backend.get_page_by_url("other", "https://example.com/a?b=1&c=2") is None

    async def test_list_pages_returns_all_pages_in_order(self, backend: StorageBackend) -> None:
        """The slices have no gaps and no repetitions with any limit; iterations and counts agree."""
        pages = [_page(f"p{i:03}") for i in range(57)]
        assert await backend.save_pages_bulk(pages) == 57
        await backend.save_page(_page("gone", is_tombstone=True))
        for limit in (1, 10, 57, 1000):
            listed = await _all(partial(_pages, backend, limit))
            assert listed == pages
        assert [page async for page in backend.iter_pages("site")] == pages
        assert await backend.count_pages("site") == 57
        assert await backend.count_pages("site", include_tombstones=True) == 58
        ids = ["p030", "absent", "p002", "p030"]
        assert [page.page_id for page in await backend.get_pages_bulk("site", ids)] == ["p030", "p002"]

    async def test_list_runs_returns_the_newest_first(self, backend: StorageBackend) -> None:
        """The order is by created_at."""
        for i in (2, 0, 1):
            await backend.save_run(_run(f"r{i}", created_at=_START + timedelta(hours=i)))
        runs = await _all(lambda cursor: backend.list_runs("site", limit=2, cursor=cursor))
        assert [run.run_id for run in runs] == ["r2", "r1", "r0"]
        latest = await backend.get_latest_run("site")
        assert latest is not None
        assert latest.run_id == "r2"

    async def test_list_versions_returns_the_newest_first(self, backend: StorageBackend) -> None:
        """The order is by crawled_at, with and without bodies."""
        versions = [_version(f"v{i}", crawled_at=_START + timedelta(hours=i)) for i in range(5)]
        assert await backend.save_versions_bulk(versions, keep_unchanged=True) == 5
        listed = await _all(lambda cursor: backend.list_versions("site", "page", limit=2, cursor=cursor))
        assert listed == versions[::-1]
        heads = await backend.list_versions("site", "page", include_content=False)
        assert [(head.version_id, head.markdown) for head in heads] == [
            (f"v{i}", "") for i in range(4, -1, -1)
        ]

    async def test_delete_site_keeps_other_sites(self, backend: StorageBackend) -> None:
        """Another site keeps its records, even if its pages and versions have the same ids."""
        for site_id in ("one", "two"):
            await backend.save_site(_site(site_id))
            await backend.save_run(_run(f"run of {site_id}", site_id))
            await backend.save_page(_page("page", site_id, current_version_id="v1"))
            await backend.save_version(_version("v1", "page", site_id, markdown=site_id))
        # delete_site() may leave a version that was saved just before.
        await self._shown(lambda: backend.get_content_usage("one"), lambda usage: usage.versions == 1)
        assert await backend.delete_site("one") is True
        assert await backend.get_page("one", "page") is None
        assert await backend.get_version("one", "page", "v1") is None
        assert await backend.list_runs("one") == []
        version = await backend.get_current_version("two", "page")
        assert version is not None
        assert version.markdown == "two"
        assert [site.site_id for site in await backend.list_sites()] == ["two"]

    async def test_add_run_stats_adds_to_the_stored_stats(self, backend: StorageBackend) -> None:
        """Numbers and maps of numbers are added; a missing run is an error."""
        await backend.save_run(_run())
        await backend.add_run_stats("site", "run", pages_crawled=2, status_codes={200: 2})
        run = await backend.add_run_stats("site", "run", pages_crawled=1, status_codes={404: 1})
        assert (run.stats.pages_crawled, run.stats.status_codes) == (3, {200: 2, 404: 1})
        with pytest.raises(NotFoundError):
            await backend.add_run_stats("site", "absent", pages_crawled=1)

    async def test_get_frontier_items_selects_by_status(self, backend: StorageBackend) -> None:
        """update_frontier_status moves an item to the listing of its new status."""
        for i in range(5):
            await backend.save_frontier_item(_item(f"i{i}"))
        changed = await backend.update_frontier_status("run", "i1", FrontierStatus.FAILED, error="why")
        assert (changed.status, changed.last_error) == (FrontierStatus.FAILED, "why")
        assert await backend.get_frontier_items("run", status="failed") == [changed]
        pending = await _all(
            lambda cursor: backend.get_frontier_items("run", status="pending", limit=2, cursor=cursor)
        )
        assert sorted(item.item_id for item in pending) == ["i0", "i2", "i3", "i4"]
        assert await backend.clear_frontier("run") == 5
        assert await backend.get_frontier_items("run") == []

    async def test_frontier_leases_a_link_to_one_worker(self, backend: StorageBackend) -> None:
        """A link is added once and leased once at a time; completing it under an older lease raises."""
        frontier = backend.frontier("site", "run")
        url = "https://example.com/a"
        first, again = (await frontier.add([url]), await frontier.add([url + "#top"]))
        assert [[link.added for link in results] for results in (first, again)] == [[True], [False]]
        (claim,) = await frontier.claim(5, wait_seconds=self.lag_seconds)
        assert claim.item.url == url
        assert await frontier.claim(5) == []
        assert not await frontier.is_finished()
        await frontier.release(claim)
        (later,) = await frontier.claim(5, wait_seconds=self.lag_seconds)
        with pytest.raises(LeaseLostError):
            await frontier.complete(claim)
        await frontier.complete(later)
        assert await frontier.is_finished()
        stats = await frontier.stats()
        assert (stats.completed, stats.pending, stats.in_progress) == (1, 0, 0)

    async def test_commit_page_saves_page_and_version_and_completes_the_claim(
        self, backend: StorageBackend
    ) -> None:
        """An unchanged page gets no new version."""
        await backend.save_run(_run())
        frontier = backend.frontier("site", "run")
        outcomes = []
        for number, text in enumerate(["a", "a", "b"]):
            await frontier.add([f"https://example.com/{number}"])
            (claim,) = await frontier.claim(1, wait_seconds=self.lag_seconds)
            version = _version(f"v{number}", content_hash=text, markdown=text)
            result = await backend.commit_page(_page(status_code=200), version, claim=claim)
            outcomes.append(result.outcome)
        assert outcomes == [CommitOutcome.CREATED, CommitOutcome.UNCHANGED, CommitOutcome.CHANGED]
        current = await backend.get_current_version("site", "page")
        assert current is not None
        assert (current.version_id, current.markdown) == ("v2", "b")
        assert await frontier.is_finished()
        changes = await backend.list_changes("site")
        assert [change.page.page_id for change in changes] == ["page"]

    async def test_iter_changes_follows_with_content_until_it_is_stopped(
        self, backend: StorageBackend
    ) -> None:
        """The consumer's cursor is then behind all changes that it has handled."""
        await backend.commit_page(_page(status_code=200), _version("v1", markdown="a"))
        stop = asyncio.Event()
        handled = []
        async for change in backend.iter_changes(
            "site", "indexer", include_content=True, follow=True, poll_seconds=0.1, stop=stop
        ):
            handled.append((change.kind, change.version and change.version.markdown))
            if len(handled) == 1:
                await backend.commit_page(_page(status_code=410))
            elif change.kind is ChangeKind.DELETED:
                stop.set()
        assert (handled[0], handled[-1]) == ((ChangeKind.CREATED, "a"), (ChangeKind.DELETED, None))
        assert [change async for change in backend.iter_changes("site", "indexer")] == []

    async def test_invalid_arguments_are_refused(self, backend: StorageBackend) -> None:
        """A call with an invalid argument raises InvalidInputError and changes nothing."""
        with pytest.raises(InvalidInputError):
            await backend.save_page(_page(""))
        with pytest.raises(InvalidInputError):
            await backend.list_pages("site", limit=0)
        with pytest.raises(InvalidInputError):
            await backend.list_pages("site", cursor="damaged")
        assert await backend.count_pages("site", include_tombstones=True) == 0

    async def _shown(self, read: Callable[[], Awaitable[T]], is_shown: Callable[[T], object] = bool) -> T:
        """Reads again and again until the result is shown, or time is up; returns the last result."""
        end = asyncio.get_running_loop().time() + self.lag_seconds
        while True:
            result = await read()
            if is_shown(result) or asyncio.get_running_loop().time() >= end:
                return result
            await asyncio.sleep(0.05)
