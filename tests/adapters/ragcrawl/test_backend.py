"""ragcrawl 0.0.2 from PyPI on this storage: its storage's scenarios, its jobs, and one of them killed."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from ragcrawl.config.crawler_config import CrawlerConfig, RobotsMode
from ragcrawl.config.storage_config import DynamoDBConfig as RagcrawlConfig
from ragcrawl.config.storage_config import StorageConfig
from ragcrawl.config.sync_config import SyncConfig
from ragcrawl.core.crawl_job import CrawlJob
from ragcrawl.core.sync_job import SyncJob
from ragcrawl.models import CrawlRun, FrontierItem, FrontierStatus, Page, PageVersion, RunStatus, Site
from ragcrawl.models.crawl_run import CrawlStats
from ragcrawl.storage import create_storage_backend

from ragcrawl_dynamo import BackendStateError, DynamoDBBackend, InvalidArgumentError
from ragcrawl_dynamo.adapters.ragcrawl import RagcrawlBackend, install
from ragcrawl_dynamo.testing import drop_tables
from tests.adapters.processes import finish, kill_when, start
from tests.adapters.site import Site as Served

install()

# The crawler's own.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

NOW = datetime(2026, 7, 1, 12, 30, 15, 123456)  # as ragcrawl makes them
DYNAMODB_LOCAL = pytest.mark.parametrize("dynamodb_endpoint", ["dynamodb-local"], indirect=True)


@pytest_asyncio.fixture
async def storage(dynamodb_endpoint: str) -> AsyncIterator[StorageConfig]:
    """Settings as ragcrawl's users write them."""
    prefix = f"rag{time.time_ns()}"
    config = StorageConfig.dynamodb(
        table_prefix=prefix,
        endpoint_url=dynamodb_endpoint,
        aws_access_key_id="local",
        aws_secret_access_key="local",  # noqa: S106 # a local engine takes any
    )
    config.fail_if_unavailable = True
    yield config
    await drop_tables(RagcrawlBackend(backend_of(config))._config)


def backend_of(storage: StorageConfig) -> RagcrawlConfig:
    assert isinstance(storage.backend, RagcrawlConfig)
    return storage.backend


@pytest.fixture
def store(storage: StorageConfig) -> Iterator[RagcrawlBackend]:
    backend = create_storage_backend(storage)
    assert isinstance(backend, RagcrawlBackend)
    backend.initialize()
    yield backend
    backend.close()


def make_site(site_id: str = "site", **fields: Any) -> Site:
    return Site(site_id=site_id, name="Docs", seeds=["https://a.example/"], **{"created_at": NOW, **fields})


def make_page(page_id: str = "page", site_id: str = "site", **fields: Any) -> Page:
    defaults = {"url": f"https://a.example/{page_id}", "first_seen": NOW, "last_seen": NOW, "depth": 1}
    return Page(page_id=page_id, site_id=site_id, **{**defaults, **fields})


def make_version(version_id: str = "v1", page_id: str = "page", **fields: Any) -> PageVersion:
    defaults = {
        "site_id": "site",
        "run_id": "run",
        "markdown": "# Title",
        "content_hash": "c0ffee",
        "url": f"https://a.example/{page_id}",
        "status_code": 200,
        "crawled_at": NOW,
    }
    return PageVersion(version_id=version_id, page_id=page_id, **{**defaults, **fields})


def make_item(item_id: str, run_id: str = "run", **fields: Any) -> FrontierItem:
    url = f"https://a.example/{item_id}"
    defaults = {"url": url, "normalized_url": url, "url_hash": item_id, "depth": 0, "domain": "a.example"}
    return FrontierItem(item_id=item_id, run_id=run_id, site_id="site", **{**defaults, **fields})


