import pytest

from ragcrawl_dynamo import DynamoDBBackend, InvalidArgumentError, InvalidCursorError, InvalidKeyError
from tests.support.factories import dense_text, make_item, make_page, make_run, make_site, make_version
from tests.support.slices import all_slices

ODD_IDS = ["a#b", "a/b c", "~0#~1", "🕷️ сайт", "#", "~", " ", "x" * 1024]


async def test_get_site_returns_what_save_site_stored(backend: DynamoDBBackend) -> None:
    site = make_site(config={"depth": 3, "delay": 0.5, "nested": {"list": [1, None, "x", {}]}})
    await backend.save_site(site)
    assert await backend.get_site(site.site_id) == site


async def test_get_site_of_an_absent_site_is_none(backend: DynamoDBBackend) -> None:
    assert await backend.get_site("nobody") is None


async def test_save_site_replaces_the_whole_record(backend: DynamoDBBackend) -> None:
    await backend.save_site(make_site(config={"a": 1}, last_crawl_at="2026-01-01T00:00:00Z"))
    replacement = make_site(name="New name")
    await backend.save_site(replacement)
    assert await backend.get_site("site") == replacement


@pytest.mark.parametrize("site_id", ODD_IDS)
async def test_site_id_may_hold_any_character(backend: DynamoDBBackend, site_id: str) -> None:
    site = make_site(site_id)
    await backend.save_site(site)
    assert await backend.get_site(site_id) == site
    assert list(await backend.list_sites()) == [site]


async def test_list_sites_in_slices(backend: DynamoDBBackend) -> None:
    sites = {f"site-{i}": make_site(f"site-{i}") for i in range(10)}
    for site in sites.values():
        await backend.save_site(site)
    slices = await all_slices(lambda cursor: backend.list_sites(limit=3, cursor=cursor))
    listed = [site for part in slices for site in part]
    assert all(len(part) <= 3 for part in slices)
    assert {site.site_id: site for site in listed} == sites
    assert len(listed) == 10
    assert sorted([site.site_id async for site in backend.iter_sites()]) == sorted(sites)


async def test_list_sites_refuses_a_wrong_limit_or_cursor(backend: DynamoDBBackend) -> None:
    with pytest.raises(InvalidArgumentError, match="limit: must be at least 1, not 0"):
        await backend.list_sites(limit=0)
    with pytest.raises(InvalidCursorError, match="damaged"):
        await backend.list_sites(cursor="nonsense")


async def test_site_id_must_not_be_empty(backend: DynamoDBBackend) -> None:
    with pytest.raises(InvalidKeyError, match=r"Site\.site_id: must not be empty"):
        await backend.get_site("")
    with pytest.raises(InvalidKeyError, match=r"Site\.site_id: must not be empty"):
        await backend.save_site(make_site(""))


async def fill(backend: DynamoDBBackend, site_id: str) -> None:
    """A site with two runs, their frontiers, 30 pages, and versions with and without a saved page."""
    await backend.save_site(make_site(site_id))
    for run_id in (f"{site_id}-run1", f"{site_id}-run2"):
        await backend.save_run(make_run(run_id, site_id))
        for i in range(3):
            await backend.save_frontier_item(make_item(f"item{i}", run_id, site_id))
    await backend.save_pages_bulk(make_page(f"page{i}", site_id) for i in range(30))
    await backend.save_versions_bulk(make_version("v1", f"page{i}", site_id) for i in range(30))
    await backend.save_version(make_version("v1", "page-never-saved", site_id))


async def contents(backend: DynamoDBBackend, site_id: str) -> tuple[int, ...]:
    versions = [await backend.list_versions(site_id, f"page{i}") for i in range(30)]
    return (
        int(await backend.get_site(site_id) is not None),
        len(await backend.list_runs(site_id)),
        len(await backend.get_frontier_items(f"{site_id}-run1")),
        len(await backend.get_frontier_items(f"{site_id}-run2")),
        await backend.count_pages(site_id, include_tombstones=True),
        sum(map(len, versions)),
        len(await backend.list_versions(site_id, "page-never-saved")),
    )


FULL = (1, 2, 3, 3, 30, 30, 1)
EMPTY = (0, 0, 0, 0, 0, 0, 0)


async def test_delete_site_deletes_its_records_and_no_others(backend: DynamoDBBackend) -> None:
    await fill(backend, "one")
    await fill(backend, "two")
    assert await backend.delete_site("one") is True
    assert await contents(backend, "one") == EMPTY
    assert await contents(backend, "two") == FULL


async def test_delete_site_of_an_absent_site_is_false(backend: DynamoDBBackend) -> None:
    assert await backend.delete_site("nobody") is False


async def test_delete_site_without_a_site_record_deletes_the_rest(backend: DynamoDBBackend) -> None:
    await backend.save_page(make_page())
    assert await backend.delete_site("site") is True
    assert await backend.count_pages("site") == 0
    assert await backend.delete_site("site") is False


async def test_delete_site_keeps_items_of_another_site_with_the_same_run_id(backend: DynamoDBBackend) -> None:
    for site_id in ("one", "two"):
        await backend.save_run(make_run("same", site_id))
        await backend.save_frontier_item(make_item(f"item-{site_id}", "same", site_id))
    await backend.delete_site("one")
    assert [item.item_id for item in await backend.get_frontier_items("same")] == ["item-two"]


async def test_save_site_stores_thousands_of_seeds(backend: DynamoDBBackend) -> None:
    """Uncompressed, its seeds and configuration would take more than the 400 KB of an item."""
    urls = [f"https://docs.example.com/{dense_text(1, str(i))[:48]}" for i in range(5000)]
    site = make_site(seeds=urls, allowed_domains=["docs.example.com"], config={"seeds": urls, "max_depth": 3})
    await backend.save_site(site)
    assert await backend.get_site("site") == site
    assert list(await backend.list_sites()) == [site]
    changed = site.model_copy(update={"config": {"seeds": urls[:4000]}, "total_runs": 7})
    ensured = await backend.ensure_site(changed)
    assert ensured.config == changed.config
    assert ensured.total_runs == 0
    few = await backend.ensure_site(make_site())
    assert (few.seeds, few.config) == (make_site().seeds, {})
