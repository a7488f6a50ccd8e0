"""The backend: the scenarios of ragcrawl's own storages."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Any

import pytest
from ragcrawl.config.crawler_config import CrawlerConfig
from ragcrawl.config.storage_config import StorageConfig
from ragcrawl.models import CrawlRun, FrontierItem, FrontierStatus, Page, PageVersion, RunStatus, Site
from ragcrawl.models.crawl_run import CrawlStats
from ragcrawl.storage import create_storage_backend

from ragcrawl_dynamo import BackendStateError, InvalidArgumentError
from ragcrawl_dynamo.adapters.ragcrawl import RagcrawlBackend
from tests.adapters.ragcrawl.settings import ragcrawl_config

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

NOW = datetime(2026, 7, 1, 12, 30, 15, 123456)  # as ragcrawl makes them


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


def test_ragcrawl_backend_returns_records_as_they_were(store: RagcrawlBackend) -> None:
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


def test_ragcrawl_backend_keeps_a_sample_of_the_hosts_of_a_run(store: RagcrawlBackend) -> None:
    # Their names take more than the 400 KB of an item.
    hosts = [f"host-{i:05}.example.org" for i in range(20_000)]
    errors = {host: 1 + (i >= 19_900) for i, host in enumerate(hosts)}
    stats = CrawlStats(pages_crawled=20_000, domains_crawled=set(hosts), errors_by_domain=errors)
    store.save_run(CrawlRun(run_id="run", site_id="site", stats=stats))
    stored = store.get_run("run")
    assert stored is not None
    assert stored.stats.domains_crawled == set(hosts[:100])
    assert stored.stats.errors_by_domain == dict.fromkeys(hosts[-100:], 2)


def test_ragcrawl_backend_lists_records(store: RagcrawlBackend) -> None:
    for number in range(5):
        store.save_site(make_site(f"s{number}", created_at=NOW + timedelta(hours=number)))
        run = CrawlRun(run_id=f"r{number}", site_id="s0", created_at=NOW + timedelta(hours=number))
        store.save_run(run)
        store.save_version(make_version(f"v{number}", site_id="s0", crawled_at=NOW + timedelta(hours=number)))
        store.save_frontier_item(make_item(f"i{number}", priority=number % 2, discovered_at=NOW))
    pages = [
        make_page(
            f"p{number}", "s0", is_tombstone=number == 4, last_seen=NOW + timedelta(hours=number * 2 % 5)
        )
        for number in range(5)
    ]
    assert store.save_pages_bulk(pages) == 5
    assert [site.site_id for site in store.list_sites()] == ["s4", "s3", "s2", "s1", "s0"]
    assert [run.run_id for run in store.list_runs("s0", limit=2, offset=1)] == ["r3", "r2"]
    assert [page.page_id for page in store.list_pages("s0")] == ["p2", "p1", "p3", "p0"]
    assert [page.page_id for page in store.list_pages("s0", 2, 2, include_tombstones=True)] == ["p1", "p3"]
    assert (store.count_pages("s0"), store.count_pages("s0", include_tombstones=True)) == (4, 5)
    assert [version.version_id for version in store.list_versions("page", limit=2)] == ["v4", "v3"]
    assert [item.item_id for item in store.get_frontier_items("run")] == ["i1", "i3", "i0", "i2", "i4"]
    assert [item.item_id for item in store.get_frontier_items("run", limit=2)] == ["i1", "i3"]
    assert len(store.get_pages_needing_recrawl("s0")) == 4


@pytest.fixture
def listings(store: RagcrawlBackend) -> list[Callable[..., list[Any]]]:
    """All methods that take a limit, each with something to list."""
    store.save_site(make_site())
    store.save_run(CrawlRun(run_id="run", site_id="site"))
    store.save_page(make_page())
    store.save_version(make_version())
    store.save_frontier_item(make_item("i"))
    return [
        partial(store.list_runs, "site"),
        partial(store.list_pages, "site"),
        partial(store.get_pages_needing_recrawl, "site"),
        partial(store.list_versions, "page"),
        partial(store.get_frontier_items, "run"),
    ]


def test_ragcrawl_backend_takes_a_limit_of_zero_and_refuses_negative_ones(
    store: RagcrawlBackend, listings: list[Callable[..., list[Any]]]
) -> None:
    for listing in listings:
        assert (len(listing(limit=1)), listing(limit=0)) == (1, [])
        with pytest.raises(InvalidArgumentError, match="limit: must be at least 0, not -1"):
            listing(limit=-1)
    for page in (store.list_pages, store.list_runs):
        with pytest.raises(InvalidArgumentError, match="offset: must be at least 0, not -1"):
            page("site", offset=-1)


@pytest.mark.parametrize("form", [list, tuple, iter])
def test_ragcrawl_backend_saves_any_iterable_in_bulk(
    store: RagcrawlBackend, form: Callable[[list[Any]], Any]
) -> None:
    assert store.save_pages_bulk(form([make_page(f"p{number}") for number in range(30)])) == 30
    assert store.save_versions_bulk(form([make_version(f"v{number}") for number in range(30)])) == 30
    assert (store.count_pages("site"), len(store.list_versions("page"))) == (30, 30)
    # The sites of these records are known: their ids alone are enough.
    assert store.get_page("p29") is not None
    assert store.get_version("v29") is not None


def test_ragcrawl_backend_refuses_other_records_in_bulk(store: RagcrawlBackend) -> None:
    records: list[Any] = [make_page(), make_version()]
    with pytest.raises(InvalidArgumentError, match="pages"):
        store.save_pages_bulk(records)
    assert store.count_pages("site") == 0


def test_ragcrawl_backend_handles_statuses_and_errors_as_duckdb_does(store: RagcrawlBackend) -> None:
    store.save_site(make_site())
    store.save_run(CrawlRun(run_id="run", site_id="site"))
    store.save_frontier_item(make_item("run_1"))
    assert store.get_frontier_items("run", status="unknown") == []
    assert [item.item_id for item in store.get_frontier_items("run", status="")] == ["run_1"]
    store.update_frontier_status("run_1", "failed", "timeout")
    store.update_frontier_status("run_1", "failed", "")
    (item,) = store.get_frontier_items("run", status="failed")
    assert item.last_error == "timeout"
    # DuckDB stores any text, and cannot read the item afterwards.
    for item_id in ("run_1", "absent"):
        with pytest.raises(InvalidArgumentError, match=r"status: must be one of pending, .*, not 'done'"):
            store.update_frontier_status(item_id, "done")
    assert store.get_frontier_items("run") == [item]


def test_ragcrawl_backend_stores_no_credentials(store: RagcrawlBackend, storage: StorageConfig) -> None:
    config = CrawlerConfig(
        seeds=["https://a.example/"],
        storage=storage,
        headers={"Authorization": "secret-1", "X-Team": "docs"},
        cookies={"session": "secret-2"},
        proxy="http://user:secret-3@proxy.example",
    )
    ragcrawl_config(storage).aws_secret_access_key = "secret-4"  # noqa: S105 # looked for below
    snapshot = config.model_dump()
    store.save_site(make_site(config=snapshot))
    store.save_run(CrawlRun(run_id="run", site_id="site", config_snapshot=snapshot))
    site, run = store.get_site("site"), store.get_run("run")
    assert site is not None
    assert run is not None
    assert "secret" not in f"{site} {run}"
    for stored in (site.config, run.config_snapshot):
        assert stored["headers"] == {"X-Team": "docs"}


def test_ragcrawl_backend_updates_frontier_items_by_their_id_alone(store: RagcrawlBackend) -> None:
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


def test_ragcrawl_backend_keeps_sites_apart(store: RagcrawlBackend, storage: StorageConfig) -> None:
    for name in ("one", "two"):
        store.save_site(make_site(name))
        store.save_page(make_page(site_id=name, etag=name, current_version_id="v"))
        store.save_version(make_version("v", site_id=name, title=name))
    job = RagcrawlBackend(ragcrawl_config(storage))
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
    reader = RagcrawlBackend(ragcrawl_config(storage))
    reader.initialize()
    page = reader.get_page("page")
    assert page is not None
    assert page.site_id == "two"
    reader.close()


def test_ragcrawl_backend_can_be_opened_again(store: RagcrawlBackend) -> None:
    store.save_page(make_page())
    store.initialize()
    store.close()
    store.close()
    with pytest.raises(BackendStateError, match="initialize"):
        store.get_page("page")
    assert store.health_check()
    store.initialize()
    assert store.get_page("page") == make_page()


_FORK = """
import os, signal, sys
from ragcrawl_dynamo import BackendStateError
from ragcrawl_dynamo.adapters.ragcrawl import RagcrawlBackend
from ragcrawl_dynamo.testing import local_config