def test_every_record_comes_back_as_it_was(store: RagcrawlBackend) -> None:
    site = make_site(
        allowed_domains=["a.example"], config={"a": [1, {"b": None}]}, last_crawl_at=NOW, total_pages=3
    )
    run = CrawlRun(
        run_id="run",
        site_id="site",
        status=RunStatus.PARTIAL,
        created_at=NOW,
        started_at=NOW,
        config_snapshot={"max_depth": 3},
        stats=CrawlStats(pages_crawled=2, status_codes={200: 2}, domains_crawled={"a.example"}),
    )
    page = make_page(last_crawled=NOW, current_version_id="v1", etag='"e"', status_code=200, version_count=1)
    version = make_version(
        html="<p>" * 200_000,
        headings_outline=[{"level": 1, "text": "Title", "anchor": None}],
        outlinks=["https://a.example/b"],
        extra={"k": [1.5, "x"]},
        created_at=NOW,
        fetch_latency_ms=12.5,
    )
    item = make_item("i", discovered_at=NOW, priority=2.5)
    store.save_site(site)
    store.save_run(run)
    store.save_version(version)
    store.save_page(page)
    store.save_frontier_item(item)
    assert store.get_site("site") == site
    assert store.get_run("run") == run
    assert store.get_latest_run("site") == run
    assert store.get_page("page") == page
    assert store.get_page_by_url("site", "https://a.example/page") == page
    assert store.get_version("v1") == version
    assert store.get_current_version("page") == version
    assert store.get_frontier_items("run") == [item]
    assert store.get_site("none") is None
    assert store.get_run("none") is None
    assert store.get_page("none") is None
    assert store.get_version("none") is None
    assert store.get_current_version("none") is None


def test_listings(store: RagcrawlBackend) -> None:
    for number in range(5):
        store.save_site(make_site(f"s{number}", created_at=NOW + timedelta(hours=number)))
        run = CrawlRun(run_id=f"r{number}", site_id="s0", created_at=NOW + timedelta(hours=number))
        store.save_run(run)
        store.save_version(make_version(f"v{number}", site_id="s0", crawled_at=NOW + timedelta(hours=number)))
        store.save_frontier_item(make_item(f"i{number}", priority=number % 2, discovered_at=NOW))
    pages = [make_page(f"p{number}", "s0", is_tombstone=number == 4) for number in range(5)]
    assert store.save_pages_bulk(pages) == 5
    assert [each.site_id for each in store.list_sites()] == ["s4", "s3", "s2", "s1", "s0"]
    assert [each.run_id for each in store.list_runs("s0", limit=2, offset=1)] == ["r3", "r2"]
    assert [each.page_id for each in store.list_pages("s0")] == ["p0", "p1", "p2", "p3"]
    assert [each.page_id for each in store.list_pages("s0", 2, 3, include_tombstones=True)] == ["p3", "p4"]
    assert store.list_pages("s0", limit=0) == []
    assert (store.count_pages("s0"), store.count_pages("s0", include_tombstones=True)) == (4, 5)
    assert [each.version_id for each in store.list_versions("page", limit=2)] == ["v4", "v3"]
    assert [each.item_id for each in store.get_frontier_items("run")] == ["i1", "i3", "i0", "i2", "i4"]
    assert len(store.get_pages_needing_recrawl("s0")) == 4
    with pytest.raises(InvalidArgumentError, match="offset"):
        store.list_pages("s0", offset=-1)


def test_frontier_items_by_their_id_alone(store: RagcrawlBackend) -> None:
    store.save_site(make_site())
    store.save_run(CrawlRun(run_id="run_1", site_id="site"))
    store.save_run(CrawlRun(run_id="run_2", site_id="site"))
    store.save_frontier_item(make_item("run_1_hash", "run_1"))
    store.save_frontier_item(make_item("other", "run_2"))
    store.update_frontier_status("run_1_hash", "failed", "timeout")
    store.update_frontier_status("other", "completed")
    store.update_frontier_status("none", "completed")
    (first,), (second,) = (store.get_frontier_items(run) for run in ("run_1", "run_2"))
    assert (first.status, first.last_error) == (FrontierStatus.FAILED, "timeout")
    assert second.status is FrontierStatus.COMPLETED
    assert store.get_frontier_items("run_2", status="pending") == []
    assert store.clear_frontier("run_1") == 1


def test_sites_are_kept_apart(store: RagcrawlBackend, storage: StorageConfig) -> None:
    for name in ("one", "two"):
        store.save_site(make_site(name))
        store.save_page(make_page(site_id=name, etag=name, current_version_id="v"))
        store.save_version(make_version("v", site_id=name, title=name))
    job = RagcrawlBackend(backend_of(storage))
    job.initialize()
    job.save_run(CrawlRun(run_id="r", site_id="three"))
    assert job.get_page("page") is None
    job.save_run(CrawlRun(run_id="r", site_id="one"))
    page, version = job.get_page("page"), job.get_current_version("page")
    assert page is not None
    assert version is not None
    assert (page.etag, version.title) == ("one", "one")
    assert job.delete_site("one")
    assert not job.delete_site("one")
    job.close()
    reader = RagcrawlBackend(backend_of(storage))
    reader.initialize()
    page = reader.get_page("page")
    assert page is not None
    assert page.site_id == "two"
    reader.close()


