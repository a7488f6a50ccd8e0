"""Calls in the forms of the earlier version, and calls with swapped ids."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from ragcrawl_dynamo import (
    AmbiguousIdError,
    DynamoDBBackend,
    InvalidArgumentError,
    NotFoundError,
    RunStatus,
)
from tests.support.factories import START, hours, make_item, make_page, make_run, make_site, make_version


@pytest.fixture
def former(backend: DynamoDBBackend) -> Any:
    """The backend without its types, which have only the present forms."""
    return backend


async def test_get_run_in_its_former_forms(backend: DynamoDBBackend, former: Any) -> None:
    run = make_run("run", "docs")
    await backend.save_run(run)
    for args, kwargs in (
        (("run",), {}),
        (("run", None), {}),
        ((), {"run_id": "run"}),
        ((), {"run_id": "run", "site_id": None}),
    ):
        with pytest.warns(DeprecationWarning, match=r"write find_run\(run_id\)"):
            assert await former.get_run(*args, **kwargs) == run
    with pytest.warns(DeprecationWarning, match=r"write get_run\(site_id, run_id\)"):
        assert await former.get_run("run", site_id="docs") == run
    await backend.save_run(make_run("run", "other"))
    with pytest.warns(DeprecationWarning, match="find_run"), pytest.raises(AmbiguousIdError):
        await former.get_run("run")


async def test_get_run_with_swapped_ids_says_so(backend: DynamoDBBackend) -> None:
    await backend.save_run(make_run("run", "docs"))
    with pytest.raises(InvalidArgumentError, match=r"'run' is the id of a run of site 'docs'") as caught:
        await backend.get_run("run", "docs")
    assert caught.value.field == "site_id"
    assert await backend.get_run("docs", "other") is None
    assert await backend.get_run("same", "same") is None


async def test_get_unseen_pages_with_swapped_ids_says_so(backend: DynamoDBBackend) -> None:
    await backend.save_run(make_run("run", "docs", status=RunStatus.COMPLETED))
    with pytest.raises(InvalidArgumentError, match="swapped"):
        await backend.get_unseen_pages("run", "docs")
    with pytest.raises(NotFoundError):
        await backend.get_unseen_pages("docs", "other")


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        (("page", "v1"), {}),
        (("page", "v1"), {"site_id": "site"}),
        (("page", "v1"), {"site_id": None}),
        ((), {"page_id": "page", "version_id": "v1"}),
    ],
)
async def test_get_version_in_its_former_forms(
    backend: DynamoDBBackend, former: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    versions = [make_version("v1"), make_version("v2"), make_version("v2", site_id="other")]
    await backend.save_versions_bulk(versions, keep_unchanged=True)
    instead = r"write get_version\(site_id, page_id, version_id\)"
    with pytest.warns(DeprecationWarning, match=instead):
        assert await former.get_version(*args, **kwargs) == versions[0]
    with (
        pytest.warns(DeprecationWarning, match=instead),
        pytest.raises(AmbiguousIdError, match="pass site_id"),
    ):
        await former.get_version("page", "v2")


@pytest.mark.parametrize(
    ("args", "kwargs", "count"),
    [
        (("page",), {}, 4),
        (("page", 2), {}, 2),
        (("page",), {"site_id": "site"}, 3),
        (("page", 2, None, False), {"site_id": "site"}, 2),
        ((), {"page_id": "page", "limit": 9}, 4),
    ],
)
async def test_list_versions_in_its_former_forms(
    backend: DynamoDBBackend, former: Any, args: tuple[Any, ...], kwargs: dict[str, Any], count: int
) -> None:
    versions = [make_version(f"v{i}", crawled_at=START + hours(i)) for i in range(3)]
    await backend.save_versions_bulk([*versions, make_version(site_id="other")], keep_unchanged=True)
    with pytest.warns(DeprecationWarning, match=r"write list_versions\(site_id, page_id"):
        assert len(await former.list_versions(*args, **kwargs)) == count


async def test_frontier_with_its_site_by_keyword(former: Any) -> None:
    with pytest.warns(DeprecationWarning, match=r"write frontier\(site_id, run_id\)"):
        frontier = former.frontier("run", site_id="site")
    assert (frontier.site_id, frontier.run_id) == ("site", "run")


@pytest.mark.parametrize(
    ("call", "instead", "count"),
    [
        (lambda former: former.list_sites(1, None), "list_sites(limit=..., cursor=...)", 1),
        (lambda former: former.list_runs("site", 1), "list_runs(site_id, limit=...)", 1),
        (lambda former: former.list_pages("site", 1), "list_pages(site_id, limit=...)", 1),
        (
            lambda former: former.list_pages("site", 9, None, True),
            "list_pages(site_id, limit=..., cursor=..., include_tombstones=...)",
            3,
        ),
        (
            lambda former: former.get_pages_needing_recrawl("site", None, 1),
            "get_pages_needing_recrawl(site_id, max_age_hours=..., limit=...)",
            1,
        ),
        (
            lambda former: former.get_unseen_pages("site", "run", 1),
            "get_unseen_pages(site_id, run_id, limit",
            1,
        ),
        (
            lambda former: former.get_frontier_items("run", "skipped", 5),
            "get_frontier_items(run_id, status=..., limit=...)",
            0,
        ),
        (lambda former: former.list_changes("site", 1), "list_changes(site_id, limit=...)", 0),
    ],
)
async def test_options_of_listings_by_position(
    backend: DynamoDBBackend, former: Any, call: Callable[[Any], Any], instead: str, count: int
) -> None:
    await backend.save_site(make_site("a"))
    await backend.save_site(make_site("b"))
    for i in range(2):
        await backend.save_run(make_run("run"[i:], status=RunStatus.COMPLETED))
    await backend.save_pages_bulk(
        make_page(f"p{i}", is_tombstone=i == 2, last_seen=START, last_crawled=START) for i in range(3)
    )
    await backend.save_frontier_item(make_item("item"))
    with pytest.warns(DeprecationWarning, match=re.escape(instead)):
        assert len(await call(former)) == count


async def test_options_of_other_methods_by_position(backend: DynamoDBBackend, former: Any) -> None:
    await backend.save_run(make_run())
    await backend.save_pages_bulk(make_page(f"p{i}", is_tombstone=i == 2) for i in range(3))
    await backend.save_frontier_item(make_item("item"))
    with pytest.warns(DeprecationWarning, match="include_tombstones"):
        assert await former.count_pages("site", True) == 3
    with pytest.warns(DeprecationWarning, match="include_tombstones"):
        assert len([page async for page in former.iter_pages("site", True)]) == 3
    with pytest.warns(DeprecationWarning, match=r"iter_changes\(site_id, consumer, limit=\.\.\.\)"):
        assert [change async for change in former.iter_changes("site", "indexer", 5)] == []
    with pytest.warns(DeprecationWarning, match=r"update_frontier_status\(run_id, item_id, status, error"):
        assert (await former.update_frontier_status("run", "item", "failed", "why")).last_error == "why"
    with pytest.warns(DeprecationWarning, match=r"complete_run\(site_id, run_id, status=\.\.\.\)"):
        assert (await former.complete_run("site", "run", "failed")).status is RunStatus.FAILED


async def test_methods_that_take_several_values_take_an_iterator(backend: DynamoDBBackend) -> None:
    await backend.save_run(make_run())
    pages, versions = [make_page(f"p{i}") for i in range(3)], [make_version(f"v{i}") for i in range(3)]
    urls = [page.url for page in pages]
    assert await backend.save_pages_bulk(iter(pages)) == 3
    assert await backend.save_versions_bulk(iter(versions), keep_unchanged=True) == 3
    assert await backend.get_pages_bulk("site", iter(["p0", "p2"])) == [pages[0], pages[2]]
    assert await backend.mark_seen("site", iter(urls)) == 3
    frontier = backend.frontier("site", "run")
    assert [result.added for result in await frontier.add(iter(urls))] == [True] * 3
    links = [f"https://example.com/link/{i}" for i in range(3)]
    also = ["https://example.com/also"]
    page = make_page("p0", status_code=200)
    await backend.commit_page(page, make_version("v9", "p0"), discovered=iter(links), also=iter(also))
    claim = (await frontier.claim(1))[0]
    await frontier.complete(claim, also=iter([urls[0]]))
    items = {item.url: item.status for item in await backend.get_frontier_items("run")}
    assert items.keys() == {*urls, *links, *also}
    assert (items[also[0]], items[urls[0]], items[claim.item.url]) == ("completed",) * 3
    assert await backend.tombstone_pages("site", iter(["p0", "p1"]), allow_mass_deletion=True) == 2