backend = RagcrawlBackend(local_config(sys.argv[1], table_prefix=sys.argv[2]))
backend.initialize()
child = os.fork()
if child:
    assert os.waitpid(child, 0)[1] == 0
    assert backend.list_sites() == []
    backend.close()
else:
    signal.alarm(30)  # it hung
    try:
        backend.list_sites()
    except BackendStateError as error:
        print(error, flush=True)
    backend.initialize()
    assert backend.list_sites() == []
    backend.close()
    os._exit(0)
"""


def test_ragcrawl_backend_is_opened_again_after_a_fork(storage: StorageConfig) -> None:
    config = ragcrawl_config(storage)
    command = (sys.executable, "-c", _FORK, str(config.endpoint_url), f"{config.table_prefix}_")
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert process.stdout == "the backend was opened before this process was forked: call initialize()\n"


def test_ragcrawl_backend_stores_thousands_of_seeds(store: RagcrawlBackend) -> None:
    """Uncompressed, each of the records takes more than the 400 KB of an item."""
    urls = [f"https://a.example/{sha256(str(number).encode()).hexdigest()[:32]}" for number in range(5000)]
    config = CrawlerConfig(seeds=urls).model_dump(mode="json")
    site = make_site(config=config).model_copy(update={"seeds": urls})
    run = CrawlRun(run_id="run", site_id="site", seeds=urls, config_snapshot=config)
    store.save_site(site)
    store.save_run(run)
    stored_site, stored_run = store.get_site("site"), store.get_run("run")
    assert stored_site is not None
    assert stored_run is not None
    assert (stored_site.seeds, stored_site.config["seeds"]) == (urls, urls)
    assert (stored_run.seeds, stored_run.config_snapshot["seeds"]) == (urls, urls)


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata", "UTC"])
def test_ragcrawl_backend_stores_local_datetimes_in_utc(
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


def test_ragcrawl_install_leaves_the_fallback_to_ragcrawl_and_logs_the_reason(
    storage: StorageConfig, caplog: pytest.LogCaptureFixture
) -> None:
    config = ragcrawl_config(storage).model_copy(update={"endpoint_url": "http://127.0.0.1:9"})
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="DynamoDB unavailable"):
        create_storage_backend(StorageConfig(backend=config, fail_if_unavailable=True))
    assert time.monotonic() - began < 15
    fallback = create_storage_backend(StorageConfig(backend=config))
    assert not isinstance(fallback, RagcrawlBackend)
    reasons = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(reasons) == 2
    for reason in reasons:
        assert "http://127.0.0.1:9" in reason
        assert "Cannot connect" in reason
        assert "fail_if_unavailable" in reason