def test_it_is_there_after_it_was_opened_again(store: RagcrawlBackend) -> None:
    store.save_page(make_page())
    store.initialize()
    store.close()
    store.close()
    with pytest.raises(BackendStateError, match="initialize"):
        store.get_page("page")
    assert store.health_check()
    store.initialize()
    assert store.get_page("page") == make_page()


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata", "UTC"])
def test_local_datetimes_are_stored_as_utc(
    store: RagcrawlBackend, monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        store.save_page(make_page(last_crawled=NOW))
        page = store.get_page("page")
        assert page is not None
        assert page.last_crawled == NOW
        monkeypatch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        moved = store.get_page("page")
        assert moved is not None
        assert moved.last_crawled is not None
        hours = {"America/New_York": 6, "Asia/Kolkata": -3.5, "UTC": 2}[zone]
        assert moved.last_crawled - NOW == timedelta(hours=hours)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_it_falls_back_only_as_ragcrawl_says(storage: StorageConfig) -> None:
    config = backend_of(storage).model_copy(update={"endpoint_url": "http://127.0.0.1:9"})
    with pytest.raises(RuntimeError, match="DynamoDB unavailable"):
        create_storage_backend(StorageConfig(backend=config, fail_if_unavailable=True))


async def crawl(site: Served, storage: StorageConfig) -> None:
    config = CrawlerConfig(
        seeds=[site.url],
        site_id="docs",
        allowed_domains=["localhost"],
        max_depth=20,
        robots_mode=RobotsMode.OFF,
        storage=storage,
    )
    result = await CrawlJob(config).run()
    assert result.success, result.error


@DYNAMODB_LOCAL
async def test_its_jobs_run_unchanged(site: Served, storage: StorageConfig) -> None:
    site.pages = 15
    await crawl(site, storage)
    config = RagcrawlBackend(backend_of(storage))._config
    async with DynamoDBBackend(config) as backend:
        pages = [page async for page in backend.iter_pages("docs")]
        assert {page.url for page in pages} == site.urls
        run = await backend.get_latest_run("docs")
        assert run is not None
        assert (run.status, run.stats.pages_crawled, run.config_snapshot["max_depth"]) == (
            "completed",
            15,
            20,
        )
        assert "local" not in str(run.config_snapshot["storage"])
        assert abs((datetime.now().astimezone() - run.created_at).total_seconds()) < 600
        site.edition = "second"
        site.gone = {7}
        for _ in range(2):
            synced = await SyncJob(SyncConfig(site_id="docs", storage=storage)).run()
            assert synced.success, synced.error
        gone = await backend.get_page_by_url("docs", site.url[:-1] + "7")
        assert gone is not None
        assert gone.is_tombstone
        first = await backend.get_page_by_url("docs", site.url)
        assert first is not None
        assert (first.version_count, len(await backend.list_versions(first.page_id, site_id="docs"))) == (
            2,
            2,
        )
        current = await backend.get_current_version("docs", first.page_id)
        assert current is not None
        assert "second edition" in current.markdown


@DYNAMODB_LOCAL
async def test_a_killed_crawl_is_finished_by_a_restart(
    site: Served, storage: StorageConfig, dynamodb_endpoint: str
) -> None:
    site.seconds = 0.05
    config = backend_of(storage)
    prefix = config.table_prefix
    arguments = (site.url, "--endpoint-url", dynamodb_endpoint, "--table-prefix", prefix)
    async with DynamoDBBackend(RagcrawlBackend(config)._config) as backend:

        async def half() -> bool:
            return await backend.count_pages("docs") >= site.pages // 2

        await kill_when(await start("ragcrawl_crawl.py", *arguments), half)
        assert await backend.count_pages("docs") < site.pages
        await finish(await start("ragcrawl_crawl.py", *arguments))
        pages = [page async for page in backend.iter_pages("docs")]
        assert sorted(page.url for page in pages) == sorted(site.urls)
        for page in pages:
            versions = await backend.list_versions(page.page_id, site_id="docs")
            assert page.current_version_id == versions[0].version_id
            assert "first edition" in versions[0].markdown
            assert {version.content_hash for version in versions} == {page.content_hash}
